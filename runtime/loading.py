"""Finding and loading a model and its tokenizer, with one clear sentence for everything that can be wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from runtime import attention
from runtime.errors import ModelBroken, ModelNotFound, OutOfMemory, UnsupportedDevice, UnsupportedModel, first_line
from runtime.models.recurrent import is_recurrent

BUNDLED = Path(__file__).parent / "ember"
"""The folder of the model that comes with the package."""

TESTED = "llama mistral qwen2 qwen3 qwen3_moe gemma2 gemma3_text phi3 olmo2 smollm3 granite gpt_oss stablelm gpt_neox".split()
"""Model types that the tests run; any other is compared with its own attention before it is believed."""

_LAYERS = {"full_attention", "sliding_attention"}
# Rotary embeddings that turn a key the same way however long the context becomes. (A "dynamic" one changes only behind the
# last position that the model knows, where no context goes.)
_ROTARY = ("default", "linear", "llama3", "yarn", "dynamic")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_model(
    name: str | os.PathLike[str] | None, device: str, dtype: str, bits: int | None = None
) -> tuple[Path, PreTrainedModel, PreTrainedTokenizerFast]:
    """The folder, the model in evaluation mode with our attention, and the tokenizer.

    Args:
        name: a folder, a Hugging Face model id (downloaded unless it is in the cache), or None for the bundled model.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "auto" (float32 on a CPU, else what the weights are in), "float32", "bfloat16" or "float16".
        bits: 8 or 4 to keep the weights of linear layers so small, by bitsandbytes; None: as `dtype` says.
    """
    folder = _folder(name)
    config = _config(folder)
    target = _device(device)
    type_ = _dtype(dtype, target)
    more = {} if bits is None else _quantized(bits, type_, target)
    stored_as = getattr(config.get_text_config(), "dtype", None) or torch.float32
    _check_memory(folder, stored_as, stored_as if type_ == "auto" else type_, bits, target)
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=type_,
            attn_implementation=None if is_recurrent(config.get_text_config()) else attention.NAME,
            output_loading_info=True,
            local_files_only=True,
            **more,
        )
    except Exception as fault:  # the loaders of weights raise errors of many libraries
        raise ModelBroken(f"The weights in {folder} cannot be read ({first_line(fault)}). Download the model again.") from fault
    finally:
        logging.set_verbosity(verbosity)
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ModelBroken(
            f"The weights in {folder} are not complete: {len(missing)} tensors are missing, the first is '{missing[0]}'."
        )
    if not any((folder / file).is_file() for file in _TOKENIZERS):
        raise ModelBroken(f"There is no tokenizer in {folder}: put 'tokenizer.json' beside the weights.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as fault:
        raise ModelBroken(
            f"The tokenizer in {folder} cannot be read ({first_line(fault)}). Download the model again."
        ) from fault
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelBroken(
            f"The folder {folder} has no 'tokenizer.json': save the tokenizer in the fast format beside the weights."
        )
    return folder, (model if more else model.to(target)).eval(), tokenizer


def free_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _check_memory(folder: Path, stored_as: torch.dtype, dtype: torch.dtype, bits: int | None, device: torch.device) -> None:
    """Raise `OutOfMemory` if the weights will not fit, with the smaller forms that would."""
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    parameters = stored / stored_as.itemsize
    sizes = {"dtype='float32'": 4.0, "dtype='bfloat16'": 2.0, "bits=8": 1.0, "bits=4": 0.5}
    size = bits / 8 if bits is not None else float(dtype.itemsize)
    free = free_memory(device)
    if parameters * size > free:
        fitting = [name for name, each in sizes.items() if each < size and parameters * each < free]
        smaller = f"load them with {fitting[0]}" if fitting else "use a smaller model"
        raise OutOfMemory(
            f"The weights in {folder} take {parameters * size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free on {device}: {smaller}."
        )


def _folder(name: str | os.PathLike[str] | None) -> Path:
    if name is None:
        return BUNDLED
    if not os.fspath(name):
        raise ModelNotFound("The model has no name: name a folder with a model, or a Hugging Face id such as Qwen/Qwen3-4B.")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise ModelNotFound(f"{folder} is a file: name the folder that holds config.json and the weights.")
    text = os.fspath(name)
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise ModelNotFound(
            f"There is no folder {folder}: name a folder with a model, or a Hugging Face id such as Qwen/Qwen3-4B."
        )
    return _download(text)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
    try:
        with suppress(FileNotFoundError):
            cached = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
            if _is_complete(cached):
                return cached
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as fault:
        raise ModelNotFound(
            f"'{name}' is neither a folder here nor a model that could be downloaded ({first_line(fault)}). "
            "Check the name and the network, or name a folder."
        ) from fault


def _is_complete(folder: Path) -> bool:
    """True unless a download into the cache was cut off: its files come in any order."""
    index = folder / "model.safetensors.index.json"
    weights = set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    there = [(folder / file).is_file() for file in ("config.json", "tokenizer_config.json", *weights)]
    return all(there) and any((folder / file).is_file() for file in _TOKENIZERS)


def _config(folder: Path) -> Any:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelBroken(f"There is no config.json in {folder}: name a folder that holds a Hugging Face model.")
    try:
        kind = json.loads(file.read_text("utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError) as fault:
        raise ModelBroken(f"{file} is not the configuration of a model: it is no JSON, or names no 'model_type'.") from fault
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModel(
            f"'{kind}' is no type of model that writes text, as far as the installed transformers knows: use another model, or update "
            "transformers."
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as fault:
        raise ModelBroken(f"{file} cannot be read ({first_line(fault)}).") from fault
    if not is_recurrent(config.get_text_config()):
        _check_layers(kind, config.get_text_config())
    for rotary in _rotary_types(getattr(config, "rope_parameters", None) or {}):
        if rotary in _ROTARY:
            continue
        raise UnsupportedModel(
            f"Rotary embeddings of type '{rotary}' are not supported yet: use a model with one of type {', '.join(_ROTARY)}."
        )
    return config


def _check_layers(kind: str, config: Any) -> None:
    """Raise `UnsupportedModel` for layers whose tokens cannot be dropped one by one."""
    if getattr(config, "kv_lora_rank", None):
        raise UnsupportedModel(
            f"Models of type '{kind}' keep keys and values compressed over heads (MLA), which this runtime cannot hold token by token: "
            "use another model."
        )
    if strange := sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS):
        raise UnsupportedModel(
            f"Models of type '{kind}' have layers of type '{strange[0]}', which are not supported: use another model."
        )


def _rotary_types(parameters: Mapping[str, Any]) -> list[str]:
    """The kinds of rotary embedding of a model: one, or one for each type of layer."""
    if "rope_type" in parameters:  # transformers puts the older `rope_scaling` there too
        return [parameters["rope_type"]]
    return [kind for each in parameters.values() if isinstance(each, Mapping) for kind in _rotary_types(each)]


def _quantized(bits: int, dtype: Any, device: torch.device) -> dict[str, Any]:
    """The arguments of `from_pretrained` that make the weights smaller."""
    if bits not in (4, 8):
        raise UnsupportedDevice(f"Weights of {bits} bits are not known: use 8 or 4, or leave 'bits' out.")
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise UnsupportedDevice(
            f"Weights of {bits} bits need the packages bitsandbytes and accelerate: pip install 'recurrent-writer[quantize]'."
        )
    if bits == 8:
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16 if dtype == "auto" else dtype,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as fault:
        raise UnsupportedDevice(f"'{name}' is no device: use auto, cpu, cuda or cuda:N.") from fault
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise UnsupportedDevice(f"There is no device '{name}' on this machine: use auto or cpu.")
    return device


def _dtype(name: str, device: torch.device) -> Any:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in known:
        raise UnsupportedDevice(f"'{name}' is no dtype: use auto, {', '.join(known)}.")
    return known[name]
