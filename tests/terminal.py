"""A program on a pseudo-terminal, for tests: type at it, wait for what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][0-9A-B]|[=>78M])|\r")


# A session of its own, whose terminal is standard input: Ctrl-C then reaches the program and nobody else.
_ON_ITS_OWN = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """Runs argv on a terminal of its own (100 columns). Use in a with block: it is killed at the end."""

    def __init__(self, argv: Sequence[str], **env: str) -> None:
        self.raw = b""
        self.fd, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_ITS_OWN, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **env},
        )
        os.close(theirs)

    @property
    def text(self) -> str:
        """Everything shown so far, without control sequences."""
        return ESCAPES.sub("", self.raw.decode("utf-8", "replace"))

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self.fd, keys.encode())

    def mark(self) -> int:
        """A place in the text from which to expect() something."""
        self._read(0.0)
        return len(self.text)

    def expect(self, pattern: str, since: int = 0, timeout: float = 60.0) -> str:
        """Wait until the text after `since` matches; returns that text. AssertionError with it otherwise."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text[since:]):
            left = end - time.monotonic()
            if left < 0 or not self._read(min(left, 0.2)):
                raise AssertionError(f"waited in vain for {pattern!r} in {self.text[since:]!r}")
        return self.text[since:]

    def wait(self, timeout: float = 60.0) -> int:
        """The exit status, once the program has ended; -N when signal N ended it."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            self._read(0.05)
            if time.monotonic() > end:
                raise AssertionError(f"still running after {timeout} s: {self.text!r}")
        while self._read(0.0):
            pass
        return self.process.returncode

    def _read(self, timeout: float) -> bool:
        """Take in what there is; False once the program's side is closed or when nothing came with timeout 0."""
        ready, _, _ = select.select([self.fd], [], [], timeout)
        if not ready:
            return timeout > 0
        try:
            piece = os.read(self.fd, 1 << 16)
        except OSError:  # Linux says EIO when the other side is closed
            return False
        self.raw += piece
        return bool(piece)

    def close(self) -> None:
        """Close the window: the program's side is hung up."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.close()


def pyllm(*args: str) -> list[str]:
    """The command line that runs this pyllm."""
    return [sys.executable, "-m", "pyllm", *args]
