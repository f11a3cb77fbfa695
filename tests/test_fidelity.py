"""bench/fidelity.py: what it computes out of logits, and the ways of running a file side by side."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
from bench import fidelity
from bench.compare import Engine
from bench.fidelity import Tally, Way
from pyllm.tokenizer import Tokenizer


def test_divergence_by_its_definition() -> None:
    base, other = (fidelity.log_softmax(np.log(np.array([p], np.float32))) for p in ([0.5, 0.5], [0.25, 0.75]))
    assert fidelity.kl_divergence(base, other)[0] == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert fidelity.kl_divergence(base, base)[0] == 0
    top = np.array([[1]]), base[:, 1:]
    assert fidelity.kl_from_top(*top, other)[0] == pytest.approx(fidelity.kl_divergence(base, other)[0])


def test_a_tally_of_chunks() -> None:
    """Two chunks of six tokens: the last two of each are predicted, by rows 3 and 4."""
    rng = np.random.default_rng(0)
    tally, nll, kl, same = Tally(), [], [], []
    tally.ROWS = 1
    for chunk in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]):
        found, base = rng.normal(size=(2, 2, 6)).astype(np.float32)
        tally.add(chunk, found, base)
        p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (base.astype(float), found.astype(float)))
        nll += [-math.log(q[i][chunk[4 + i]]) for i in range(2)]
        kl += [sum(p[i] * np.log(p[i] / q[i])) for i in range(2)]
        same += [p[i].argmax() == q[i].argmax() for i in range(2)]
    result = tally.result()
    assert result.n == 4
    assert result.perplexity == pytest.approx(math.exp(sum(nll) / 4))
    assert result.kl_mean == pytest.approx(sum(kl) / 4) and result.kl_max == pytest.approx(max(kl))
    assert result.same_top == sum(same) / 4


def test_chunks(data: Path) -> None:
    tokenizer = Tokenizer.from_gguf(data / "models" / "qwen2.gguf")
    assert fidelity.chunks(tokenizer, range(25), 10) == [list(range(10)), list(range(10, 20))]
    assert len(fidelity.chunks(tokenizer, range(25), 10, limit=1)) == 1
    with pytest.raises(ValueError, match="longer text"):
        fidelity.chunks(tokenizer, range(5), 10)


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
    with pytest.raises(SystemExit):
        fidelity.main([model, "--ids", str(ids), "-ctk", "f16", "bf16", "-ctv", "f16"])
