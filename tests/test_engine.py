"""The engine thread: cancelling, errors, many callers, and every way for it to end."""

from __future__ import annotations

import gc
import math
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import child_env

import pyllm

DATA = Path(__file__).parent / "data"
QUANT = DATA / "quant" / "quant-Q4_1.gguf"
QWEN = DATA / "models" / "qwen3.gguf"
LONG: dict[str, Any] = {"temperature": 0, "ignore_eos": True}

pytestmark = pytest.mark.native


@pytest.fixture
def llm() -> Iterator[pyllm.LLM]:
    with pyllm.LLM(QUANT, n_threads=1, kv_tokens=4096) as loaded:
        yield loaded


@pytest.fixture
def slow(llm: pyllm.LLM, monkeypatch: pytest.MonkeyPatch) -> pyllm.LLM:
    """Takes some milliseconds per step, so that an answer is still under way when something happens to it."""
    backend = llm._engine._backend
    run = backend.run
    monkeypatch.setattr(backend, "run", lambda *a: (time.sleep(0.005), run(*a)))
    return llm


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.002)


def soon_idle(llm: pyllm.LLM) -> None:
    """Requests end now, and not because they are done: that would take 250 steps."""
    wait_for(lambda: idle(llm))
    assert llm._engine.n_steps < 150


def idle(llm: pyllm.LLM) -> bool:
    """No request left, and every page free."""
    e = llm._engine
    return not e._runs and not e._scheduler.busy and e._kv.available == e._kv.n_pages


# ---- cancelling --------------------------------------------------------------------------------------------------


def test_a_stream_is_cancelled_from_another_thread(slow: pyllm.LLM) -> None:
    stream = slow.stream("a", **LONG)
    threading.Timer(0.05, stream.cancel).start()
    pieces = list(stream)
    out = stream.completion
    assert out is not None and out.finish_reason == "cancelled"
    assert "".join(pieces) == out.text and 0 < len(out.tokens) < 200
    soon_idle(slow)


def test_an_event_cancels_generate(slow: pyllm.LLM) -> None:
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    outs = slow.generate(["a", "b"], cancel=event, **LONG)
    assert [o.finish_reason for o in outs] == ["cancelled"] * 2
    assert all(0 < len(o.tokens) < 200 for o in outs)


def test_an_event_that_is_set_already(llm: pyllm.LLM) -> None:
    event = threading.Event()
    event.set()
    out = llm.generate("a", cancel=event)
    assert (out.text, out.tokens, out.finish_reason) == ("", [], "cancelled")
    with pytest.raises(pyllm.Cancelled):
        llm.logits([5] * 20, cancel=event)


def test_ending_a_stream_leaves_the_callers_event_alone(slow: pyllm.LLM) -> None:
    event = threading.Event()
    first = slow.stream("a", cancel=event, **LONG)
    second = slow.stream("b", cancel=event, max_tokens=40, **LONG)
    next(first)
    first.close()
    assert not event.is_set()
    list(second)
    assert second.completion is not None and second.completion.finish_reason == "length"


def test_leaving_a_with_block_ends_the_stream(slow: pyllm.LLM) -> None:
    with slow.stream("a", **LONG) as stream:
        next(stream)
    rest = list(stream)
    assert stream.completion is not None and stream.completion.finish_reason == "cancelled" and len(rest) < 100
    soon_idle(slow)


def test_a_stream_that_nobody_holds_frees_its_place(slow: pyllm.LLM) -> None:
    streams = [slow.stream("a", **LONG) for _ in range(3)]
    for stream in streams:
        next(stream)
    assert len(slow._engine._runs) == 3
    del stream, streams
    gc.collect()
    soon_idle(slow)


def test_an_exception_while_waiting_cancels(slow: pyllm.LLM) -> None:
    """Of a batch with every token forbidden one fails first: the others end too, since nobody gets their answers."""
    beside = slow.stream("b", max_tokens=30, **LONG)
    with pytest.raises(pyllm.SamplingError):
        slow.generate(["a", "b", "c"], logit_bias=dict.fromkeys(range(slow.n_vocab), -math.inf), **LONG)
    assert len(list(beside)) > 0  # one request's trouble is not the others'
    assert beside.completion is not None and beside.completion.finish_reason == "length"
    soon_idle(slow)


