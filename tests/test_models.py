"""Whole models against transformers: logits and greedy continuations of small random models.

Each golden holds prompts with the logits of a float32 forward pass by Hugging Face transformers and its greedy
continuation; quantized ones were computed with the same code on the dequantized weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from requantize import requantize

import pyllm
from pyllm._lib import ffi, lib
from pyllm.errors import ModelError

pytestmark = pytest.mark.native
MODELS = [
    "cohere2", "deepseek2", "falcon", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3n", "gpt2", "gptneox",
    "gptoss", "granite", "lfm2", "llama_hd", "llama_tied", "llama_untied", "llama_yarn", "mamba2", "mistral",
    "mixtral", "olmo2", "phi3", "phi3_partial", "qwen2", "qwen2_yarn", "qwen2moe", "qwen3", "qwen3moe",
    "smollm3", "stablelm",
]  # fmt: skip
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "Q4_K_M",
         "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4"]  # fmt: skip
#: (mean, max) absolute logit difference of llama.cpp, which quantizes activations to 8 bits as the default mode does
LLAMA_CPP = {
    "F16": (2.7e-3, 1.5e-2), "BF16": (2.3e-2, 1.6e-1), "Q4_0": (7.6e-2, 5.1e-1),
    "Q4_1": (8.2e-2, 5.6e-1), "Q5_0": (8.1e-2, 5.1e-1), "Q5_1": (8.1e-2, 6.4e-1), "Q8_0": (8.0e-2, 5.8e-1),
    "Q4_K": (1.1e-1, 8.3e-1), "Q5_K": (1.1e-1, 7.7e-1), "Q6_K": (1.1e-1, 7.9e-1), "Q4_K_M": (1.1e-1, 6.7e-1),
    "Q2_K": (1.1e-1, 6.5e-1), "Q3_K": (1.0e-1, 6.0e-1), "IQ4_NL": (7.7e-2, 5.3e-1), "IQ4_XS": (1.1e-1, 6.7e-1),
    "MXFP4": (7.9e-2, 4.7e-1),
}  # fmt: skip
TOLERANCE = 3e-4
#: types whose weights are widened to float32 in every mode
WIDENED = ["F32", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4"]
#: levels of this CPU by name
LEVELS = {ffi.string(lib.pl_cpu_level_name(i)).decode(): i for i in range(lib.pl_cpu_levels()) if lib.pl_cpu_has(i)}


def golden(request: pytest.FixtureRequest, folder: str, name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """The model file and its reference arrays, from tests/data or the shared goldens."""
    base = Path(__file__).parent / "data" / folder
    if not (base / f"{name}.gguf").exists():
        base = request.getfixturevalue("shared") / "goldens" / folder
    return base / f"{name}.gguf", dict(np.load(base / f"{name}.npz"))


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    before = lib.pl_cpu_level()
    lib.pl_cpu_set_level(LEVELS[request.param])
    yield request.param
    lib.pl_cpu_set_level(before)


def prompts(npz: dict[str, np.ndarray]) -> list[int]:
    return [k for k in range(9) if f"p{k}_ids" in npz]


@pytest.mark.parametrize("name", MODELS)
def test_float32_logits(request: pytest.FixtureRequest, level: str, name: str) -> None:
    path, npz = golden(request, "models", name)
    with pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=2) as llm:
        for k in prompts(npz):
            want = npz[f"p{k}_logits"]
            got = llm.logits(npz[f"p{k}_ids"].tolist())[-len(want) :]
            assert np.abs(got - want).max() <= TOLERANCE
            gap = np.partition(want, -2, axis=1)
            clear = gap[:, -1] - gap[:, -2] > 1e-3
            assert (got.argmax(1) == want.argmax(1))[clear].all()


def test_unrounded_yarn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the released gpt-oss wants it; what the file says of its scaling is all that tells them from others."""
    path, rounded = golden(request, "models", "gptoss")
    want = np.load(path.parent / "gptoss_notrunc.npz")
    monkeypatch.setattr("pyllm.models.gpt_oss.UNROUNDED", (8.0, 128))
    with pyllm.LLM(path, compute="f32", kv_type="f32") as llm:
        for k in prompts(rounded):
            got = llm.logits(want[f"p{k}_ids"].tolist())[-len(want[f"p{k}_logits"]) :]
            assert np.abs(got - want[f"p{k}_logits"]).max() <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_float32_greedy(request: pytest.FixtureRequest, name: str) -> None:
    path, npz = golden(request, "models", name)
    with pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=2) as llm:
        ids = [npz[f"p{k}_ids"].tolist() for k in prompts(npz)]
        outs = llm.generate(ids, max_tokens=24, temperature=0, ignore_eos=True)
        for k, out in zip(prompts(npz), outs, strict=True):
            want, margin = npz[f"p{k}_greedy"], npz[f"p{k}_greedy_margin"]
            unclear = np.flatnonzero(margin < 1e-3)
            n = int(unclear[0]) if len(unclear) else len(want)
            assert out.tokens[:n] == want[:n].tolist()
            assert out.finish_reason == "length"


