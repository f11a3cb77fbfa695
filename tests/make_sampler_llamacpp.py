"""Write tests/data/sampler_llamacpp.json: what llama.cpp's own samplers leave of given logits.

Run it with a Python that has numpy and llama-cpp-python (0.3.36 was used), giving SmolLM2's GGUF, which is
needed for its vocabulary only:

    python tests/make_sampler_llamacpp.py SmolLM2-135M-Instruct.Q4_1.gguf

Each case holds the SamplingParams that differ from "everything off", the name of its logits, the tokens
accepted before, and the candidates that llama.cpp's chain leaves (those it set to -inf left out) with their
probabilities. The chain is built as llama.cpp's common_sampler_init builds it. Mirostat has runs as well: per
step the candidates and the token that llama.cpp drew.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import llama_cpp as lc
import numpy as np

OFF: dict[str, Any] = {
    "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "top_n_sigma": -1.0,
    "xtc_probability": 0.0, "xtc_threshold": 0.1, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0,
    "repeat_penalty": 1.0, "repeat_last_n": 64, "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 4096,
    "dry_sequence_breakers": [], "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "seed": 1,
    "logit_bias": {},
}  # fmt: skip
DEFAULT = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
N_PIECES = 400


def chain_of(vocab: Any, p: dict[str, Any], n_vocab: int) -> Any:
    """The chain that llama.cpp's tools build for these parameters; min_keep is 0 as it is there."""
    chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
    if p["logit_bias"]:
        bias = (lc.llama_logit_bias * len(p["logit_bias"]))()
        for i, (token, value) in enumerate(p["logit_bias"].items()):
            bias[i].token, bias[i].bias = token, value
        lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_logit_bias(n_vocab, len(bias), bias))
    if p["mirostat"]:
        parts = [lc.llama_sampler_init_temp(p["temperature"])]
        if p["mirostat"] == 1:
            parts.append(lc.llama_sampler_init_mirostat(n_vocab, p["seed"], p["mirostat_tau"], p["mirostat_eta"], 100))
        else:
            parts.append(lc.llama_sampler_init_mirostat_v2(p["seed"], p["mirostat_tau"], p["mirostat_eta"]))
    else:
        texts = [b.encode() for b in p["dry_sequence_breakers"]]
        breakers = (ctypes.c_char_p * max(len(texts), 1))(*texts)
        penalties = p["repeat_last_n"], p["repeat_penalty"], p["frequency_penalty"], p["presence_penalty"]
        dry = p["dry_multiplier"], p["dry_base"], p["dry_allowed_length"], p["dry_penalty_last_n"]
        parts = [
            lc.llama_sampler_init_penalties(n_vocab, *penalties),
            lc.llama_sampler_init_dry(vocab, *dry, breakers, len(texts)),
            lc.llama_sampler_init_top_n_sigma(p["top_n_sigma"]),
            lc.llama_sampler_init_top_k(p["top_k"]),
            lc.llama_sampler_init_typical(p["typical_p"], 0),
            lc.llama_sampler_init_top_p(p["top_p"], 0),
            lc.llama_sampler_init_min_p(p["min_p"], 0),
            lc.llama_sampler_init_xtc(p["xtc_probability"], p["xtc_threshold"], 0, p["seed"]),
            lc.llama_sampler_init_temp_ext(p["temperature"], p["dynatemp_range"], p["dynatemp_exponent"]),
            lc.llama_sampler_init_dist(p["seed"]),
        ]
    for part in parts:
        lc.llama_sampler_chain_add(chain, part)
    return chain


class Candidates:
    """llama.cpp's array of candidates, all tokens of these logits at first."""

    def __init__(self, logits: np.ndarray) -> None:
        self.data = (lc.llama_token_data * len(logits))()
        for i, x in enumerate(logits):
            self.data[i].id, self.data[i].logit, self.data[i].p = i, float(x), 0.0
        self.array = lc.llama_token_data_array(self.data, len(logits), -1, False)

    def left(self) -> tuple[list[int], list[float]]:
        """Ids and probabilities, the most probable first, without those whose logit is -inf."""
        rows = [self.array.data[i] for i in range(self.array.size)]
        rows = sorted((r for r in rows if r.logit > -np.inf), key=lambda r: (-r.p, r.id))
        return [r.id for r in rows], [float(f"{r.p:.8g}") for r in rows]

    def chosen(self) -> int:
        return int(self.array.data[self.array.selected].id)


