"""Loading models: any supported checkpoint works, everything else gets one clear sentence."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import torch

from runtime import Engine, Sampling, loading
from runtime.errors import (
    EngineClosed,
    InvalidPool,
    ModelBroken,
    ModelNotFound,
    OutOfMemory,
    PackageConflict,
    UnsupportedDevice,
    UnsupportedModel,
    check_packages,
)
from runtime.loading import _download
from tests.conftest import ARCHITECTURES, save_checkpoint


@pytest.fixture
def folder(make_checkpoint, tmp_path):
    """A checkpoint that a test may break."""
    return shutil.copytree(make_checkpoint("qwen3"), tmp_path / "model")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_supported_architecture_generates_what_hugging_face_does(architecture, make_checkpoint, eager):
    path = make_checkpoint(architecture)
    oracle = eager(path)
    with Engine.load(str(path)) as engine, engine.context("Ada hid the key. ") as context:
        ids = list(context.token_ids)
        generation = context.generate(Sampling(max_tokens=20, temperature=0, ignore_eos=True))
        generation.run()
        for _ in range(20):
            ids.append(int(oracle(ids).argmax()))
        assert context.token_ids == ids
        assert engine.model_path == path


def test_weights_can_be_run_in_half_precision(make_checkpoint, eager):
    path = make_checkpoint("qwen3")
    with Engine.load(path, dtype="bfloat16") as engine, engine.context("Ada hid") as context:
        assert engine.pool.keys.dtype == torch.bfloat16
        assert context.logits().dtype == torch.float32
        assert (context.logits() - eager(path)(context.token_ids)).abs().max() < 1


def test_weights_that_do_not_fit_are_refused_with_a_form_that_does(make_checkpoint, monkeypatch):
    path = make_checkpoint("qwen3")
    size = (path / "model.safetensors").stat().st_size  # as float32
    for share, way_out in ((0.9, "dtype='bfloat16'"), (0.4, "bits=8"), (0.2, "bits=4"), (0.01, "a smaller model")):
        monkeypatch.setattr(loading, "free_memory", lambda device, free=share * size: free)
        with pytest.raises(OutOfMemory, match=f"GiB are free on cpu.*{way_out}"):
            Engine.load(path)


def test_a_pool_that_does_not_fit_is_refused_with_the_number_of_slots_that_do(make_checkpoint):
    path = make_checkpoint("qwen3")
    with pytest.raises(OutOfMemory, match=r"at most slots=(\d+)") as refused:
        Engine.load(path, slots=10**12)
    assert int(str(refused.value).split("slots=")[1].rstrip(".")) > 1000
    for slots in (0, -3):
        with pytest.raises(InvalidPool, match=f"slots={slots}"):
            Engine.load(path, slots=slots)


@pytest.mark.parametrize(("bits", "close"), [(8, 0.05), (4, 0.3)])
def test_weights_can_be_kept_in_few_bits(make_checkpoint, eager, bits, close):
    path = make_checkpoint("qwen2")  # its rows are as long as bitsandbytes' blocks
    with Engine.load(path, bits=bits, slots=100) as engine, engine.context([3, 5, 7, 9] * 5) as context:
        assert any(parameter.dtype in (torch.int8, torch.uint8) for parameter in engine.model.parameters())
        expected = eager(path)(context.token_ids)
        assert (context.logits() - expected).norm() < close * expected.norm()
        context.drop(context.span(3, 6), mode="rotate")
        context.generate(Sampling(max_tokens=3)).run()


def test_few_bits_without_the_package_is_one_sentence(make_checkpoint, monkeypatch):
    with pytest.raises(UnsupportedDevice, match="3 bits are not known: use 8 or 4"):
        Engine.load(make_checkpoint("llama"), bits=3)
    monkeypatch.setattr("runtime.loading.find_spec", lambda _: None)
    with pytest.raises(UnsupportedDevice, match=r"pip install 'recurrent-writer\[quantize\]'") as fault:
        Engine.load(make_checkpoint("llama"), bits=8)
    one_sentence(fault)


def one_sentence(fault):
    text = str(fault.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(ModelNotFound, match="There is no folder") as fault:
        Engine.load(name)
    one_sentence(fault)


def test_an_empty_name_is_not_the_current_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ModelNotFound, match="has no name") as fault:
        Engine.load("")
    one_sentence(fault)


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(ModelNotFound, match="is a file"):
        Engine.load(folder / "config.json")


def test_a_model_that_cannot_be_downloaded():
    with pytest.raises(ModelNotFound, match="neither a folder here nor a model that could be downloaded") as fault:
        Engine.load("nobody/nothing")
    one_sentence(fault)


@pytest.mark.parametrize("missing", [None, "config.json", "tokenizer.json", "tokenizer_config.json", "2.safetensors"])
def test_a_download_that_was_cut_off_goes_on(folder, monkeypatch, missing):
    (folder / "model.safetensors").rename(folder / "1.safetensors")
    (folder / "2.safetensors").touch()
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if missing:
        (folder / missing).unlink()
    asked = []

    def snapshot_download(_name, *, local_files_only=False, **_):
        asked.append("cache" if local_files_only else "network")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert _download("somebody/something") == folder
    assert asked == ["cache", "network"] if missing else ["cache"]


ROTARY = {
    "default": {},
    "linear": {"factor": 4.0},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "dynamic": {"factor": 4.0, "original_max_position_embeddings": 64},
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [3.0] * 8, "original_max_position_embeddings": 64},
    "su": {"factor": 4.0},
}


@pytest.fixture(params=["rope_parameters", "rope_scaling"])
def rotary(request, make_checkpoint, tmp_path):
    """Makes a Llama with rotary embeddings of a type, written the new way or the old."""

    def make(kind):
        folder = shutil.copytree(make_checkpoint("llama"), tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        theta = config.pop("rope_parameters")["rope_theta"]
        if request.param == "rope_parameters":
            config["rope_parameters"] = {"rope_type": kind, "rope_theta": theta, **ROTARY[kind]}
        else:
            config |= {"rope_theta": theta, "rope_scaling": {"type": kind, **ROTARY[kind]}}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


@pytest.mark.parametrize("kind", ["default", "linear", "llama3", "yarn", "dynamic"])
def test_rotary_embeddings_behind_the_original_length_equal_eager(rotary, kind, eager):
    folder = rotary(kind)
    with Engine.load(folder, slots=256) as engine, engine.context([3, 5, 7] * 20) as context:
        context.logits()
        context.append([11, 13] * 98)
        assert len(context) == engine.max_positions
        assert (context.logits() - eager(folder)(context.token_ids)).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["longrope", "su"])
def test_rotary_embeddings_that_change_with_the_length_are_refused(rotary, kind):
    with pytest.raises(UnsupportedModel, match=f"type '{kind}' are not supported yet: use a model with") as fault:
        Engine.load(rotary(kind))
    one_sentence(fault)


def test_a_closed_engine_says_so_and_may_be_closed_again(folder):
    engine = Engine.load(folder, slots=10)
    engine.close()
    engine.close()
    for use in (engine.context, lambda: engine.generate(["Ada"])):
        with pytest.raises(EngineClosed, match=r"load another with Engine.load\(\)") as fault:
            use()
        one_sentence(fault)


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelBroken, match="no config.json"):
        Engine.load(folder)


@pytest.mark.parametrize("text", ["{not json", "[]", "{}"])
def test_a_config_that_is_none(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelBroken, match="not the configuration of a model"):
        Engine.load(folder)


@pytest.mark.parametrize("kind", ["vit", "something_new"])
def test_what_does_not_write_text_is_named(folder, kind):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    with pytest.raises(UnsupportedModel, match=f"'{kind}' is no type of model that writes text") as fault:
        Engine.load(folder)
    one_sentence(fault)


def save_tiny(folder, tokenizer, kind, **sizes):
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 32,
    }
    ids = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": None}
    save_checkpoint(folder, tokenizer, kind, scale=6, **small, **ids, **sizes)


@pytest.mark.parametrize("kind", ["gpt2", "cohere", "starcoder2", "opt"])
def test_a_type_that_no_test_names_is_compared_with_itself_and_runs(kind, tmp_path, tiny_tokenizer, eager):
    save_tiny(tmp_path, tiny_tokenizer, kind)
    with Engine.load(tmp_path) as engine, engine.context([3, 5, 7, 9] * 5) as context:
        context.drop(context.span(4, 9))
        assert (context.logits() - eager(tmp_path)(context.token_ids)).abs().max() < 1e-4


def test_a_model_that_looks_ahead_is_refused(tmp_path, tiny_tokenizer):
    save_tiny(tmp_path, tiny_tokenizer, "bert")
    with pytest.raises(UnsupportedModel, match="'bert'.* use another model") as fault:
        Engine.load(tmp_path)
    one_sentence(fault)


def test_compressed_keys_and_values_are_refused(tmp_path, tiny_tokenizer):
    save_tiny(tmp_path, tiny_tokenizer, "deepseek_v3", kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8, v_head_dim=8)
    with pytest.raises(UnsupportedModel, match=r"'deepseek_v3' keep keys and values compressed over heads \(MLA\)") as fault:
        Engine.load(tmp_path)
    one_sentence(fault)


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing"])
def test_broken_weights(folder, damage):
    file = folder / "model.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "cut" else b"nonsense")
    with pytest.raises(ModelBroken, match="weights in .* cannot be read") as fault:
        Engine.load(folder)
    one_sentence(fault)


def test_weights_that_are_not_complete(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelBroken, match=r"1 tensors are missing, the first is 'model.layers.0.mlp.up_proj.weight'"):
        Engine.load(folder)


@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_broken_tokenizer(folder, damage):
    file = folder / "tokenizer.json"
    if damage == "missing":
        file.unlink()
        (folder / "tokenizer_config.json").unlink()
    else:
        file.write_text("{")
    with pytest.raises(ModelBroken, match=r"okenizer") as fault:
        Engine.load(folder)
    one_sentence(fault)


def test_devices_and_dtypes_that_are_not_here(folder):
    with pytest.raises(UnsupportedDevice, match="'abacus' is no device"):
        Engine.load(folder, device="abacus")
    with pytest.raises(UnsupportedDevice, match="'float8' is no dtype"):
        Engine.load(folder, dtype="float8")
    if not torch.cuda.is_available():
        with pytest.raises(UnsupportedDevice, match="no device 'cuda'"):
            Engine.load(folder, device="cuda")


def test_the_kernels_package_of_hugging_face_is_a_conflict(tmp_path, monkeypatch):
    info = tmp_path / "kernels-0.12.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.12.0\n")
    check_packages()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PackageConflict, match=r"'kernels' 0.12.0 of Hugging Face .*pip uninstall kernels") as fault:
        check_packages()
    one_sentence(fault)