@pytest.mark.parametrize("name", MODELS)
def test_quantized_activations_in_every_architecture(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """With Q8_0 weights (of experts: MXFP4): two 8-bit terms are near float32 activations, and text follows them."""
    path, npz = golden(request, "models", name)
    requantize(path, tmp_path / "model.gguf", "Q8_0", "MXFP4")
    ids, logits = npz["p1_ids"].tolist(), {}
    for compute in ("f32", "precise"):
        with pyllm.LLM(tmp_path / "model.gguf", compute=compute, kv_type="f32", n_threads=2) as llm:
            logits[compute] = llm.logits(ids)
            if compute == "precise":
                token = llm.generate(ids, max_tokens=1, temperature=0, ignore_eos=True).tokens
    scale = logits["f32"].std()
    assert np.abs(logits["f32"] - logits["precise"]).max() <= 5e-3 * scale
    assert token == [logits["precise"][-1].argmax()]
    assert np.abs(logits["f32"] - npz["p1_logits"]).max() > 1e-2  # it is another model


@pytest.mark.parametrize("name", TYPES)
def test_quantized_weights_in_float32(request: pytest.FixtureRequest, level: str, name: str) -> None:
    path, npz = golden(request, "quant", f"quant-{name}")
    with pyllm.LLM(path, compute="f32", kv_type="f32", n_threads=2) as llm:
        for k in prompts(npz):
            want = npz[f"p{k}_logits"]
            got = llm.logits(npz[f"p{k}_ids"].tolist())[-len(want) :]
            assert np.abs(got - want).max() <= TOLERANCE


@pytest.mark.parametrize("name", TYPES)
def test_default_mode_is_no_further_than_llama_cpp(request: pytest.FixtureRequest, level: str, name: str) -> None:
    path, npz = golden(request, "quant", f"quant-{name}")
    diffs = []
    with pyllm.LLM(path, kv_type="f32", n_threads=2) as llm:
        for k in prompts(npz):
            want = npz[f"p{k}_logits"]
            diffs.append(np.abs(llm.logits(npz[f"p{k}_ids"].tolist())[-len(want) :] - want).ravel())
    diff = np.concatenate(diffs)
    mean, largest = (TOLERANCE, TOLERANCE) if name in WIDENED else LLAMA_CPP[name]
    assert diff.mean() <= mean and diff.max() <= largest


@pytest.mark.parametrize("tensor", [b"token_embd.weight", b"blk.0.attn_q.weight"])
def test_types_without_code(request: pytest.FixtureRequest, tmp_path: Path, tensor: bytes) -> None:
    """A matrix of a type that no kernel knows is refused by name."""
    data = bytearray(golden(request, "quant", "quant-F32")[0].read_bytes())
    info = data.index(tensor) + len(tensor)  # then: number of dimensions, two of them, type
    assert data[info : info + 4] == b"\2\0\0\0" and data[info + 20 : info + 24] == b"\0\0\0\0"
    data[info + 20] = 26  # I32
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"{tensor.decode()}.* is of type I32"):
        pyllm.LLM(path)


def bits(llm: pyllm.LLM, ids: list[int]) -> bytes:
    return llm.logits(ids).tobytes()


SAME_BITS = [
    "quant/quant-Q4_1",
    "quant/quant-Q6_K",
    *(f"models/{n}" for n in ("gemma2", "gemma3n", "gptneox", "lfm2", "phi3")),
]