def histories(newline: int, colon: int) -> dict[str, list[int]]:
    phrase = [80, 81, 82, 83, 84, 85]
    rng = np.random.default_rng(7)
    return {
        "none": [],
        "short": [3, 5, 5, 9, 11, 3, 5],
        "long": rng.integers(0, 60, 200).tolist(),
        "phrase": [*phrase, 90, *phrase, 91, *phrase[:4]],
        "phrase_three": [*phrase, 90, 91, 83, 92, 82, 83, 93, *phrase[:4]],
        "broken": [*phrase[:2], newline, *phrase[2:], 90, *phrase[:2], newline, *phrase[2:5]],
        "colons": [
            *phrase,
            colon,
            colon,
            *phrase,
            colon,
            newline,
            newline,
            *phrase,
            newline,
            newline,
            *phrase[:3],
        ],
        "same": [60] * 40,
        "two_symbols": rng.integers(70, 72, 120).tolist(),
    }


def cases(newline: int) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []

    def add(logits: str, history: str = "none", **params: Any) -> None:
        out.append({"logits": logits, "history": history, "params": params})

    for name in ("small", "mid", "large", "masked", "peak"):
        for params in (
            {"top_k": 1}, {"top_k": 7}, {"top_p": 0.5}, {"top_p": 0.9}, {"min_p": 0.05}, {"min_p": 0.4},
            {"top_n_sigma": 1.0}, {"top_n_sigma": 2.5}, {"temperature": 0.3, "top_k": 30},
            {"temperature": 2.0, "top_k": 30}, {"xtc_probability": 1.0, "xtc_threshold": 0.05, "top_k": 30},
            {"dynatemp_range": 0.7, "top_k": 30},
            {"dynatemp_range": 2.0, "dynatemp_exponent": 1.7, "top_k": 20},
            {"temperature": 0.0, "xtc_probability": 1.0, "xtc_threshold": 0.05},
            {"temperature": 0.0, "dynatemp_range": 0.9, "top_k": 20}, DEFAULT,
        ):  # fmt: skip
            add(name, **params)
    for name in ("small", "mid", "large", "peak"):
        for params in (
            {"typical_p": 0.3},
            {"typical_p": 0.8},
            {"typical_p": 0.6, "top_p": 0.8, "min_p": 0.02},
        ):
            add(name, **params)
    add("small")
    add("masked", top_n_sigma=1.0, top_k=20, dynatemp_range=0.5)
    add("masked", top_n_sigma=1.5, dynatemp_range=0.5)
    add("small", logit_bias={3: 5.0, 10: -5.0, 20: -float("inf")}, top_k=12)
    add("mid", logit_bias={3: 5.0, 10: -5.0}, temperature=0.0)
    for history in ("short", "long"):
        add("small", history, repeat_penalty=1.3, top_k=25)
        add("small", history, repeat_penalty=0.8, repeat_last_n=5, top_k=25)
        add("mid", history, frequency_penalty=0.4, top_k=25)
        add("mid", history, presence_penalty=0.9, repeat_last_n=3, top_k=25)
        add("mid", history, repeat_penalty=1.1, frequency_penalty=0.2, presence_penalty=-0.3, **DEFAULT)
        add("large", history, repeat_penalty=1.5, temperature=0.0)
    for history in ("phrase", "phrase_three", "broken", "colons", "same", "two_symbols", "long"):
        for breakers in ([], ["\n", ":", '"', "*"], ["\n\n", ":\n"]):
            add("text", history, dry_multiplier=0.3, dry_sequence_breakers=breakers, top_k=60)
        add("text", history, dry_multiplier=0.5, dry_base=1.2, dry_allowed_length=1, top_k=60)
        add("text", history, dry_multiplier=0.1, dry_base=3.0, dry_allowed_length=0, dry_penalty_last_n=15)
    everything = {
        "repeat_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1, "dry_multiplier": 0.5,
        "xtc_probability": 1.0, "dynatemp_range": 0.3,
    }  # fmt: skip
    # not both in one case: llama.cpp's typical-p sees a NaN entropy where top-n-sigma has set a logit to -inf
    typical, sigma = {"typical_p": 0.95}, {"top_n_sigma": 2.0}
    add(
        "text",
        "colons",
        **{**DEFAULT, **everything, **typical, "logit_bias": {newline: 4.0, 81: 3.0}, "min_p": 0.001},
    )
    add("text", "phrase", **{**DEFAULT, **everything, **sigma, "top_k": 0, "top_p": 0.99})
    for name in ("small", "mid", "large", "peak"):
        for version in (1, 2):
            for tau in (0.5, 1.0, 2.0, 3.0, 5.0):
                add(name, mirostat=version, mirostat_tau=tau)
        add(name, mirostat=1, mirostat_tau=1.5, temperature=0.7)
        add(name, mirostat=2, mirostat_tau=1.5, temperature=1.6)
    return out


