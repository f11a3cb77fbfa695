"""The command line on a real pseudo-terminal: streaming, progress bars, editing, Ctrl-C."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if os.name == "nt":
    pytest.skip("pseudo-terminals of POSIX", allow_module_level=True)

import quantize_models as models
from terminal import Terminal, pyllm

UP = "\x1b[A"
CTRL_C, CTRL_D = "\x03", "\x04"
PROMPT = r"[\s\S]*> *\x08*$"


@pytest.fixture
def home(tmp_path: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, with nothing in it."""
    monkeypatch.setenv("PYLLM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path / "home"


def test_run_streams_and_leaves_no_mess(home: Path, smollm2: Path) -> None:
    argv = pyllm("run", str(smollm2), "What is the capital of France?", "--temp", "0", "-n", "16")
    with Terminal(argv) as t:
        assert t.wait() == 0
        assert len(t.text.strip()) > 10 and t.text.endswith("\n")


def test_run_without_a_prompt_says_so(home: Path) -> None:
    with Terminal(pyllm("run")) as t:
        assert t.wait() == 2
        assert t.text.startswith("pyllm: there is no prompt")


def test_ctrl_c_ends_run(home: Path, smollm2: Path) -> None:
    with Terminal(pyllm("run", str(smollm2), "Tell a long story.", "--ignore-eos", "--temp", "0")) as t:
        t.expect(r"\w+ \w+ \w+")
        t.send(CTRL_C)
        assert t.wait(20) == 130
        assert "Traceback" not in t.text


def test_long_prompts_show_progress(home: Path, smollm2: Path) -> None:
    """One thread and the reference kernels take a while over 1,600 tokens."""
    argv = pyllm("run", str(smollm2), "word " * 1600, "-n", "2", "-t", "1", "-b", "64")
    with Terminal(argv, PYLLM_CPU="ref") as t:
        t.expect(r"reading the prompt .*\d+%", timeout=120)
        assert "\x1b[?25l" in t.raw.decode()  # the cursor is hidden ...
        t.send(CTRL_C)
        assert t.wait(30) == 130
        assert t.raw.decode().rindex("\x1b[?25h") > t.raw.decode().rindex("\x1b[?25l")  # ... and comes back


def test_chat(home: Path, smollm2: Path, tmp_path: Path) -> None:
    argv = pyllm("chat", str(smollm2), "--temp", "0", "-n", "400", "--ignore-eos")
    with Terminal(argv) as t:
        t.expect("Ctrl-D leaves" + PROMPT)

        at = t.mark()  # Ctrl-C stops the answer and not the program
        t.send("Tell me a long story.\r")
        t.expect(r"story\.\n.*\w+ \w+ \w+", at)
        t.send(CTRL_C)
        t.expect(r"\(stopped\)\n" + PROMPT, at)

        at = t.mark()  # Ctrl-C at the prompt throws the line away
        t.send("half a line" + CTRL_C)
        t.expect("leaves" + PROMPT, at)

        at = t.mark()
        t.send(f"/save {tmp_path}/talk.json\r")
        t.expect("saved 2 messages" + PROMPT, at)
        saved = json.loads((tmp_path / "talk.json").read_text("utf-8"))
        assert saved["messages"][0] == {"role": "user", "content": "Tell me a long story."}
        assert len(saved["messages"][1]["content"]) > 10

        at = t.mark()
        t.send("/set n 4\r/help\r/clear\r/system Be brief.\r/system\r")
        t.expect(r"/bye +leave[\s\S]*Be brief\.\n" + PROMPT, at)

        at = t.mark()
        t.send("Hi\r")
        t.expect(r"the limit of -n is reached\)\n" + PROMPT, at)

        at = t.mark()  # the history: the line before the last
        t.send(UP + UP + "\r")
        t.expect(r"Be brief\.\n" + PROMPT, at)
        t.send(CTRL_D)
        assert t.wait() == 0
        assert "Traceback" not in t.text

    history = (home / "chat_history").read_text("utf-8")
    assert "+Tell me a long story." in history and "+Hi" in history
    with Terminal(argv) as t:  # it lasts
        t.expect("Ctrl-D leaves" + PROMPT)
        at = t.mark()
        t.send(UP)
        t.expect("/system", at)
        t.send(CTRL_C + "/bye\r")
        assert t.wait() == 0


def test_chat_takes_several_lines(home: Path, smollm2: Path, tmp_path: Path) -> None:
    with Terminal(pyllm("chat", str(smollm2), "-n", "2")) as t:
        t.expect("Ctrl-D leaves" + PROMPT)
        at = t.mark()
        t.send("one\x1b\rtwo\r")  # Alt-Enter between them
        t.expect(r"-n is reached\)\n" + PROMPT, at)
        at = t.mark()
        t.send(f"/save {tmp_path}/talk.json\r")
        t.expect("saved 2" + PROMPT, at)
        t.send(CTRL_D)
        assert t.wait() == 0
    assert json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"][0]["content"] == "one\ntwo"


def test_answers_go_to_standard_output_alone(home: Path, smollm2: Path, tmp_path: Path) -> None:
    """With output sent to a file the prompt and the messages still show on the terminal."""
    out = tmp_path / "out"
    command = f'"$0" -m pyllm chat "{smollm2}" --temp 0 -n 3 > "{out}"'
    with Terminal(["sh", "-c", command, pyllm()[0]]) as t:
        t.expect("Ctrl-D leaves" + PROMPT)
        at = t.mark()
        t.send("Hi\r")
        t.expect(r"-n is reached\)\n" + PROMPT, at)
        t.send(CTRL_D)
        assert t.wait() == 0
    text = out.read_bytes()
    assert text.endswith(b"\n") and b"\x1b" not in text and b">" not in text and len(text) > 3


class Slow(http.server.BaseHTTPRequestHandler):
    """Sends five megabytes of model in a few seconds."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(5_000_000))
        self.end_headers()
        try:
            self.wfile.write(b"GGUF" + bytes(99_996))
            for _ in range(49):
                time.sleep(0.04)
                self.wfile.write(bytes(100_000))
        except OSError:
            return


@pytest.fixture
def slow() -> Iterator[str]:
    """The address of a model that takes two seconds to download."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/m.gguf"
        server.shutdown()


def test_download_shows_progress(home: Path, slow: str) -> None:
    with Terminal(pyllm("pull", slow)) as t:
        t.expect(r"downloading http.*[\d.]+/5\.0 MB")
        assert t.wait() == 0
        assert "\x1b[38;5;" in t.raw.decode() or "\x1b[3" in t.raw.decode()  # with colour
        path = Path(t.text.strip().splitlines()[-1])
        assert path.stat().st_size == 5_000_000


def test_no_color(home: Path, slow: str) -> None:
    with Terminal(pyllm("pull", slow), NO_COLOR="1") as t:
        t.expect(r"downloading http.*[\d.]+/5\.0 MB")
        assert t.wait() == 0
        assert not re.search(rb"\x1b\[(?:3[0-9]|9[0-9]|38;[\d;]+)m", t.raw)


def test_ctrl_c_ends_a_download(home: Path, slow: str) -> None:
    with Terminal(pyllm("pull", slow)) as t:
        t.expect(r"downloading http.*[\d.]+/5\.0 MB")
        t.send(CTRL_C)
        assert t.wait(20) == 130
        assert "Traceback" not in t.text
    assert not list((home / "models").rglob("*.gguf"))
    with Terminal(pyllm("pull", slow)) as t:
        assert t.wait() == 0


def test_hanging_up_ends_the_program(home: Path, smollm2: Path) -> None:
    with Terminal(pyllm("chat", str(smollm2))) as t:
        t.expect("Ctrl-D leaves" + PROMPT)
        t.process.send_signal(signal.SIGHUP)
        assert t.wait(20) == -signal.SIGHUP


@pytest.mark.parametrize("answering", [False, True], ids=["at the prompt", "during an answer"])
@pytest.mark.parametrize("action", [signal.SIG_DFL, signal.SIG_IGN], ids=["plain", "nohup"])
def test_terminal_that_is_closed(home: Path, smollm2: Path, action: signal.Handlers, answering: bool) -> None:
    """Its end is that of the program, also of one that nohup keeps from being told."""
    before = signal.signal(signal.SIGHUP, action)
    try:
        terminal = Terminal(pyllm("chat", str(smollm2), "--ignore-eos", "-n", "2000"))
    finally:
        signal.signal(signal.SIGHUP, before)
    with terminal as t:
        t.expect("Ctrl-D leaves" + PROMPT)
        if answering:
            at = t.mark()
            t.send("Tell me a long story.\r")
            t.expect(r"story\.\n.*\w+ \w+ \w+", at)
        t.close()
        assert t.process.wait(20) in ((-signal.SIGHUP,) if action == signal.SIG_DFL else (0, 1))


def test_ctrl_c_ends_quantization(tmp_path: Path) -> None:
    """The bar is there once it takes a while; nothing is left of what was written."""
    source = tmp_path / "large-F16.gguf"
    models.write(models.Spec(layers=2, d=4096, matrices={"ffn_up.weight": (4096, 65536)}), source)
    with Terminal(pyllm("quantize", str(source), "Q5_1", "--pure", "-t", "1"), PYLLM_CPU="ref") as t:
        t.expect(r"quantizing to Q5_1 .* +\d+%")
        assert "blk.0" not in t.text  # lines are for files
        t.send(CTRL_C)
        assert t.wait(20) == 130
        assert "Traceback" not in t.text
    assert list(tmp_path.iterdir()) == [source]


def test_imatrix_shows_progress(home: Path, smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    argv = pyllm("imatrix", "-m", str(smollm2), "-f", str(tmp_path / "t.txt"), "-o", str(tmp_path / "o"), "-t", "1")
    with Terminal(argv) as t:
        t.expect(r"importance matrix .* +\d+%")
        t.send(CTRL_C)
        assert t.wait(60) == 130
    assert not (tmp_path / "o").exists()
