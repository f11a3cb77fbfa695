"""pyllm convert: model folders of transformers become the GGUF files that llama.cpp's converter makes of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from conftest import child_env
from hf_folder import hf_folder, safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyllm
from pyllm.cli import main
from pyllm.convert import convert
from pyllm.convert.mapping import architectures
from pyllm.convert.safetensors import Checkpoint, SafetensorsFile
from pyllm.errors import ConvertError, GGUFError
from pyllm.gguf import GGUFFile

GOLDENS = [
    "cohere2", "deepseek2", "falcon", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3n", "gpt2", "gptneox",
    "gptoss", "granite", "lfm2", "llama_hd", "llama_tied", "llama_untied", "llama_yarn", "mamba2", "mistral",
    "mixtral", "olmo2", "phi3", "phi3_partial", "qwen2", "qwen2_yarn", "qwen2moe", "qwen3", "qwen3moe",
    "smollm3", "stablelm",
]  # fmt: skip
#: keys that differ on purpose: the converted file says more than llama.cpp's does, or is called otherwise
SAME = {"general.name", "general.size_label", "general.file_type", "tokenizer.ggml.add_sep_token"}
#: falcon: the configuration's context instead of 2048 for all; gemma: CodeGemma's tokens, which llama.cpp always writes
OTHER = {"falcon.context_length"} | {
    f"tokenizer.ggml.{k}_token_id"
    for k in ("prefix", "suffix", "middle", "fsep", "fim_pre", "fim_suf", "fim_mid", "eot")
}


@pytest.fixture(scope="session")
def golden_path(shared: Path, data: Path) -> Any:
    def find(name: str) -> Path:
        here = data / "models" / name
        return here if here.with_suffix(".gguf").exists() else shared / "goldens" / "models" / name

    return find


@pytest.mark.parametrize("name", GOLDENS)
def test_folder_becomes_the_golden_file(golden_path: Any, tmp_path: Path, name: str) -> None:
    """Every tensor to the bit and every key of the file that llama.cpp's converter made, and transformers' logits."""
    golden = golden_path(name)
    hf_folder(tmp_path, golden)
    path = convert(tmp_path, tmp_path / "model.gguf")
    want, got = (gguf.GGUFReader(p) for p in (golden.with_suffix(".gguf"), path))
    theirs = {t.name: t for t in want.tensors}
    assert {t.name for t in got.tensors} == set(theirs)
    for tensor in got.tensors:
        other = theirs[tensor.name]
        assert tuple(tensor.shape) == tuple(other.shape) and tensor.tensor_type == other.tensor_type, tensor.name
        decoy = name == "gemma3n" and re.search(r"blk\.(2\d|3\d)\.attn_(k|v|k_norm)\.", tensor.name)
        if tensor.name.endswith("ssm_a") or tensor.name.startswith("rope_f"):  # exp and pow of numpy and of torch
            np.testing.assert_allclose(tensor.data, other.data, rtol=3e-7)
        elif not decoy:  # which nobody reads
            assert (tensor.data == other.data).all(), tensor.name
    fields = {key: f.contents() for key, f in got.fields.items()}
    for key, field in want.fields.items():
        if key.startswith("GGUF.") or key in SAME | OTHER:
            continue
        value, expected = fields[key], field.contents()
        assert value == expected if not isinstance(expected, float) else np.float32(value) == np.float32(expected), key
    with np.load(golden.with_suffix(".npz")) as npz, pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=1) as llm:
        assert np.abs(llm.logits(npz["p1_ids"].tolist()) - npz["p1_logits"]).max() <= 3e-4


def old_style(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as transformers 4 wrote it, and as most released models have it."""
    old = dict(config)
    rope = old.pop("rope_parameters", {})
    if "full_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rope = dict(rope)
    if config["model_type"] == "gpt_neox":
        old |= {"rotary_emb_base": rope.pop("rope_theta"), "rotary_pct": rope.pop("partial_rotary_factor")}
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            old[key] = rope.pop(key)
    kind = rope.pop("rope_type", "default")
    old["rope_scaling"] = None if kind == "default" else {**rope, "rope_type" if kind == "llama3" else "type": kind}
    old.pop("layer_types", None) if "activation_sparsity_pattern" not in old and "conv_L_cache" not in old else None
    return old


@pytest.mark.parametrize("name", GOLDENS)
def test_configurations_of_older_transformers(golden_path: Any, tmp_path: Path, name: str) -> None:
    """Say the same."""
    config = hf_folder(tmp_path, golden_path(name))
    files = []
    for values in (config, old_style(config)):
        (tmp_path / "config.json").write_text(json.dumps(values))
        files.append(gguf.GGUFReader(convert(tmp_path, tmp_path / "model.gguf", overwrite=True)))
        first, second = files[0], files[-1]
        assert {k: f.contents() for k, f in first.fields.items()} == {k: f.contents() for k, f in second.fields.items()}
        for a, b in zip(first.tensors, second.tensors, strict=True):
            assert a.name == b.name and (a.data == b.data).all()


