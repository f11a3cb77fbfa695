"""The engine thread: takes requests from any thread, runs them together step by step, hands out tokens as text.

All C calls that compute come from this one thread. Requests talk to it by queue, and it talks back through each
request's sink, a function called with a Piece for every bit of text and finally with a Completion or an exception.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .backend import Backend, Step
from .errors import Cancelled, PyllmError
from .kvcache import PAGE, KVCache
from .model import Model
from .sampler import Sampler, SamplingParams, checked
from .scheduler import Chunk, Scheduler
from .scheduler import Sequence as Tokens
from .stopping import StopStrings
from .tokenizer import Tokenizer
from .trace import Tracer


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt, how many of those were found in the cache, and tokens generated."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds: waiting until the first step, until the first token (prompt processing), from then to the end."""

    queued: float
    prompt: float
    generation: float
    prompt_per_second: float
    generation_per_second: float


@dataclass(frozen=True)
class Completion:
    """A finished answer. finish_reason: "stop" (end token or stop string), "length" (max_tokens or context full) or
    "cancelled". tokens holds what was sampled, an end token included; stop the string or token that ended it; seed
    reproduces it."""

    text: str
    tokens: list[int]
    finish_reason: str
    usage: Usage
    timings: Timings
    stop: str | int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Piece:
    """New text, and the token that completed it (-1 for text released at the end)."""

    text: str
    token: int


class Sink(Protocol):
    def __call__(self, event: Piece | Completion | npt.NDArray[np.float32] | BaseException, /) -> None: ...


@dataclass(eq=False, slots=True)
class Request:
    """One sequence to run. score_from: the logits of all prompt tokens from this one on are wanted, and no text.
    pieces: the sink wants a Piece for every token, not the end alone."""

    prompt: list[int]
    params: SamplingParams
    sink: Sink
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    score_from: int | None = None
    pieces: bool = True
    progress: Callable[[int, int], None] | None = None
    cancel: threading.Event | None = None  # the caller's own: only read here
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def unwanted(self) -> bool:
        return self.cancelled.is_set() or (self.cancel is not None and self.cancel.is_set())


class _Run:
    """A request while the engine works on it."""

    __slots__ = (
        "created", "decoder", "first", "n_vocab", "request", "sampler", "scores", "seq", "started", "stop", "text",
        "tokens",
    )  # fmt: skip

    def __init__(self, request: Request, model: Model, tokenizer: Tokenizer) -> None:
        self.request = request
        self.seq = Tokens(list(request.prompt), logits_from=request.score_from)
        self.n_vocab = model.hparams.n_vocab
        self.tokens: list[int] = []
        self.text: list[str] = []
        self.created = time.perf_counter()
        self.started = self.first = 0.0
        self.stop = StopStrings(request.stop)
        self.decoder = tokenizer.stream_decoder(skip_special=True)
        self.sampler: Sampler | None = None
        self.scores: npt.NDArray[np.float32] | None = None
        if request.score_from is not None:
            self.scores = np.empty((len(request.prompt) - request.score_from, self.n_vocab), np.float32)
        else:
            self.sampler = Sampler(request.params, self.n_vocab, tokenizer, request.prompt)

    def completion(self, reason: str, stop: str | int | None = None) -> Completion:
        now = time.perf_counter()
        started = self.started or now
        first = self.first or now
        n_prompt, n = len(self.request.prompt), len(self.tokens)
        usage = Usage(n_prompt, n, self.seq.n_cached)
        prompt, generation = first - started, now - first
        timings = Timings(
            queued=started - self.created,
            prompt=prompt,
            generation=generation,
            prompt_per_second=(n_prompt - usage.cached_tokens) / prompt if prompt > 0 else 0.0,
            generation_per_second=(n - 1) / generation if n > 1 and generation > 0 else 0.0,
        )
        seed = self.sampler.seed if self.sampler else None
        return Completion("".join(self.text), self.tokens, reason, usage, timings, stop, seed)


