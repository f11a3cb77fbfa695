"""bench/fidelity.py: what it computes out of logits, and the ways of running a file side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
from bench import fidelity
from bench.compare import Engine
from bench.fidelity import Way
from pyllm.perplexity import kl_divergence, log_softmax
from pyllm.tokenizer import Tokenizer


def test_divergence_from_the_best_tokens_of_a_base() -> None:
    """Where no token is left out it is the divergence; else the rest counts as one token."""
    rng = np.random.default_rng(0)
    base, other = (log_softmax(rng.normal(size=(3, 6)).astype(np.float32)) for _ in range(2))
    order = np.argsort(-base, axis=1)
    best = np.take_along_axis(base, order, axis=1)
    assert fidelity.kl_from_top(order[:, :5], best[:, :5], other) == pytest.approx(kl_divergence(base, other))
    p, q = np.exp(best[:, :2]), np.exp(np.take_along_axis(other, order[:, :2], axis=1))
    rest = (1 - p.sum(axis=1)) * np.log((1 - p.sum(axis=1)) / (1 - q.sum(axis=1)))
    want = (p * np.log(p / q)).sum(axis=1) + rest
    assert fidelity.kl_from_top(order[:, :2], best[:, :2], other) == pytest.approx(want)


def test_chunks(data: Path) -> None:
    tokenizer = Tokenizer.from_gguf(data / "models" / "qwen2.gguf")
    assert fidelity.chunks(tokenizer, range(25), 10) == [list(range(10)), list(range(10, 20))]
    assert len(fidelity.chunks(tokenizer, range(25), 10, limit=1)) == 1


def test_ways_side_by_side(data: Path) -> None:
    """The base against itself diverges by nothing; a peer that is pyllm is as far away as pyllm."""
    model = str(data / "models" / "qwen2.gguf")
    tokenizer = Tokenizer.from_gguf(model)
    ids = np.random.default_rng(0).integers(0, tokenizer.n_vocab, 64).tolist()
    cut = fidelity.chunks(tokenizer, ids, 32)
    peer = Engine("twin", sys.executable, "pyllm")
    ways = [
        Way("again", "f32", "f32", compute="f32"),
        Way("default", "f16", "f16", compute="default"),
        Way("bf16", "bf16", "bf16", compute="default"),
        Way("twin", "f16", "f16", peer=peer),
    ]
    results = list(fidelity.compare_ways(model, cut, ways, threads=1))
    assert [way.name for way, _ in results] == ["base: f32", "again", "default", "bf16", "twin"]
    base, again, default, bf16, twin = (result for _, result in results)
    assert base.kl_mean is None and base.n == again.n == 2 * 15
    assert again.kl_mean == 0 and again.same_top == 1 and again.perplexity == base.perplexity
    assert default.kl_mean is not None and bf16.kl_mean is not None and 0 < default.kl_mean < bf16.kl_mean
    assert twin == default
    lines = fidelity.table(results).splitlines()
    assert len({len(line) for line in lines}) == 1 and "+0.000%" in lines[3] and "100.00%" in lines[3]


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, ids = str(data / "models" / "qwen2.gguf"), tmp_path / "ids.json"
    ids.write_text(json.dumps(list(range(40))))
    args = [
        model,
        "--ids",
        str(ids),
        "-c",
        "16",
        "--chunks",
        "1",
        "-ctk",
        "f16",
        "bf16",
        "-ctv",
        "f32",
        "f16",
        "--json",
    ]
    assert fidelity.main(args) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["way"], r["type_k"], r["type_v"], r["n"]) for r in rows] == [
        ("base: f32", "f32", "f32", 7), ("default", "f16", "f32", 7), ("default", "bf16", "f16", 7),
    ]  # fmt: skip
    text = tmp_path / "text.txt"
    text.write_text("A text of some words. " * 20)
    assert fidelity.main([model, "--text", str(text), "-c", "16", "--chunks", "1", "--no-base"]) == 0
    assert "perplexity" in capsys.readouterr().out
    assert fidelity.main([model, "--ids", str(ids), "-c", "16", "--peer", "gone=/no/such/python"]) == 2
    assert fidelity.main([model, "--ids", str(ids), "-c", "64"]) == 2  # 40 tokens
    with pytest.raises(SystemExit):
        fidelity.main([model, "--ids", str(ids), "-ctk", "f16", "bf16", "-ctv", "f16"])
