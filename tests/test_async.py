"""The awaitable twins: they give the same, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import pyllm
from pyllm.chat_template import ChatTemplate

QUANT = Path(__file__).parent / "data" / "quant" / "quant-Q4_1.gguf"
LONG: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
T = TypeVar("T")

pytestmark = pytest.mark.native


@pytest.fixture
def llm() -> Iterator[pyllm.LLM]:
    with pyllm.LLM(QUANT, n_threads=1, kv_tokens=2048) as loaded:
        yield loaded


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """With a time limit, and with asyncio's own checks for what is forgotten."""
    return asyncio.run(asyncio.wait_for(coroutine, 60), debug=True)


def slow_down(llm: pyllm.LLM, seconds: float) -> None:
    backend = llm._engine._backend
    step = backend.run
    backend.run = lambda *a: (time.sleep(seconds), step(*a))  # type: ignore[method-assign,assign,return-value]


async def idle(llm: pyllm.LLM) -> None:
    e = llm._engine
    while e._runs or e._scheduler.busy or e._inbox:
        await asyncio.sleep(0.002)
    assert e._kv.available == e._kv.n_pages


async def ticks(every: float, gaps: list[float]) -> None:
    """The longest that the loop kept a task waiting, over and over."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(every)
        now = time.monotonic()
        gaps.append(now - last - every)
        last = now


def test_they_give_what_the_others_give(llm: pyllm.LLM) -> None:
    options: dict[str, Any] = {"max_tokens": 12, **LONG}
    llm._template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    messages = [{"role": "user", "content": "the quick"}]
    prompts: list[Any] = ["a", [5] * 20, "once upon"]
    want = [o.tokens for o in llm.generate(prompts, **options)]
    chat = llm.chat(messages, **options)

    async def main() -> None:
        one = await llm.agenerate("a", **options)
        assert one.tokens == want[0]
        assert [o.tokens for o in await llm.agenerate(prompts, **options)] == want
        stream = llm.astream("a", **options)
        pieces = [p async for p in stream]
        assert "".join(pieces) == one.text and len(pieces) > 1
        assert stream.completion is not None and stream.completion.tokens == want[0]
        assert [p async for p in stream] == []
        assert (await llm.achat(messages, **options)).tokens == chat.tokens
        streamed = await llm.achat(messages, stream=True, **options)
        assert "".join([p async for p in streamed]) == chat.text

    run(main())


@pytest.mark.alone
def test_the_loop_goes_on(llm: pyllm.LLM) -> None:
    """While answers take half a second, and while tokenizing and templates do, another task keeps its time."""
    slow_down(llm, 0.02)
    llm._template = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}")
    encode, render = llm.tokenizer.encode, llm._template.render
    llm.tokenizer.encode = lambda *a, **k: (time.sleep(0.5), encode(*a, **k))[1]  # type: ignore[method-assign]
    llm._template.render = lambda *a, **k: (time.sleep(0.5), render(*a, **k))[1]  # type: ignore[method-assign]
    gaps: list[float] = []

    async def main() -> None:
        ticker = asyncio.create_task(ticks(0.01, gaps))
        start = time.monotonic()
        await llm.agenerate(["a", "b"], max_tokens=15, **LONG)
        await llm.achat([{"role": "user", "content": "a"}], max_tokens=5, **LONG)
        async for _ in llm.astream("a", max_tokens=5, **LONG):
            pass
        assert time.monotonic() - start > 1.0
        ticker.cancel()

    run(main())
    assert len(gaps) > 60 and max(gaps) < 0.4


def test_answers_run_together(llm: pyllm.LLM) -> None:
    async def main() -> None:
        before = llm._engine.n_steps
        await llm.agenerate([[5], [6], [7]], max_tokens=20, **LONG)
        assert llm._engine.n_steps - before == 20

    run(main())


@pytest.mark.parametrize("many", [False, True])
def test_cancelling_the_task_cancels_the_request(llm: pyllm.LLM, many: bool) -> None:
    slow_down(llm, 0.005)

    async def main() -> None:
        task = asyncio.create_task(llm.agenerate(["a", "b"] if many else "a", **LONG))
        while not llm._engine._runs:
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.02)
        steps = llm._engine.n_steps
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(llm)
        assert llm._engine.n_steps - steps < 20

    run(main())


def test_cancelling_a_task_that_reads_a_stream(llm: pyllm.LLM) -> None:
    """Though somebody else still holds the stream."""
    slow_down(llm, 0.005)

    async def main() -> None:
        stream, reading = llm.astream("a", **LONG), asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                reading.set()

        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(llm)
        assert llm._engine.n_steps < 100

    run(main())


def test_cancelling_before_the_request_is_there(llm: pyllm.LLM) -> None:
    """The task is cancelled while its prompt is being tokenized: the request ends as soon as it begins."""
    encode, begun = llm.tokenizer.encode, threading.Event()

    def slow(*args: Any, **kwargs: Any) -> list[int]:
        begun.set()
        time.sleep(0.1)
        return encode(*args, **kwargs)

    llm.tokenizer.encode = slow  # type: ignore[method-assign]

    async def main() -> None:
        task = asyncio.create_task(llm.agenerate("a", **LONG))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        await idle(llm)
        assert llm._engine.n_steps < 20

    run(main())


def test_a_timeout_cancels(llm: pyllm.LLM) -> None:
    slow_down(llm, 0.01)

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(llm.agenerate("a", **LONG), 0.1)
        await idle(llm)

    run(main())


@pytest.mark.parametrize("how", ["cancel", "aclose", "forget"])
def test_a_stream_may_end_early(llm: pyllm.LLM, how: str) -> None:
    slow_down(llm, 0.005)

    async def main() -> None:
        stream = llm.astream("a", **LONG)
        await stream.__anext__()
        if how == "forget":
            del stream
            gc.collect()
        else:
            if how == "cancel":
                stream.cancel()
            else:
                await stream.aclose()
            rest = [p async for p in stream]
            assert stream.completion is not None and stream.completion.finish_reason == "cancelled"
            assert len(rest) < 50
        await idle(llm)
        assert llm._engine.n_steps < 100

    run(main())


def test_wrong_requests(llm: pyllm.LLM) -> None:
    async def main() -> None:
        with pytest.raises(pyllm.ContextError):
            await llm.agenerate([5] * 300)
        with pytest.raises(TypeError, match="temprature"):
            await llm.agenerate("a", temprature=1)
        with pytest.raises(pyllm.ContextError):
            await llm.agenerate([[5], [5] * 300])
        stream = llm.astream([5] * 300)
        with pytest.raises(pyllm.ContextError):
            await stream.__anext__()
        assert [p async for p in stream] == []
        with pytest.raises(pyllm.TemplateError):
            await llm.achat([{"role": "user", "content": "a"}])
        assert llm._engine.n_steps == 0
        forgotten = llm.astream([5] * 300)
        del forgotten
        await asyncio.sleep(0.05)

    run(main())


def test_one_failure_ends_the_batch(llm: pyllm.LLM) -> None:
    """Nobody gets the other answers, so they are not made."""
    slow_down(llm, 0.005)
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(total)
        if total == 7:
            raise RuntimeError("not this one")

    async def main() -> None:
        with pytest.raises(RuntimeError, match="not this one"):
            await llm.agenerate([[5] * 3, [5] * 7], progress=progress, **LONG)
        await idle(llm)
        assert llm._engine.n_steps < 30

    run(main())


def test_closing_ends_what_is_awaited(llm: pyllm.LLM) -> None:
    slow_down(llm, 0.005)

    async def main() -> None:
        task = asyncio.create_task(llm.agenerate("a", **LONG))
        while not llm._engine._runs:
            await asyncio.sleep(0.002)
        await asyncio.to_thread(llm.close)
        assert (await task).finish_reason == "cancelled"
        with pytest.raises(pyllm.PyllmError, match="closed"):
            await llm.agenerate("a")

    run(main())


def test_a_loop_that_ends_first_does_no_harm(llm: pyllm.LLM) -> None:
    slow_down(llm, 0.005)
    kept = []

    async def main() -> None:
        stream = llm.astream("a", **LONG)
        kept.append(stream)
        await stream.__anext__()

    run(main())
    kept.clear()
    gc.collect()
    run(idle(llm))
    assert len(llm.generate("a", max_tokens=3, **LONG).tokens) == 3
