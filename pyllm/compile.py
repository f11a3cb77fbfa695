"""From a model graph to a program: memory plan and hazards, after the passes of fusion.py.

The result is data (a list of Ops over Views into named buffers); a backend encodes and runs it. Values get offsets in
one arena, sized for the largest step, memory being reused once a value is dead. Then an op that touches what another
thread may have written (or may still read) since the last barrier gets a barrier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .errors import ModelError
from .fusion import ACT_BLOCK, LOCAL, TYPE_ACT_Q8, TYPE_F32, WEIGHTS, is_float, prepare
from .graph import ROWS_O, ROWS_T, Cache, Const, Graph, State, Value, Weight

TYPE_Q4_0 = 2
TYPE_Q8_0 = 8
ALIGN = 64

#: ops in which each thread handles its own rows of the step's tokens, the same in each (pl_my_rows)
_ROW_WISE = {
    "embed", "rope_table", "rmsnorm", "layernorm", "head_norm", "quant", "rope", "kv_store", "silu_mul", "gelu", "add",
    "scale", "slice", "concat", "match_rms", "sparsify", "altup_predict", "altup_correct", "altup_add",
    "swiglu_clamped", "relu", "xielu", "clamp",
    "gather", "route", "moe_sum",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """A place in memory: mirrors pl_view, with the buffer by name."""

    buf: str
    type: int
    rows: int
    cols: int
    off: int
    stride: int
    packed: bool = False
    nbytes: int = 0  # at the largest step


@dataclass
class Op:
    """Mirrors pl_op."""

    kind: str
    name: str
    i: list[int]
    f: list[float]
    dst: list[View | None]
    src: list[View | None]
    barrier: int = 0  # bit 0: in steps of many tokens, bit 1: in steps of few
    local: bool = False


@dataclass(frozen=True)
class Target:
    """What to compile for. pack_bytes(type id, rows, cols) is the backend's packed size, 0 for plain layout."""

    n_batch: int  # tokens per step at most
    n_seqs: int
    n_out: int
    n_pages: int
    type_k: int
    type_v: int
    compute: str  # one of options.COMPUTE_MODES
    repack: bool
    act_bytes: int  # of one block of ACT_BLOCK quantized activations
    pack_bytes: Callable[[int, int, int], int]
    kv_page_bytes: Callable[[int, int, int, bool], int]  # of a type, heads, head_dim, K or V


@dataclass
class Program:
    """ops and what the backend must provide: buffer sizes, packed weights and constants by place."""

    ops: list[Op]
    sizes: dict[str, int]  # bytes of "arena", "kv", "const", "packed"
    packed: list[tuple[Weight, int, int]]  # weight, offset and bytes in "packed"
    plain: list[Weight]  # weights read from the file's mapping at every step
    consts: list[tuple[Const, int]]  # constant, offset in "const"
    logits: View
    values: dict[str, View] = field(default_factory=dict)


def _round_up(n: int, to: int = ALIGN) -> int:
    return (n + to - 1) // to * to


