"""`pyllm chat`: a conversation. Ctrl-C stops an answer, not the program."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .args import (
    SAMPLING_FIELDS,
    SAMPLING_FLAGS,
    UsageError,
    add_model_options,
    add_sampling_options,
    answer_options,
    model_options,
    subparser,
)

if TYPE_CHECKING:
    from .. import LLM

HELP = """\
/help            this text
/clear           forget the conversation, keep the system message
/system [TEXT]   show or set the system message; it starts the conversation anew
/save FILE       write the conversation to a file
/load FILE       read one back
/set             show the options of sampling; /set temp 0.5 changes one; /set n 200 limits the answers
/bye             leave (so does Ctrl-D)
Ctrl-C stops an answer. Alt-Enter starts a new line. A line that begins with // is sent with one slash less."""


def add_parsers(commands: Any) -> None:
    """The command's parser."""
    parser = subparser(commands, "chat", "talk with a model")
    parser.add_argument("word", nargs="?", metavar="MODEL", help="name, path or source (default: smollm2)")
    parser.add_argument("-m", "--model", metavar="MODEL", help="the same")
    parser.add_argument("-sys", "--system-prompt", metavar="TEXT", help="system message (default: the model's own)")
    parser.add_argument("-v", "--verbose", action="store_true", help="say after each answer how long it took")
    add_sampling_options(parser)
    add_model_options(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Talk until the user leaves or standard input ends."""
    from ..hub import DEFAULT_MODEL, cache_dir
    from .console import load, say

    if args.word is not None and args.model is not None:
        raise UsageError("give the model once")
    model = args.model or args.word or DEFAULT_MODEL
    answer = answer_options(args)
    with load(model, model_options(args), not args.no_check_memory) as llm:
        llm.chat_template  # noqa: B018 (a model without one is refused before the first question)
        chat = Chat(llm, answer, args.system_prompt, args.verbose)
        if sys.stdin.isatty():
            say(f"{llm.path.name}, context {llm.n_ctx}. /help lists the commands, Ctrl-D leaves.")
            read = _terminal_reader(cache_dir() / "chat_history")
        else:
            read = _plain_reader()
        for line in read:
            if not chat.handle(line):
                break
    return 0


def _plain_reader() -> Iterator[str]:
    """Lines of standard input, where that is no terminal."""
    for raw in sys.stdin.buffer:
        yield raw.decode("utf-8", "replace").rstrip("\r\n")


def _terminal_reader(history: Path) -> Iterator[str]:
    """Lines typed at a prompt with editing and a history that lasts. Ctrl-C throws a line away, Ctrl-D ends."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent
    from prompt_toolkit.output import create_output

    from .console import say

    lasting: History
    try:
        history.parent.mkdir(parents=True, exist_ok=True)
        with open(history, "ab"):
            pass
        lasting = FileHistory(str(history))
    except OSError as e:
        say(f"the history is not kept: {e}")
        lasting = InMemoryHistory()
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # The prompt is no text of the model's: it goes to standard error.
    session: PromptSession[str] = PromptSession(history=lasting, key_bindings=keys, output=create_output(sys.stderr))
    while True:
        try:
            yield session.prompt("> ")
        except KeyboardInterrupt:
            say("(Ctrl-D or /bye leaves)")
        except EOFError:
            return


class Chat:
    """The conversation and the commands that change it."""

    def __init__(self, llm: LLM, answer: dict[str, Any], system: str | None = None, verbose: bool = False) -> None:
        """answer: as args.answer_options() makes it."""
        self.llm = llm
        self.answer = answer
        self.system = system
        self.verbose = verbose
        self.messages: list[dict[str, str]] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help, "clear": self._clear, "system": self._system, "save": self._save,
            "load": self._load, "set": self._set,
        }  # fmt: skip

    def handle(self, line: str) -> bool:
        """One line of the user's: a command, or a message to answer. False: the user wants to leave."""
        from ..errors import PyllmError
        from .console import say

        if not line.strip():
            return True
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].strip().partition(" ")
            if name in ("bye", "exit", "quit"):
                return False
            command = self._commands.get(name)
            if command is None:
                say(f"there is no command /{name}; /help lists them")
            else:
                try:
                    command(rest.strip())
                except (OSError, ValueError) as e:
                    say(f"/{name}: {e}")
            return True
        try:
            self._reply(line[1:] if line.startswith("//") else line)
        except PyllmError as e:
            say(f"pyllm: {e}")
        return True

    def _reply(self, text: str) -> None:
        """Answer a message. On an error the conversation stays as it was."""
        from ..errors import ContextError
        from .run import print_timings, stream_answer

        asked = [*self.messages, {"role": "user", "content": text}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        ids = self.llm.apply_chat_template([*system, *asked])
        cancel = threading.Event()
        try:
            with _ctrl_c(cancel):
                completion = stream_answer(self.llm, ids, {**self.answer, "cancel": cancel})
        except ContextError as e:
            raise ContextError(
                f"the conversation has {e.n_prompt} tokens and the context holds {e.n_ctx}: /clear starts a new one, "
                "and -c makes the context larger",
                e.n_prompt,
                e.n_ctx,
            ) from e
        self.messages = [*asked, {"role": "assistant", "content": completion.text}]
        if self.verbose:
            print_timings(self.llm, completion)
        self._explain(completion.finish_reason, len(ids) + completion.usage.completion_tokens)

    def _explain(self, reason: str, used: int) -> None:
        """Say why an answer ended where that is not by itself."""
        from .console import say

        if reason == "cancelled":
            say("(stopped)")
        elif reason == "length":
            full = used >= self.llm.n_ctx
            say("(the context is full: /clear starts a new conversation)" if full else "(the limit of -n is reached)")

    # ---- commands -----------------------------------------------------------------------------------------

    def _help(self, rest: str) -> None:
        from .console import say

        say(HELP)

    def _clear(self, rest: str) -> None:
        self.messages = []

    def _system(self, rest: str) -> None:
        from .console import say

        if rest:
            self.system, self.messages = rest, []
        else:
            say(self.system if self.system is not None else "(the model's own)")

    def _save(self, rest: str) -> None:
        from .console import say

        if not rest:
            raise ValueError("name a file")
        data = {"model": str(self.llm.path), "system": self.system, "messages": self.messages}
        path = Path(rest).expanduser()
        path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")
        say(f"saved {len(self.messages)} messages to {path}")

    def _load(self, rest: str) -> None:
        from .console import say

        if not rest:
            raise ValueError("name a file")
        data = json.loads(Path(rest).expanduser().read_text("utf-8"))
        messages = data.get("messages") if isinstance(data, dict) else None
        good = isinstance(messages, list) and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in messages
        )
        if not good or not isinstance(data.get("system"), (str, type(None))):
            raise ValueError("the file holds no conversation that /save wrote")
        self.system = data.get("system")
        self.messages = [{"role": m["role"], "content": m["content"]} for m in data["messages"]]
        say(f"loaded {len(self.messages)} messages")

    def _set(self, rest: str) -> None:
        from .console import say

        name, _, value = rest.partition(" ")
        params = self.answer["params"]
        if not name:
            for field in (*SAMPLING_FIELDS, "seed"):
                say(f"{field} {getattr(params, field)}")
            say(f"n {self.answer['max_tokens'] or -1}")
            return
        field = name.lstrip("-").replace("-", "_")
        field = SAMPLING_FLAGS.get(field, field)
        value = value.strip()
        if field in ("n", "n_predict"):
            n = int(value)
            if n < 1 and n != -1:
                raise ValueError("give a positive number, or -1 for no limit")
            self.answer["max_tokens"] = None if n == -1 else n
        elif field in ("seed", "s"):
            seed = int(value)
            self.answer["params"] = dataclasses.replace(params, seed=None if seed == -1 else seed)
        elif field in SAMPLING_FIELDS:
            number = SAMPLING_FIELDS[field](value)
            self.answer["params"] = dataclasses.replace(params, **{field: number})
        else:
            raise ValueError(f"there is no option {name}; /set lists them")


@contextmanager
def _ctrl_c(cancel: threading.Event) -> Iterator[None]:
    """Ctrl-C sets the event instead of ending the program; pressed again while nothing happens, it interrupts."""

    def handler(number: int, frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