class Engine:
    """Owns model, backend and the thread that drives them; that thread closes both at its end."""

    def __init__(self, model: Model, tokenizer: Tokenizer, backend: Backend, step: Step) -> None:
        self._model, self._tokenizer, self._backend, self._step = model, tokenizer, backend, step
        self._tracer = Tracer.from_env(model.program)
        self._kv = KVCache(model.n_pages)
        target = model.target
        self._scheduler = Scheduler(self._kv, target.n_batch, target.n_seqs, target.n_out, model.graph.long_after)
        self._runs: dict[Tokens, _Run] = {}
        self._inbox: deque[_Run] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._look = False  # some request may have been cancelled
        self._watched: dict[Tokens, threading.Event] = {}  # events that callers set without a word
        self.n_steps = 0
        #: by row of step.page, what was written there: a list of pages, which only grows, and how many of it
        self._rows: list[tuple[list[int], int]] = [([], 0)] * target.n_seqs
        #: the sequences of the last step, if it was one token of each
        self._decoding: list[Tokens] = []
        #: whose chunks the step holds, and the samplers of its rows of logits
        self._current: list[_Run] = []
        self._samplers: list[Sampler | None] = []
        self._thread = threading.Thread(target=self._loop, name="pyllm-engine", daemon=True)
        self._thread.start()

    # ---- called from any thread ------------------------------------------------------------------------------

    def submit(self, *requests: Request) -> None:
        """Queue requests, so that they are seen together. PyllmError after close()."""
        runs = [_Run(request, self._model, self._tokenizer) for request in requests]
        with self._wake:
            if self._closing:
                raise PyllmError("this LLM is closed")
            self._inbox.extend(runs)
            self._look = True
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """End a request after the step that is running, with what it has."""
        request.cancelled.set()
        self.wake()

    def wake(self) -> None:
        """Look at the requests again."""
        with self._wake:
            self._look = True
            self._wake.notify()

    def close(self) -> None:
        """End all requests and the thread, and free the memory.

        Called on the engine thread (by a callback, or by the garbage collector that happens to run there) it
        returns at once, and the thread ends after the step.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # ---- the engine thread -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while self._next():
                try:
                    self._one_step()
                except BaseException as error:  # whatever it is, callers are waiting for an answer
                    for run in list(self._runs.values()):
                        self._end(run, error)
        finally:
            self._backend.close()
            self._model.close()
            if self._tracer:
                self._tracer.close()

    def _next(self) -> bool:
        """Wait for work, and take requests in and cancelled ones out; False at the end."""
        with self._wake:
            while not (self._inbox or self._scheduler.busy or self._closing):
                self._wake.wait()
            closing, look, self._look = self._closing, self._look, False
            while self._inbox:
                run = self._inbox.popleft()
                self._runs[run.seq] = run
                self._scheduler.add(run.seq)
                if run.request.cancel is not None:
                    self._watched[run.seq] = run.request.cancel
        if closing or look or any(event.is_set() for event in self._watched.values()):
            for run in list(self._runs.values()):
                if closing or run.request.unwanted:
                    self._finish(run, "cancelled")
        return not closing

    def _one_step(self) -> None:
        chunks = self._scheduler.schedule()
        if not chunks:
            return
        if not self._fill(chunks):
            self._current = [self._runs[chunk.seq] for chunk in chunks]
            self._samplers = []
            now = time.perf_counter()
            for run, chunk in zip(self._current, chunks, strict=True):
                run.started = run.started or now
                self._samplers += [run.sampler] * chunk.n_out
        if self._tracer:
            self._tracer.run(self._backend, self._step)
        else:
            self._backend.run()
        self.n_steps += 1
        self._scheduler.done(chunks)
        tokens = self._backend.sample(self._samplers)
        row = 0
        for run, chunk in zip(self._current, chunks, strict=True):
            try:
                self._take(run, chunk, row, tokens)
            except Exception as error:  # one request's trouble is not the others'
                self._end(run, error)
            row += chunk.n_out

    def _fill(self, chunks: list[Chunk]) -> bool:
        """Write the step's arrays (pl_step). True: the sequences are those of the last step, in its order."""
        step, page_size = self._step, PAGE
        if len(chunks) > 3:  # for fewer, whole arrays are more work
            seqs = [chunk.seq for chunk in chunks]
            if seqs == self._decoding and self._go_on(chunks):
                return True
            self._decoding = seqs if all(chunk.n == chunk.n_out == 1 for chunk in chunks) else []
        else:
            self._decoding = []
        t = o = 0
        for s, chunk in enumerate(chunks):
            seq, n, start = chunk.seq, chunk.n, chunk.start
            pages = seq.pages
            written, n_written = self._rows[s]
            if written is not pages or n_written != len(pages):
                step.page[s, : len(pages)] = pages
                self._rows[s] = pages, len(pages)
            step.q_start[s], step.kv_len[s], step.long_rope[s] = t, start + n, seq.is_long
            if n == 1:
                step.token[t], step.pos[t] = seq.tokens[start], start
                step.slot[t] = pages[start // page_size] * page_size + start % page_size
            else:
                pos = np.arange(start, start + n, dtype=np.int32)
                step.token[t : t + n] = seq.tokens[start : start + n]
                step.pos[t : t + n] = pos
                step.slot[t : t + n] = step.page[s, pos // page_size] * page_size + pos % page_size
            if chunk.n_out == 1:
                step.out[o] = t + n - 1
            elif chunk.n_out:
                step.out[o : o + chunk.n_out] = range(t + n - chunk.n_out, t + n)
            t, o = t + n, o + chunk.n_out
        step.q_start[len(chunks)] = t
        step.n_tokens, step.n_seqs, step.n_out = t, len(chunks), o
        return False

    def _go_on(self, chunks: list[Chunk]) -> bool:
        """Write the arrays of a step with one token of each sequence, if the last one had the token before of each."""
        if not all(c.n == 1 and row[0] is c.seq.pages for c, row in zip(chunks, self._rows, strict=False)):
            return False
        step, n = self._step, len(chunks)
        step.token[:n] = [chunk.seq.tokens[-1] for chunk in chunks]
        step.pos[:n] += 1
        step.kv_len[:n] += 1
        step.slot[:n] += 1
        for s, chunk in enumerate(chunks):
            index, inside = divmod(chunk.start, PAGE)
            if not inside:  # a new page
                step.page[s, index] = page = chunk.seq.pages[index]
                step.slot[s] = page * PAGE
                self._rows[s] = chunk.seq.pages, index + 1
        return True

    def _take(self, run: _Run, chunk: Chunk, row: int, tokens: list[int]) -> None:
        """Use a chunk's results: rows [row, row + n_out) of the step's logits, and of the tokens drawn from them."""
        request = run.request
        if request.progress and chunk.start < len(request.prompt):
            request.progress(min(run.seq.n_computed, len(request.prompt)), len(request.prompt))
        if run.scores is not None:
            if chunk.n_out:
                end = run.seq.n_computed - (request.score_from or 0)
                logits = self._backend.read(self._model.program.logits, chunk.n_out, row)
                run.scores[end - chunk.n_out : end] = logits
            if run.seq.n_remaining == 0:
                self._end(run, run.scores)
            return
        if not chunk.n_out:
            return
        if (token := tokens[row]) < 0:
            checked(token)
        run.first = run.first or time.perf_counter()
        run.tokens.append(token)
        if token in self._tokenizer.eog_ids and not request.ignore_eos:
            self._finish(run, "stop", token)
            return
        text = run.stop.push(run.decoder.push(token))
        self._emit(run, text, token)
        if run.stop.matched is not None:
            self._finish(run, "stop", run.stop.matched)
        elif len(run.tokens) == request.max_tokens or len(run.seq.tokens) >= self._model.n_ctx:
            self._finish(run, "length")
        else:
            run.seq.tokens.append(token)

    def _emit(self, run: _Run, text: str, token: int) -> None:
        if text:
            run.text.append(text)
        if run.request.pieces:
            run.request.sink(Piece(text, token))

    def _finish(self, run: _Run, reason: str, stop: str | int | None = None) -> None:
        if run.scores is not None:
            self._end(run, Cancelled("scoring was cancelled"))
            return
        if run.stop.matched is None:
            text = run.stop.push(run.decoder.flush())
            if run.stop.matched is None:
                text += run.stop.flush()
            if text:
                self._emit(run, text, -1)
        self._end(run, run.completion(reason, stop))

    def _end(self, run: _Run, result: Completion | npt.NDArray[np.float32] | BaseException) -> None:
        self._runs.pop(run.seq, None)
        if not self._runs:
            self._decoding, self._current, self._samplers = [], [], []  # nothing of a request outlives it
        self._watched.pop(run.seq, None)
        self._scheduler.remove(run.seq)
        run.request.sink(result)
