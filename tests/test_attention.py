"""Attention over the paged cache, against its definition in float64 and against itself, bit for bit.

A program of two ops, kv_store and attn, is run step by step on random queries, keys and values. The cache is decoded
here from its bytes, by the description of its layouts (csrc/prog/kv.h); what no token has stored yet is NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pyllm._lib import ffi, lib
from pyllm.backend.cpu import encode
from pyllm.compile import Op, View
from pyllm.gguf import tensor_types
from pyllm.options import KV_TYPES

pytestmark = pytest.mark.native
Array = npt.NDArray[Any]
IDS = {t.name.lower(): t.id for t in tensor_types().values()}
QUANTIZED = ("q8_0", "q4_0")
PAGE = lib.PL_PAGE
LEVELS = [ffi.string(lib.pl_cpu_level_name(i)).decode() for i in range(lib.pl_cpu_best() + 1)]


@dataclass(frozen=True)
class Shape:
    """Of one attention op. group: query heads per KV head."""

    n_kv: int = 2
    group: int = 3
    hd_k: int = 64
    hd_v: int = 64
    window: int = 0
    softcap: float = 0.0
    sinks: tuple[float, ...] = ()
    type_k: str = "f16"
    type_v: str = "f16"

    @property
    def n_heads(self) -> int:
        return self.n_kv * self.group

    @property
    def scale(self) -> float:
        return float(np.float32(self.hd_k**-0.5))


@dataclass
class Data:
    """Queries, keys and values of one sequence: [n][heads * head_dim] float32."""

    q: Array
    k: Array
    v: Array

    @classmethod
    def random(cls, shape: Shape, n: int, seed: int) -> Data:
        """Keys with a common part and a few large channels, as those of language models have."""
        rng = np.random.default_rng(seed)
        k = rng.standard_normal((n, shape.n_kv, shape.hd_k))
        k += 2 * rng.standard_normal((shape.n_kv, shape.hd_k))
        k[..., rng.integers(0, shape.hd_k, 2)] *= 6
        q = rng.standard_normal((n, shape.n_heads * shape.hd_k))
        v = rng.standard_normal((n, shape.n_kv * shape.hd_v))
        return cls(q.astype(np.float32), k.reshape(n, -1).astype(np.float32), v.astype(np.float32))


class Bench:
    """The program and its memory. Sequences get pages in an order that means nothing."""

    def __init__(self, shape: Shape, *, max_tokens: int, n_pages: int, n_threads: int = 1, max_seqs: int = 4) -> None:
        self.shape, self.max_tokens, self.n_pages = shape, max_tokens, n_pages
        self.pool = lib.pl_pool_new(n_threads)
        self.free = np.random.default_rng(0).permutation(n_pages).tolist()
        self.pages: dict[int, list[int]] = {}  # of each sequence
        self.done: dict[int, int] = {}  # tokens of each sequence so far
        widths = [
            shape.n_heads * shape.hd_k, shape.n_kv * shape.hd_k, shape.n_kv * shape.hd_v, shape.n_heads * shape.hd_v,
        ]  # fmt: skip
        self.rows = [np.zeros((max_tokens, w), np.float32) for w in widths]  # q, k, v, out
        self.page_bytes = [
            lib.pl_kv_page_bytes(IDS[t], shape.n_kv, hd, is_k)
            for t, hd, is_k in ((shape.type_k, shape.hd_k, 1), (shape.type_v, shape.hd_v, 0))
        ]
        self.caches = [np.full((n_pages, n), 255, np.uint8) for n in self.page_bytes]  # NaN in every type
        self.sinks = np.array(shape.sinks or [0], np.float32)
        names = ["q", "k", "v", "out", "K", "V", "sinks"]
        views = [
            View(n, 0, -1, a.shape[1], 0, a.strides[0], nbytes=a.nbytes) for n, a in zip(names, self.rows, strict=False)
        ]
        caches = [
            View(n, IDS[t], n_pages, hd, 0, size, nbytes=size * n_pages)
            for n, t, hd, size in zip(
                "KV", (shape.type_k, shape.type_v), (shape.hd_k, shape.hd_v), self.page_bytes, strict=True
            )
        ]
        f = [shape.scale, shape.softcap] + [0.0] * 6
        sinks = View("sinks", 0, 1, shape.n_heads, 0, self.sinks.nbytes, nbytes=self.sinks.nbytes)
        ops = encode(
            [
                Op("kv_store", "store", [shape.n_kv, shape.hd_k, shape.hd_v, *[0] * 5], [0.0] * 8, list(caches),
                   [views[1], views[2], None, None]),
                Op("attn", "attn", [shape.n_heads, shape.n_kv, shape.hd_k, shape.hd_v, shape.window, 0, 0, 0], f,
                   [views[3], None], [views[0], *caches, sinks if shape.sinks else None], barrier=3),
            ],
            names,
        )  # fmt: skip
        buffers = [*self.rows, *self.caches, self.sinks]
        bases = [ffi.cast("void *", ffi.from_buffer(a)) for a in buffers]
        bad = ffi.new("int32_t *")
        self.program = lib.pl_program_new(
            ops, 2, bases, [a.nbytes for a in buffers], len(buffers), max_tokens, max_seqs, 1, bad
        )
        assert self.program != ffi.NULL, f"op {bad[0]}"

    def close(self) -> None:
        lib.pl_program_free(self.program)
        lib.pl_pool_free(self.pool)

    def step(self, parts: Sequence[tuple[int, Data, int]]) -> list[Array]:
        """Run the next n tokens of each (sequence, its data, n); their outputs [n][n_heads * hd_v]."""
        total = sum(n for _, _, n in parts)
        assert total <= self.max_tokens
        pos, slot, q_start, kv_len, t = [], [], [0], [], 0
        for s, data, n in parts:
            start = self.done.get(s, 0)
            self.done[s] = start + n
            pages = self.pages.setdefault(s, [])
            while len(pages) * PAGE < start + n:
                pages.append(self.free.pop())
            at = np.arange(start, start + n)
            pos += at.tolist()
            slot += (np.array(pages)[at // PAGE] * PAGE + at % PAGE).tolist()
            for mine, theirs in zip(self.rows, (data.q, data.k, data.v), strict=False):
                mine[t : t + n] = theirs[start : start + n]
            t += n
            q_start.append(t)
            kv_len.append(start + n)
        max_pages = max(len(p) for p in self.pages.values())
        page = np.zeros((len(parts), max_pages), np.int32)
        for i, (s, _, _) in enumerate(parts):
            page[i, : len(self.pages[s])] = self.pages[s]
        arrays = {
            "token": np.zeros(total), "pos": pos, "slot": slot, "q_start": q_start, "kv_len": kv_len, "page": page,
            "out": [0],
        }  # fmt: skip
        step, keep = ffi.new("pl_step *"), []
        step.n_tokens, step.n_seqs, step.n_out, step.max_pages = total, len(parts), 0, max_pages
        for name, values in arrays.items():
            keep.append(np.ascontiguousarray(values, np.int32))
            setattr(step, name, ffi.cast("int32_t *", ffi.from_buffer(keep[-1])))
        assert lib.pl_run(self.program, self.pool, step, 0, 2) == 0
        return [self.rows[3][a:b].copy() for a, b in pairwise(q_start)]

    def run(self, s: int, data: Data, sizes: Sequence[int]) -> Array:
        """All of one sequence alone, in steps of these sizes (the last repeats)."""
        out, start, n, sizes = [], 0, len(data.q), list(sizes)
        while start < n:
            size = min(sizes.pop(0) if len(sizes) > 1 else sizes[0], n - start)
            out += self.step([(s, data, size)])
            start += size
        return np.concatenate(out)

    # ---- what the cache holds --------------------------------------------------------------------------------

    def stored(self, s: int, is_k: bool) -> Array:
        """Keys or values of sequence s as the cache has them, [n][n_kv][hd] float64."""
        kind, hd = (self.shape.type_k, self.shape.hd_k) if is_k else (self.shape.type_v, self.shape.hd_v)
        n_kv, cache = self.shape.n_kv, self.caches[0 if is_k else 1]
        pages = cache[self.pages[s]].reshape(len(self.pages[s]), n_kv, -1)
        x = np.stack([np.stack([decode_block(head, kind, hd, is_k) for head in page]) for page in pages])
        return x.transpose(0, 2, 1, 3).reshape(-1, n_kv, hd)[: self.done[s]]


def hadamard(n: int) -> Array:
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h


def unrotate(x: Array, h: int) -> Array:
    """Blocks of h values turned back."""
    return (x.reshape(*x.shape[:-1], -1, h) @ hadamard(h) / h).reshape(x.shape)


def decode_block(raw: Array, kind: str, hd: int, is_k: bool) -> Array:
    """One head's part of a page: [16][hd]."""
    to = 32 if kind in QUANTIZED else 16
    hdp = (hd + to - 1) // to * to
    if kind not in QUANTIZED:
        if kind == "bf16":
            x = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            x = raw.view(np.float32 if kind == "f32" else np.float16)
        x = x.astype(np.float64)
        return x.reshape(hdp, PAGE).T[:, :hd] if is_k else x.reshape(PAGE, hdp)[:, :hd]
    n = hdp * PAGE // (1 if kind == "q8_0" else 2)
    scale = raw[n : n + hdp].view(np.float16).astype(np.float64).reshape(hdp // 32, PAGE).T.repeat(32, 1)
    codes = raw[:n]
    if kind == "q8_0":
        codes = codes.view(np.int8).astype(np.float64)
        if not is_k:
            return (codes.reshape(PAGE, hdp) * scale)[:, :hd]
        x = codes.reshape(-1, 1, PAGE, 4)  # [hdp / 4][1][16][4]
    else:
        low, high = (codes & 15).astype(np.float64) - 8, (codes >> 4).astype(np.float64) - 8
        if not is_k:
            x = np.stack([low.reshape(PAGE, hdp // 32, 16), high.reshape(PAGE, hdp // 32, 16)], 2).reshape(PAGE, hdp)
            return unrotate(x * scale, hdp & -hdp)[:, :hd]
        x = np.stack([low.reshape(-1, PAGE, 4), high.reshape(-1, PAGE, 4)], 1)  # [hdp / 8][2][16][4]
    x = x.transpose(2, 0, 1, 3).reshape(PAGE, hdp) * scale
    at = n + hdp
    offset = raw[at : at + hdp].view(np.int8).astype(np.float64)
    offset *= raw[at + hdp : at + hdp + hdp // 16].view(np.float16).astype(np.float64).repeat(32)
    return unrotate(x + offset, 32)[:, :hd]


def expected(shape: Shape, q: Array, k: Array, v: Array, first: int) -> Array:
    """softmax(scale q K^T) V for queries [n][n_heads * hd_k] at positions first, first + 1, ..."""
    n = len(q)
    qs = q.astype(np.float64).reshape(n, shape.n_kv, shape.group, shape.hd_k)
    score = np.einsum("tkgd,jkd->kgtj", qs, k, optimize=True) * shape.scale
    if shape.softcap:
        score = shape.softcap * np.tanh(score / shape.softcap)
    ago = np.arange(first, first + n)[:, None] - np.arange(len(k))
    score[..., (ago < 0) | (ago >= (shape.window or len(k)))] = -np.inf
    top = score.max(-1, keepdims=True)
    p, total = np.exp(score - top), np.exp(score - top).sum(-1, keepdims=True)
    if shape.sinks:
        total = total + np.exp(np.reshape(shape.sinks, (shape.n_kv, shape.group, 1, 1)) - top)
    p /= total
    return np.einsum("kgtj,jkd->tkgd", p, v, optimize=True).reshape(n, -1)


def check(bench: Bench, s: int, data: Data, got: Array, first: int = 0) -> None:
    """Outputs of sequence s from position `first` on are those of the cache as it is."""
    shape = bench.shape
    k, v = bench.stored(s, True), bench.stored(s, False)
    assert np.isfinite(k).all() and np.isfinite(v).all()
    want = expected(shape, data.q[first : first + len(got)], k, v, first)
    # float32 sums; queries against quantized keys are rounded to 1/65000 of their largest value
    bound = 2e-5 if shape.type_k not in QUANTIZED else 3e-4
    assert np.abs(got - want).max() < bound * np.abs(v).max()


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = lib.pl_cpu_level()
    lib.pl_cpu_set_level(LEVELS.index(request.param))
    yield request.param
    lib.pl_cpu_set_level(before)


PAIRS = [(t, t) for t in KV_TYPES] + [("q8_0", "f16"), ("f16", "q4_0"), ("q4_0", "bf16")]


@pytest.mark.parametrize(("type_k", "type_v"), PAIRS, ids=["-".join(p) for p in PAIRS])
@pytest.mark.parametrize(
    ("hd_k", "hd_v"), [(24, 24), (64, 64), (80, 80), (96, 96), (112, 112), (128, 128), (256, 256), (96, 64)]
)
def test_head_dims(level: str, hd_k: int, hd_v: int, type_k: str, type_v: str) -> None:
    shape = Shape(hd_k=hd_k, hd_v=hd_v, type_k=type_k, type_v=type_v)
    bench = Bench(shape, max_tokens=40, n_pages=8)
    data = Data.random(shape, 61, hd_k)
    check(bench, 0, data, bench.run(0, data, [40, 1, 20]))
    bench.close()


@pytest.mark.parametrize("type_k", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize(("n_kv", "group"), [*[(2, g) for g in range(1, 9)], (1, 16), (1, 71), (5, 1)])
def test_groups(n_kv: int, group: int, type_k: str) -> None:
    """Query heads per KV head, up to all of them; more than a tile has rows."""
    shape = Shape(n_kv=n_kv, group=group, hd_k=32, hd_v=32, type_k=type_k)
    bench = Bench(shape, max_tokens=300, n_pages=24, n_threads=2)
    data = Data.random(shape, 320, group)
    check(bench, 0, data, bench.run(0, data, [300, 1]))
    bench.close()


@pytest.mark.parametrize(("type_k", "type_v"), PAIRS, ids=["-".join(p) for p in PAIRS])
@pytest.mark.parametrize("window", [0, 1, 5, 16, 17, 100, 255, 256, 257, 300, 600])
def test_windows(window: int, type_k: str, type_v: str) -> None:
    """Windows that begin and end anywhere in pages of 16 and chunks of 256 keys, in steps of all sizes."""
    shape = Shape(window=window, type_k=type_k, type_v=type_v, n_kv=1, hd_k=32, hd_v=32)
    bench = Bench(shape, max_tokens=400, n_pages=64, n_threads=3)
    data = Data.random(shape, 790, window)
    check(bench, 0, data, bench.run(0, data, [33, 1, 1, 221, 1, 1, 1, 400, 1, 1, 3, 40]))
    bench.close()


@pytest.mark.parametrize("type_k", ["f16", "q8_0"])
@pytest.mark.parametrize("window", [0, 40])
@pytest.mark.parametrize("what", ["softcap", "sinks", "both"])
def test_capped_scores_and_sinks(level: str, what: str, window: int, type_k: str) -> None:
    """Scores held by tanh; scores without a value that take part in the softmax, small and large ones."""
    sinks = (-40.0, 0.0, 1.5, 3.0, 30.0, 200.0)
    shape = Shape(
        window=window, type_k=type_k, softcap=5.0 if what != "sinks" else 0.0, sinks=sinks if what != "softcap" else ()
    )
    bench = Bench(shape, max_tokens=300, n_pages=24, n_threads=2)
    data = Data.random(shape, 330, 5)
    check(bench, 0, data, bench.run(0, data, [280, 1, 30]))
    bench.close()


def test_keys_outside_the_window_are_not_read() -> None:
    """Their pages may be gone: here they are NaN."""
    shape = Shape(window=40)
    bench = Bench(shape, max_tokens=700, n_pages=48)
    data = Data.random(shape, 731, 4)
    bench.step([(0, data, 700)])
    kept = [bench.caches[0].copy(), bench.caches[1].copy()]
    for page in bench.pages[0][: (700 - 40 + 1) // PAGE]:
        bench.caches[0][page] = bench.caches[1][page] = 255
    (got,) = bench.step([(0, data, 30)])
    assert np.isfinite(got).all()
    for mine, old in zip(bench.caches, kept, strict=True):
        gone = bench.pages[0][: (700 - 40 + 1) // PAGE]
        mine[gone] = old[gone]
    check(bench, 0, data, got, 700)
    bench.close()


@pytest.mark.parametrize("type_k", ["f16", "q8_0", "q4_0"])
def test_several_sequences_in_a_step(type_k: str) -> None:
    """Prompts, parts of prompts and single tokens together, each as if it were alone."""
    shape = Shape(type_k=type_k, type_v="f16", hd_k=32, hd_v=48)
    bench = Bench(shape, max_tokens=330, n_pages=80, n_threads=2)
    datas = [Data.random(shape, n, 7 + i) for i, n in enumerate((530, 300, 17, 80))]
    outs: list[list[Array]] = [[], [], [], []]
    for sizes in ((300, 0, 0, 30), (1, 299, 1, 3), (20, 1, 15, 0), (1, 0, 1, 1), (208, 0, 0, 46)):
        parts = [(s, datas[s], n) for s, n in enumerate(sizes) if n]
        for (s, _, _), out in zip(parts, bench.step(parts), strict=True):
            outs[s].append(out)
    for s, out in enumerate(outs):
        check(bench, s, datas[s], np.concatenate(out))
        alone = Bench(shape, max_tokens=330, n_pages=80)
        assert (alone.run(s, datas[s], [330]) == np.concatenate(out)).all()
        alone.close()
    bench.close()


@pytest.mark.parametrize(("type_k", "type_v"), PAIRS, ids=["-".join(p) for p in PAIRS])
@pytest.mark.parametrize("window", [0, 300])
def test_same_bits_whatever_runs_it(window: int, type_k: str, type_v: str) -> None:
    """Threads and sizes of steps change nothing, bit for bit, over many chunks of keys."""
    shape = Shape(type_k=type_k, type_v=type_v, window=window, hd_k=32, hd_v=32)
    data = Data.random(shape, 1100, 3)
    want = None
    for n_threads, sizes in ((1, [1100]), *[(n, [1080, 1]) for n in (1, 2, 3, 4, 7)], (3, [1, 1, 300, 511, 17])):
        bench = Bench(shape, max_tokens=1100, n_pages=80, n_threads=n_threads)
        got = bench.run(0, data, sizes)
        if want is None:
            want = got
            check(bench, 0, data, got)
        assert got.tobytes() == want.tobytes(), (n_threads, sizes)
        bench.close()


@pytest.mark.parametrize(("type_k", "type_v"), PAIRS, ids=["-".join(p) for p in PAIRS])
def test_same_bits_at_every_level(type_k: str, type_v: str) -> None:
    shape = Shape(n_kv=1, type_k=type_k, type_v=type_v, hd_k=32, hd_v=64)
    data = Data.random(shape, 550, 3)
    before = lib.pl_cpu_level()
    outs = []
    try:
        for index in range(len(LEVELS)):
            lib.pl_cpu_set_level(index)
            bench = Bench(shape, max_tokens=550, n_pages=40, n_threads=2)
            outs.append(bench.run(0, data, [540, 1]).tobytes())
            bench.close()
    finally:
        lib.pl_cpu_set_level(before)
    assert all(out == outs[0] for out in outs)


@pytest.mark.parametrize(("kind", "bits"), [("q8_0", 9.2), ("q4_0", 5.2)])
def test_quantized_caches_are_near(kind: str, bits: float) -> None:
    """What a quantized cache gives back, beside what its size allows."""
    shape = Shape(hd_k=128, hd_v=128, type_k=kind, type_v=kind)
    bench = Bench(shape, max_tokens=64, n_pages=4)
    assert max(bench.page_bytes) * 8 <= bits * PAGE * shape.n_kv * shape.hd_k
    data = Data.random(shape, 64, 5)
    bench.run(0, data, [64])
    for is_k, x in ((True, data.k), (False, data.v)):
        x = x.reshape(64, shape.n_kv, -1).astype(np.float64)
        error = bench.stored(0, is_k) - x
        assert np.sqrt((error**2).mean() / (x**2).mean()) < (0.01 if kind == "q8_0" else 0.1)
    bench.close()


@pytest.mark.parametrize("type_k", QUANTIZED)
def test_a_key_that_follows_in_the_same_step_or_later(type_k: str) -> None:
    """Quantized keys are differences from the first of their page, which may be of this step or of one before."""
    shape = Shape(type_k=type_k, type_v="f16", hd_k=64, hd_v=64)
    data = Data.random(shape, 60, 1)
    caches = []
    for sizes, n_threads in (([60], 1), ([60], 4), ([1], 2), ([16, 5, 30, 9], 3), ([17, 1, 1, 41], 2)):
        bench = Bench(shape, max_tokens=60, n_pages=4, n_threads=n_threads)
        bench.run(0, data, sizes)
        caches.append(bench.stored(0, True))
        bench.close()
    assert all((c == caches[0]).all() for c in caches[1:])


@pytest.mark.parametrize("bad", [{"n_kv": 0}, {"hd_k": 2048}, {"hd_v": 0}, {"group": 0}])
def test_unsound_shapes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match=r"op \d"):
        Bench(Shape(**bad), max_tokens=4, n_pages=1)
