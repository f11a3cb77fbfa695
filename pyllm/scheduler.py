"""What runs in the next step.

There is no prefill phase and no decode phase: a sequence has tokens, some of which are computed, and a step lets
computed counts catch up, within a budget of tokens. That one rule covers chunked prefill, prefix reuse, sequences of
different lengths in one step, and going on after a sequence was set aside for lack of pages (after vLLM's scheduler).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import NamedTuple

from .kvcache import PAGE, KVCache


@dataclass(eq=False, slots=True)
class Sequence:
    """Tokens on their way through the model; the engine appends what it samples."""

    tokens: list[int]
    logits_from: int | None = None  # logits of every token from this one on, not only of the last
    n_computed: int = 0
    n_cached: int = 0  # tokens found in the cache when the sequence first started
    pages: list[int] = field(default_factory=list)
    started: bool = False
    is_long: bool = False  # computed with the rotary frequencies for long sequences

    @property
    def n_remaining(self) -> int:
        return len(self.tokens) - self.n_computed


class Chunk(NamedTuple):
    """Tokens [start, start + n) of seq, to be computed in this step; n_out of its last rows want logits."""

    seq: Sequence
    start: int
    n: int
    n_out: int


class Scheduler:
    """Sequences waiting and running; schedule() picks a step, done() records it.

    n_batch: tokens per step; n_seqs: sequences per step; n_out: rows of logits per step. long_after: a sequence of
    more tokens takes the model's rotary frequencies for long ones (0: the model has none); one that grows beyond is
    computed anew.
    """

    def __init__(self, kv: KVCache, n_batch: int, n_seqs: int, n_out: int, long_after: int = 0) -> None:
        self.kv, self.n_batch, self.n_seqs, self.n_out, self.long_after = kv, n_batch, n_seqs, n_out, long_after
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, seq: Sequence) -> None:
        self.waiting.append(seq)

    def remove(self, seq: Sequence) -> None:
        """Take out a sequence in whatever state it is; its full pages stay findable."""
        if seq in self.running:
            self.running.remove(seq)
        elif seq in self.waiting:
            self.waiting.remove(seq)
        self.kv.release(seq.pages)
        seq.pages = []

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def schedule(self) -> list[Chunk]:
        """The next step; empty only when nothing is waiting or running.

        Sequences that only decode come first, so that a long prompt does not stop the others' text.
        """
        chunks: list[Chunk] = []
        tokens, out = self.n_batch, self.n_out
        if self.long_after:
            for seq in [s for s in reversed(self.running) if self._is_long(s) and not s.is_long]:
                self._set_aside(seq)
        order = [s for s in self.running if len(s.tokens) - s.n_computed <= 1]
        if len(order) < len(self.running):
            order += [s for s in self.running if len(s.tokens) - s.n_computed > 1]
        n_running = len(order)
        for seq in order:
            if len(self.running) < n_running and seq not in self.running:  # set aside below
                continue
            chunk = self._chunk(seq, tokens, out)
            while chunk is None and (tokens and out):
                victim = next((s for s in reversed(self.running) if all(c.seq is not s for c in chunks)), None)
                if victim is None:
                    break
                self._set_aside(victim)
                if victim is seq:
                    break
                chunk = self._chunk(seq, tokens, out)
            if chunk:
                chunks.append(chunk)
                tokens, out = tokens - chunk.n, out - chunk.n_out
        while self.waiting and len(self.running) < self.n_seqs and tokens and out:
            seq = self.waiting[0]
            seq.is_long = self._is_long(seq)
            if not seq.pages and seq.logits_from is None:
                seq.pages = self.kv.match(seq.tokens, seq.is_long)
                seq.n_computed = len(seq.pages) * PAGE
                if not seq.started:
                    seq.n_cached = seq.n_computed
            chunk = self._chunk(seq, tokens, out)
            if chunk is None:
                self.kv.release(seq.pages)
                seq.pages, seq.n_computed = [], 0
                break
            seq.started = True
            self.running.append(self.waiting.popleft())
            chunks.append(chunk)
            tokens, out = tokens - chunk.n, out - chunk.n_out
        return chunks

    def _is_long(self, seq: Sequence) -> bool:
        return 0 < self.long_after < len(seq.tokens)

    def _chunk(self, seq: Sequence, tokens: int, out: int) -> Chunk | None:
        """As much of seq as the budget and the free pages allow; None if that is nothing."""
        start = seq.n_computed
        if start + 1 == len(seq.tokens) and start < len(seq.pages) * PAGE and tokens > 0 and out > 0:
            return Chunk(seq, start, 1, 1)  # what most steps are made of, without detours
        n = min(seq.n_remaining, tokens)
        silent = n if seq.logits_from is None else max(seq.logits_from - start, 0)  # tokens without logits come first
        room = len(seq.pages) * PAGE - start + self.kv.available * PAGE
        n = min(n, silent + out, room)
        if n <= 0 or out <= 0:
            return None
        while len(seq.pages) * PAGE < start + n:
            page = self.kv.take()
            assert page is not None  # counted above
            seq.pages.append(page)
        last = start + n == len(seq.tokens)
        return Chunk(seq, start, n, int(last) if seq.logits_from is None else max(n - silent, 0))

    def _set_aside(self, seq: Sequence) -> None:
        """Give up a running sequence's pages; it starts again when there is room, from what is still findable."""
        self.running.remove(seq)
        self.kv.release(seq.pages)
        seq.pages, seq.n_computed = [], 0
        self.waiting.appendleft(seq)

    def done(self, chunks: Seq[Chunk]) -> None:
        """The step has run: count it, and make pages that are now full findable."""
        for chunk in chunks:
            seq = chunk.seq
            start = chunk.start
            seq.n_computed = end = start + chunk.n
            for index in range(start // PAGE, end // PAGE) if end % PAGE == 0 or chunk.n > 1 else ():
                before = seq.pages[index - 1] if index else None
                self.kv.remember(seq.pages[index], before, seq.tokens[index * PAGE : (index + 1) * PAGE], seq.is_long)