@pytest.mark.parametrize("name", SAME_BITS)
def test_same_bits_whatever_runs_it(request: pytest.FixtureRequest, name: str) -> None:
    """Level, threads, step size, repacking and neighbours change nothing, bit for bit."""
    path, npz = golden(request, *name.split("/"))
    ids = np.concatenate([npz[f"p{k}_ids"] for k in prompts(npz)]).tolist()
    before = lib.pl_cpu_level()
    with pyllm.LLM(path, n_threads=1) as llm:
        want = bits(llm, ids)
        alone = llm.generate(ids[:20], max_tokens=8, temperature=0, ignore_eos=True).tokens
    for options in ({"n_threads": 2}, {"n_threads": 3, "n_batch": 7}, {"repack": False}, {"n_batch": 33}):
        with pyllm.LLM(path, **options) as llm:
            assert bits(llm, ids) == want, options
            together = llm.generate([ids[:20], ids[:50], ids[5:9]], max_tokens=8, temperature=0, ignore_eos=True)
            assert together[0].tokens == alone, options
    try:
        for name_of, index in LEVELS.items():
            lib.pl_cpu_set_level(index)
            with pyllm.LLM(path, n_threads=2) as llm:
                assert bits(llm, ids) == want, name_of
    finally:
        lib.pl_cpu_set_level(before)


def test_context_ends_with_the_learned_positions(request: pytest.FixtureRequest) -> None:
    path, _ = golden(request, "models", "gpt2")
    with pyllm.LLM(path) as llm:
        assert llm.n_ctx == 128
    with pytest.raises(ModelError, match=r"context .* is 129, and this model has learned 128 positions"):
        pyllm.LLM(path, n_ctx=129)


def test_unknown_architecture(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The error names it and says what there is."""
    path = tmp_path / "model.gguf"
    path.write_bytes(golden(request, "models", "qwen3")[0].read_bytes().replace(b"qwen3", b"qwen9"))
    with pytest.raises(ModelError, match=r"architecture 'qwen9' is not supported; .*gemma3, .*llama, .*qwen3"):
        pyllm.LLM(path)


def test_a_sequence_grows_long(request: pytest.FixtureRequest) -> None:
    """Beyond the original context all of it is computed with the other frequencies, whatever lies in the cache."""
    path, npz = golden(request, "models", "phi3_partial")
    start = npz["p2_ids"].tolist()[:250]
    with pyllm.LLM(path, compute="f32", kv_type="f32") as llm:
        want: list[int] = []
        for _ in range(12):  # scoring is always of the whole
            want.append(int(llm.logits(start + want)[-1].argmax()))
        for _ in range(2):
            outs = llm.generate([start, start[:40], start], max_tokens=12, temperature=0, ignore_eos=True)
            assert outs[0].tokens == outs[2].tokens == want
        short = llm.generate(start[:200], max_tokens=4, temperature=0, ignore_eos=True)
        again = llm.generate(start + want, max_tokens=4, temperature=0, ignore_eos=True)
    assert short.usage.cached_tokens and again.usage.cached_tokens  # each from pages of its own kind
    with pyllm.LLM(path, compute="f32", kv_type="f32") as llm:
        assert llm.generate(start + want, max_tokens=4, temperature=0, ignore_eos=True).tokens == again.tokens
        assert llm.generate(start[:200], max_tokens=4, temperature=0, ignore_eos=True).tokens == short.tokens


@pytest.mark.parametrize("name", ["falcon_h1", "lfm2", "mamba2"])
def test_states_come_with_the_pages(request: pytest.FixtureRequest, name: str) -> None:
    """A model with states besides keys and values goes on from what lies in the cache, in steps of any size."""
    path, npz = golden(request, "models", name)
    ids, want = npz["p2_ids"].tolist(), npz["p2_greedy"][:8].tolist()
    for n_batch in (2, 16, 50, 200):
        with pyllm.LLM(path, compute="f32", kv_type="f32", n_batch=n_batch) as llm:
            for cached in (0, 96, 96):
                out = llm.generate(ids, max_tokens=8, temperature=0, ignore_eos=True)
                assert (out.tokens, out.usage.cached_tokens) == (want, cached)
            other = llm.generate(ids[:40] + ids[:9], max_tokens=1, temperature=0)
            assert other.usage.cached_tokens == 32
