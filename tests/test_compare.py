"""bench/compare.py: the arithmetic of ratios and limits, and the conversation with workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, absent

sys.path.append(str(ROOT))  # behind the installed pyllm

from bench import compare, results, suite
from bench.compare import Engine
from bench.results import Row, Setup, Test, Work

FAKE = """
import os
import protocol
from protocol import Unsupported, serve

class Fake(protocol.Engine):
    def __init__(self, n_threads):
        self.n_threads = n_threads
    def run(self, n_prompt, n_gen, n_depth, n_seqs):
        print("more chatter")
        if n_depth and SLOWER > 1:
            raise Unsupported("no depth here")
        if n_gen == 77 and SLOWER > 1:
            raise RuntimeError("not so many")
        return (n_prompt * 1000 + n_gen * 50000) * SLOWER // self.n_threads
    def first(self, n_prompt):
        return n_prompt * 1000000 * SLOWER

def load(model, n_threads, n_ctx, n_seqs, type_k, type_v):
    print("chatter of the engine")
    if "bad" in model:
        raise RuntimeError("no such model")
    if "crash" in model:
        os._exit(3)
    if type_k != "f16" and SLOWER > 1:
        raise Unsupported("only f16")
    assert n_ctx >= 10
    level = os.environ.get("PYLLM_CPU", "best")
    return {"engine": "fake SLOWER", "level": level, "cpu": "a CPU"}, Fake(n_threads)

