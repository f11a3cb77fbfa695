"""From a model graph to a program: fusion, memory plan, hazards.

The result is data (a list of Ops over Views into named buffers); a backend encodes and runs it. Passes, in order:

1. what only the output rows need is computed for them alone;
2. residual adds move into the matmul that feeds them; gate, up and activation become one op; what is done to each head
   of queries, keys and values becomes part of the matmul that makes them;
3. every matmul with a quantized weight gets its input quantized, once per input, and the quantization moves into the
   op that makes the input where that op can do it; second_terms says how finely;
4. inputs of matmuls that are cheap to make are made by every thread for itself in steps of few tokens;
5. values get offsets in one arena, sized for the largest step, memory being reused once a value is dead;
6. an op that touches what another thread may have written (or may still read) since the last barrier gets a barrier.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .errors import ModelError
from .graph import ROWS_O, ROWS_T, Cache, Const, Graph, Node, State, Value, Weight

TYPE_F32 = 0
TYPE_Q4_0 = 2
TYPE_ACT_Q8 = 1000  # PL_TYPE_ACT_Q8
ACT_BLOCK = 32  # values per struct pl_q8
ALIGN = 64
PANEL = 16  # PL_PANEL

#: ops whose result can also be written quantized, and the parameter that holds the number of terms
_QUANTIZES = {"rmsnorm": 0, "layernorm": 0, "silu_mul": 0, "gelu": 0, "swiglu_clamped": 0, "attn": 5, "gather": 0}
#: matmuls, and where their weights are among their inputs; the activations are number 1
_WEIGHTS = {"mm": (0,), "mm_glu": (0, 2), "mm_heads": (0,), "mm_id": (0,)}
#: ops that make a matmul's input so quickly that in a step of few tokens every thread does it for itself
_LOCAL = {"rmsnorm", "layernorm", "quant", "gather"}
#: ops that compute each row of their result from the same row of their inputs
_BY_ROW = {"mm", "rmsnorm", "layernorm", "silu_mul", "gelu", "add", "route", "mm_id", "moe_sum"}
#: ops in which each thread handles its own rows of the step's tokens, the same in each (pl_my_rows)
_ROW_WISE = {
    "embed", "rope_table", "rmsnorm", "layernorm", "head_norm", "quant", "rope", "kv_store", "silu_mul", "gelu", "add",
    "scale", "slice", "concat", "match_rms", "sparsify", "altup_predict", "altup_correct", "altup_add",
    "swiglu_clamped",
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


#: Blocks whose scale is above this many times the mean of their row get a second term in the default mode.
SECOND_TERM_ABOVE = 2.0
#: ... and all blocks of the tokens at positions below this: later ones attend to them the most, and short prompts take
#: no time to speak of.
FULL_BELOW = 32.0


def second_terms(weight: Weight, compute: str) -> float:
    """Which blocks of the activations that `weight` is multiplied with get a second 8-bit term: those whose scale is
    above this many times the mean scale of their row; 0 for all.

    The error of one term grows with the scale of a block, and few blocks have large ones: refining the one in fourteen
    that lies above two means takes away four fifths of the divergence from float32 activations (bench/fidelity.py
    measures it). The head works on few rows, so there it is all.
    """
    if compute == "precise" or weight.name in ("output.weight", "token_embd.weight"):
        return 0.0
    return SECOND_TERM_ABOVE


def select_rows(nodes: list[Node]) -> list[Node]:
    """Ops that only the output rows depend on, each row of them on the same row of its inputs, compute only those.

    In a decoder that is all after the last layer's attention: the gather before the final norm moves up to the
    attention's result and to the stream that it is added to, right after the first op that reads it.
    """
    end = next((node for node in nodes if node.kind == "gather"), None)
    if end is None:
        return nodes
    readers: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in _values(node):
            readers.setdefault(value, []).append(node)
    chosen: dict[Node, None] = {end: None}
    for node in reversed(nodes[: nodes.index(end)]):
        if node.kind in _BY_ROW and node.out is not None and all(r in chosen for r in readers.get(node.out, [])):
            chosen[node] = None
    made = {node.out for node in chosen}
    wanted = {v for node in chosen for v in _values(node) if v not in made}
    rows: dict[Value, Value] = {}  # rows of the step -> output rows
    result: list[Node] = []
    for node in nodes:
        if node not in chosen:
            result.append(node)
        for value in _values(node):
            if value in wanted and value not in rows:
                rows[value] = Value(ROWS_O, value.cols, value.name + ".rows")
                result.append(Node("gather", rows[value], [value], i=[0]))
        if node is end:
            x = rows[_values(node)[0]]
        elif node in chosen:
            assert node.out is not None
            rows[node.out] = Value(ROWS_O, node.out.cols, node.out.name)
            src = [rows[v] if isinstance(v, Value) else v for v in node.src]
            result.append(Node(node.kind, rows[node.out], src, node.i, node.f))
    for node in result:
        node.src = [x if v is end.out else v for v in node.src]
    return result


def _values(node: Node) -> list[Value]:
    return [v for v in node.src if isinstance(v, Value)]


def fuse_residuals(nodes: list[Node]) -> list[Node]:
    """add(x, mm(...)) becomes one mm with a residual, at the place of the add."""
    uses: dict[Value, int] = {}
    for node in nodes:
        for value in node.src:
            if isinstance(value, Value):
                uses[value] = uses.get(value, 0) + 1
    producer = {node.out: node for node in nodes if node.out is not None}
    result = list(nodes)
    for node in nodes:
        if node.kind != "add":
            continue
        a, b = node.src
        assert isinstance(a, Value) and isinstance(b, Value)
        for value, other in ((b, a), (a, b)):
            mm = producer.get(value)
            if (
                mm is not None
                and mm.kind == "mm"
                and mm.src[3] is None
                and uses[value] == 1
                and _can_move(mm, result[result.index(mm) : result.index(node)])
            ):
                fused = Node("mm", node.out, [*mm.src[:3], other])
                assert node.out is not None
                node.out.name = value.name
                result[result.index(node)] = fused
                result.remove(mm)
                producer[node.out] = fused
                break
    return result


def fuse_glu(nodes: list[Node], compute: str) -> list[Node]:
    """An activation of mm(x) times mm(x) becomes one op."""
    uses: dict[Value, int] = {}
    for node in nodes:
        for value in node.src:
            if isinstance(value, Value):
                uses[value] = uses.get(value, 0) + 1
    producer = {node.out: node for node in nodes if node.out is not None}
    result = list(nodes)
    for node in nodes:
        if node.kind not in ("silu_mul", "gelu") or len(_values(node)) != 2:
            continue
        gate, up = (producer.get(v) for v in _values(node))
        if (
            gate is not None
            and up is not None
            and gate is not up
            and gate.kind == up.kind == "mm"
            and gate.src[1] is up.src[1]
            and all(m.src[2] is m.src[3] is None and m.out is not None and uses[m.out] == 1 for m in (gate, up))
            and _act_type(gate, compute) == _act_type(up, compute)
            and all(_can_move(m, result[result.index(m) : result.index(node)]) for m in (gate, up))
        ):
            kind = 0 if node.kind == "silu_mul" else 1 + node.i[1]
            result[result.index(node)] = Node("mm_glu", node.out, [*gate.src[:2], up.src[0]], [*[0] * 4, kind])
            result.remove(gate)
            result.remove(up)
    return result


@dataclass
class _Heads:
    """A matmul and the ops that work on each head of its result."""

    mm: Node
    out: Value
    head_dim: int = 0
    norm: Node | None = None
    rope: Node | None = None
    store: Node | None = None


def fuse_heads(nodes: list[Node]) -> list[Node]:
    """mm, head_norm, rope and kv_store, as far as each works on nothing but the result of the one before, become one
    op. Heads are whole panels."""
    readers: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in _values(node):
            readers.setdefault(value, []).append(node)
    place = {node: k for k, node in enumerate(nodes)}
    producer = {node.out: node for node in nodes if node.out is not None}
    found = {node: _heads_of(node, readers) for node in nodes if node.kind == "mm" and node.src[3] is None}
    stores: dict[Node, int] = {}
    for heads in found.values():
        table = producer.get(_values(heads.rope)[1]) if heads.rope else None
        if table is not None and place[table] > place[heads.mm]:
            heads.rope = heads.store = None
        if heads.store:
            stores[heads.store] = stores.get(heads.store, 0) + 1
    result = []
    gone: set[Node] = set()
    for node in nodes:
        heads = found.get(node) or _Heads(node, Value(0, 0, ""))
        store = heads.store if heads.store and stores[heads.store] == 2 else None  # keys and values both
        if node in gone:
            continue
        if not (heads.norm or heads.rope or store):
            result.append(node)
            continue
        gone.update(n for n in (heads.norm, heads.rope, store) if n is not None)
        i, f, table_value, norm, cache = [0] * 4 + [heads.head_dim, 0, 0, 0], [0.0], None, None, None
        if heads.norm:
            norm, f = heads.norm.src[1], heads.norm.f
        if heads.rope:
            table_value, i[5], i[6] = heads.rope.src[1], heads.rope.i[2], heads.rope.i[3]
        if store:
            cache, i[7] = store.src[2], 1 + store.src.index(heads.out)
        result.append(Node("mm_heads", heads.out, [*node.src[:3], table_value, norm, cache], i, f))
    return result


def _heads_of(mm: Node, readers: dict[Value, list[Node]]) -> _Heads:
    assert mm.out is not None
    heads = _Heads(mm, mm.out)
    while len(readers.get(heads.out, ())) == 1:
        node = readers[heads.out][0]
        if node.kind == "kv_store":
            if node.src[0] is node.src[1]:
                break
            n, head_dim = node.i[0], node.i[1 + node.src.index(heads.out)]
        elif node.kind in ("head_norm", "rope") and node.src[0] is heads.out:
            n, head_dim = node.i[:2]
        else:
            break
        before = heads.norm or heads.rope
        if (
            n * head_dim != heads.out.cols
            or head_dim % PANEL
            or (before and heads.head_dim != head_dim)
            or (node.kind == "head_norm" and before)
            or (node.kind == "rope" and (heads.rope or any(node.i[4:])))
        ):
            break
        heads.head_dim = head_dim
        if node.kind == "kv_store":
            heads.store = node
            break
        if node.kind == "rope":
            heads.rope = node
        else:
            heads.norm = node
        assert node.out is not None
        heads.out = node.out
    return heads


def _can_move(mm: Node, past: list[Node]) -> bool:
    """Whether no op of `past` changes the matmul's input in place."""
    x = mm.src[1]
    assert isinstance(x, Value)
    return all(node.out is None or node.out.alias is None or node.out.root is not x.root for node in past)


