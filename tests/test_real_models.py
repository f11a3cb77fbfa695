"""Real weights of several architectures, against transformers in float32 on the same weights (shared/reference) and
llama.cpp on the weights requantized to float32 (tests/make_real_models_llamacpp.py).

tests/fetch_models.py fetches the models; where they are not there these tests are skipped. `-m "not large"` leaves out
those of more than 400 MB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
import pyllm
from bench import fidelity
from pyllm.perplexity import log_softmax, perplexity, scores, targets, with_bos
from pyllm.tokenizer import Tokenizer

#: name -> file of transformers' greedy continuations (SmolLM2's are in test_smollm2.py)
MODELS = {
    "smollm2": None,
    "gemma3-270m": "gemma3_270m_greedy_f32.jsonl",
    "qwen2.5-coder-0.5b": "qwen2.5_coder_0.5b_greedy_f32.jsonl",
    "qwen2.5-coder-1.5b": None,
}
LARGE = {"qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"}
LLAMA_CPP: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "real_models_llamacpp.json").read_text())
pytestmark = pytest.mark.slow
N_CTX = 512


def params(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.large if name in LARGE else ()) for name in names]


def open_model(request: pytest.FixtureRequest, name: str) -> Path:
    if name == "smollm2":
        path: Path = request.getfixturevalue("smollm2")
        return path
    find: Callable[[str], Path] = request.getfixturevalue("real_model")
    return find(name)


# ---- against llama.cpp -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=params(*MODELS))
def known(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    """The file, and llama.cpp's figures: prompts with ids, greedy, logprobs, margins; text_ids; nll of its chunks."""
    return open_model(request, request.param), LLAMA_CPP[request.param]


@pytest.fixture(scope="module")
def default(known: tuple[Path, dict[str, Any]]) -> Iterator[pyllm.LLM]:
    with pyllm.LLM(known[0], n_ctx=N_CTX) as llm:
        yield llm


def test_the_text_becomes_the_same_ids(known: tuple[Path, dict[str, Any]], shared: Path) -> None:
    path, figures = known
    text = (shared / "reference" / "perplexity_text.txt").read_text(encoding="utf-8")
    assert Tokenizer.from_gguf(path).encode(text)[: len(figures["text_ids"])] == figures["text_ids"]


def test_chats_become_the_same_ids(default: pyllm.LLM, known: tuple[Path, dict[str, Any]]) -> None:
    """Through the file's own template, where it has one; else plain text with BOS."""
    for prompt in known[1]["prompts"]:
        if "chat" in prompt:
            assert default.apply_chat_template([{"role": "user", "content": prompt["chat"]}]) == prompt["ids"]
        else:
            assert default.tokenize(prompt["text"]) == prompt["ids"]


def test_answers_make_sense(default: pyllm.LLM, known: tuple[Path, dict[str, Any]]) -> None:
    """Chats in the default mode at temperature 0. A base model has no template, and Gemma 3 270M does not know."""
    for prompt in known[1]["prompts"]:
        out = default.generate(prompt["ids"], max_tokens=128, temperature=0)
        if prompt.get("chat") == "What is the capital of France?":
            assert "Paris" in out.text and out.finish_reason == "stop"
        elif "chat" in prompt:
            assert "def " in out.text and " + " in out.text
        elif "capital" in prompt["text"]:
            assert "Paris" in out.text or "France" in out.text