protocol.peak = lambda: 1000000 * SLOWER
serve(load)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file, and workers pyllm_worker.py and, half as fast, llamacpp_worker.py that say what they would measure."""
    (tmp_path / "protocol.py").write_text((ROOT / "bench" / "peers" / "protocol.py").read_text())
    (tmp_path / "pyllm_worker.py").write_text(FAKE.replace("SLOWER", "1"))
    (tmp_path / "llamacpp_worker.py").write_text(FAKE.replace("SLOWER", "2"))
    monkeypatch.setattr(compare, "WORKERS", tmp_path)
    monkeypatch.setattr(compare, "PAUSE", 0)
    for name in ("some", "bad", "crash"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    return str(tmp_path / "some.gguf")


def pp(n: int) -> Test:
    return Test("run", n_prompt=n)


ROWS = [
    Row(Setup("m.gguf", 1), pp(512), {"pyllm": [300.0, 330.0, 310.0], "other": [100.0, 110.0, 100.0]}, 620.0),
    Row(Setup("m.gguf", 2), Test("run", n_gen=128), {"pyllm": [90.0, 80.0, 85.0], "other": [100.0, 100.0, 100.0]}),
    Row(Setup("m.gguf", 2), Test("first", n_prompt=32), {"pyllm": [10.0, 20.0, 10.0], "other": [40.0, 40.0, 30.0]}),
    Row(Setup("m.gguf", 2), Test("run", n_gen=8, n_depth=64, n_seqs=4), {"pyllm": [5.0]}),
]


def test_ratios_are_taken_round_by_round() -> None:
    # the machine halved its speed in the second round: every ratio is still 2
    row = Row(Setup("m"), pp(1), {"a": [200, 100, 200], "b": [100, 50, 100], "c": [1, 2]})
    assert row.ratio("a", "b") == (2, 2, 2)
    assert row.ratio("b", "a") == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="zip"):
        row.ratio("a", "c")
    assert ROWS[0].ratio("pyllm", "other") == (3, 3, 3.1)
    # of times and bytes, less is better
    assert ROWS[2].ratio("pyllm", "other") == (2, 3, 4)
    assert ROWS[0].best_peer("pyllm") == ("other", 3)
    assert ROWS[3].best_peer("pyllm") is None


def test_the_order_turns() -> None:
    assert compare.turns(2, 4) == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert compare.turns(3, 4) == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    assert compare.turns(1, 2) == [[0], [0]]


def test_names_and_units() -> None:
    names = [row.test.name for row in ROWS]
    assert names == ["pp512", "tg128", "first token, 32", "tg8 x 4 @ d64"]
    assert [row.test.unit for row in ROWS] == ["t/s", "t/s", "ms", "t/s"]
    assert Test("run", n_gen=10, n_seqs=4).value(2_000_000_000) == 20
    assert Test("first", n_prompt=32).value(5_000_000) == Test("memory").value(5_000_000) == 5
    assert Test("start", n_prompt=32).name == "start to first token"


def test_report() -> None:
    lines = results.report(ROWS, "pyllm").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["threads", "test", "pyllm", "of the limit", "other", "pyllm / other", "min to max"]
    assert cells[2] == ["1", "pp512", "310.0 t/s", "50 %", "100.0", "3.00", "3.00 to 3.10"]
    assert cells[3] == ["2", "tg128", "85.0 t/s", "", "100.0", "0.85", "0.80 to 0.90"]
    assert cells[4] == ["2", "first token, 32", "10.0 ms", "", "40.0", "3.00", "2.00 to 4.00"]
    assert cells[5] == ["2", "tg8 x 4 @ d64", "5.0 t/s", "", "-", "-", "-"]
    assert len({len(line) for line in lines}) == 1
    both = results.report([ROWS[0], Row(Setup("n.gguf", 1, "q8_0", "q8_0"), pp(512), {"pyllm": [1.0]})], "pyllm")
    assert both.splitlines()[0].split("|")[1:4] == [" model ", " threads ", "   KV "]


def test_required_ratios() -> None:
    assert compare.short_of(ROWS, "pyllm", ["other"], {"pp": 3.0, "tg128": 0.8}) == []
    missed = compare.short_of(ROWS, "pyllm", ["other"], {"pp": 3.1, "tg128": 1.0, "tg8": 0.5})
    assert missed == [
        "pp512, 1 threads: 3.000 of other, required 3.1",
        "tg128, 2 threads: 0.850 of other, required 1.0",
        "tg8 x 4 @ d64, 2 threads: other has no figure, required 0.5",
    ]


def test_limits_follow_from_the_work() -> None:
    work = Work(weight_bytes=10**9, prompt_ops=2 * 10**9, kv_elements=(1000, 1000), attention_ops=10**6)
    machine = {"read_gb_per_s": 50.0, "int8_gop_per_s_avx2": 400.0}
    f16, q8 = Setup("m"), Setup("m", type_k="q8_0", type_v="q8_0")
    assert work.limit(Test("run", n_gen=2), f16, machine, "avx2") == pytest.approx(50e9 / (1e9 + 4000))
    # 8 sequences share the weights, and each reads 1,001 tokens of K and V on average
    many = Test("run", n_gen=2, n_depth=1000, n_seqs=8)
    assert work.limit(many, f16, machine, "avx2") == pytest.approx(8 * 50e9 / (1e9 + 8 * 4000 * 1001))
    assert work.limit(many, q8, machine, "avx2") == pytest.approx(8 * 50e9 / (1e9 + 8 * 2125 * 1001))
    assert work.limit(pp(512), f16, machine, "avx2") == pytest.approx(400e9 / (2e9 + 256e6))
    assert work.limit(pp(512), f16, machine, "neon") is None
    assert work.limit(Test("memory"), f16, machine, "avx2") is None


def test_the_work_of_a_file(data: Path) -> None:
    """By the shapes: rows times columns of each matrix of each layer."""
    from pyllm.gguf import GGUFFile

    path = data / "models" / "qwen3.gguf"
    file = GGUFFile.open(path)
    n_layer = file.get_int("qwen3.block_count")
    width = file.get_int("qwen3.embedding_length")
    tensors = dict(file.tensors)
    file.close()
    work = Work.of(str(path))
    first = [t for name, t in tensors.items() if name.startswith("blk.0.") and len(t.shape) == 2]
    head = tensors.get("output.weight") or tensors["token_embd.weight"]
    assert work.prompt_ops == 2 * n_layer * sum(t.shape[0] * t.shape[1] for t in first)
    assert work.weight_bytes == n_layer * sum(t.nbytes for t in first) + head.nbytes
    kv_rows = tensors["blk.0.attn_k.weight"].n_elements // width
    assert work.kv_elements == (n_layer * kv_rows, n_layer * kv_rows)


def test_a_comparison(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, table = tmp_path / "out.json", tmp_path / "out.md"
    args = ["-m", model, "--peer", f"other={sys.executable}", "-t", "1", "2", "-p", "100", "-n", "10", "-r", "3"]
    assert compare.main([*args, "--json", str(out), "--markdown", str(table), "--require", "tg=2.0"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("some.gguf on a CPU: fake 1, fake 2; medians of 3 rounds\n")
    assert "chatter" not in text
    assert table.read_text() == text
    result = json.loads(out.read_text())
    assert result["cpu"] == "a CPU"
    assert result["engines"] == {"pyllm": "fake 1", "other": "fake 2"}
    assert [(r["model"], r["threads"], r["test"]) for r in result["results"]] == [
        (model, 1, "pp100"), (model, 1, "tg10"), (model, 2, "pp100"), (model, 2, "tg10"),
    ]  # fmt: skip
    first = result["results"][0]["engines"]
    assert first["pyllm"]["samples"] == [1e6] * 3
    assert first["other"] == {"median": 5e5, "samples": [5e5] * 3, "ratio": 2.0, "ratio_range": [2.0, 2.0]}
    assert result["results"][2]["engines"]["pyllm"]["median"] == 2e6
    assert compare.main([*args, "--require", "tg=2.1"]) == 1
    assert "tg10, 1 threads: 2.000 of other, required 2.1" in capsys.readouterr().err


def test_every_kind_of_test(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Depths, sequences, times from the start and memory; what a peer cannot do is a dash."""
    out = tmp_path / "out.json"
    args = ["-m", model, "--peer", f"other={sys.executable}", "-t", "1", "-p", "-n", "10", "-r", "2"]
    args += ["--json", str(out)]
    assert compare.main([*args, "-d", "0", "7", "-s", "1", "4", "--first", "32", "--start", "--memory"]) == 0
    found = capsys.readouterr()
    assert "tg10 @ d7: other: no depth here" in found.err
    rows = {r["test"]: r["engines"] for r in json.loads(out.read_text())["results"]}
    assert list(rows) == [
        "tg10", "tg10 x 4", "tg10 @ d7", "tg10 x 4 @ d7", "first token, 32", "start to first token", "peak RSS",
    ]  # fmt: skip
    assert rows["tg10 x 4"]["pyllm"]["median"] == 4 * rows["tg10"]["pyllm"]["median"] == 8e4
    assert set(rows["tg10 @ d7"]) == {"pyllm"}
    assert rows["first token, 32"]["other"] == {"median": 64, "samples": [64, 64], "ratio": 2, "ratio_range": [2, 2]}
    assert rows["peak RSS"]["other"]["median"] == 2 and rows["peak RSS"]["other"]["ratio"] == 2
    assert 1 < rows["start to first token"]["pyllm"]["median"] < 60000
    assert compare.main([*args, "-ctk", "q8_0", "--level", "ref"]) == 0
    assert "left out: other: only f16" in capsys.readouterr().err
    result = json.loads(out.read_text())
    assert set(result["results"][0]["engines"]) == {"pyllm"}
    assert (result["results"][0]["kv"], result["results"][0]["level"]) == ("q8_0/f16", "ref")


