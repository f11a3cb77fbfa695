"""Whole files quantized: what is in them, what is refused, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import gguf_bytes
import mutate
import numpy as np
import pytest
import quantize_models as models
import random_models
from conftest import child_env

import pyllm
from pyllm._lib import ffi, lib
from pyllm.cli import main
from pyllm.errors import GGUFError, ModelError
from pyllm.gguf import GGUFFile, TensorInfo, tensor_types
from pyllm.gguf.writer import GGUFWriter
from pyllm.quant import MIXES, Imatrix, quantize, rewrite

pytestmark = pytest.mark.native
TYPES = {t.name: t for t in tensor_types().values()}


@pytest.fixture
def llama(data: Path) -> Path:
    """A golden llama of F32."""
    return data / "models" / "llama_untied.gguf"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of F16 whose rows are whole blocks of every type."""
    path = tmp_path_factory.mktemp("wide") / "wide-F16.gguf"
    spec = models.Spec(layers=3, matrices=models.attention(kv=2) | models.glu(), kv=2)
    models.write(spec, path)
    with GGUFFile.open(path) as f:
        places = {t.name: (t.offset, t.n_elements, t.type.name) for t in f.tensors.values()}
    rng = np.random.default_rng(5)
    with path.open("r+b") as out:
        for offset, n, kind in places.values():
            out.seek(offset)
            values = rng.standard_normal(n) * 0.05
            out.write(values.astype(np.float16 if kind == "F16" else np.float32).tobytes())
    return path


