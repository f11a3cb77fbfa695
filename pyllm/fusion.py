"""Passes over a model's graph before it becomes a program: what is computed together, how finely, and by whom.

In order:

1. what only the output rows need is computed for them alone;
2. residual adds move into the matmul that feeds them; gate, up and activation become one op; what is done to each head
   of queries, keys and values becomes part of the matmul that makes them;
3. every matmul with a quantized weight gets its input quantized, once per input, and the quantization moves into the
   op that makes the input where that op can do it; second_terms says how finely;
4. inputs of matmuls that are cheap to make are made by every thread for itself in steps of few tokens.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from .graph import ROWS_O, Node, Value, Weight

TYPE_F32 = 0
TYPE_ACT_Q8 = 1000  # PL_TYPE_ACT_Q8
ACT_BLOCK = 32  # values per struct pl_q8
PANEL = 16  # PL_PANEL

#: ops whose result can also be written quantized, and the parameter that holds the number of terms
_QUANTIZES = {
    "rmsnorm": 0, "layernorm": 0, "silu_mul": 0, "gelu": 0, "relu": 0, "xielu": 0, "swiglu_clamped": 0, "attn": 5,
    "gather": 0,
}  # fmt: skip
#: matmuls, and where their weights are among their inputs; the activations are number 1
WEIGHTS = {"mm": (0,), "mm_glu": (0, 2), "mm_heads": (0,), "mm_id": (0,)}
#: ops that make a matmul's input so quickly that in a step of few tokens every thread does it for itself
LOCAL = {"rmsnorm", "layernorm", "quant", "gather"}
#: ops that compute each row of their result from the same row of their inputs
_BY_ROW = {"mm", "rmsnorm", "layernorm", "silu_mul", "gelu", "relu", "xielu", "add", "route", "mm_id", "moe_sum"}

#: Blocks whose scale is above this many times the mean of their row get a second term in the default mode.
SECOND_TERM_ABOVE = 2.0
#: ... and all blocks of the tokens at positions below this: later ones attend to them the most, and short prompts take
#: no time to speak of.
FULL_BELOW = 32.0


def second_terms(weight: Weight, compute: str) -> float:
    """Which blocks of the activations that `weight` is multiplied with get a second 8-bit term: those whose scale is
    above this many times the mean scale of their row; 0 for all.

    The error of one term grows with the scale of a block, and few blocks have large ones: refining those takes away
    most of the divergence from float32 activations (bench/fidelity.py measures what is left). The head works on few
    rows, so there it is all.
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
    readers = _readers(nodes)
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


def _readers(nodes: list[Node]) -> dict[Value, list[Node]]:
    """The nodes that read each value, once for each input."""
    readers: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in _values(node):
            readers.setdefault(value, []).append(node)
    return readers


def fuse_residuals(nodes: list[Node]) -> list[Node]:
    """add(x, mm(...)) becomes one mm with a residual, at the place of the add."""
    readers = _readers(nodes)
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
                and len(readers[value]) == 1
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
    readers = _readers(nodes)
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
            and all(m.src[2] is m.src[3] is None and m.out is not None and len(readers[m.out]) == 1 for m in (gate, up))
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
    readers = _readers(nodes)
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
        for k in WEIGHTS.get(node.kind, ()):
            weight, x = node.src[k], node.src[1]
            assert isinstance(weight, Weight) and isinstance(x, Value)
            if _act_type(node, compute) == TYPE_ACT_Q8:
                above[x] = min(above.get(x, math.inf), second_terms(weight, compute))
                unit[x] = max(unit.get(x, 1), weight.tensor.type.block // ACT_BLOCK)
    acts = {x: Value(x.rows, x.cols, x.name + ".q8", terms=2) for x in above}
    number = {x: n for n, x in enumerate(acts, 1)}
    result: list[Node] = []
    for node in nodes:
        if node.kind in WEIGHTS and _act_type(node, compute) == TYPE_ACT_Q8:
            x = node.src[1]
            assert isinstance(x, Value)
            i = [2, int(above[x] > 0), number[x], unit[x]]
            node = Node(node.kind, node.out, [node.src[0], acts[x], *node.src[2:]], i + node.i[4:], node.f)
        elif node.kind in WEIGHTS:
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
        if node.kind in LOCAL and uses and all(n > k and j == 1 and nodes[n].kind in WEIGHTS for n, j in uses):
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
    return TYPE_F32 if is_float(weight, compute) else TYPE_ACT_Q8


def is_float(weight: Weight, compute: str) -> bool:
    """Whether a weight is multiplied with float32 activations."""
    return compute == "f32" or weight.tensor.type.act != 1


def prepare(nodes: list[Node], compute: str) -> list[Node]:
    """All passes, in their order."""
    nodes = quantize_inputs(fuse(nodes, compute), compute)
    mark_local(nodes)
    return nodes