class _Arena:
    """First-fit allocation of value memory by lifetime."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int]] = []  # (offset, bytes), ascending, not adjacent
        self.size = 0

    def take(self, nbytes: int) -> int:
        for k, (off, n) in enumerate(self.free):
            if n >= nbytes:
                if n == nbytes:
                    del self.free[k]
                else:
                    self.free[k] = (off + nbytes, n - nbytes)
                return off
        off = self.size
        if self.free and sum(self.free[-1]) == self.size:  # grow the last hole
            off = self.free.pop()[0]
        self.size = off + nbytes
        return off

    def give(self, off: int, nbytes: int) -> None:
        merged: list[tuple[int, int]] = []
        for o, n in sorted([*self.free, (off, nbytes)]):
            if merged and sum(merged[-1]) == o:
                merged[-1] = (merged[-1][0], merged[-1][1] + n)
            else:
                merged.append((o, n))
        self.free = merged


class _Planner:
    """Places everything the program touches and writes the ops."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.nodes = prepare(graph.nodes, target.compute)
        self.max_rows = {ROWS_T: target.n_batch, ROWS_O: target.n_out}
        self.last_use: dict[Value, int] = {}
        self.offsets: dict[Value, int] = {}
        self.packed: dict[Weight, tuple[int, int]] = {}
        self.plain: dict[Weight, None] = {}
        self.const_off: dict[Const, int] = {}
        self.cache_off: list[tuple[int, int]] = []
        self.sizes = {"arena": 0, "kv": 0, "const": 0, "packed": 0}

    def row_bytes(self, value: Value) -> int:
        return value.cols // ACT_BLOCK * self.target.act_bytes * value.terms if value.terms else value.cols * 4

    def nbytes(self, value: Value) -> int:
        return _round_up(self.row_bytes(value) * self.max_rows[value.rows])

    def place_values(self) -> None:
        logits = self.graph.logits
        assert logits is not None
        last_read = {v.root: k for k, node in enumerate(self.nodes) for v in node.src if isinstance(v, Value)}
        for k, node in enumerate(self.nodes):
            for value in [*node.src, node.out, node.act]:
                if isinstance(value, Value):
                    self.last_use[value.root] = k
            residual = node.src[3] if node.kind == "mm" else None
            if isinstance(residual, Value) and node.out is not None:
                self._share(k, node.out, residual, last_read)
            if node.local and node.kind in WEIGHTS:
                self._keep_until(k)
            if node.kind == "mm_heads" and node.i[7] and node.out is not None:
                # read by nobody else, but the next matmul shall not have to wait until all have left this one
                after = next((n for n, other in enumerate(self.nodes) if n > k and other.kind == "attn"), k)
                self.last_use[node.out.root] = max(self.last_use[node.out.root], after)
        self.last_use[logits.root] = len(self.nodes)
        dead: dict[int, list[Value]] = {}
        for value, k in self.last_use.items():
            dead.setdefault(k, []).append(value)
        arena = _Arena()
        for k, node in enumerate(self.nodes):
            for value in (node.out, node.act):
                if value is not None and value.root not in self.offsets:
                    self.offsets[value.root] = arena.take(self.nbytes(value.root))
            for value in dead.get(k, ()):
                if value in self.offsets:
                    arena.give(self.offsets[value], self.nbytes(value))
        self.sizes["arena"] = arena.size

    def _keep_until(self, k: int) -> None:
        """While one thread runs matmul k, another may still be making its own input for it."""
        maker = next(node for node in reversed(self.nodes[:k]) if node.local and node.kind in LOCAL)
        for value in maker.src:
            if isinstance(value, Value):
                self.last_use[value.root] = max(self.last_use[value.root], k)

    def _share(self, k: int, out: Value, residual: Value, last_read: dict[Value, int]) -> None:
        """A matmul writes over its residual, element by element, if nothing else reads that then or afterwards.

        last_read: by root, the last node that reads it."""
        x, root = self.nodes[k].src[1], residual.root
        assert isinstance(x, Value)
        if out.alias is None and out is not self.graph.logits and x.root is not root and last_read[root] <= k:
            last_read[root] = last_read.get(out, k)
            out.alias = residual
            self.last_use[root] = k

    def view(self, item: Value | Weight | Const | None, matmul: bool = False) -> View | None:
        if item is None:
            return None
        if isinstance(item, Const):
            return self._const(item)
        if isinstance(item, Weight):
            return self._weight(item, matmul)
        stride = self.row_bytes(item)
        kind = TYPE_ACT_Q8 if item.terms else TYPE_F32
        cols = item.cols * max(item.terms, 1)
        return View("arena", kind, item.rows, cols, self.offsets[item.root], stride, nbytes=self.nbytes(item))

    def _const(self, const: Const) -> View:
        if const not in self.const_off:
            self.const_off[const] = self.sizes["const"]
            self.sizes["const"] += _round_up(const.data.nbytes)
        n = const.data.nbytes
        return View("const", TYPE_F32, 1, len(const.data), self.const_off[const], n, nbytes=n)

    def _weight(self, w: Weight, matmul: bool) -> View:
        info = w.tensor.type
        widen = info.act != 0 and is_float(w, self.target.compute)  # to float32, panel by panel
        if not w.tensor.has_kernel:
            raise ModelError(f"tensor {w.name!r} is of type {info.name}, which pyllm cannot compute with")
        nbytes = self.target.pack_bytes(info.id, w.rows, w.cols) if matmul and not widen else 0
        if nbytes and self.target.repack:
            if w not in self.packed:
                self.packed[w] = (self.sizes["packed"], nbytes)
                self.sizes["packed"] += _round_up(nbytes)
            return View("packed", info.id, w.rows, w.cols, self.packed[w][0], 0, packed=True, nbytes=nbytes)
        if matmul:
            self.plain[w] = None
        stride = w.cols // info.block * info.bytes
        return View(f"file{w.tensor.part}", info.id, w.rows, w.cols, w.tensor.offset, stride, nbytes=w.tensor.nbytes)

    def _cache_views(self, cache: Cache) -> tuple[View, View]:
        t = self.target
        views: list[View] = []
        for is_k, kind, head_dim in ((True, t.type_k, cache.head_dim_k), (False, t.type_v, cache.head_dim_v)):
            page = t.kv_page_bytes(kind, cache.n_kv, head_dim, is_k)
            if page <= 0:
                raise ModelError(f"heads of {head_dim} values are larger than a KV cache can hold")
            slot = len(views) + 2 * cache.layer
            if slot == len(self.cache_off):
                self.cache_off.append((self.sizes["kv"], page))
                self.sizes["kv"] += _round_up(page * t.n_pages)
            off = self.cache_off[slot][0]
            views.append(View("kv", kind, t.n_pages, head_dim, off, page, nbytes=page * t.n_pages))
        return views[0], views[1]

    def _state_view(self, state: State) -> View:
        page = _round_up(4 * state.cols)
        off, nbytes = self.sizes["kv"], page * self.target.n_pages
        self.sizes["kv"] += nbytes
        return View("kv", TYPE_F32, self.target.n_pages, state.cols, off, page, nbytes=nbytes)

    def ops(self) -> list[Op]:
        ops = []
        for node in self.nodes:
            out, act = self.view(node.out), self.view(node.act)
            name = (node.out or node.act or node.src[0]).name  # type: ignore[union-attr]
            i, f = (node.i + [0] * 8)[:8], (node.f + [0.0] * 8)[:8]
            src: list[View | None]
            if node.kind == "kv_store":
                k, v, cache = node.src
                assert isinstance(k, Value) and isinstance(v, Value) and isinstance(cache, Cache)
                dst: list[View | None] = list(self._cache_views(cache))
                src, name = [self.view(k), self.view(v)], f"blk.{cache.layer}.kv_store"
            elif isinstance(node.src[-1], State):
                dst = [out, self._state_view(node.src[-1])]
                src = [self.view(s) for s in node.src if not isinstance(s, Cache | State)]
            elif node.kind == "attn":
                q, cache, sinks = node.src
                assert isinstance(q, Value) and isinstance(cache, Cache) and not isinstance(sinks, Cache | State)
                dst, src = [out, act], [self.view(q), *self._cache_views(cache), self.view(sinks)]
            elif node.kind == "mm_heads":
                *inputs, cached = node.src
                place = self._cache_views(cached)[i[7] - 1] if isinstance(cached, Cache) else None
                dst, src = [out, place], [self.view(s, True) for s in inputs if not isinstance(s, (Cache, State))]
            else:
                dst = [out, act]
                src = [self.view(s, node.kind in WEIGHTS) for s in node.src if not isinstance(s, Cache | State)]
            ops.append(Op(node.kind, name, i, f, dst, (src + [None] * 5)[:5], local=node.local))
        return ops