def by_kernel(tensor: TensorInfo, kind: str, weights: np.ndarray | None = None) -> bytes:
    """What pl_quantize makes of a tensor: weights [matrices, cols] or none."""
    type_, x = TYPES[kind], tensor.dequantize().reshape(-1, tensor.cols)
    matrices = tensor.shape[2] if len(tensor.shape) > 2 else 1
    out = []
    for m, part in enumerate(np.split(x, matrices)):
        dst = np.empty(part.size // type_.block * type_.bytes, np.uint8)
        w = ffi.NULL if weights is None else ffi.from_buffer("float[]", np.ascontiguousarray(weights[m], np.float32))
        src = ffi.from_buffer("float[]", np.ascontiguousarray(part))
        assert lib.pl_quantize(type_.id, src, *part.shape, w, ffi.from_buffer(dst)) == 0
        out.append(dst.tobytes())
    return b"".join(out)


def check(source: Path, target: Path, weights: dict[str, np.ndarray] | None = None) -> dict[str, str]:
    """That each tensor of target is that of source in its new type; the types."""
    with GGUFFile.open(source) as a, GGUFFile.open(target) as b:
        assert a.tensors.keys() == b.tensors.keys()
        for name, t in b.tensors.items():
            assert t.shape == a.tensors[name].shape
            same = t.type == a.tensors[name].type
            w = weights.get(name) if weights else None
            expected = a.tensors[name].data.tobytes() if same else by_kernel(a.tensors[name], t.type.name, w)
            assert t.data.tobytes() == expected, name
        return {name: t.type.name for name, t in b.tensors.items()}


@pytest.mark.parametrize("mix", MIXES)
def test_mixes(wide: Path, tmp_path: Path, mix: str) -> None:
    """The bytes are the kernels', the metadata llama-quantize's, and the file runs."""
    target = tmp_path / "out.gguf"
    imatrix = Imatrix()
    if mix == "Q2_K_S":
        with GGUFFile.open(wide) as f:
            imatrix.sums = {t.name: np.ones((1, t.cols)) for t in f.tensors.values() if len(t.shape) > 1}
            imatrix.counts = dict.fromkeys(imatrix.sums, np.ones(1, np.int64))
    result = quantize(wide, target, mix, imatrix=imatrix if imatrix.sums else None, n_threads=2)
    types = check(wide, target, imatrix.sums)
    assert types == {c.tensor.name: c.type.name for c in result.choices}
    assert result.bytes_after == sum(c.nbytes for c in result.choices) < target.stat().st_size
    assert MIXES[mix].type in types.values() or mix == "MXFP4_MOE"  # there are no experts here
    reader = gguf.GGUFReader(target)
    assert reader.fields["general.file_type"].contents() == models.MIXES[mix]
    assert reader.fields["general.quantization_version"].contents() == gguf.GGML_QUANT_VERSION
    assert not any(key.startswith("quantize.") for key in reader.fields) or imatrix.sums
    with GGUFFile.open(wide) as a, GGUFFile.open(target) as b:
        for key, value in a.metadata.items():
            if key not in ("general.file_type", "general.quantization_version"):
                assert b.type_of(key) == a.type_of(key)
                np.testing.assert_array_equal(b.metadata[key], value)


def test_quantized_model_answers_nearly_as_the_original(llama: Path, tmp_path: Path) -> None:
    """Steps of 8 bits are 16 times finer than those of 4, and so about are the errors that they make."""
    ids = np.random.default_rng(0).integers(3, 700, 40).tolist()
    with pyllm.LLM(llama, n_ctx=64, compute="f32") as llm:
        logits = llm.logits(ids)
    errors = {}
    for mix in ("Q8_0", "Q4_0"):
        quantize(llama, tmp_path / mix, mix, pure=True)
        with pyllm.LLM(tmp_path / mix, n_ctx=64, compute="f32") as llm:
            errors[mix] = np.abs(llm.logits(ids) - logits).mean()
    assert 8 * errors["Q8_0"] < errors["Q4_0"] < logits.std()


@pytest.mark.parametrize("source", ["F16", "BF16", "Q8_0"])
def test_other_sources(llama: Path, tmp_path: Path, source: str) -> None:
    quantize(llama, tmp_path / "a.gguf", source)
    quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0", allow_requantize=True)
    types = check(tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert types["blk.0.attn_q.weight"] == "Q4_0"


def test_pieces_and_threads_change_nothing(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize(wide, tmp_path / "a.gguf", "Q4_0", n_threads=1, pure=True)
    monkeypatch.setattr(rewrite, "PIECE", 5 * 256)
    told: list[tuple[int, int]] = []
    quantize(wide, tmp_path / "b.gguf", "Q4_0", n_threads=3, pure=True, progress=lambda *a: told.append(a[1:]))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len(told) > 100


def moe(folder: Path) -> Path:
    path = folder / "moe.gguf"
    random_models.write("granitemoe", path)
    return path


def test_experts_of_mxfp4(tmp_path: Path) -> None:
    source = moe(tmp_path)
    quantize(source, tmp_path / "a.gguf", "mxfp4_moe")
    types = check(source, tmp_path / "a.gguf")
    assert types["blk.1.ffn_up_exps.weight"] == "MXFP4"
    assert types["blk.1.attn_q.weight"] == types["token_embd.weight"] == "Q8_0"
    assert types["blk.1.ffn_gate_inp.weight"] == "F32"
    with pyllm.LLM(tmp_path / "a.gguf", n_ctx=64) as llm:
        assert np.isfinite(llm.logits([5, 6, 7])).all()


def test_imatrix_weighs_errors_by_channel_and_expert(tmp_path: Path) -> None:
    """Each expert has importances of its own; the file says where they are from."""
    source, rng = moe(tmp_path), np.random.default_rng(2)
    with GGUFFile.open(source) as f:
        names = [t.name for t in f.tensors.values() if t.name.startswith("blk.") and len(t.shape) > 1]
        shapes = {n: (f.tensors[n].shape[2] if len(f.tensors[n].shape) > 2 else 1, f.tensors[n].cols) for n in names}
    weights = {n: rng.exponential(size=shapes[n]).astype(np.float32) for n in names}
    counts = {n: np.full(shapes[n][0], 4) for n in names}
    Imatrix({n: 4.0 * w for n, w in weights.items()}, counts, ["wiki.txt", "b"], 7, 512).save(tmp_path / "im.gguf")
    result = quantize(source, tmp_path / "a.gguf", "Q4_0", imatrix=tmp_path / "im.gguf")
    types = check(source, tmp_path / "a.gguf", weights)
    assert types["blk.1.ffn_up_exps.weight"] == "Q4_0"
    assert result.not_in_imatrix == ["output.weight", "token_embd.weight"]
    quantize(source, tmp_path / "b.gguf", "Q4_0")
    a, b = (GGUFFile.open(tmp_path / f"{c}.gguf") for c in "ab")
    name = "blk.1.ffn_up_exps.weight"
    assert a.tensors[name].data.tobytes() != b.tensors[name].data.tobytes()
    found = {k: (a.type_of(k), v) for k, v in a.metadata.items() if k.startswith("quantize.")}
    assert found == {
        "quantize.imatrix.file": ("string", str(tmp_path / "im.gguf").encode()[:127].decode()),
        "quantize.imatrix.dataset": ("string", "wiki.txt"),
        "quantize.imatrix.entries_count": ("u32", len(names)),
        "quantize.imatrix.chunks_count": ("u32", 7),
    }
    a.close()
    b.close()


def test_imatrix_of_another_model_is_refused(llama: Path, tmp_path: Path) -> None:
    other = Imatrix({"blk.0.attn_q.weight": np.ones((1, 63))}, {"blk.0.attn_q.weight": np.ones(1, np.int64)})
    with pytest.raises(ModelError, match=r"63 values .* another model"):
        quantize(llama, tmp_path / "x.gguf", "Q4_0", imatrix=other)
    with pytest.raises(ModelError, match="Q2_K_S needs"):
        quantize(models_wide(tmp_path), tmp_path / "x.gguf", "Q2_K_S")
    assert not (tmp_path / "x.gguf").exists()


def models_wide(folder: Path) -> Path:
    path = folder / "wide.gguf"
    models.write(models.Spec(layers=1, matrices=models.attention()), path)
    return path


def test_split_models_become_one_file(llama: Path, tmp_path: Path) -> None:
    whole = GGUFFile.open(llama)
    tensors = list(whole.tensors.values())
    for part, half in enumerate((tensors[:10], tensors[10:])):
        with GGUFWriter(tmp_path / f"m-0000{part + 1}-of-00002.gguf") as w:
            if part == 0:
                w.copy_metadata(whole)
            w.add("split.no", part, "u16")
            w.add("split.count", 2, "u16")
            w.add("split.tensors.count", len(tensors), "i32")
            for t in half:
                w.add_tensor(t.name, t.shape, t.type)
            for t in half:
                w.write(t.data)
    whole.close()
    quantize(llama, tmp_path / "a.gguf", "Q4_0")
    quantize(tmp_path / "m-00002-of-00002.gguf", tmp_path / "b.gguf", "Q4_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    with pytest.raises(GGUFError, match="itself"):
        quantize(tmp_path / "m-00002-of-00002.gguf", tmp_path / "m-00001-of-00002.gguf", "Q4_0")


def test_source_is_never_the_target(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(llama.read_bytes())
    (tmp_path / "b.gguf").symlink_to(tmp_path / "a.gguf")
    with pytest.raises(GGUFError, match="itself"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")
    assert (tmp_path / "a.gguf").read_bytes() == llama.read_bytes()


def test_quantized_sources_are_refused_unless_allowed(llama: Path, tmp_path: Path) -> None:
    quantize(llama, tmp_path / "a.gguf", "Q8_0")
    with pytest.raises(ModelError, match=r"quantized already, as Q8_0.*--allow-requantize"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")
    quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")  # nothing to do
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "b.gguf"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_values_that_no_type_holds(llama: Path, tmp_path: Path, value: float) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(llama.read_bytes())
    with GGUFFile.open(source) as f:
        at = f.tensors["blk.1.ffn_up.weight"].offset
    with source.open("r+b") as out:
        out.seek(at + 400)
        out.write(np.float32(value).tobytes())
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight.* holds"):
        quantize(source, tmp_path / "b.gguf", "Q4_0")
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


def test_names_that_do_not_exist(llama: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"mix": "Q9"}, "no quantization 'Q9': take one of F32"),
        ({"mix": "Q4_0", "output_type": "I32"}, "to type 'I32'"),
        ({"mix": "Q4_0", "tensor_types": {"x": "Q4_K_M"}}, "to type 'Q4_K_M'"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize(llama, tmp_path / "x.gguf", **options)


def test_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes.file([("x", gguf_bytes.scalar(gguf_bytes.U32, 1))]))
    with pytest.raises(GGUFError, match=r"general\.architecture"):
        quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q4_0")


@pytest.mark.alone
def test_memory_is_that_of_a_few_pieces(tmp_path: Path) -> None:
    """A model of 512 MB is quantized with much less in memory, mapping included."""
    path = tmp_path / "large.gguf"
    models.write(models.Spec(layers=1, d=4096, matrices={"ffn_up.weight": (4096, 65536)}), path)
    code = (
        "import resource, sys, pyllm.quant as q\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "q.quantize(sys.argv[1], sys.argv[2], 'Q8_0', n_threads=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path / "out.gguf"],
        capture_output=True, text=True, check=True, env=child_env(),
    )  # fmt: skip
    assert int(out.stdout) < 100_000  # KB


def test_damaged_files(data: Path, tmp_path: Path) -> None:
    """Each is worked with or refused; none crashes, hangs or takes memory for a lie."""
    rng = np.random.default_rng(1)
    sums = {f"blk.{i}.a_exps.weight": rng.random((4, 8)) for i in range(3)} | {"b.weight": rng.random((1, 16))}
    counts = {name: rng.integers(0, 4, len(s)) for name, s in sums.items()}
    Imatrix(sums, counts, ["a.txt"], 2, 512).save(tmp_path / "imatrix.gguf")
    for path, check in (
        (data / "models" / "llama_yarn.gguf", "quantize_mutants:quantize"),
        (tmp_path / "imatrix.gguf", "quantize_mutants:imatrix"),
    ):
        report = mutate.run(path, range(300), check)
        assert not report.failures, str(report.failures[0])
        assert report.worked > 30 and report.refused > 150


# ---- command line -----------------------------------------------------------------------------------------------


def test_command(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.gguf"
    options = ["--tensor-type", "FFN_down=q8_0", "--output-tensor-type", "f16", "--token-embedding-type", "Q5_1"]
    assert main(["quantize", *options, str(llama), str(target), "q4_0", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert f"wrote {target}" in said.err
    assert "blk.0.attn_q.weight" in said.err
    types = check(llama, target)
    assert types["blk.2.ffn_down.weight"] == "Q8_0"
    assert types["output.weight"] == "F16"
    assert types["token_embd.weight"] == "Q5_1"
    assert types["blk.0.attn_q.weight"] == "Q4_0"


def test_command_names_its_output(llama: Path, tmp_path: Path) -> None:
    for name in ("m-f16.gguf", "n.gguf"):
        (tmp_path / name).write_bytes(llama.read_bytes())
        assert main(["quantize", str(tmp_path / name), "Q8_0"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-Q8_0.gguf", "m-f16.gguf", "n-Q8_0.gguf", "n.gguf"]


def test_dry_run_writes_nothing(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(llama.read_bytes())
    assert main(["quantize", "--dry-run", str(tmp_path / "a.gguf"), "Q4_K_M"]) == 0
    said = capsys.readouterr()
    with GGUFFile.open(llama) as f:
        assert len(said.out.splitlines()) == len(f.tensors)
    assert "F32 -> Q5_0" in said.out
    assert "bits per weight" in said.err
    assert "no multiple" in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.gguf"], "give a file and a type"),
        (["a.gguf", "Q9"], "no quantization 'Q9'"),
        (["a.gguf", "b.gguf", "Q9"], "no quantization 'Q9'"),
        (["a.gguf", "Q8_0", "two"], "number of threads"),
        (["a.gguf", "b.gguf", "Q8_0", "0"], "-t 0"),
        (["a.gguf", "b.gguf", "Q8_0", "--tensor-type", "Q8_0"], "--tensor-type Q8_0"),
        (["a.gguf", "b.gguf", "Q8_0", "--tensor-type", "(=Q8_0"], "no regular expression"),
        (["a.gguf", "b.gguf", "Q8_0", "--tensor-type", "a=Q8"], "to type 'Q8'"),
        (["a.gguf", "b.gguf", "Q8_0", "--output-tensor-type", "Q8"], "--output-tensor-type"),
    ],
)
def test_wrong_usage(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    os.symlink(llama, tmp_path / "a.gguf")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert main(["quantize", *argv]) == 2
    finally:
        os.chdir(before)
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


def test_interrupted(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(llama, tmp_path / "x.gguf", "Q4_0", progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_command_with_imatrix(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    made, target = str(tmp_path / "im.gguf"), str(tmp_path / "out.gguf")
    assert main(["imatrix", "-m", str(llama), "-f", str(tmp_path / "t.txt"), "-o", made, "-c", "64", "-t", "1"]) == 0
    assert "chunks of 64 tokens" in capsys.readouterr().err
    assert main(["quantize", "--imatrix", made, str(llama), target, "Q4_0"]) == 0
    data = Imatrix.load(made)
    assert data.datasets == [str(tmp_path / "t.txt")]
    types = check(llama, Path(target), {n: data.importance(n).reshape(1, -1) for n in data.sums})
    assert types["blk.1.ffn_down.weight"] == "Q4_0"


@pytest.mark.parametrize(
    ("argv", "message"),
    [(["-c", "4"], "-c 4"), (["--chunks", "0"], "--chunks 0"), (["-t", "0"], "-t 0"), (["-c", "9999"], "longer text")],
)
def test_imatrix_wrong_usage(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    (tmp_path / "t.txt").write_text("text")
    assert main(["imatrix", "-m", str(llama), "-f", str(tmp_path / "t.txt"), "-o", str(tmp_path / "o"), *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
