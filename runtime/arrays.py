"""The arrays that pass between the modules of the runtime, by what they hold."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.int64]
"""Token ids."""
Slots = NDArray[np.int64]
"""Slot numbers, or positions."""