def place_barriers(ops: list[Op]) -> None:
    """Set op.barrier where an op conflicts with one since the last barrier.

    Two accesses conflict if they overlap and one is a write, unless both belong to row-wise ops and name the same
    rows (same start, same stride): then every row stays with one thread. What a thread makes for itself in a step of
    few tokens touches no one, but it reads all rows.
    """
    for few in (False, True):
        since: list[tuple[View, bool, bool]] = []  # (view, written, row-wise)
        for op in ops:
            makes, reads = few and op.local and op.kind in LOCAL, few and op.local and op.kind not in LOCAL
            row_wise = op.kind in _ROW_WISE and op.kind != "gather" and not makes
            sources = [v for j, v in enumerate(op.src) if v and v.buf in ("arena", "kv") and not (reads and j == 1)]
            mine = [(v, False, row_wise and not _reads_first_keys(op)) for v in sources]
            mine += [(v, True, row_wise) for v in op.dst if v and not makes]
            if any(_conflict(a, b) for a in mine for b in since):
                op.barrier |= 1 << few
                since = []
            since = since + mine


def _reads_first_keys(op: Op) -> bool:
    """Whether a row takes in that of another: quantized keys are differences from the first of their page."""
    keys = op.dst[0]
    return op.kind == "kv_store" and keys is not None and keys.type in (TYPE_Q8_0, TYPE_Q4_0)


def _conflict(a: tuple[View, bool, bool], b: tuple[View, bool, bool]) -> bool:
    va, vb = a[0], b[0]
    if not (a[1] or b[1]) or va.buf != vb.buf:
        return False
    if va.off >= vb.off + vb.nbytes or vb.off >= va.off + va.nbytes:
        return False
    same_rows = (va.off, va.stride, va.rows) == (vb.off, vb.stride, vb.rows)
    return not (a[2] and b[2] and same_rows)


def compile_graph(graph: Graph, target: Target) -> Program:
    """The program of `graph`. ModelError if a tensor's type cannot be run."""
    if graph.logits is None:
        raise ModelError("the architecture's graph has no output")
    planner = _Planner(graph, target)
    planner.place_values()
    ops = planner.ops()
    place_barriers(ops)
    logits = planner.view(graph.logits)
    assert logits is not None
    return Program(
        ops=ops,
        sizes=planner.sizes,
        packed=[(w, off, n) for w, (off, n) in planner.packed.items()],
        plain=list(planner.plain),
        consts=list(planner.const_off.items()),
        logits=logits,
        values={op.name: op.dst[0] for op in ops if op.dst[0] is not None and op.dst[0].buf == "arena"},
    )


def const_bytes(program: Program) -> npt.NDArray[np.uint8]:
    """The contents of the "const" buffer."""
    data = np.zeros(max(program.sizes["const"], ALIGN), np.uint8)
    for const, off in program.consts:
        data[off : off + const.data.nbytes] = const.data.view(np.uint8)
    return data