def runs() -> list[dict[str, Any]]:
    """Mirostat over several steps, where mu depends on what was drawn."""
    return [
        {"logits": "run", "params": {"mirostat": version, "mirostat_tau": tau, "mirostat_eta": eta}}
        for version in (1, 2)
        for tau, eta in ((1.0, 0.5), (1.8, 0.2))
    ]


def main(model_path: str) -> None:
    lc.llama_backend_init()
    model_params = lc.llama_model_default_params()
    model_params.vocab_only = True
    model = lc.llama_model_load_from_file(model_path.encode(), model_params)
    vocab = lc.llama_model_get_vocab(model)

    def piece(token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        n = lc.llama_token_to_piece(vocab, token, buffer, 256, 0, True)
        return buffer.raw[:n]

    def tokenize(text: str) -> list[int]:
        ids, raw = (lc.llama_token * 64)(), text.encode()
        return list(ids[: lc.llama_tokenize(vocab, raw, len(raw), ids, 64, False, False)])

    newline, colon = tokenize("\n")[0], tokenize(":")[0]
    assert newline < N_PIECES and colon < N_PIECES
    rng = np.random.default_rng(20240611)
    logits = {
        "small": rng.standard_normal(64) * 2,
        "mid": rng.standard_normal(320) * 2.5,
        "large": rng.standard_normal(1000) * 3,
        "masked": np.where(np.arange(64) % 7 == 3, -np.inf, rng.standard_normal(64) * 2),
        "peak": np.where(np.arange(320) == 211, 14.0, rng.standard_normal(320) * 2),
        "text": rng.standard_normal(N_PIECES) * 0.7 + 6.0 * np.isin(np.arange(N_PIECES), [60, 70, 71, *range(80, 95)]),
        "run": np.array([4.0, 3.2, 2.9, 1.5, 0.8, 0.1, -0.7, -1.6]),
    }
    # four digits: exact in float32 after the same rounding on both sides, and distinct
    logits = {name: np.round(x, 4).astype(np.float32) for name, x in logits.items()}
    past = histories(newline, colon)
    done, run_results = cases(newline), runs()
    for case in done:
        x = logits[case["logits"]]
        chain = chain_of(vocab, {**OFF, **case["params"]}, len(x))
        for token in past[case["history"]]:
            lc.llama_sampler_accept(chain, token)
        candidates = Candidates(x)
        lc.llama_sampler_apply(chain, ctypes.byref(candidates.array))
        case["ids"], case["probs"] = candidates.left()
        lc.llama_sampler_free(chain)
    for run in run_results:
        x = logits[run["logits"]]
        chain = chain_of(vocab, {**OFF, **run["params"]}, len(x))
        run["steps"] = []
        for _ in range(4):
            candidates = Candidates(x)
            lc.llama_sampler_apply(chain, ctypes.byref(candidates.array))
            ids, probs = candidates.left()
            run["steps"].append({"ids": ids, "probs": probs, "drawn": candidates.chosen()})
        lc.llama_sampler_free(chain)
    texts = ["\n", ":", "\n\n", ":\n"]
    out = {
        "made_with": f"llama-cpp-python {lc.__version__}",
        "off": OFF,
        "pieces": [piece(i).decode("latin-1") for i in range(N_PIECES)],
        "tokenize": {text: tokenize(text) for text in texts},
        "logits": {name: [float(f"{v:.4f}") for v in x] for name, x in logits.items()},
        "histories": past,
        "cases": done,
        "runs": run_results,
    }
    path = Path(__file__).with_name("data") / "sampler_llamacpp.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(out, separators=(",", ":")).replace('{"logits":', '\n{"logits":') + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
