"""When an answer ends, and which of its text may already be shown."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts text at the first of several strings to be complete, across the borders of the pieces it arrives in.

    push() returns text that can no longer become part of a stop string; the rest is held back. Of strings that end
    at the same place the longest counts, so the result does not depend on the pieces.
    """

    __slots__ = ("_held", "matched", "strings")

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = [s for s in strings if s]
        self._held = ""
        self.matched: str | None = None

    def push(self, piece: str) -> str:
        if not self.strings:
            return piece
        text = self._held + piece
        found = [(at, s) for s in self.strings if (at := text.find(s)) >= 0]
        if found:
            at, self.matched = min(found, key=lambda f: (f[0] + len(f[1]), f[0]))
            self._held = ""
            return text[:at]
        keep = 0
        for s in self.strings:
            for n in range(min(len(s) - 1, len(text)), keep, -1):
                if text.endswith(s[:n]):
                    keep = n
                    break
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held
