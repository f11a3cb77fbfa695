"""bench/compare.py: the arithmetic of ratios, and the conversation with workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # behind the installed pyllm

from bench import compare  # noqa: E402
from bench.compare import Row  # noqa: E402

FAKE = """
import os, sys
from protocol import serve

def load(model, n_threads, n_ctx):
    print("chatter of the engine")
    if model == "bad.gguf":
        raise RuntimeError("no such model")
    if model == "crash.gguf":
        os._exit(3)
    def run(n_prompt, n_gen):
        print("more chatter")
        return (n_prompt * 1000 + n_gen * 50000) * SLOWER // n_threads
    return {"engine": "fake SLOWER", "path": "/models/" + os.path.basename(model), "cpu": "a CPU"}, run

serve(load)
"""


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers pyllm_worker.py and, half as fast, llamacpp_worker.py, that compute what they would have measured."""
    (tmp_path / "protocol.py").write_text((ROOT / "bench" / "peers" / "protocol.py").read_text())
    (tmp_path / "pyllm_worker.py").write_text(FAKE.replace("SLOWER", "1"))
    (tmp_path / "llamacpp_worker.py").write_text(FAKE.replace("SLOWER", "2"))
    monkeypatch.setattr(compare, "WORKERS", tmp_path)
    monkeypatch.setattr(compare, "PAUSE", 0)


def test_quartiles() -> None:
    assert compare.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert compare.quartiles([1.0, 5.0, 2.0]) == (1.0, 2.0, 5.0)
    assert compare.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_ratios_are_taken_round_by_round() -> None:
    # the machine halved its speed in the second round: every ratio is still 2
    assert compare.ratios([200, 100, 200], [100, 50, 100]) == (2, 2, 2)
    assert compare.ratios([3, 2, 4], [1, 2, 2]) == (1, 2, 3)
    with pytest.raises(ValueError, match="zip"):
        compare.ratios([1, 2], [1])


def test_the_order_turns() -> None:
    assert compare.turns(2, 4) == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert compare.turns(3, 4) == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    assert compare.turns(1, 2) == [[0], [0]]


ROWS = [
    Row(1, "pp512", {"pyllm": [300.0, 330.0, 310.0], "other": [100.0, 110.0, 100.0]}),
    Row(2, "tg128", {"pyllm": [90.0, 80.0, 85.0], "other": [100.0, 100.0, 100.0]}),
]


def test_report() -> None:
    lines = compare.report(ROWS, "pyllm").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["threads", "test", "pyllm t/s", "other t/s", "pyllm / other", "quartiles"]
    assert cells[2] == ["1", "pp512", "310.0", "100.0", "3.00", "3.00 to 3.10"]
    assert cells[3] == ["2", "tg128", "85.0", "100.0", "0.85", "0.80 to 0.90"]
    assert len({len(line) for line in lines}) == 1


def test_required_ratios() -> None:
    assert compare.short_of(ROWS, "pyllm", {"pp": 3.0, "tg": 0.8}) == []
    missed = compare.short_of(ROWS, "pyllm", {"pp": 3.1, "tg128": 1.0})
    assert missed == [
        "pp512, 1 threads: 3.000 of other, required 3.1",
        "tg128, 2 threads: 0.850 of other, required 1.0",
    ]


@pytest.mark.usefixtures("workers")
def test_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    args = ["-m", "some.gguf", "--peer", f"other={sys.executable}", "-t", "1", "2", "-p", "100", "-n", "10", "-r", "3"]
    assert compare.main([*args, "--json", str(out), "--require", "tg=2.0"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("some.gguf: fake 1, fake 2; medians of 3 rounds\n")
    assert "chatter" not in text
    result = json.loads(out.read_text())
    assert result["model"] == "/models/some.gguf"
    assert result["cpu"] == "a CPU"
    assert result["engines"] == {"pyllm": "fake 1", "other": "fake 2"}
    assert [(r["threads"], r["test"]) for r in result["results"]] == [
        (1, "pp100"), (1, "tg10"), (2, "pp100"), (2, "tg10"),
    ]  # fmt: skip
    first = result["results"][0]["engines"]
    assert first["pyllm"]["samples_ts"] == [1e6] * 3
    assert first["other"] == {
        "median_ts": 5e5, "samples_ts": [5e5] * 3, "ratio": 2.0, "ratio_quartiles": [2.0, 2.0],
    }  # fmt: skip
    assert result["results"][2]["engines"]["pyllm"]["median_ts"] == 2e6
    assert compare.main([*args, "--require", "tg=2.1"]) == 1
    assert "tg10, 1 threads: 2.000 of other, required 2.1" in capsys.readouterr().err


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize(
    ("model", "message"),
    [("bad.gguf", "pyllm: RuntimeError: no such model"), ("crash.gguf", "the worker ended with status 3")],
)
def test_a_worker_that_fails(model: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["-m", model]) == 2
    assert message in capsys.readouterr().err


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--peer", "nothing"], ["-p", "0", "-n", "0"], ["--require", "pp=x"], ["-r", "0"], ["-t", "0"],
                 ["--peer", "pyllm=python"]):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            compare.main(args)
        assert error.value.code == 2
    assert "every engine needs a name" in capsys.readouterr().err
    assert compare.main(["--peer", "other=/no/such/python", "-m", "x"]) == 2
    help_text = subprocess.run(
        [sys.executable, "-m", "bench.compare", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for flag in ("--peer", "--model", "--threads", "--rounds", "--json", "--require"):
        assert flag in help_text