CTRL_C = """
import os, signal, sys, time, pyllm
llm = pyllm.LLM(sys.argv[1], n_threads=1)
backend = llm._engine._backend
run, steps = backend.run, []
def step(*a):
    steps.append(1)
    time.sleep(0.01)
    if len(steps) == 20:
        os.kill(os.getpid(), signal.SIGINT)
    run(*a)
backend.run = step
try:
    llm.generate("a", temperature=0, ignore_eos=True)
except KeyboardInterrupt:
    while llm._engine._runs:
        time.sleep(0.01)
    backend.run = run
    print("interrupted", len(steps) < 100, len(llm.generate("a", max_tokens=3, ignore_eos=True).tokens))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not interrupt a wait for a lock")
def test_ctrl_c_ends_the_answer_and_not_the_model() -> None:
    assert child(CTRL_C, str(QUANT)) == "interrupted True 3"


def child(code: str, *args: str) -> str:
    """What a Python of its own prints; it must end well."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *args],
        env=child_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.returncode == 0 and not run.stderr, run.stderr
    return run.stdout.strip()


# ---- errors ------------------------------------------------------------------------------------------------------


def test_a_step_that_fails_fails_its_requests_and_no_others(llm: pyllm.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = llm._engine._backend
    run, calls = backend.run, []

    def fail_once(*args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("out of memory, for once")
        run(*args)

    want = llm.generate("a", max_tokens=8, **LONG).tokens
    monkeypatch.setattr(backend, "run", fail_once)
    with pytest.raises(MemoryError, match="for once"):
        llm.generate(["a", "b"], max_tokens=8, **LONG)
    assert idle(llm)
    assert llm.generate("a", max_tokens=8, **LONG).tokens == want


def test_a_callback_that_fails_fails_its_request(llm: pyllm.LLM) -> None:
    def progress(done: int, total: int) -> None:
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        llm.generate("a", progress=progress, **LONG)
    stream = llm.stream("a", progress=progress, **LONG)
    with pytest.raises(RuntimeError, match="not now"):
        next(stream)
    assert list(stream) == [] and idle(llm)


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    """Every logit is NaN: no token can be drawn, which is an error of the request; scoring shows the NaNs."""
    with pyllm.LLM(QUANT) as sound:
        where = sound.model.gguf.tensors["output_norm.weight"]
    raw = bytearray(QUANT.read_bytes())
    raw[where.offset : where.offset + where.nbytes] = b"\xff" * where.nbytes
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    with pyllm.LLM(path, n_threads=1, compute="f32") as llm:
        with pytest.raises(pyllm.SamplingError, match="NaN"):
            llm.generate("a")
        assert np.isnan(llm.logits([1, 2])).all()
    with pyllm.LLM(path, n_threads=1) as llm:  # quantized activations cannot hold a NaN, and carry on
        assert len(llm.generate("a", max_tokens=3, **LONG).tokens) == 3


# ---- many callers ------------------------------------------------------------------------------------------------


def test_many_threads_call_one_llm(llm: pyllm.LLM) -> None:
    prompts = [[k + 3] * (3 * k + 1) for k in range(8)]
    want = [llm.generate(p, max_tokens=20, **LONG).tokens for p in prompts]
    scores = [llm.logits(p).tobytes() for p in prompts]
    found: dict[tuple[int, int], bool] = {}

    def work(k: int) -> None:
        for turn in range(6):
            if turn % 3 == 2:
                found[k, turn] = llm.logits(prompts[k]).tobytes() == scores[k]
            elif turn % 3 == 1:
                stream = llm.stream(prompts[k], max_tokens=20, **LONG)
                list(stream)
                found[k, turn] = stream.completion is not None and stream.completion.tokens == want[k]
            else:
                found[k, turn] = llm.generate(prompts[k], max_tokens=20, **LONG).tokens == want[k]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 48 and all(found.values())
    assert idle(llm)


def test_several_llms_at_once() -> None:
    """Two of one file and one of another, all at work together."""
    with pyllm.LLM(QUANT, n_threads=2) as a, pyllm.LLM(QUANT, n_threads=1, n_batch=4) as b, pyllm.LLM(QWEN) as c:
        want = {id(x): x.generate([5] * 20, max_tokens=40, **LONG).tokens for x in (a, c)}
        streams = [x.stream([5] * 20, max_tokens=40, **LONG) for x in (a, b, c)]
        for stream in streams:
            list(stream)
        tokens = [s.completion.tokens for s in streams if s.completion]
        assert tokens == [want[id(a)], want[id(a)], want[id(c)]]


# ---- the end -----------------------------------------------------------------------------------------------------


def test_after_close_every_call_is_refused(llm: pyllm.LLM) -> None:
    plan = llm.plan()
    llm.close()
    llm.close()
    for call in (llm.generate, llm.stream):
        with pytest.raises(pyllm.PyllmError, match="closed"):
            call("a")
    with pytest.raises(pyllm.PyllmError, match="closed"):
        llm.logits([1])
    assert llm.plan() == plan and llm.tokenize("a") and llm.n_ctx == 256
    assert not llm._engine._thread.is_alive()


def test_close_ends_what_is_under_way(slow: pyllm.LLM) -> None:
    reasons: list[str] = []
    stream = slow.stream("b", **LONG)

    def work() -> None:
        reasons.append(slow.generate("a", **LONG).finish_reason)

    def score() -> None:
        with pytest.raises(pyllm.Cancelled):
            slow.logits([5] * 256)
        reasons.append("scored")

    threads = [threading.Thread(target=f) for f in (work, work, score)]
    for t in threads:
        t.start()
    wait_for(lambda: len(slow._engine._runs) == 4)
    slow.close()
    for t in threads:
        t.join(10)
    assert sorted(reasons) == ["cancelled", "cancelled", "scored"]
    list(stream)
    assert stream.completion is not None and stream.completion.finish_reason == "cancelled"


def test_an_llm_lives_as_long_as_its_stream() -> None:
    stream = pyllm.LLM(QUANT, n_threads=1).stream("a", max_tokens=20, **LONG)
    gc.collect()
    list(stream)
    assert stream.completion is not None and stream.completion.finish_reason == "length"


def test_an_llm_that_nobody_holds_is_closed() -> None:
    llm = pyllm.LLM(QUANT, n_threads=2)
    gone = weakref.ref(llm)
    stream = llm.stream("a", max_tokens=5, **LONG)
    list(stream)
    thread = llm._engine._thread
    del llm
    gc.collect()
    assert gone() is None
    thread.join(10)
    assert not thread.is_alive()


CLOSED_FROM_WITHIN = """
import gc, sys, pyllm
how, path = sys.argv[1:]
gc.disable()
class Holder: pass
def make():
    holder = Holder()
    holder.me, holder.llm = holder, pyllm.LLM(path, n_threads=2)
    return holder
if how == "callback":
    llm = pyllm.LLM(path, n_threads=2)
    out = llm.generate([5] * 200, progress=lambda *a: llm.close())
else:  # the collector finds the model dead while its own engine thread runs
    holder = make()
    thread = holder.llm._engine._thread
    held = []
    def progress(done, total):
        held.clear()
        gc.collect()
    held.append(holder.llm.stream([5] * 200, progress=progress, ignore_eos=True))
    holder.stream = held[0]
    del holder
    thread.join(60)
    out = None if thread.is_alive() else "ended"
print(getattr(out, "finish_reason", out))
"""


@pytest.mark.parametrize(("how", "said"), [("callback", "cancelled"), ("collector", "ended")])
def test_an_engine_may_be_closed_from_its_own_thread(how: str, said: str) -> None:
    """By a callback, or by the garbage collector, which runs in whatever thread it likes."""
    assert child(CLOSED_FROM_WITHIN, how, str(QUANT)) == said


def test_the_interpreter_ends_while_an_answer_is_made() -> None:
    code = "import sys, pyllm; s = pyllm.LLM(sys.argv[1]).stream('a', ignore_eos=True); next(s); print('bye')"
    assert child(code, str(QUANT)) == "bye"


THREADS = """
import os, sys, threading, time, pyllm
def count():
    time.sleep(0.2)  # threads that have ended take a moment to be gone
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), threading.active_count()
pyllm.LLM(sys.argv[1]).close()  # numpy has threads too
before = count()
for _ in range(3):
    with pyllm.LLM(sys.argv[1], n_threads=3) as llm:
        llm.generate("a", max_tokens=2)
        inside = count()
print([b - a for a, b in zip(before, inside)], [b - a for a, b in zip(before, count())])
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux shows them")
def test_threads_and_files_are_given_back() -> None:
    """Open: the engine's thread and two more of C's, and the model's file; closed: nothing."""
    assert child(THREADS, str(QUANT)) == "[3, 1, 1] [0, 0, 0]"


def test_signals_are_for_python(llm: pyllm.LLM) -> None:
    """A handler runs while the main thread waits for an answer."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        threading.Timer(0.02, lambda: signal.raise_signal(signal.SIGTERM)).start()
        end = time.monotonic() + 10
        while not seen and time.monotonic() < end:
            llm.generate("a", max_tokens=200, **LONG)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen
