"""The command line: `pyllm run|chat|info|tokenize|bench|perplexity|convert|quantize|imatrix|pull|list|rm`.

Text goes to standard output, everything else to standard error. Exit status: 0 success, 1 an error that a message
explains, 2 wrong usage, 130 interrupted (Ctrl-C), 141 the reader of the output went away.

Modules of commands are imported when the parser is built, so they import nothing heavy before they run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import bench, chat, convert, imatrix, info, models, perplexity, quantize, run, tokenize
from .args import UsageError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; parsed arguments have .command, the function to call with them."""
    parser = argparse.ArgumentParser(
        prog="pyllm",
        description="Run GGUF language models on this machine.",
        epilog='Begin with: pyllm run "What is the capital of France?"',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pyllm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, chat, info, tokenize, bench, perplexity, convert, quantize, imatrix, models):
        module.add_parsers(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. No exception leaves it."""
    _lenient_output()
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as e:  # argparse has written its message
        return e.code if isinstance(e.code, int) else EXIT_USAGE
    try:
        status = int(arguments.command(arguments))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say("")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except UsageError as e:
        _say(f"pyllm: {e}")
        return EXIT_USAGE
    except Exception as e:
        return _report(e)


def _report(error: Exception) -> int:
    """One line for an error; its traceback only where the environment's PYLLM_DEBUG asks for it."""
    from ..errors import PyllmError

    if os.environ.get("PYLLM_DEBUG"):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    elif isinstance(error, (PyllmError, OSError)):
        _say(f"pyllm: {error}")
    elif isinstance(error, MemoryError):
        _say("pyllm: out of memory: take a smaller model or a smaller context (-c)")
    else:
        _say(f"pyllm: {type(error).__name__}: {error} (a fault of pyllm: PYLLM_DEBUG=1 shows where)")
    return EXIT_ERROR


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:
        return


def _lenient_output() -> None:
    """A model may write any character: one that the terminal's encoding lacks must not end the program.
    Nor must an output that the caller has closed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
