"""Importance matrices: as llama.cpp's, as a forward pass written down here, and as files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import make_imatrix_llamacpp as llamacpp
import numpy as np
import pytest
import random_models

from pyllm.errors import GGUFError
from pyllm.gguf import GGUFFile
from pyllm.gguf.writer import GGUFWriter
from pyllm.model import Model
from pyllm.quant import Imatrix, collect_imatrix
from pyllm.quant.collect import Collector, model_options
from pyllm.tokenizer import Tokenizer

#: Relative differences beyond those of the order of float32 sums. llama.cpp's gelu looks up half-precision values: each
#: is off by up to 2^-11, its square by twice that, and later layers take in what earlier ones made of it.
RTOL = {"gemma3": 8 * 2**-11}
TEXT = "The quick brown fox jumps over the lazy dog. " * 20


def run(path: Path, ids: list[int], chunk: int, process_output: bool = False) -> Imatrix:
    """The matrix over tokens as they are."""
    model = Model(path, model_options(chunk, n_threads=2))
    collector = Collector(model, process_output)
    try:
        for start in range(0, len(ids), chunk):
            collector.run(ids[start : start + chunk])
    finally:
        collector.close()
        model.close()
    return collector.result(["some.txt"], len(ids) // chunk, chunk)


@pytest.mark.parametrize("name", [*llamacpp.GOLDENS, *llamacpp.RANDOM])
def test_sums_are_those_of_llamacpp(data: Path, tmp_path: Path, request: pytest.FixtureRequest, name: str) -> None:
    """Fused matrices, experts, heads with matrices of their own: the same weights, counts, and sums up to rounding."""
    expected = np.load(data / "quantize" / "imatrix.npz")
    if name in llamacpp.RANDOM:
        path = tmp_path / f"{name}.gguf"
        random_models.write(name, path)
    else:
        path = request.getfixturevalue("shared") / "goldens" / "models" / f"{name}.gguf"
    with GGUFFile.open(path) as file:
        n_vocab = len(file.metadata["tokenizer.ggml.tokens"])
    ours = run(path, llamacpp.ids(n_vocab), llamacpp.CHUNK)
    names = expected[f"{name}/names"].tolist()
    assert sorted(ours.sums) == names
    np.testing.assert_array_equal(np.concatenate([ours.counts[n] for n in names]), expected[f"{name}/counts"])
    at = 0
    for n in names:
        size = ours.sums[n].size
        theirs = expected[f"{name}/sums"][at : at + size].reshape(ours.sums[n].shape)
        np.testing.assert_allclose(ours.sums[n], theirs, rtol=RTOL.get(name, 1e-3), atol=2e-5 * theirs.max(), err_msg=n)
        at += size


# ---- by hand ----------------------------------------------------------------------------------------------------


def by_hand(path: Path, ids: list[int]) -> dict[str, np.ndarray]:
    """The inputs [tokens, cols] of each matrix of a llama model, in float64 (Touvron et al. 2023)."""
    reader = gguf.GGUFReader(path)
    w = {t.name: np.asarray(t.data, np.float64) for t in reader.tensors}

    def key(name: str) -> Any:
        return reader.fields[f"llama.{name}"].contents()

    heads, kv, n_layer = key("attention.head_count"), key("attention.head_count_kv"), key("block_count")
    eps, base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base")
    inputs: dict[str, np.ndarray] = {}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[name]

    def mul(x: np.ndarray, name: str) -> np.ndarray:
        inputs[name] = x
        return x @ w[name].T

    n = len(ids)
    x = w["token_embd.weight"][ids]
    for i in range(n_layer):
        blk = f"blk.{i}."
        y = norm(x, blk + "attn_norm.weight")
        q = mul(y, blk + "attn_q.weight").reshape(n, heads, -1)
        k, v = (mul(y, f"{blk}attn_{c}.weight").reshape(n, kv, -1) for c in "kv")
        dim = q.shape[-1]
        angle = np.arange(n)[:, None] * base ** (-np.arange(0, dim, 2) / dim)
        turn = np.exp(1j * angle)[:, None, :]
        q, k = ((z[..., 0::2] + 1j * z[..., 1::2]) * turn for z in (q, k))
        mask = np.where(np.tri(n, dtype=bool), 0.0, -np.inf)
        out = np.empty((n, heads, dim))
        for h in range(heads):
            g = h * kv // heads
            scores = (q[:, h] @ k[:, g].conj().T).real / np.sqrt(dim) + mask
            p = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, g]
        x = x + mul(out.reshape(n, -1), blk + "attn_output.weight")
        y = norm(x, blk + "ffn_norm.weight")
        gate, up = mul(y, blk + "ffn_gate.weight"), mul(y, blk + "ffn_up.weight")
        x = x + mul(gate / (1 + np.exp(-gate)) * up, blk + "ffn_down.weight")
    mul(norm(x, "output_norm.weight"), "output.weight")
    return inputs


@pytest.mark.parametrize("chunk", [24, 70])
def test_sums_by_hand(data: Path, chunk: int) -> None:
    """Every input of every matrix counts once; chunks of more tokens than a step takes, too."""
    path = data / "models" / "llama_untied.gguf"
    ids = np.random.default_rng(3).integers(3, 256, 2 * chunk).tolist()
    ours = run(path, ids, chunk, process_output=True)
    first, second = by_hand(path, ids[:chunk]), by_hand(path, ids[chunk:])
    assert ours.sums.keys() == first.keys()
    for name, x in first.items():
        expected = (np.concatenate([x, second[name]]) ** 2).sum(0)
        np.testing.assert_allclose(ours.sums[name][0], expected, rtol=1e-4, atol=1e-5 * expected.max(), err_msg=name)
        assert ours.counts[name].tolist() == [2 * chunk]


def test_chunks_begin_as_the_model_wants(data: Path) -> None:
    path = data / "models" / "llama_untied.gguf"
    with GGUFFile.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
    ids = tokenizer.encode(TEXT, add_special=False)
    ids = [tokenizer.bos_id, *ids] if tokenizer.add_bos else ids
    chunks = [ids[:32], ids[32:64]]
    if tokenizer.add_bos:
        chunks = [[tokenizer.bos_id, *c[1:]] for c in chunks]
    told: list[tuple[int, int]] = []
    ours = collect_imatrix(
        path, TEXT, chunk_size=32, n_chunks=2, dataset="x", n_threads=1, progress=lambda *a: told.append(a)
    )
    expected = run(path, [t for c in chunks for t in c], 32)
    assert (ours.n_chunks, ours.chunk_size, ours.datasets, told) == (2, 32, ["x"], [(1, 2), (2, 2)])
    for name, sums in expected.sums.items():
        np.testing.assert_array_equal(ours.sums[name], sums)


@pytest.mark.parametrize(("text", "chunk", "message"), [("short", 512, "longer text"), (TEXT, 8, "too short")])
def test_too_little_text(data: Path, text: str, chunk: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect_imatrix(data / "models" / "llama_untied.gguf", text, chunk_size=chunk)


# ---- files ------------------------------------------------------------------------------------------------------


def example() -> Imatrix:
    sums = {"blk.0.a.weight": np.array([[2.0, 4, 6]]), "blk.0.b_exps.weight": np.array([[3.0, 6], [0, 0]])}
    counts = {"blk.0.a.weight": np.array([2]), "blk.0.b_exps.weight": np.array([3, 0])}
    return Imatrix(sums, counts, ["text.txt", "more.txt"], 5, 512)


def test_file_is_llamacpps_format(tmp_path: Path) -> None:
    path = tmp_path / "imatrix.gguf"
    example().save(path)
    reader = gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix", "imatrix.datasets": ["text.txt", "more.txt"], "imatrix.chunk_count": 5,
        "imatrix.chunk_size": 512,
    }  # fmt: skip
    assert {t.name: ([int(n) for n in t.shape], t.data.ravel().tolist()) for t in reader.tensors} == {
        "blk.0.a.weight.in_sum2": ([3], [2, 4, 6]),
        "blk.0.a.weight.counts": ([1], [2]),
        "blk.0.b_exps.weight.in_sum2": ([2, 2], [3, 6, 0, 0]),
        "blk.0.b_exps.weight.counts": ([1, 2], [3, 0]),
    }
    back = Imatrix.load(path)
    assert (back.datasets, back.n_chunks, back.chunk_size, back.path) == (["text.txt", "more.txt"], 5, 512, str(path))
    for loaded in (back, example()):
        assert loaded.importance("blk.0.a.weight").tolist() == [1, 2, 3]
        assert loaded.importance("blk.0.b_exps.weight").tolist() == [1, 2, 1, 1]  # an expert that saw nothing
        assert loaded.importance("other") is None
        assert loaded.partial == {"blk.0.b_exps.weight": 0.5}


def legacy(tail: bool = True) -> bytes:
    name = b"blk.0.a.weight"
    out = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii3f", 4, 3, 4, 8, 12)
    return out + (struct.pack("<ii", 4, 4) + b"text" if tail else b"")


def test_older_format(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(legacy())
    loaded = Imatrix.load(tmp_path / "a.dat")
    assert loaded.importance("blk.0.a.weight").tolist() == [1, 2, 3]
    assert (loaded.n_chunks, loaded.datasets) == (4, ["text"])
    (tmp_path / "b.dat").write_bytes(legacy(tail=False))
    assert Imatrix.load(tmp_path / "b.dat").n_chunks == 0


@pytest.mark.parametrize("size", range(0, len(legacy()), 5))
def test_older_format_cut_short(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.dat").write_bytes(legacy()[:size])
    if size == len(legacy(tail=False)):
        Imatrix.load(tmp_path / "a.dat")
    else:
        with pytest.raises(GGUFError, match=r"a\.dat"):
            Imatrix.load(tmp_path / "a.dat")


def broken(kind: str) -> Imatrix:
    m = example()
    if kind == "nan":
        m.sums["blk.0.a.weight"][0, 1] = np.nan
    if kind == "negative":
        m.sums["blk.0.a.weight"][0, 1] = -1
    if kind == "count":
        m.counts["blk.0.a.weight"] = np.array([-2])
    if kind == "empty":
        m.sums, m.counts = {}, {}
    return m


@pytest.mark.parametrize(
    ("kind", "message"),
    [("nan", "sums of squares"), ("negative", "sums of squares"), ("count", "numbers of rows"), ("empty", "holds no")],
)
def test_values_that_cannot_be(tmp_path: Path, kind: str, message: str) -> None:
    broken(kind).save(tmp_path / "x.gguf")
    with pytest.raises(GGUFError, match=message):
        Imatrix.load(tmp_path / "x.gguf")


def test_files_that_are_something_else(tmp_path: Path, data: Path) -> None:
    with pytest.raises(GGUFError, match="not an importance matrix"):
        Imatrix.load(data / "models" / "llama_untied.gguf")
    with pytest.raises(GGUFError, match="cannot be read"):
        Imatrix.load(tmp_path / "none")
    (tmp_path / "x").write_bytes(b"no such format")
    with pytest.raises(GGUFError, match="neither"):
        Imatrix.load(tmp_path / "x")
    with GGUFWriter(tmp_path / "y.gguf") as w:  # sums without counts
        w.add("imatrix.datasets", ["a"])
        w.add("imatrix.chunk_count", 1)
        w.add("imatrix.chunk_size", 1)
        with GGUFFile.open(data / "models" / "llama_untied.gguf") as f:
            w.add_tensor("a.in_sum2", (4,), f.tensors["output_norm.weight"].type)
        w.write(np.ones(4, np.float32))
    with pytest.raises(GGUFError, match="do not belong together"):
        Imatrix.load(tmp_path / "y.gguf")
