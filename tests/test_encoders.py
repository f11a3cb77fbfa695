"""Encoders of tensor types: no greater error than llama.cpp's and the gguf package's, whatever the level and the
threads; what cannot be encoded is an error.

tests/make_quantize_reference.py wrote llama.cpp's errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from make_quantize_reference import COLS, ROWS, SHAPES, WEIGHTS_SEED

from bench.quantize import KINDS, NAMES, encode, error, random_rows, random_weights
from pyllm._lib import ffi, lib

gguf = pytest.importorskip("gguf", reason="the gguf package is an oracle here: pip install '.[test]'")

pytestmark = pytest.mark.native
LEVELS = [i for i in range(lib.pl_cpu_levels()) if lib.pl_cpu_has(i)]
BLOCKS = [n for n in NAMES if n not in ("F16", "BF16")]
#: sums of squares in another order
ROUNDING = 1 + 1e-9


@pytest.fixture
def level() -> Iterator[None]:
    """Puts the CPU level back."""
    before = lib.pl_cpu_level()
    yield
    lib.pl_cpu_set_level(before)


@pytest.fixture(params=[1, 3])
def pool(request: pytest.FixtureRequest) -> Iterator[object]:
    made = lib.pl_pool_new(request.param)
    yield made
    lib.pl_pool_free(made)


def decoded(name: str, blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    y = np.empty(shape, np.float32)
    to = ffi.cast("float *", ffi.from_buffer(y))
    assert lib.pl_dequantize(KINDS[name].id, ffi.from_buffer(blocks), to, y.size) == 0
    return y


def code(name: str, x: np.ndarray, w: np.ndarray | None = None) -> int:
    """What pl_quantize returns."""
    kind = KINDS[name]
    x = np.ascontiguousarray(x, np.float32)
    out = np.zeros((x.size // kind.block + 1) * kind.bytes, np.uint8)
    weights = ffi.NULL if w is None else ffi.cast("float *", ffi.from_buffer(w))
    rows = ffi.cast("float *", ffi.from_buffer(x))
    return int(lib.pl_quantize(kind.id, rows, *x.shape, weights, ffi.from_buffer(out)))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_error_is_no_more_than_that_of_llamacpp(name: str, shape: str, weighted: bool, data: Path) -> None:
    errors = json.loads((data / "quantize" / "errors.json").read_text())
    x = random_rows(shape, ROWS, COLS, SHAPES[shape])
    w = random_weights(COLS, WEIGHTS_SEED) if weighted else None
    blocks, _ = encode(name, x, w)
    theirs = errors[f"{name} {shape} {'weighted' if weighted else 'plain'}"]
    assert 0.3 * theirs < error(name, blocks, x, w) <= theirs * ROUNDING


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0"])
def test_error_is_no_more_than_that_of_the_gguf_package(name: str) -> None:
    x = random_rows("tails", 16, 512, 3)
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    assert error(name, encode(name, x)[0], x) <= error(name, np.ascontiguousarray(theirs), x) * ROUNDING


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_half_precision_is_that_of_the_gguf_package(name: str) -> None:
    x = random_rows("tails", 8, 96, 4)
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    assert encode(name, x)[0].tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", [n for n in BLOCKS if n != "Q1_0"])
def test_the_gguf_package_reads_the_blocks(name: str) -> None:
    x = random_rows("bell", 5, 768, 5)
    blocks, _ = encode(name, x, random_weights(768, 6))
    theirs = gguf.quants.dequantize(blocks.reshape(5, -1), gguf.GGMLQuantizationType[name])
    assert np.array_equal(theirs.astype(np.float32), decoded(name, blocks, x.shape))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", BLOCKS)
def test_same_bytes_at_every_level(name: str, weighted: bool, level: None) -> None:
    x = random_rows("tails", 7, 768, 7)
    w = random_weights(768, 8) if weighted else None
    found = []
    for at in LEVELS:
        assert lib.pl_cpu_set_level(at) == 0
        found.append(encode(name, x, w)[0].tobytes())
    assert set(found) == {found[0]}


@pytest.mark.parametrize("source", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("name", ["F32", *NAMES])
def test_pool_makes_the_same_from_any_type(name: str, source: str, pool: object) -> None:
    x = random_rows("bell", 67, 768, 9)
    w = random_weights(768, 10)
    stored = x if source == "F32" else encode(source, x)[0]
    wide = x if source == "F32" else decoded(source, stored, x.shape)
    want, _ = encode(name, wide, w)
    got = np.zeros_like(want)
    rc = lib.pl_pool_quantize(
        pool, KINDS[name].id, KINDS[source].id, ffi.from_buffer(stored), *x.shape,
        ffi.cast("float *", ffi.from_buffer(w)), ffi.from_buffer(got),
    )  # fmt: skip
    assert rc == 0
    assert np.array_equal(got, want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_no_number(name: str, bad: float, pool: object) -> None:
    x = random_rows("bell", 40, 1024, 1)
    x[33, 1023] = bad
    assert code(name, x) == lib.PL_E_NUMBER
    out = np.zeros(x.nbytes, np.uint8)
    args = (KINDS["F32"].id, ffi.from_buffer(x), *x.shape, ffi.NULL, ffi.from_buffer(out))
    assert lib.pl_pool_quantize(pool, KINDS[name].id, *args) == lib.PL_E_NUMBER


#: the greatest magnitude that is taken, and what is not
LIMITS = {"F16": (65519.9, 65520), "Q8_0": (8.3e6, 8.4e6), "Q4_0": (5.2e5, 5.3e5), "Q5_0": (1.04e6, 1.05e6),
          "Q4_1": (65503, 65504), "Q4_K": (9.8e5, 9.9e5), "Q6_K": (8.3e6, 8.4e6), "NVFP4": (2688, 2690),
          "TQ2_0": (65503, 65504), "BF16": (3.38e38, 3.4e38)}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_beyond_the_type(name: str) -> None:
    x = random_rows("bell", 2, 256, 1)
    for sign in (1, -1):
        x[1, 17] = sign * LIMITS[name][1]
        assert code(name, x) == lib.PL_E_RANGE
        x[1, 17] = sign * LIMITS[name][0]
        blocks, _ = encode(name, x)
        assert abs(decoded(name, blocks, x.shape)[1, 17] / x[1, 17] - 1) < 0.25


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-39, 1e-20, 1e-7, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", NAMES)
def test_all_magnitudes(name: str, scale: float) -> None:
    """Never worse than zeros: also where a scale is below what half floats hold."""
    x = (random_rows("bell", 3, 512, 2) * np.float32(scale)).astype(np.float32)
    x[1, 100:400] = 0
    for w in (None, random_weights(512, 3), np.zeros(512, np.float32)):
        blocks, _ = encode(name, x, w)
        y = decoded(name, blocks, x.shape).astype(np.float64)
        assert np.isfinite(y).all()
        assert ((x - y) ** 2).sum() <= (x.astype(np.float64) ** 2).sum() * 1.001
        if scale == 0:
            assert not y.any()


@pytest.mark.parametrize("name", ["Q4_1", "Q5_1", "Q4_K", "Q5_K", "Q2_K"])
@pytest.mark.parametrize("value", [5.0, -5.0, 0.25])
def test_blocks_of_one_value(name: str, value: float) -> None:
    x = np.full((1, 256), value, np.float32)
    assert np.abs(decoded(name, encode(name, x)[0], x.shape) / x - 1).max() < 0.002


@pytest.mark.parametrize("name", ["TQ1_0", "TQ2_0"])
def test_ternary_weights_stay(name: str) -> None:
    x = (np.random.default_rng(4).integers(-1, 2, (4, 512)) * 0.0625).astype(np.float32)
    assert np.array_equal(decoded(name, encode(name, x)[0], x.shape), x)


def test_bad_arguments() -> None:
    x = random_rows("bell", 2, 96, 1)
    assert code("Q4_K", x) == lib.PL_E_ARG  # 96 columns are no whole block
    assert code("IQ2_XS", random_rows("bell", 2, 256, 1)) == lib.PL_E_TYPE
    for bad in (-1.0, np.nan, np.inf):
        w = np.ones(96, np.float32)
        w[95] = bad
        assert code("Q4_0", x, w) == lib.PL_E_ARG


def test_importance_matters() -> None:
    """Columns that count more come out better, whatever the importances' unit."""
    x = random_rows("bell", 16, 512, 1)
    w = np.where(np.arange(512) % 4 == 0, 100.0, 1.0).astype(np.float32)
    for name in BLOCKS:
        plain, weighted = encode(name, x)[0], encode(name, x, w)[0]
        assert error(name, weighted, x, w) < error(name, plain, x, w)
        assert np.array_equal(encode(name, x, w * np.float32(2.0**60))[0], weighted)
