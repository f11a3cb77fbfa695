"""Sampling against llama.cpp: what its own samplers left of given logits (see make_sampler_llamacpp.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyllm.sampler import Sampler, SamplingParams, dry_breakers

pytestmark = pytest.mark.native
REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "sampler_llamacpp.json").read_text())
LOGITS = {name: np.array(x, np.float32) for name, x in REFERENCE["logits"].items()}


class Vocab:
    """The first tokens of SmolLM2, as far as sequence breakers need them."""

    n_vocab = len(REFERENCE["pieces"])

    def token_bytes(self, token: int) -> bytes:
        return REFERENCE["pieces"][token].encode("latin-1")

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return REFERENCE["tokenize"][text]


def make(case: dict[str, Any], **more: Any) -> Sampler:
    params = {**REFERENCE["off"], **case["params"], **more}
    params["logit_bias"] = {int(k): v for k, v in params["logit_bias"].items()}
    history = REFERENCE["histories"][case.get("history", "none")]
    return Sampler(SamplingParams(**params), len(LOGITS[case["logits"]]), Vocab(), history)


def name_of(case: dict[str, Any]) -> str:
    return f"{case['logits']}-{case['history']}-" + ",".join(f"{k}={v}" for k, v in case["params"].items())


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=name_of)
def test_candidates(case: dict[str, Any]) -> None:
    ids, probs = make(case).candidates(LOGITS[case["logits"]])
    assert sorted(ids.tolist()) == sorted(case["ids"])
    ours = dict(zip(ids.tolist(), probs.tolist(), strict=True))
    theirs = dict(zip(case["ids"], case["probs"], strict=True))
    for token, p in theirs.items():
        assert abs(ours[token] - p) <= 1e-5, f"token {token}"
    assert (np.diff(probs) <= 0).all()


@pytest.mark.parametrize("run", REFERENCE["runs"], ids=lambda r: str(r["params"]))
def test_mirostat_over_steps(run: dict[str, Any]) -> None:
    """A seed that happens to draw what llama.cpp drew must see the same candidates at every step."""
    logits, drawn = LOGITS[run["logits"]], [step["drawn"] for step in run["steps"]]
    for seed in range(5000):
        sampler = make(run, seed=seed)
        seen = []
        for token in drawn:
            seen.append(sampler.candidates(logits))
            if sampler.sample(logits) != token:
                break
        else:
            break
    else:
        pytest.fail("no seed draws these tokens")
    for (ids, probs), step in zip(seen, run["steps"], strict=True):
        assert ids.tolist() == step["ids"]
        np.testing.assert_allclose(probs, step["probs"], atol=1e-5)


def test_breakers_of_a_vocabulary() -> None:
    newline, colon = REFERENCE["tokenize"]["\n"][0], REFERENCE["tokenize"][":"][0]
    pieces = REFERENCE["pieces"]
    single = dry_breakers(Vocab(), ["\n"])
    assert (newline, ()) in single
    assert single == [(i, ()) for i, p in enumerate(pieces) if "\n" in p]
    pair = dry_breakers(Vocab(), [":\n"])
    assert (colon, (newline,)) in pair
    assert pair == sorted((i, (newline,)) for i, p in enumerate(pieces) if p.endswith(":"))
