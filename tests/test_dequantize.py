"""Dequantization is bit for bit what the gguf package computes in float32, at every CPU level."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from pyllm._lib import ffi, lib

gguf = pytest.importorskip("gguf", reason="the gguf package is the oracle here: pip install '.[test]'")

pytestmark = pytest.mark.native
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0",
         "MXFP4", "NVFP4")  # fmt: skip
NO_GOLDEN = ("F32", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "TQ1_0", "TQ2_0")


def _dequantize(type_id: int, data: np.ndarray, n: int) -> np.ndarray:
    out = np.empty(n, np.float32)
    src = np.ascontiguousarray(data).view(np.uint8)
    rc = lib.pl_dequantize(type_id, ffi.from_buffer(src), ffi.cast("float *", ffi.from_buffer(out)), n)
    assert rc == 0
    return out


@pytest.fixture(
    params=[i for i in range(lib.pl_cpu_levels()) if lib.pl_cpu_has(i)],
    ids=lambda i: ffi.string(lib.pl_cpu_level_name(i)).decode(),
)
def level(request):
    before = lib.pl_cpu_level()
    lib.pl_cpu_set_level(request.param)
    yield request.param
    lib.pl_cpu_set_level(before)


@pytest.mark.parametrize("name", TYPES)
def test_random_blocks(name: str, level: int) -> None:
    """Random bytes are valid blocks of every type; scales that are NaN or infinite are left out.

    There are enough of them for every entry of the codebooks to come up.
    """
    qtype = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    rng = np.random.default_rng(7)
    data = rng.integers(0, 256, (512, 256 // block * 4 * size), np.uint8)
    with np.errstate(all="ignore"):
        want = gguf.quants.dequantize(data, qtype).astype(np.float32).ravel()
        got = _dequantize(int(qtype), data, want.size)
    finite = np.isfinite(want)
    assert finite.mean() > 0.5
    assert np.array_equal(got[finite].view(np.uint32), want[finite].view(np.uint32))
    assert not np.isfinite(got[~finite]).any()


def test_q1_0_and_q2_0(level: int) -> None:
    """Of these the gguf package knows the sizes at most: one scale times -1 or 1, times -1 to 2, lowest bits first."""
    rng = np.random.default_rng(7)
    data = rng.integers(0, 256, (64, 18), np.uint8)
    data[:, 1] &= 0x7B  # neither infinite nor NaN
    d, bits = data[:, :2].copy().view(np.float16).astype(np.float32), np.arange(0, 8, 2)
    twos = (data[:, 2:, None] >> bits & 3).reshape(64, -1).astype(np.float32)
    for type_id, want in (
        (41, np.where(np.unpackbits(data[:, 2:], axis=1, bitorder="little"), d, -d)),
        (42, d * (twos - 1)),
    ):
        got = _dequantize(type_id, data, want.size)
        assert np.array_equal(got.view(np.uint32), want.ravel().view(np.uint32))


def test_f64(level: int) -> None:
    """Rounded to nearest, whatever the alignment of the file's bytes."""
    rng = np.random.default_rng(7)
    data = rng.integers(0, 256, 8 * 4096, np.uint8)
    data[: 8 * 1024] = (rng.standard_normal(1024) * np.logspace(-46, 39, 1024)).view(np.uint8)
    with np.errstate(all="ignore"):
        want = data.view(np.float64).astype(np.float32)
    for at in (0, 4):
        moved = np.zeros(len(data) + at, np.uint8)
        moved[at:] = data
        np.testing.assert_array_equal(_dequantize(28, moved[at:], want.size), want)


@pytest.mark.parametrize("name", [t for t in TYPES if t not in NO_GOLDEN])
def test_golden_files(name: str, level: int, shared: Path) -> None:
    """Every tensor of the quantized goldens, against the stored checksums."""
    folder = shared / "goldens" / "quant"
    want = json.loads(bytes(np.load(folder / f"quant-{name}.npz")["meta_json"]))["sha256_f32_dequant"]
    seen = 0
    for tensor in gguf.GGUFReader(folder / f"quant-{name}.gguf").tensors:
        if tensor.name in want:
            got = _dequantize(int(tensor.tensor_type), tensor.data, int(tensor.n_elements))
            assert hashlib.sha256(got.astype("<f4").tobytes()).hexdigest() == want[tensor.name], tensor.name
            seen += 1
    assert seen == len(want) > 0
