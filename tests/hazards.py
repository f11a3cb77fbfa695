"""Plays the memory accesses of a compiled program, byte by byte and thread by thread, and finds races.

What each op reads and writes, and how its work is shared, is written here anew from csrc/prog/op.inc and the op
functions; nothing of pyllm/compile.py is used. Two accesses race if they touch one byte between two barriers, one of
them writes, and they may belong to different threads: rows of row-wise ops belong to fixed threads, work items of
matmul and attention to any. In a step of few tokens a thread keeps for itself what it makes in local ops.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pyllm._lib import lib
from pyllm.compile import Op, Program, View

PAGE, PANEL, ACT = lib.PL_PAGE, lib.PL_PANEL, lib.PL_TYPE_ACT_Q8
F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
NOBODY, ANYBODY = -2, -1
ROWS_T, ROWS_O = -1, -3
EXPERTS = ("route", "moe_sum")
NORMS = ("rmsnorm", "layernorm")
TILE_ROWS = 64  # query rows of one work item of attention, csrc/prog/attn.c

Ranges = npt.NDArray[np.int64]  # byte addresses in a buffer


@dataclass
class Shape:
    """A step: tokens per sequence, which tokens want logits, pages of each sequence."""

    lengths: list[int]
    kv_len: list[int]
    pages: list[list[int]]
    out: list[int]

    @property
    def n_tokens(self) -> int:
        return sum(self.lengths)

    def tokens(self) -> Iterator[tuple[int, int, int]]:
        """(token, sequence, position)"""
        t = 0
        for s, n in enumerate(self.lengths):
            for k in range(n):
                yield t, s, self.kv_len[s] - n + k
                t += 1


@dataclass
class Work:
    """What one thread (or one work item, for which any thread may come) touches: (buffer, addresses)."""

    thread: int
    reads: list[tuple[str, Ranges]] = field(default_factory=list)
    writes: list[tuple[str, Ranges]] = field(default_factory=list)


def span(start: int, n: int) -> Ranges:
    return np.arange(start, start + n, dtype=np.int64)


def row_bytes(v: View) -> int:
    return v.cols // 32 * int(lib.pl_act_bytes()) if v.type == ACT else v.cols * 4


def row(v: View, t: int) -> tuple[str, Ranges]:
    return v.buf, span(v.off + t * v.stride, row_bytes(v))


def floats(v: View, t: int, first: int, n: int) -> tuple[str, Ranges]:
    return v.buf, span(v.off + t * v.stride + 4 * first, 4 * n)


def my_rows(n: int, tid: int, n_threads: int) -> range:
    return range(n * tid // n_threads, n * (tid + 1) // n_threads)


def padded(kind: int, head_dim: int) -> int:
    """head_dim as a cache of this type holds it (csrc/prog/kv.h)."""
    to = 32 if kind in (Q4_0, Q8_0) else 16
    return -(-head_dim // to) * to


def offsets(kind: int, head_dim: int) -> Ranges:
    """Addresses within a head's part of a page of quantized keys of what they are differences from, and its scales."""
    hdp = padded(kind, head_dim)
    return span(hdp * PAGE // (2 if kind == Q4_0 else 1) + hdp // 32 * PAGE * 2, hdp + hdp // 32 * 2)


def head_bytes(kind: int, head_dim: int, key: bool) -> int:
    """Bytes of one KV head of a page."""
    n = padded(kind, head_dim) * PAGE
    if kind in (Q4_0, Q8_0):
        codes = n // 2 if kind == Q4_0 else n
        return codes + n // 32 * 2 + (-(-len(offsets(kind, head_dim)) // 32) * 32 if key else 0)
    return {F32: 4 * n, F16: 2 * n, BF16: 2 * n}[kind]


def cell(kind: int, head_dim: int, j: int, key: bool) -> Ranges:
    """Addresses within a head's part of a page that key or value j of it takes."""
    hdp = padded(kind, head_dim)
    if kind in (Q4_0, Q8_0):
        per = 2 if kind == Q4_0 else 1  # values in a byte
        n = np.arange(hdp // per, dtype=np.int64)
        codes = (n // 4 * PAGE + j) * 4 + n % 4 if key else j * (hdp // per) + n
        scales = hdp * PAGE // per + 2 * (np.arange(hdp // 32, dtype=np.int64) * PAGE + j)
        first = offsets(kind, head_dim) if key and j == 0 else span(0, 0)
        return np.concatenate([codes, scales, scales + 1, first])
    d = np.arange(head_dim, dtype=np.int64)
    at = d * PAGE + j if key else j * hdp + d
    size = 4 if kind == F32 else 2
    return np.concatenate([at * size + k for k in range(size)])


def row_wise(op: Op, shape: Shape, t: int) -> tuple[list[tuple[str, Ranges]], list[tuple[str, Ranges]]]:
    """Reads and writes of row t of a row-wise op."""
    src, dst = op.src, op.dst
    reads: list[View | None] = []
    if op.kind in (
        "quant",
        *NORMS,
        "silu_mul",
        "gelu",
        "swiglu_clamped",
        "relu",
        "xielu",
        "clamp",
        "add",
        "scale",
        "kv_store",
        "slice",
        "match_rms",
        "sparsify",
    ):
        reads.append(src[0])
    if op.kind in EXPERTS:
        reads.append(src[0])
    if op.kind in ("silu_mul", "gelu", "swiglu_clamped", "relu", "add", "rope", "kv_store", "match_rms", "moe_sum"):
        reads.append(src[1])
    if op.kind in ("concat", "gather") or op.kind.startswith("altup"):
        reads += [v for v in src if v and v.buf == "arena"]
    reads += src[2:4] if op.kind == "moe_sum" else []
    at = shape.out[t] if op.kind == "gather" else t
    r = [row(v, at) for v in reads if v]
    if op.kind in ("head_norm", "rope"):  # in place
        assert dst[0]
        r.append(floats(dst[0], t, 0, op.i[0] * op.i[1]))
        return r, [floats(dst[0], t, 0, op.i[0] * op.i[1])]
    if op.kind == "kv_store":
        tokens = list(shape.tokens())
        _, s, pos = tokens[t]
        page, w = shape.pages[s][pos // PAGE], []
        for v, head_dim, key in ((dst[0], op.i[1], True), (dst[1], op.i[2], False)):
            assert v
            part = cell(v.type, head_dim, pos % PAGE, key)
            n = head_bytes(v.type, head_dim, key)
            if v.type in (Q4_0, Q8_0) and key and pos % PAGE:  # the first key of its page, which may be of this step
                assert reads[0]
                here = [u for u, *rest in tokens if rest == [s, pos // PAGE * PAGE]]
                r += [row(reads[0], u) for u in here]
                if not here:
                    r += [(v.buf, v.off + page * v.stride + h * n + offsets(v.type, head_dim)) for h in range(op.i[0])]
            w += [(v.buf, v.off + page * v.stride + h * n + part) for h in range(op.i[0])]
        return r, w
    return r, [row(v, t) for v in dst if v]


def matmul(op: Op, n_rows: int, own_input: bool) -> Iterator[Work]:
    """Panels of the result. Which rows an expert reads depends on the routes, so it counts as all."""
    act, route, residual = op.src[1:4]
    out = op.dst[0]
    assert act and out
    for p in range(0, out.cols, PANEL):
        work = Work(ANYBODY)
        n = min(PANEL, out.cols - p)
        for t in range(n_rows):
            if not own_input:
                work.reads.append(row(act, t))
            if op.kind == "mm_id":
                work.reads += [row(route, t)] if route else []
            elif residual:
                work.reads.append(floats(residual, t, p, n))
            work.writes.append(floats(out, t, p, n))
        yield work


def matmul_heads(op: Op, shape: Shape, own_input: bool) -> Iterator[Work]:
    """Work of mm_heads: the last to finish a panel of a head goes on with the head."""
    act, out, cache = op.src[1], op.dst[0], op.dst[1]
    head_dim = op.i[4]
    assert act and out
    for h in range(out.cols // head_dim):
        work = Work(ANYBODY)
        for t, s, pos in shape.tokens():
            work.reads += [] if own_input else [row(act, t)]
            work.reads += [row(op.src[3], t)] if op.src[3] else []
            work.writes.append(floats(out, t, h * head_dim, head_dim))
            if cache:
                key = op.i[7] == 1
                part = cell(cache.type, head_dim, pos % PAGE, key)
                start = cache.off + shape.pages[s][pos // PAGE] * cache.stride
                work.writes.append((cache.buf, start + h * head_bytes(cache.type, head_dim, key) + part))
        yield work


def attention(op: Op, shape: Shape) -> Iterator[Work]:
    n_heads, n_kv, dk, dv = op.i[:4]
    group = n_heads // n_kv
    q, keys, values = op.src[:3]
    out, act = op.dst
    assert q and keys and values
    tile = max(1, TILE_ROWS // group)
    t = 0
    for s, n in enumerate(shape.lengths):
        for t0 in range(t, t + n, tile):
            for h in range(n_kv):
                work = Work(ANYBODY)
                for page in shape.pages[s][: -(-shape.kv_len[s] // PAGE)]:
                    for v, d in ((keys, dk), (values, dv)):
                        size = head_bytes(v.type, d, v is keys)
                        work.reads.append((v.buf, span(v.off + page * v.stride + h * size, size)))
                for k in range(t0, min(t0 + tile, t + n)):
                    work.reads.append(floats(q, k, h * group * dk, group * dk))
                    if out:
                        work.writes.append(floats(out, k, h * group * dv, group * dv))
                    if act:
                        block, share = int(lib.pl_act_bytes()), group * dv // 32
                        for term in range(op.i[5]):
                            first = term * n_heads * dv // 32 + h * share
                            work.writes.append((act.buf, span(act.off + k * act.stride + first * block, share * block)))
                yield work
        t += n


def columns(op: Op, n_rows: int, n_threads: int) -> Iterator[Work]:
    """An op in place whose columns are shared out."""
    view = op.dst[0]
    assert view
    for tid in range(n_threads):
        share = my_rows(view.cols, tid, n_threads)
        parts = [floats(view, t, share.start, len(share)) for t in range(n_rows)]
        yield Work(tid, parts, list(parts))


def recurrent(op: Op, shape: Shape, n_threads: int) -> Iterator[Work]:
    """Columns or heads are shared out; the state of a page is read by the token after it and written by its last."""
    x, (out, state) = op.src[0], op.dst
    assert x and out and state
    n_shared = op.i[0] if op.kind == "ssd" else out.cols
    wide, deep = (
        out.cols // n_shared,
        state.cols // out.cols,
    )  # of out per share; state rows (conv) or values per column
    for tid in range(n_threads):
        share, work = my_rows(n_shared, tid, n_threads), Work(tid)
        first, n = share.start * wide, len(share) * wide
        for t, s, pos in shape.tokens():
            if op.kind == "ssd":
                work.reads += [row(x, t), row(op.src[1] or x, t)]
            else:
                work.reads += [floats(x, t, k * out.cols + first, n) for k in range(x.cols // out.cols)]
            work.writes.append(floats(out, t, first, n))
            for at, accesses in ((pos - 1, work.reads), (pos, work.writes)):
                if at >= 0 and n:
                    page = shape.pages[s][at // PAGE]
                    if op.kind == "ssd":
                        accesses.append(floats(state, page, first * deep, n * deep))
                    else:
                        accesses += [floats(state, page, j * out.cols + first, n) for j in range(deep)]
        yield work


def is_few(shape: Shape) -> bool:
    return max(shape.n_tokens, len(shape.out)) <= int(lib.PL_FEW)


def works(op: Op, shape: Shape, n_threads: int, few: bool = False) -> Iterator[Work]:
    """All work of an op; few: in the way of steps of few tokens."""
    local = few and op.local
    if op.kind == "attn":
        yield from attention(op, shape)
    elif op.kind in ("short_conv", "conv_silu", "ssd"):
        yield from recurrent(op, shape, n_threads)
    elif op.kind == "mm_heads":
        yield from matmul_heads(op, shape, local)
    elif op.kind in ("mm", "mm_glu", "mm_id", "softcap"):
        assert op.dst[0]
        n_rows = shape.n_tokens if op.dst[0].rows == ROWS_T else len(shape.out)
        yield from columns(op, n_rows, n_threads) if op.kind == "softcap" else matmul(op, n_rows, local)
    else:
        view = op.dst[0] or op.dst[1]
        assert view
        n_rows = len(shape.out) if view.rows == ROWS_O else shape.n_tokens
        for tid in range(n_threads):
            work = Work(tid)
            for t in range(n_rows) if local else my_rows(n_rows, tid, n_threads):
                reads, writes = row_wise(op, shape, t)
                work.reads += reads
                work.writes += [] if local else writes
            yield work


def differ(state: npt.NDArray[np.int16], thread: int) -> npt.NDArray[np.bool_]:
    """Where somebody has been who may be another thread."""
    return (state != NOBODY) & ((state == ANYBODY) | (thread == ANYBODY) | (state != thread))


class Bytes:
    """Who wrote and who read each byte since the last barrier."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.wrote = {b: np.full(n, NOBODY, np.int16) for b, n in sizes.items()}
        self.read = {b: np.full(n, NOBODY, np.int16) for b, n in sizes.items()}

    def reset(self) -> None:
        for states in (self.wrote, self.read):
            for state in states.values():
                state.fill(NOBODY)

    def race(self, work: Work) -> bool:
        return any(differ(self.wrote[b][at], work.thread).any() for b, at in work.reads if b in self.wrote) or any(
            differ(state[b][at], work.thread).any() for b, at in work.writes for state in (self.wrote, self.read)
        )

    def add(self, work: Work) -> None:
        for b, at in work.writes:
            self.wrote[b][at] = work.thread
        for b, at in work.reads:
            if b in self.read:
                seen = self.read[b][at]
                self.read[b][at] = np.where((seen == NOBODY) | (seen == work.thread), work.thread, ANYBODY)


def races(program: Program, shape: Shape, n_threads: int, first: int = 0, last: int | None = None) -> list[str]:
    """Every race among ops [first, last), as words. A write outside arena and cache is a KeyError."""
    found = []
    sizes, few = {b: program.sizes[b] for b in ("arena", "kv")}, is_few(shape)
    since, inside = Bytes(sizes), Bytes(sizes)
    for index, op in list(enumerate(program.ops))[first:last]:
        if op.barrier >> few & 1:
            since.reset()
        inside.reset()
        all_work = list(works(op, shape, n_threads, few))
        for item, work in enumerate(all_work):
            if since.race(work):
                found.append(f"op {index} ({op.kind} {op.name}) with an op before it")
            alone = Work(item, work.reads, work.writes)  # the items of one op against each other
            if inside.race(alone):
                found.append(f"op {index} ({op.kind} {op.name}) with itself")
            inside.add(alone)
        for work in all_work:
            since.add(work)
    return sorted(set(found))