def test_a_peer_that_fails_is_left_out(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["-m", model, "--peer", f"other={sys.executable}", "-t", "1", "-p", "100", "-n", "77", "-r", "2"]
    assert compare.main([*args, "--require", "pp=2"]) == 0
    found = capsys.readouterr()
    assert "tg77: other: RuntimeError: not so many" in found.err
    lines = found.out.splitlines()[2:]
    assert "2.00" in lines[2] and [c.strip() for c in lines[3].split("|")][-4:-1] == ["-", "-", "-"]
    assert compare.main([*args, "--require", "tg=2"]) == 1


def test_rounds_end_when_the_time_is_over() -> None:
    class Slow:
        name, seen = "slow", 0

        def run(self, test: Test) -> int:
            self.seen += 1
            return 1000

    slow = Slow()
    row = compare.measure([slow], Setup("m"), pp(100), 5, seconds=1e-9)  # type: ignore[list-item]
    assert row.samples == {"slow": [1e8]} and slow.seen == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("bad", "pyllm: RuntimeError: no such model"), ("crash", "the worker ended with status 3"), ("no", "no file")],
)
def test_a_worker_that_fails(model: str, name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["-m", model.replace("some", name)]) == 2
    assert message in capsys.readouterr().err


def test_pyllms_own_worker(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The real one, on a tiny model: every kind of test."""
    out = tmp_path / "out.json"
    args = ["-m", str(data / "models" / "qwen2.gguf"), "-t", "1", "-p", "20", "-n", "4", "-d", "0", "32"]
    args += ["-s", "1", "3"]
    assert compare.main([*args, "-r", "2", "--first", "8", "--start", "--memory", "--json", str(out)]) == 0
    rows = {r["test"]: r["engines"]["pyllm"]["samples"] for r in json.loads(out.read_text())["results"]}
    assert list(rows) == [
        "pp20", "pp20 @ d32", "tg4", "tg4 x 3", "tg4 @ d32", "tg4 x 3 @ d32", "first token, 8",
        "start to first token", "peak RSS",
    ]  # fmt: skip
    assert all(len(samples) == 2 and min(samples) > 0 for samples in rows.values())
    assert 10 < rows["peak RSS"][0] < 10000


def test_the_suite(model: str, tmp_path: Path) -> None:
    """Cases in turn, each with its peers; goals of every kind, met and missed."""
    tg, memory = Test("run", n_gen=10), Test("memory", n_gen=10)
    cases = [
        suite.Case("m", 1, {pp(100): suite.Goal(1e6, 2.0, share=0.5), tg: suite.Goal(2e4 + 1, ratio=2.1)}),
        suite.Case("m", 2, {pp(100): suite.Goal(of=(2.0, "m pp100 t1")), memory: suite.Goal(of=(1.0, "file"))}),
        suite.Case("m", 2, {pp(100): suite.Goal(of=(1.1, "m pp100 t2"))}, level="avx2", peers="avx2"),
        suite.Case("m", 1, {Test("first", n_prompt=32): suite.Goal(31)}, peers="none"),
    ]
    (tmp_path / "some.gguf").write_bytes(b"0" * 900_000)
    engines = [Engine(name, sys.executable, name) for name in ("pyllm", "llamacpp")]
    work = Work(10**9, 10**9, (0, 0), 0)
    outcome = suite.run(
        cases, lambda name: model, engines, [Engine("old", sys.executable, "llamacpp")], 2, 0,
        limits=lambda n: {"read_gb_per_s": n, "int8_gop_per_s_best": 1.8e6}, work=lambda path: work,
    )  # fmt: skip
    assert list(outcome.rows) == [
        "m pp100 t1", "m tg10 t1", "m pp100 t2", "m peak RSS t2", "m pp100 t2 avx2", "m first token, 32 t1",
    ]  # fmt: skip
    assert set(outcome.rows["m pp100 t2 avx2"].samples) == {"pyllm", "old"}
    assert set(outcome.rows["m first token, 32 t1"].samples) == {"pyllm"}
    assert outcome.rows["m pp100 t1"].limit == 1.8e6 and outcome.rows["m pp100 t2 avx2"].limit is None
    met = {key: [ok for _, ok in suite.judge(key, outcome)] for key in outcome.rows}
    assert met == {
        "m pp100 t1": [True, True, True], "m tg10 t1": [False, False], "m pp100 t2": [True], "m peak RSS t2": [False],
        "m pp100 t2 avx2": [False], "m first token, 32 t1": [False],
    }  # fmt: skip
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in suite.summary(outcome).splitlines()]
    assert lines[2] == [
        "m pp100 t1", "1000000 t/s", "56%", "llamacpp 500000", "2.00", "2.00 to 2.00",
        ">= 1e+06 t/s; >= 2x the best peer; >= 50% of the limit", "",
    ]  # fmt: skip
    assert lines[5][-1] == "<= 1x the file" and lines[7][-1] == "<= 31 ms" and lines[7][3] == ""


def test_cases_of_the_suite_name_rows_that_are_there() -> None:
    keys = {case.key(test) for case in suite.CASES for test in case.goals}
    assert len(keys) == sum(len(case.goals) for case in suite.CASES)
    named = {goal.of[1] for case in suite.CASES for goal in case.goals.values() if goal.of}
    assert named - {"file"} <= keys


def test_models_of_the_suite_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def write(shape: object, kind: str, path: str) -> None:
        made.append(kind)
        Path(path).write_text("GGUF")

    monkeypatch.setattr(suite.make_model, "write", write)
    for _ in range(2):
        assert suite.model_file("1b Q4_0", tmp_path) == str(tmp_path / "1b-Q4_0.gguf")
    assert made == ["Q4_0"] and [p.name for p in tmp_path.iterdir()] == ["1b-Q4_0.gguf"]
    with pytest.raises(SystemExit):
        suite.main(["--models", str(tmp_path), "--out", str(tmp_path), "--only", "no such row"])


def test_a_plot(tmp_path: Path) -> None:
    if not results.can_plot():
        absent("matplotlib is missing: pip install '.[test]'")
    path = tmp_path / "plot.svg"
    results.plot(ROWS, "pyllm", path)
    assert "times better: pyllm over each peer" in path.read_text() and "m, pp512, 1 thread" in path.read_text()


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["--peer", "nothing"], ["-p", "0", "-n", "0"], ["--require", "pp=x"], ["-r", "0"], ["-t", "0"],
                 ["--peer", "pyllm=python"], ["-s", "0"], ["-d", "-1"], ["-ctk", "q9"]):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            compare.main(args)
        assert error.value.code == 2
    assert "every engine needs a name" in capsys.readouterr().err
    assert Engine.parse("a:b=/c") == Engine("a", "/c", "b")
    help_text = subprocess.run(
        [sys.executable, "-m", "bench.compare", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for flag in ("--peer", "--model", "--threads", "--rounds", "--json", "--require", "--plot", "--sequences"):
        assert flag in help_text


def test_a_peer_that_is_not_there(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--peer", "other=/no/such/python", "-m", model]) == 2
    assert "other: cannot start /no/such/python" in capsys.readouterr().err
