"""bench/steps.py: the line through neighbours, steps written by hand, and what Python adds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT))  # behind the installed pyllm
import pyllm
from bench import steps


def test_a_cliff_is_marked_and_a_line_is_not() -> None:
    line = steps.points([1, 2, 4, 8], [1.5, 2.0, 3.0, 5.0])
    assert [p.excess for p in line] == [None, pytest.approx(0), pytest.approx(0), None]
    cliff = steps.points([1, 2, 3, 4], [1.0, 1.1, 2.0, 2.1])
    assert cliff[2].excess == pytest.approx(2.0 / 1.6 - 1) and cliff[1].excess == pytest.approx(1.1 / 1.5 - 1)
    marked = [row for row in steps.table("tokens", cliff, 0.03).splitlines() if "<--" in row]
    assert len(marked) == 1 and marked[0].split("|")[1].strip() == "3" and "+25.0%" in marked[0]
    assert "<--" not in steps.table("tokens", cliff, 0.3)


def test_the_least_of_the_rounds_counts() -> None:
    class Fake:
        costs = iter([9.0, 3.0, 5.0, 6.0, 4.0, 2.0, 1.0])

        def time(self, kind: str, size: int, clock: Any) -> float:
            return next(self.costs)

    found = steps.sweep(Fake(), "tokens", [1, 2, 3], 2)  # type: ignore[arg-type]
    # after a warm-up: 1, 2, 3 and then 3, 2, 1
    assert [(p.size, p.seconds) for p in found] == [(1, 1.0), (2, 2.0), (3, 4.0)]


def test_sizes() -> None:
    assert steps.sizes_of("1-3,16,2") == [1, 2, 3, 16]
    for wrong in ("", "0", "a", "5-1"):
        with pytest.raises(ValueError):
            steps.sizes_of(wrong)


@pytest.mark.parametrize("depth", [0, 33])
def test_steps_compute_what_the_engine_does(data: Path, depth: int) -> None:
    """The same tokens through the engine give the same logits: the step's arrays are right."""
    path = data / "models" / "qwen2.gguf"
    stepper = steps.Stepper(str(path), 2, 5, depth)
    logits = stepper.model.program.logits
    rng = np.random.default_rng(0)  # as the stepper's
    pasts = [rng.integers(0, stepper.model.hparams.n_vocab, depth).tolist() for _ in range(5)]
    assert stepper.time("sequences", 5) > 0
    many = stepper.backend.read(logits, 5)
    tokens = stepper.step.token[:5].tolist()
    stepper.time("tokens", 4)
    one = stepper.backend.read(logits, 1)[0]
    piece = stepper.step.token[:4].tolist()
    stepper.close()
    with pyllm.LLM(path, n_ctx=64) as llm:
        for past, token, row in zip(pasts, tokens, many, strict=True):
            assert np.array_equal(llm.logits([*past, token])[-1], row)
        assert np.array_equal(llm.logits([*pasts[0], *piece])[-1], one)


def test_what_python_adds(data: Path) -> None:
    """Between the second and the last but one of twenty steps there are seventeen gaps."""
    with pyllm.LLM(data / "models" / "qwen2.gguf", n_ctx=64, n_threads=1, kv_tokens=1024) as llm:
        for n in (1, 5):
            spent = steps.overhead(llm, n, 20)
            assert len(spent) == 17 and all(0 < s < 1 for s in spent)
        from pyllm import sampler
        from pyllm.backend import cpu

        assert not isinstance(cpu.lib, steps.TimedLib) and not isinstance(sampler.lib, steps.TimedLib)


def test_the_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(data / "models" / "qwen2.gguf"), tmp_path / "out.json"
    assert steps.main(["-m", model, "--sizes", "1-4", "-r", "1", "--json", str(out), "--cpu-time"]) == 0
    text = capsys.readouterr().out
    assert "sequences | ms/step" in text and "tokens | ms/step" in text
    found = json.loads(out.read_text())
    assert [p["size"] for p in found["tokens"]] == [p["size"] for p in found["sequences"]] == [1, 2, 3, 4]
    assert steps.main(["-m", model, "--overhead", "-r", "1", "--json", str(out)]) == 0
    assert set(json.loads(out.read_text())["overhead_us"]) == {"1", "16"}
    assert steps.main(["-m", str(tmp_path / "none.gguf")]) == 2
    for wrong in (["-t", "2", "--cpu-time"], ["-r", "0"], ["--sizes", "0"]):
        with pytest.raises(SystemExit):
            steps.main(wrong)
