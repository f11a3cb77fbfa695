"""Text as it is made: what carries events from the engine thread to a caller, blocking or awaited.

asyncio is imported where it is used: it takes longer than the rest of pyllm, and most programs do without."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from .engine import Completion, Engine, Request

if TYPE_CHECKING:
    import asyncio


class Stream(Iterator[str]):
    """Text of one answer as it is made. `completion` holds the whole answer once the iterator has ended; cancel()
    (from any thread), close() or leaving a with block ends it early."""

    def __init__(self, owner: object, engine: Engine, request: Request, events: queue.SimpleQueue[Any]) -> None:
        """owner: the LLM, which lives as long as its answer is under way."""
        self._owner, self._engine, self._request, self._events = owner, engine, request, events
        self.completion: Completion | None = None
        self._failed = False

    def __next__(self) -> str:
        while self.completion is None and not self._failed:
            event = self._events.get()
            if isinstance(event, Completion):
                self.completion, self._owner = event, None
            elif isinstance(event, BaseException):
                self._failed, self._owner = True, None
                raise event
            elif event.text:
                text: str = event.text
                return text
        raise StopIteration

    def cancel(self) -> None:
        """Stop after the step that is running; the iterator then ends, and completion says "cancelled"."""
        self._engine.cancel(self._request)

    def close(self) -> None:
        if self.completion is None and not self._failed:
            self.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncSink:
    """Carries events from the engine thread into an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self.loop = loop
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def __call__(self, event: Any) -> None:
        with contextlib.suppress(RuntimeError):  # a closed loop: nobody waits for this any more
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)


class AsyncStream(AsyncIterator[str]):
    """Stream for `async for`; aclose() or cancel() ends it early. Errors of the request come with the first piece."""

    def __init__(
        self, owner: object, engine: Engine, sink: AsyncSink, cancelled: threading.Event, ready: asyncio.Future[None]
    ) -> None:
        """ready: done once the request, which `cancelled` belongs to, is with the engine."""
        self._owner, self._engine, self._sink, self._cancelled, self._ready = owner, engine, sink, cancelled, ready
        self.completion: Completion | None = None
        self._failed = False

    async def __anext__(self) -> str:
        import asyncio

        try:
            while self.completion is None and not self._failed:
                await self._submitted()
                event = await self._sink.events.get()
                if isinstance(event, Completion):
                    self.completion, self._owner = event, None
                elif isinstance(event, BaseException):
                    self._failed, self._owner = True, None
                    raise event
                elif event.text:
                    text: str = event.text
                    return text
        except asyncio.CancelledError:
            self.cancel()
            raise
        raise StopAsyncIteration

    async def _submitted(self) -> None:
        import asyncio

        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._failed, self._owner = True, None
            raise

    def cancel(self) -> None:
        """Stop after the step that is running."""
        self._cancelled.set()
        self._engine.wake()

    async def aclose(self) -> None:
        if self.completion is None and not self._failed:
            self.cancel()

    def __del__(self) -> None:
        if self.completion is None and not self._failed:
            self.cancel()


async def last(stream: AsyncStream) -> Completion:
    async for _ in stream:
        pass
    assert stream.completion is not None
    return stream.completion
