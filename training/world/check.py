"""Checks files of event kinds and of scene forms, and shows how their forms read: `python -m training.world.check FILE...`."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from training.world.kinds import _NARRATORS, KindError, read_kinds, sample
from training.world.scene_forms import SceneError, read_scenes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.world.check", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="TOML files under events/ or scenes/")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N forms of each kind, for reading")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    faulty = False
    for file in options.files:
        try:
            if file.parent.name == "scenes":
                scenes = read_scenes(file.read_text("utf-8"))
                for scene in scenes:
                    for form in rng.sample(scene.forms, min(options.show, len(scene.forms))):
                        print(f"  {scene.name}: {sample(form, None, rng.choice(_NARRATORS))}")
                print(f"{file.name}: {len(scenes)} groups, {sum(len(scene.forms) for scene in scenes)} forms")
                continue
            kinds = read_kinds(file.read_text("utf-8"), file.stem)
        except (KindError, SceneError, ValueError) as fault:
            faulty = True
            print(f"{file.name}:\n{fault}", file=sys.stderr)
            continue
        for kind in kinds:
            forms = [form for register in kind.prose for form in kind.forms[register]]
            for form in rng.sample(forms, min(options.show, len(forms))):
                print(f"  {kind.name}: {sample(form, kind, rng.choice(_NARRATORS))}")
        count = sum(len(kind.forms[register]) for kind in kinds for register in kind.prose)
        print(f"{file.name}: {len(kinds)} kinds, {count} prose forms")
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