def quantize_inputs(nodes: list[Node], compute: str) -> list[Node]:
    """Give every matmul with a Q8 weight a quantized input, made once per value by the producing op where it can."""
    above: dict[Value, float] = {}
    unit: dict[Value, int] = {}
    for node in nodes:
        for k in _WEIGHTS.get(node.kind, ()):
            weight, x = node.src[k], node.src[1]
            assert isinstance(weight, Weight) and isinstance(x, Value)
            if _act_type(node, compute) == TYPE_ACT_Q8:
                above[x] = min(above.get(x, math.inf), second_terms(weight, compute))
                unit[x] = max(unit.get(x, 1), weight.tensor.type.block // ACT_BLOCK)
    acts = {x: Value(x.rows, x.cols, x.name + ".q8", terms=2) for x in above}
    number = {x: n for n, x in enumerate(acts, 1)}
    result: list[Node] = []
    for node in nodes:
        if node.kind in _WEIGHTS and _act_type(node, compute) == TYPE_ACT_Q8:
            x = node.src[1]
            assert isinstance(x, Value)
            i = [2, int(above[x] > 0), number[x], unit[x]]
            node = Node(node.kind, node.out, [node.src[0], acts[x], *node.src[2:]], i + node.i[4:], node.f)
        elif node.kind in _WEIGHTS:
            node = Node(node.kind, node.out, node.src, [1, 0, 0, 0, *node.i[4:]], node.f)
        result.append(node)
        if node.out in acts:
            maker = node
            if not _can_quantize(node):
                maker = Node("quant", None, [node.out], i=[0])
                result.append(maker)
            maker.act = acts[node.out]
            maker.i = (maker.i + [0] * 8)[:8]
            maker.f = [*(maker.f + [0.0] * 8)[:6], FULL_BELOW, above[node.out]]
            maker.i[_QUANTIZES.get(maker.kind, 0)] = 2
            maker.i[7] = unit[node.out]
    read = {value.root for node in result for value in node.src if isinstance(value, Value)}
    for node in result:
        if node.act is not None and node.out is not None and node.out.root not in read:
            node.out = None  # only the quantized form is used
    return result


def fuse(nodes: list[Node], compute: str) -> list[Node]:
    """All fusions, in their order."""
    return fuse_heads(fuse_glu(fuse_residuals(select_rows(nodes)), compute))


def mark_local(nodes: list[Node]) -> None:
    """Set `local` of ops whose results only matmuls multiply with, before the next such op, and of those matmuls.

    A thread keeps one such result at a time, where no other thread sees it.
    """
    readers: dict[Value, list[tuple[int, int]]] = {}  # value -> nodes, and which of their inputs it is
    for k, node in enumerate(nodes):
        for j, value in enumerate(node.src):
            if isinstance(value, Value):
                readers.setdefault(value.root, []).append((k, j))
    groups = []  # maker, matmuls
    for k, node in enumerate(nodes):
        made = [v for v in (node.out, node.act) if v is not None]
        uses = [use for v in made for use in readers.get(v.root, [])]
        if node.kind in _LOCAL and uses and all(n > k and j == 1 and nodes[n].kind in _WEIGHTS for n, j in uses):
            groups.append((k, sorted({n for n, _ in uses})))
    for (k, matmuls), (after, _) in itertools.zip_longest(groups, groups[1:], fillvalue=(len(nodes), [])):
        if matmuls[-1] < after:
            for n in (k, *matmuls):
                nodes[n].local = True


def _can_quantize(node: Node) -> bool:
    """Whether an op can write its result quantized: attention does it per KV head, in whole blocks."""
    if node.kind == "attn":
        n_heads, n_kv, _, head_dim = node.i[:4]
        return n_heads // n_kv * head_dim % ACT_BLOCK == 0
    return node.kind in _QUANTIZES


def _act_type(mm: Node, compute: str) -> int:
    """Type of the activations that a matmul multiplies with."""
    weight = mm.src[0]
    assert isinstance(weight, Weight)
    return TYPE_F32 if _is_float(weight, compute) else TYPE_ACT_Q8


def _is_float(weight: Weight, compute: str) -> bool:
    """Whether a weight is multiplied with float32 activations."""
    return compute == "f32" or weight.tensor.type.act != 1


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
        self.nodes = quantize_inputs(fuse(graph.nodes, target.compute), target.compute)
        mark_local(self.nodes)
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
            if node.local and node.kind in _WEIGHTS:
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
        maker = next(node for node in reversed(self.nodes[:k]) if node.local and node.kind in _LOCAL)
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
        widen = info.act != 0 and _is_float(w, self.target.compute)  # to float32, panel by panel
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
                src = [self.view(s, node.kind in _WEIGHTS) for s in node.src if not isinstance(s, Cache | State)]
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
            makes, reads = few and op.local and op.kind in _LOCAL, few and op.local and op.kind not in _LOCAL
            row_wise = op.kind in _ROW_WISE and op.kind != "gather" and not makes
            sources = [v for j, v in enumerate(op.src) if v and v.buf in ("arena", "kv") and not (reads and j == 1)]
            mine = [(v, False, row_wise and not _reads_first_keys(op)) for v in sources]
            mine += [(v, True, row_wise) for v in op.dst if v and not makes]
            if any(_conflict(a, b) for a in mine for b in since):
                op.barrier |= 1 << few
                since = []
            since = since + mine


def _reads_first_keys(op: Op) -> bool:
    """Whether a row takes in that of another: keys of 4 bits are kept as differences from the first of their page."""
    keys = op.dst[0]
    return op.kind == "kv_store" and keys is not None and keys.type == TYPE_Q4_0


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