def test_float32_mode_is_llama_cpps(known: tuple[Path, dict[str, Any]]) -> None:
    """Along llama.cpp's greedy continuations, and over the first chunk of the text."""
    path, figures = known
    gelu = "gemma" in path.name  # which llama.cpp looks up in a table of 16-bit numbers
    tolerance = 1e-2 if gelu else 2 * 3e-4
    with pyllm.LLM(path, n_ctx=N_CTX, compute="f32", kv_type="f32") as exact:
        for prompt in figures["prompts"]:
            ids, wanted = prompt["ids"], np.array(prompt["greedy"])
            found = log_softmax(exact.logits(ids + prompt["greedy"][:-1], first=len(ids) - 1))
            clear = np.array(prompt["margins"]) > 2 * tolerance
            assert clear.mean() > 0.8
            assert (found.argmax(axis=1) == wanted)[clear].all(), prompt
            own = found[np.arange(len(wanted)), wanted]
            assert np.abs(own - prompt["logprobs"]).max() < tolerance, prompt
        chunk = with_bos(exact.tokenizer, figures["text_ids"][:N_CTX])
        found = scores(exact.logits(chunk, first=N_CTX // 2)[:-1], targets(chunk)).nll
        assert np.abs(found - figures["nll"][: len(found)]).max() < tolerance


def test_default_mode_is_near_llama_cpps_float32(default: pyllm.LLM, known: tuple[Path, dict[str, Any]]) -> None:
    """Along its greedy continuations, and in perplexity: nearer than llama.cpp's own 8-bit activations by far."""
    figures = known[1]
    same: list[bool] = []
    for prompt in figures["prompts"]:
        ids, wanted = prompt["ids"], np.array(prompt["greedy"])
        found = default.logits(ids + prompt["greedy"][:-1], first=len(ids) - 1).argmax(axis=1)
        assert found[0] == wanted[0], prompt
        same += (found == wanted).tolist()
    assert np.mean(same) >= 0.95
    *_, result = perplexity(default, figures["text_ids"], n_ctx=N_CTX)
    truth = np.array(figures["nll"])
    assert len(result) == len(truth)
    assert abs(result.perplexity.value / np.exp(truth.mean()) - 1) < 0.005
    assert np.abs(result.nll - truth).mean() < 0.05


# ---- against transformers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=params(*(name for name, reference in MODELS.items() if reference)))
def model(request: pytest.FixtureRequest, shared: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The file, and the reference: prompt, prompt_ids, gen_ids, gen_logprobs, gen_margins of each prompt."""
    lines = (shared / "reference" / str(MODELS[request.param])).read_text(encoding="utf-8").splitlines()
    return open_model(request, request.param), [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def exact(model: tuple[Path, list[dict[str, Any]]]) -> Iterator[pyllm.LLM]:
    with pyllm.LLM(model[0], n_ctx=256, kv_tokens=5 * 256, compute="f32", kv_type="f32") as llm:
        yield llm


@pytest.fixture(scope="module")
def llm(model: tuple[Path, list[dict[str, Any]]]) -> Iterator[pyllm.LLM]:
    with pyllm.LLM(model[0], n_ctx=256) as llm:
        yield llm


def test_prompts_become_the_same_ids(llm: pyllm.LLM, model: tuple[Path, list[dict[str, Any]]]) -> None:
    for want in model[1]:
        prompt = want["prompt"].replace("\\n", "\n")
        assert llm.tokenize(prompt, parse_special=True) == want["prompt_ids"]


def test_float32_mode_says_the_same(exact: pyllm.LLM, model: tuple[Path, list[dict[str, Any]]]) -> None:
    """Token for token, up to where two tokens are closer than 1e-3."""
    outs = exact.generate([want["prompt_ids"] for want in model[1]], max_tokens=64, temperature=0)
    compared = 0
    for want, out in zip(model[1], outs, strict=True):
        close = [k for k, margin in enumerate(want["gen_margins"]) if margin < 1e-3]
        n = close[0] if close else len(want["gen_ids"])
        assert out.tokens[:n] == want["gen_ids"][:n], want["prompt"]
        compared += n
    assert compared >= 0.7 * sum(len(want["gen_ids"]) for want in model[1])


def test_default_mode_agrees_along_the_reference(llm: pyllm.LLM, model: tuple[Path, list[dict[str, Any]]]) -> None:
    same: list[bool] = []
    errors: list[float] = []
    for want in model[1]:
        prompt, answer = want["prompt_ids"], want["gen_ids"]
        found = log_softmax(llm.logits(prompt + answer[:-1])[len(prompt) - 1 :])
        agrees = found.argmax(axis=1) == answer
        assert agrees[0], want["prompt"]
        same += agrees.tolist()
        errors += np.abs(found[np.arange(len(answer)), answer] - want["gen_logprobs"]).tolist()
    assert np.mean(same) >= 0.9
    assert np.mean(errors) < 0.05  # of 8-bit activations alone: 0.15


def test_divergence_of_the_default_mode(llm: pyllm.LLM, exact: pyllm.LLM, shared: Path) -> None:
    """Less than 0.0015 from the float32 run, where llama.cpp is 0.0025 away (Qwen2.5-Coder-0.5B)."""
    text = (shared / "reference" / "perplexity_text.txt").read_text(encoding="utf-8")
    ids = llm.tokenize(text[:20000])
    *_, (_, result) = fidelity.measure(llm, ids, exact, n_ctx=256, limit=2)
    assert result.kl_mean is not None and 0 < result.kl_mean < 0.0015
    assert result.same_top is not None and result.same_top >= 0.97