def test_packed_experts(golden_path: Any, tmp_path: Path) -> None:
    """Experts of gpt-oss in MXFP4, as they are released: the values that transformers unpacks, and the same blocks."""
    config = hf_folder(tmp_path, golden_path("gptoss"))
    tensors = {n: np.array(t.array) for n, t in Checkpoint(tmp_path).tensors.items()}
    rng = np.random.default_rng(3)
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    dense = {}
    for layer in range(config["num_hidden_layers"]):
        for name in ("gate_up_proj", "down_proj"):
            key = f"model.layers.{layer}.mlp.experts.{name}"
            n, cols, rows = tensors.pop(key).shape
            blocks = rng.integers(0, 256, (n, rows, cols // 32, 16), np.uint8)
            scales = rng.integers(118, 126, (n, rows, cols // 32), np.uint8)
            tensors |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
            pairs = np.stack([values[blocks & 15], values[blocks >> 4]], -1).reshape(*blocks.shape[:3], 32)
            dense[key] = np.ldexp(pairs, scales[..., None].astype(np.int32) - 127).reshape(n, rows, cols)
    (tmp_path / "model.safetensors").write_bytes(safetensors(tensors))
    edit(tmp_path, quantization_config={"quant_method": "mxfp4"})
    got = {t.name: t for t in gguf.GGUFReader(convert(tmp_path, tmp_path / "model.gguf", "q8_0")).tensors}
    for key, want in dense.items():
        base, gate_up = f"blk.{key.split('.')[2]}.ffn_", key.endswith("gate_up_proj")
        parts = {"gate": want[:, ::2], "up": want[:, 1::2]} if gate_up else {"down": want}
        for name, expected in parts.items():
            tensor = got[f"{base}{name}_exps.weight"]
            assert tensor.tensor_type == gguf.GGMLQuantizationType.MXFP4
            np.testing.assert_array_equal(gguf.quants.dequantize(tensor.data, tensor.tensor_type), expected)


def test_what_can_be_converted_runs() -> None:
    """What can be converted and what docs/MODELS.md says cannot is what runs."""
    from pyllm.models import architectures as known

    text = (Path(__file__).parents[1] / "docs" / "MODELS.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\*\*Conversion\.\*\*(.*?)\n\n", text, flags=re.S)
    left = re.findall(r"`([\w-]+)`", said)
    assert sorted(name.replace("-", "_") for name in [*architectures(), *left]) == known()


@pytest.fixture(scope="session")
def small(golden_path: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a llama of two shards."""
    folder = tmp_path_factory.mktemp("llama_hd")
    hf_folder(folder, golden_path("llama_hd"), shards=2)
    return folder


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "folder"))


def edit(folder: Path, file: str = "config.json", **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# -- types and the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["f16", "bf16", "q8_0"])
def test_types(small: Path, tmp_path: Path, type_: str) -> None:
    """Matrices as the gguf package has them (Q8_0: no worse; F16 where its blocks do not fit), norms in float32."""
    path = convert(small, tmp_path / "model.gguf", type_)
    full = convert(small, tmp_path / "full.gguf", "f32")
    for got, want in zip(gguf.GGUFReader(path).tensors, gguf.GGUFReader(full).tensors, strict=True):
        if len(want.shape) < 2:
            assert got.tensor_type == gguf.GGMLQuantizationType.F32 and (got.data == want.data).all()
            continue
        whole = type_ != "q8_0" or want.shape[0] % 32 == 0
        kind = gguf.GGMLQuantizationType[type_.upper() if whole else "F16"]
        assert got.tensor_type == kind
        theirs = gguf.quants.quantize(want.data, kind)
        if kind == gguf.GGMLQuantizationType.Q8_0:
            error, other = (np.square(gguf.quants.dequantize(x, kind) - want.data).sum() for x in (got.data, theirs))
            assert error <= other * 1.001
        else:
            assert (got.data.view(np.uint8) == theirs.view(np.uint8)).all()


def test_bf16_checkpoint_stays_as_it_is(small: Path, tmp_path: Path) -> None:
    """And float16 values that are too large for float16 are refused."""
    folder = copy(small, tmp_path)
    stored = Checkpoint(folder).tensors
    as_bf16 = {n: (np.asarray(t.array).view(np.uint32) >> 16).astype(np.uint16) for n, t in stored.items()}
    as_bf16["model.norm.weight"][0] = 0x7F00  # 1.7e38
    as_bf16["lm_head.weight"][0, 0] = 0x7F00
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    (folder / "model.safetensors").write_bytes(safetensors(as_bf16))
    path = convert(folder, tmp_path / "model.gguf")
    got = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert (got["output.weight"].data.view(np.uint16) == as_bf16["lm_head.weight"]).all()
    assert got["output_norm.weight"].data[0] == np.float32(2.0**127)
    with pytest.raises(ConvertError, match=r"output\.weight.*float16|output\.weight.*F16.*bf16"):
        convert(folder, tmp_path / "half.gguf", "f16")
    assert not (tmp_path / "half.gguf").exists()


def test_command(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.gguf"
    assert main(["convert", str(small), "-o", str(out), "--type", "q8_0"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert main(["tokenize", "-m", str(out), "hello"]) == 0
    assert main(["convert", str(small), "-o", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["convert", str(small), "-o", str(out), "--force"]) == 0
    assert main(["convert", str(tmp_path / "nothing"), "-o", str(out), "--force"]) == 1
    assert "is no folder" in capsys.readouterr().err


# -- what is refused ----------------------------------------------------------------------------------------


def test_unknown_architecture_names_what_is_supported(small: Path, tmp_path: Path) -> None:
    folder = copy(small, tmp_path)
    edit(folder, architectures=["RwkvForCausalLM"])
    with pytest.raises(
        ConvertError, match=r"RwkvForCausalLM cannot be converted; this version converts .*Qwen3ForCausalLM"
    ):
        convert(folder, tmp_path / "x.gguf")


def test_pytorch_files_are_refused(small: Path, tmp_path: Path) -> None:
    folder = copy(small, tmp_path)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(ConvertError, match=r"has no \.safetensors file"):
        convert(folder, tmp_path / "x.gguf")
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ConvertError, match="can run code"):
        convert(folder, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": "many"}, "num_hidden_layers"),
        ({"num_hidden_layers": 1}, "left out"),
        ({"num_hidden_layers": 10**9}, "layers"),
        ({"num_attention_heads": 0}, "attention heads"),
        ({"num_attention_heads": 7}, "heads"),
        ({"num_key_value_heads": 5}, "share"),
        ({"hidden_size": None}, "has no 'hidden_size'"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_parameters": []}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "spiral"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": None}}, "factor"),
        ({"architectures": None}, "architectures"),
        ({"hidden_act": "relu"}, "activation function 'relu'"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantized \(awq\)"),
    ],
)
def test_impossible_configurations(small: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    folder = copy(small, tmp_path)
    edit(folder, **values)
    with pytest.raises(ConvertError, match=message):
        convert(folder, tmp_path / "x.gguf")
    assert not list(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({}, "weight_map"),
        ({"a": "../model-00001-of-00002.safetensors"}, "no file of this folder"),
        ({"a": "model-00003-of-00003.safetensors"}, "download it too"),
        ({"a": "model-00001-of-00002.safetensors"}, "no shard has"),
    ],
)
def test_wrong_index(small: Path, tmp_path: Path, weight_map: dict[str, str], message: str) -> None:
    folder = copy(small, tmp_path)
    edit(folder, "model.safetensors.index.json", weight_map=weight_map)
    with pytest.raises(ConvertError, match=message):
        convert(folder, tmp_path / "x.gguf")


F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "no JSON object"),
        ({"a": 1}, "no description"),
        ({"a": F32 | {"dtype": "F33"}}, "unknown dtype"),
        ({"a": F32 | {"dtype": ["F32"]}}, "unknown dtype"),
        ({"a": F32 | {"shape": [2, -3]}}, "impossible shape"),
        ({"a": F32 | {"shape": [2, 3.0]}}, "impossible shape"),
        ({"a": F32 | {"shape": [1] * 9}}, "impossible shape"),
        ({"a": F32 | {"shape": [2**61, 2**61]}}, "cannot have 24 bytes"),
        ({"a": F32 | {"shape": [2, 2]}}, "cannot have 24 bytes"),
        ({"a": F32 | {"data_offsets": [0, 25]}}, "cut short"),
        ({"a": F32 | {"data_offsets": [24, 0]}}, "cut short"),
        ({"a": F32 | {"data_offsets": [-24, 0]}}, "impossible offsets"),
        ({"a": F32 | {"data_offsets": [0]}}, "impossible offsets"),
        ({"a": F32 | {"data_offsets": [True, 24]}}, "impossible offsets"),
        ({"a": F32, "b": F32 | {"shape": [1], "data_offsets": [20, 24]}}, "overlap"),
        ({"b": F32, "a": F32}, "overlap"),
    ],
)
def test_hostile_safetensors(tmp_path: Path, header: Any, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"x": np.zeros(6, np.float32)}, header))
    with pytest.raises(ConvertError, match=message):
        SafetensorsFile(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty|bytes"),
        (b"\x01", "8"),
        (struct.pack("<Q", 1 << 63) + b"{}", "header would have"),
        (struct.pack("<Q", 3) + b"{}", "header would have"),
        (struct.pack("<Q", 2) + b"{]", "no JSON object"),
        (struct.pack("<Q", 2) + b"\xff\xff", "no JSON object"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "no JSON object"),
        (struct.pack("<Q", 17) + b'{"a": 1, "a": 1 }', "twice"),
    ],
)
def test_hostile_safetensors_headers(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConvertError, match=message):
        SafetensorsFile(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_safetensors_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    good = bytearray(safetensors({"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 2), np.float16)}))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.safetensors"
    path.write_bytes(good[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else good)
    try:
        tensors = SafetensorsFile(path).tensors
    except ConvertError:
        return
    assert all(t.array.tobytes() is not None for t in tensors.values())


# -- memory, interruption, disk -----------------------------------------------------------------------------

LIMITED = """
import resource, sys
from pathlib import Path
from pyllm.convert import convert
import pyllm.gguf.writer, numpy
before = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
after = int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
print((after - before) * 1024)
"""


def large_folder(folder: Path, small: Path, rows: int) -> int:
    """`small` with a vocabulary of `rows` rows of 4096 in each of three shards; the bytes of the largest tensor."""
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small / file, folder / file)
    d = 4096
    edit(folder, vocab_size=rows, hidden_size=d, intermediate_size=rows, num_hidden_layers=1, head_dim=64,
         num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    shapes = {
        "model.embed_tokens": (rows, d), "lm_head": (rows, d), "model.norm": (d,),
        "model.layers.0.input_layernorm": (d,), "model.layers.0.post_attention_layernorm": (d,),
        "model.layers.0.self_attn.q_proj": (256, d), "model.layers.0.self_attn.k_proj": (128, d),
        "model.layers.0.self_attn.v_proj": (128, d), "model.layers.0.self_attn.o_proj": (d, 256),
        "model.layers.0.mlp.gate_proj": (rows, d), "model.layers.0.mlp.up_proj": (rows, d),
        "model.layers.0.mlp.down_proj": (d, rows),
    }  # fmt: skip
    for i in range(3):
        part = {f"{n}.weight": np.ones(s, np.float16) for n, s in list(shapes.items())[i::3]}
        (folder / f"model-{i}.safetensors").write_bytes(safetensors(part))
    return rows * d * 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("type_", ["auto", "q8_0"])
def test_peak_memory(small: Path, tmp_path: Path, type_: str) -> None:
    """A checkpoint of 300 MB goes through less than 250 MB beside its largest tensor, the library's own included."""
    folder = tmp_path / "large"
    folder.mkdir()
    largest = large_folder(folder, small, 8192)
    out = tmp_path / "large.gguf"
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder), str(out), type_],
        env=child_env(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stat().st_size > 170e6
    assert int(run.stdout) < largest + 180e6


def test_an_error_or_interruption_leaves_nothing(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"

    def interrupt(name: str, done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(small, out, progress=interrupt)
    assert not list(tmp_path.iterdir())

    from pyllm.gguf import writer

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.left = file, 100_000

        def write(self, data: Any) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(28, "No space left on device")
            return int(self.file.write(data))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    fdopen = os.fdopen
    monkeypatch.setattr(writer.os, "fdopen", lambda *a, **k: Full(fdopen(*a, **k)))
    with pytest.raises(GGUFError, match="No space left"):
        convert(small, out)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    out.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        convert(small, out, overwrite=True, progress=interrupt)
    assert out.read_bytes() == b"old"


def test_file_can_be_opened_again(small: Path, tmp_path: Path) -> None:
    with GGUFFile.open(convert(small, tmp_path / "a.gguf")) as file:
        assert file.architecture == "llama"
        assert file.metadata["general.file_type"] == 0


def test_text_of_a_model_that_sees(small: Path, tmp_path: Path) -> None:
    """What concerns text counts first, but whether the head is tied is said of the whole. Other parts are left out."""
    folder = copy(small, tmp_path)
    stored = {f"language_model.{n}": np.array(t.array) for n, t in Checkpoint(folder).tensors.items()}
    stored |= {
        "vision_tower.encoder.weight": np.ones((2, 2), np.float32),
        "multi_modal_projector.bias": np.ones(2, np.float32),
    }
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    (folder / "model.safetensors").write_bytes(safetensors(stored))
    inner = json.loads((folder / "config.json").read_text())
    outer = {"architectures": ["LlamaForCausalLM"], "hidden_size": 7, "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(outer | {"text_config": inner | {"tie_word_embeddings": True}}))
    got, want = (gguf.GGUFReader(convert(f, tmp_path / f"{i}.gguf")).tensors for i, f in enumerate((folder, small)))
    assert [t.name for t in got] == [t.name for t in want] and "output.weight" in [t.name for t in got]
    assert all((a.data == b.data).all() for a, b in zip(got, want, strict=True))
