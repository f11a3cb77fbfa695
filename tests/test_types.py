"""Models with weights of every type that there is code for, against the same weights stored as float32.

In float32 mode a matmul adds the same products in the same order whatever the type (kern.h), so the logits are equal
bit for bit. Types without an int8 kernel are computed with like this in every mode.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyllm
from pyllm.gguf import GGUFFile
from pyllm.gguf.header import TypeInfo, tensor_types
from pyllm.gguf.writer import GGUFWriter

pytestmark = pytest.mark.native
SOURCE = Path(__file__).parent / "data" / "quant" / "quant-Q8_0.gguf"  # rows of 256 values
#: where a block keeps its half floats
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ1_S": [0], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "Q1_0": [0], "Q2_0": [0],
}  # fmt: skip
PLAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "F16": lambda x: x.astype(np.float16),
    "BF16": lambda x: (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16),
    "F64": lambda x: x,
}
TYPES = [*HALVES, *PLAIN, "IQ1_M", "MXFP4", "NVFP4"]
#: what integers and types of memory have no code for
WITHOUT = {"I8", "I16", "I32", "I64", "Q8_1", "Q8_K"}


def blocks(rng: np.random.Generator, type_: TypeInfo, n: int) -> np.ndarray:
    """n random values of this type, as bytes, none infinite or NaN."""
    if type_.name in PLAIN:
        return PLAIN[type_.name](rng.standard_normal(n) / 16).view(np.uint8)
    out = rng.integers(0, 256, (n // type_.block, type_.bytes), np.uint8)
    scales = (rng.uniform(0.5, 1, len(out)) / 256).astype(np.float16)
    for at in HALVES.get(type_.name, []):
        out[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if type_.name == "IQ1_M":  # four bits of the scale in each of four words
        words = out[:, 48:].copy().view("<u2")
        words[:] = words & 0x0FFF | (scales.view(np.uint16)[:, None] >> np.arange(0, 16, 4) & 15) << 12
        out[:, 48:] = words.view(np.uint8)
    if type_.name == "MXFP4":
        out[:, 0] = rng.integers(120, 124, len(out))
    if type_.name == "NVFP4":
        out[:, :4] = rng.integers(0x18, 0x38, (len(out), 4))
    return out.ravel()


def model_of(path: Path, source: Path, type_: TypeInfo) -> None:
    """The model of source with random matrices of this type."""
    rng = np.random.default_rng(5)
    with GGUFFile.open(source) as file, GGUFWriter(path) as w:
        w.copy_metadata(file)
        for t in file.tensors.values():
            w.add_tensor(t.name, t.shape, type_ if len(t.shape) > 1 else t.type)
        for t in file.tensors.values():
            w.write(blocks(rng, type_, t.n_elements) if len(t.shape) > 1 else t.data)


def widened(path: Path, source: Path) -> None:
    """The same model in float32."""
    f32 = tensor_types()[0]
    with GGUFFile.open(source) as file, GGUFWriter(path) as w:
        w.copy_metadata(file)
        for t in file.tensors.values():
            w.add_tensor(t.name, t.shape, f32)
        for t in file.tensors.values():
            w.write(t.dequantize())


def answers(path: Path, compute: str) -> tuple[np.ndarray, list[int]]:
    """Logits of a prompt, and what is generated after it."""
    prompt = np.random.default_rng(6).integers(3, 96, 70).tolist()
    with pyllm.LLM(path, compute=compute, kv_type="f32", n_threads=2) as llm:
        out = llm.generate(prompt, max_tokens=5, temperature=0, ignore_eos=True)
        return llm.logits(prompt), out.tokens


def check(folder: Path, source: Path, name: str) -> None:
    type_ = next(t for t in tensor_types().values() if t.name == name)
    model_of(folder / "model.gguf", source, type_)
    widened(folder / "wide.gguf", folder / "model.gguf")
    want, tokens = answers(folder / "wide.gguf", "f32")
    assert np.isfinite(want).all() and want.std() > 0.01
    for compute in ("f32", "default") if type_.act < 0 else ("f32",):
        got, generated = answers(folder / "model.gguf", compute)
        np.testing.assert_array_equal(got, want, f"compute={compute}")
        assert generated == tokens


def test_every_type_has_its_test() -> None:
    assert {t.name for t in tensor_types().values()} == {*TYPES, "F32"} | WITHOUT


@pytest.mark.parametrize("name", TYPES)
def test_weights_of_each_type(tmp_path: Path, name: str) -> None:
    check(tmp_path, SOURCE, name)


@pytest.mark.parametrize("name", ["F64", "Q4_0"])
def test_experts(tmp_path: Path, shared: Path, name: str) -> None:
    check(tmp_path, shared / "goldens" / "models" / "mixtral.gguf", name)
