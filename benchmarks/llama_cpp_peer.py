"""llama.cpp as a peer: the weights of a Qwen3 folder written as GGUF, and greedy decoding of token ids."""

from __future__ import annotations

import ctypes
import logging
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from transformers import Qwen3Config

Dtype = Literal["float32", "bfloat16"]

_TYPES = {"float32": "F32", "bfloat16": "BF16"}  # the names of GGUF


class PeerMissing(Exception):
    """llama.cpp, or what writes its files, is not installed."""


def check_installed() -> None:
    """Raise `PeerMissing` unless `llama_cpp` and `gguf` are installed."""
    if missing := [package for package in ("llama_cpp", "gguf") if find_spec(package) is None]:
        raise PeerMissing(
            f"Decoding is compared with llama.cpp, but {' and '.join(missing)} cannot be found: pip install -e '.[peers]'"
        )


def convert(folder: Path, file: Path, dtype: Dtype = "float32") -> None:
    """Write a Qwen3 folder of Hugging Face (one `model.safetensors`) as a GGUF file without a vocabulary: it takes token ids only.

    Args:
        dtype: what the matrices are in; vectors, which are the weights of the norms, are in float32, as llama.cpp wants them.
    """
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
    from gguf.quants import quantize

    config: Any = Qwen3Config.from_pretrained(folder)
    assert config.rope_parameters["rope_type"] == "default"
    writer = GGUFWriter(file, "qwen3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    names = get_tensor_name_map(MODEL_ARCH.QWEN3, config.num_hidden_layers)
    for name, tensor in load_file(folder / "model.safetensors").items():
        kind = GGMLQuantizationType[_TYPES[dtype] if tensor.ndim == 2 else "F32"]
        target = names.get_name(name, try_suffixes=(".weight",))
        assert target is not None, name
        writer.add_tensor(target, quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """A model in llama.cpp on the CPU, with as many threads as torch has.

    Everything that is not named here is llama.cpp's own choice; flash attention is "auto", which on a CPU is no faster than none.

    Args:
        folder: a Qwen3 folder, see `convert`.
        dtype: of the matrices and of the cache.
        positions: how many tokens the cache holds.
    """

    def __init__(self, folder: Path, dtype: Dtype = "float32", positions: int = 512) -> None:
        import llama_cpp
        from gguf import GGMLQuantizationType

        self._api = llama_cpp
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)  # it calls our empty vocabulary an error
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE  # read whole: the file is gone afterwards
        with tempfile.TemporaryDirectory() as temporary:
            file = Path(temporary) / "model.gguf"
            convert(folder, file, dtype)
            self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), model)
        assert self._model, "llama.cpp refuses the file"
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = positions
        context.n_threads = context.n_threads_batch = torch.get_num_threads()
        context.type_k = context.type_v = GGMLQuantizationType[_TYPES[dtype]]
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        assert self._context, "llama.cpp has no memory for the cache"
        self._sampler = llama_cpp.llama_sampler_init_greedy()

    def decode(self, prompt: Sequence[int], tokens: int) -> tuple[list[int], float]:
        """The likeliest tokens after a prompt, one at a time, whether or not one ends the text; and the seconds for them alone."""
        api, context = self._api, self._context
        api.llama_memory_clear(api.llama_get_memory(context), True)
        self._encode(prompt)
        api.llama_synchronize(context)
        began = time.perf_counter()
        ids = [api.llama_sampler_sample(self._sampler, context, -1)]
        while len(ids) < tokens:
            self._encode(ids[-1:])
            ids.append(api.llama_sampler_sample(self._sampler, context, -1))
        return ids, time.perf_counter() - began

    def close(self) -> None:
        self._api.llama_sampler_free(self._sampler)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _encode(self, ids: Sequence[int]) -> None:
        array = (ctypes.c_int32 * len(ids))(*ids)
        status = self._api.llama_decode(self._context, self._api.llama_batch_get_one(array, len(ids)))
        assert status == 0, f"llama.cpp cannot decode, status {status}"
