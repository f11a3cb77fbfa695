"""The model graph: what an architecture file writes and compile.py turns into a program.

A Graph is built once per loaded model. Its methods append nodes (one per op of csrc/prog/op.inc) and return Values,
which stand for [rows][cols] float32 activations; rows is a symbol (tokens of the step, or output rows). Weights name
tensors of the file; their shapes are checked when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import ModelError

if TYPE_CHECKING:
    from .gguf import TensorInfo

#: Row counts that only the step knows (pyllm.h): tokens of the step, rows whose logits are wanted.
ROWS_T = -1
ROWS_O = -3
#: Rows of a panel, the unit in which kernels read weights (pyllm.h).
PANEL = 16
#: How a router's logits become weights (csrc/prog/op.inc).
SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = 0, 1, 2


@dataclass(eq=False)
class Value:
    """Activations [rows][cols]: float32, or quantized (pl_q8) in `terms` terms if that is not 0.

    `alias` is the value whose memory an in-place op goes on using."""

    rows: int
    cols: int
    name: str
    alias: Value | None = None
    terms: int = 0

    @property
    def root(self) -> Value:
        value = self
        while value.alias is not None:
            value = value.alias
        return value


@dataclass(eq=False)
class Weight:
    """A matrix [rows][cols] of the file, in the file's type."""

    tensor: TensorInfo
    rows: int
    cols: int

    @property
    def name(self) -> str:
        return self.tensor.name


@dataclass(eq=False)
class Const:
    """A float32 vector [n]: a norm weight, a bias, rotary frequencies."""

    name: str
    data: npt.NDArray[np.float32]


@dataclass(eq=False)
class Cache:
    """K and V of one layer in the paged cache: n_kv heads of head_dim_k and head_dim_v values per token."""

    layer: int
    n_kv: int
    head_dim_k: int
    head_dim_v: int


@dataclass(eq=False)
class State:
    """What a layer keeps of the past: cols float32, in every page of the cache after the page's last token."""

    cols: int


@dataclass(eq=False)
class Node:
    """One op: its result, its inputs in op.inc's order, its parameters. `act` is a second, quantized result."""

    kind: str
    out: Value | None
    src: list[Value | Weight | Const | Cache | State | None]
    i: list[int] = field(default_factory=list)
    f: list[float] = field(default_factory=list)
    act: Value | None = None
    local: bool = False  # see pl_op.local


class Graph:
    """Builder. tensors: the file's tensors by name."""

    def __init__(self, tensors: Mapping[str, TensorInfo]) -> None:
        self.tensors = tensors
        self.nodes: list[Node] = []
        self.weights: dict[str, Weight] = {}
        self.consts: dict[str, Const] = {}
        self.caches: list[Cache] = []
        self.n_attention = 0  # layers of attention so far
        self.logits: Value | None = None
        self.long_after = 0  # tokens after which a sequence takes the rotary frequencies for long ones; 0: never
        self.max_positions: int | None = None  # that the model has an embedding for
        self.read: set[str] = set()  # names of the tensors asked for

    # ---- what the file holds ---------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return name in self.tensors

    def _tensor(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        info = self.tensors.get(name)
        if info is None:
            raise ModelError(f"the file has no tensor {name!r}, which its architecture needs")
        if tuple(info.shape) != shape:
            raise ModelError(f"tensor {name!r} has shape {list(info.shape)}, expected {list(shape)}")
        self.read.add(name)
        return info

    def weight(self, name: str, rows: int, cols: int) -> Weight:
        """The matrix `name`, [rows][cols] (GGUF shape [cols, rows]). ModelError if absent or of another shape."""
        if name not in self.weights:
            self.weights[name] = Weight(self._tensor(name, (cols, rows)), rows, cols)
        return self.weights[name]

    def experts(self, name: str, n_experts: int, rows: int, cols: int) -> Weight:
        """The matrices `name` of all experts, [n_experts * rows][cols] (GGUF shape [cols, rows, n_experts]).

        ModelError if absent, of another shape, or if rows is not a multiple of a panel's."""
        if name not in self.weights:
            one = name.replace("_exps.weight", ".0.weight")
            if not self.has(name) and self.has(one):
                raise ModelError(
                    f"the file has a tensor for each expert ({one!r}), as files of early 2024 do; convert the model "
                    "again, or take a newer file of it"
                )
            tensor = self._tensor(name, (cols, rows, n_experts))
            if rows % PANEL:
                raise ModelError(f"tensor {name!r} has experts of {rows} rows; only multiples of {PANEL} can be run")
            self.weights[name] = Weight(tensor, n_experts * rows, cols)
        return self.weights[name]

    def row(self, name: str, cols: int) -> Weight:
        """The matrix `name` of one row, [1][cols], which some files hold as a vector."""
        if name not in self.weights:
            as_vector = self.has(name) and len(self.tensors[name].shape) == 1
            self.weights[name] = Weight(self._tensor(name, (cols,) if as_vector else (cols, 1)), 1, cols)
        return self.weights[name]

    def vector(self, name: str, n: int) -> Const:
        """The vector `name` [n] as float32. ModelError if absent or of another shape."""
        if name not in self.consts:
            self.consts[name] = Const(name, self._tensor(name, (n,)).dequantize())
        return self.consts[name]

    def split(self, name: str, parts: dict[str, int], cols: int, *, stacked: bool = False) -> list[Weight]:
        """The matrix `name` cut into consecutive rows: as many as parts says, under the names that it gives.

        stacked: the file has the parts, all of one size, along a third dimension."""
        n = next(iter(parts.values()))
        whole = self._tensor(name, (cols, n, len(parts)) if stacked else (cols, sum(parts.values())))
        row, first = whole.nbytes // whole.rows, 0
        for part, n in parts.items():
            tensor = replace(whole, name=part, shape=(cols, n), offset=whole.offset + first * row, nbytes=n * row)
            self.weights[part] = Weight(tensor, n, cols)
            first += n
        return [self.weights[part] for part in parts]

    def split_vector(self, name: str, parts: dict[str, int]) -> list[Const]:
        """The vector `name` cut likewise."""
        data = self._tensor(name, (sum(parts.values()),)).dequantize()
        ends = np.cumsum(list(parts.values()))
        return [self.const(part, data[end - n : end]) for (part, n), end in zip(parts.items(), ends, strict=True)]

    def rows_of(self, name: str) -> int:
        """Rows of the tensor `name`. ModelError if absent."""
        if name not in self.tensors:
            raise ModelError(f"the file has no tensor {name!r}, which its architecture needs")
        return self.tensors[name].rows

    def flat(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        """All values of a tensor, [prod(shape)] float32; shape is in numpy's order. ModelError as for weight."""
        return self._tensor(name, shape[::-1]).dequantize().ravel()

    def ignore(self, *names: str) -> None:
        """Tensors that the file may hold and that the architecture does not use."""
        self.read.update(names)

    def optional_vector(self, name: str, n: int) -> Const | None:
        return self.vector(name, n) if self.has(name) else None

    def const(self, name: str, data: npt.NDArray[np.float32]) -> Const:
        self.consts[name] = Const(name, np.ascontiguousarray(data, np.float32))
        return self.consts[name]

    # ---- ops -------------------------------------------------------------------------------------------------

    def _add(
        self,
        kind: str,
        out: Value | None,
        src: list[Value | Weight | Const | Cache | State | None],
        i: list[int] | None = None,
        f: list[float] | None = None,
    ) -> None:
        self.nodes.append(Node(kind, out, src, i or [], f or []))

    def embed(self, table: Weight, scale: float = 1.0) -> Value:
        """[T][cols]: the rows of `table` that the step's tokens name, times scale."""
        out = Value(ROWS_T, table.cols, "embed")
        self._add("embed", out, [table], f=[scale])
        return out

    def embed_positions(self, table: Weight) -> Value:
        """[T][cols]: the rows of `table` at the positions of the step's tokens. The context ends with the table."""
        out = Value(ROWS_T, table.cols, table.name.removesuffix(".weight"))
        self._add("embed", out, [table], i=[1], f=[1.0])
        self.max_positions = table.rows
        return out

    def rope_table(
        self,
        inv_freq: npt.NDArray[np.float32],
        scale: float = 1.0,
        name: str = "rope",
        *,
        inv_freq_long: npt.NDArray[np.float32] | None = None,
        long_after: int = 0,
        growth: tuple[float, int, int] | None = None,
    ) -> Value:
        """[T][2 * len(inv_freq)]: (cos, sin) of position * inv_freq, times scale (RoFormer, Su et al. 2021).

        inv_freq_long takes its place in sequences of more than long_after tokens (LongRoPE, Ding et al. 2024).
        growth (b, n, m): times 1 + b * log(1 + (position + m) // n) too, which makes the attention of later queries
        sharper (Scalable-Softmax, Nakanishi 2025)."""
        out = Value(ROWS_T, 2 * len(inv_freq), name)
        switched = None if inv_freq_long is None else self.const(f"{name}.inv_freq_long", inv_freq_long)
        b, n, m = growth or (0.0, 0, 0)
        self._add("rope_table", out, [self.const(f"{name}.inv_freq", inv_freq), switched], i=[n, m], f=[scale, b])
        self.long_after = long_after if switched else self.long_after
        return out

    def rms_norm(self, x: Value, weight: Const, eps: float) -> Value:
        """[T][n]: x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019)."""
        out = Value(x.rows, x.cols, weight.name.removesuffix(".weight"))
        self._add("rmsnorm", out, [x, weight], i=[0], f=[eps])
        return out

    def layer_norm(self, x: Value, weight: Const, bias: Const | None, eps: float) -> Value:
        """(x - mean) / sqrt(variance + eps) * weight + bias per row (LayerNorm, Ba et al. 2016)."""
        out = Value(x.rows, x.cols, weight.name.removesuffix(".weight"))
        self._add("layernorm", out, [x, weight, bias], i=[0], f=[eps])
        return out

    def head_norm(self, x: Value, weight: Const, n_heads: int, head_dim: int, eps: float) -> Value:
        """rms_norm of each of the n_heads heads of x [T][n_heads * head_dim], in place."""
        out = Value(x.rows, x.cols, weight.name.removesuffix(".weight"), alias=x)
        self._add("head_norm", out, [x, weight], i=[n_heads, head_dim], f=[eps])
        return out

    def linear(self, x: Value, weight: Weight, bias: Const | None = None) -> Value:
        """[T][weight.rows] = x [T][weight.cols] . weight^T + bias."""
        out = Value(x.rows, weight.rows, weight.name.removesuffix(".weight"))
        self._add("mm", out, [weight, x, bias, None])
        return out

    def rope(self, x: Value, table: Value, n_heads: int, head_dim: int, interleaved: bool, first: int = 0) -> Value:
        """Rotate table.cols values from `first` of each head of x, in place; pairs (2i, 2i+1) or (i, i + half)."""
        out = Value(x.rows, x.cols, x.name + ".rope", alias=x)
        self._add("rope", out, [x, table], i=[n_heads, head_dim, table.cols, int(interleaved), first])
        return out

    def attention(
        self,
        q: Value,
        k: Value | None,
        v: Value | None,
        *,
        n_heads: int,
        n_kv: int,
        head_dim_k: int,
        head_dim_v: int,
        scale: float,
        window: int = 0,
        chunk: int = 0,
        softcap: float = 0.0,
        sinks: Const | None = None,
        cache: Cache | None = None,
    ) -> Value:
        """Store k and v in a new layer of the cache, then [T][n_heads * head_dim_v] = softmax(scale q K^T) V over
        all earlier keys of each token's sequence (the last `window` of them if not 0; those of the same
        `chunk` positions if that is not 0).

        softcap: scores are held within +-softcap by tanh (Gemma 2). sinks [n_heads]: a score of each head that takes
        part in the softmax without a value (gpt-oss). cache: an earlier layer's, one of self.caches, which is only
        read; k and v are then None."""
        if cache is None:
            cache = Cache(len(self.caches), n_kv, head_dim_k, head_dim_v)
            self.caches.append(cache)
            self._add("kv_store", None, [k, v, cache], i=[n_kv, head_dim_k, head_dim_v])
        out = Value(q.rows, n_heads * head_dim_v, f"blk.{self.n_attention}.attn")
        self.n_attention += 1
        dims = [n_heads, n_kv, head_dim_k, head_dim_v, -chunk if chunk else window, 0]
        self._add("attn", out, [q, cache, sinks], i=dims, f=[scale, softcap])
        return out

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """silu(gate) * up (SwiGLU, Shazeer 2020)."""
        out = Value(gate.rows, gate.cols, gate.name.replace("ffn_gate", "ffn_act"))
        self._add("silu_mul", out, [gate, up], i=[0])
        return out

    def gelu(self, gate: Value, up: Value | None = None, exact: bool = False) -> Value:
        """gelu(gate) (* up) (Hendrycks and Gimpel 2016; GEGLU: Shazeer 2020): the tanh form, or by erf if exact."""
        out = Value(gate.rows, gate.cols, gate.name.replace("ffn_gate", "ffn_act").replace("ffn_up", "ffn_act"))
        self._add("gelu", out, [gate, up], i=[0, int(exact)])
        return out

    def swiglu_clamped(self, gate: Value, up: Value, limit: float, alpha: float) -> Value:
        """g sigmoid(alpha g) (u + 1), g being gate up to limit and u being up within +-limit (gpt-oss, 2025)."""
        out = Value(gate.rows, gate.cols, gate.name.replace("ffn_gate", "ffn_act"))
        self._add("swiglu_clamped", out, [gate, up], i=[0], f=[limit, alpha])
        return out

    def relu(self, gate: Value, up: Value | None = None) -> Value:
        """max(0, gate) (* up); of x and x the square of relu (Primer, So et al. 2021)."""
        out = Value(gate.rows, gate.cols, gate.name.replace("ffn_gate", "ffn_act").replace("ffn_up", "ffn_act"))
        self._add("relu", out, [gate, up], i=[0])
        return out

    def xielu(self, x: Value, alpha_n: float, alpha_p: float, beta: float, eps: float) -> Value:
        """x (alpha_p x + beta) for x > 0, else alpha_n (e^min(x, eps) - 1 - x) + beta x (Huang and Schlag 2024)."""
        out = Value(x.rows, x.cols, x.name.replace("ffn_up", "ffn_act"))
        self._add("xielu", out, [x], i=[0], f=[alpha_n, alpha_p, beta, eps])
        return out

    def clamp(self, x: Value, most: float) -> Value:
        """x held within +-most, in place."""
        out = Value(x.rows, x.cols, x.name + ".clamped", alias=x)
        self._add("clamp", out, [x], f=[most])
        return out

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor, in place."""
        out = Value(x.rows, x.cols, x.name + ".scaled", alias=x)
        self._add("scale", out, [x], f=[factor])
        return out

    def multiply(self, x: Value, weight: Const) -> Value:
        """x * weight [x.cols], in place."""
        out = Value(x.rows, x.cols, x.name + ".scaled", alias=x)
        self._add("scale", out, [x, weight], f=[1.0])
        return out

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        out = Value(a.rows, a.cols, b.name + ".sum")
        self._add("add", out, [a, b])
        return out

    def slice(self, x: Value, first: int, n: int, name: str, n_heads: int = 1) -> Value:
        """n columns from `first` on of each of the n_heads heads of x."""
        out = Value(x.rows, n_heads * n, name)
        self._add("slice", out, [x], i=[first, n_heads])
        return out

    def concat(self, parts: list[Value], name: str, n_heads: int = 1) -> Value:
        """The heads of up to four values side by side."""
        out = Value(parts[0].rows, sum(p.cols for p in parts), name)
        self._add("concat", out, list(parts), i=[n_heads])
        return out

    def match_rms(self, y: Value, x: Value, least: float) -> Value:
        """y * rms(x) / sqrt(max(mean(y^2), least)) per row, in place."""
        out = Value(y.rows, y.cols, y.name + ".matched", alias=y)
        self._add("match_rms", out, [y, x], f=[least])
        return out

    def sparsify(self, x: Value, deviations: float) -> Value:
        """max(0, x - (mean + deviations * standard deviation)) per row, in place."""
        out = Value(x.rows, x.cols, x.name + ".sparse", alias=x)
        self._add("sparsify", out, [x], f=[deviations])
        return out

    def altup_predict(self, x: Value, router: Const, n: int, active: int, eps: float, name: str) -> Value:
        """AltUp's prediction of n streams [T][n * d] from themselves (Baykal et al. 2023); `router` as in op.inc."""
        out = Value(x.rows, x.cols, name)
        self._add("altup_predict", out, [x, router], i=[n, active], f=[eps])
        return out

    def altup_correct(self, x: Value, router: Const, y: Value, n: int, active: int, eps: float, name: str) -> Value:
        """AltUp's correction of predicted streams x by the computed stream y [T][d], in place."""
        out = Value(x.rows, x.cols, name, alias=x)
        self._add("altup_correct", out, [x, router, y], i=[n, active], f=[eps])
        return out

    def altup_add(self, x: Value, y: Value, n: int, active: int, name: str) -> Value:
        """y [T][d] added to all streams but the active one, in place."""
        out = Value(x.rows, x.cols, name, alias=x)
        self._add("altup_add", out, [x, y], i=[n, active])
        return out

    def short_conv(self, bcx: Value, weight: Const, length: int) -> Value:
        """[T][n]: C times the causal convolution of B * X along the sequence, for bcx [T][3 * n] = B, C, X and weight
        [length][n], each column on its own (Liquid AI's LFM2, 2025)."""
        n = bcx.cols // 3
        out = Value(bcx.rows, n, weight.name.removesuffix(".weight"))
        self._add("short_conv", out, [bcx, weight, State((length - 1) * n)], i=[length])
        return out

    def conv_silu(self, x: Value, weight: Const, bias: Const, length: int) -> Value:
        """[T][n]: silu of the causal convolution of x [T][n] along the sequence with weight [length][n], plus bias."""
        out = Value(x.rows, x.cols, weight.name.removesuffix(".weight"))
        self._add("conv_silu", out, [x, weight, bias, State((length - 1) * x.cols)], i=[length])
        return out

    def ssd(self, xbc: Value, dt: Value, consts: Const, heads: int, head_dim: int, n_state: int, groups: int) -> Value:
        """[T][heads * head_dim]: Mamba 2's state space layer (Dao and Gu 2024); inputs as in op.inc, consts [3 * heads]
        being bias, a, D."""
        out = Value(xbc.rows, heads * head_dim, consts.name)
        state = State(heads * head_dim * n_state)
        self._add("ssd", out, [xbc, dt, consts, state], i=[heads, head_dim, n_state, groups])
        return out

    def route(
        self,
        logits: Value,
        n_used: int,
        gating: int,
        normalize: bool,
        scale: float = 1.0,
        bias: Const | None = None,
        groups: tuple[int, int, int] = (0, 0, 0),
        expert_scale: Const | None = None,
    ) -> Value:
        """[T][2 * n_used]: the n_used best experts of each token by logits [T][n_experts], and their weights.

        gating: SOFTMAX of all logits, SIGMOID of each, or SOFTMAX_OF_CHOSEN. normalize: weights are divided by their
        sum. scale: and multiplied by this. bias [n_experts]: added for the choice only (DeepSeek-V3, 2024). groups
        (n, m, k): of n groups of experts the m with the greatest sums of their k best take part. expert_scale
        [n_experts]: what the weight of each expert is multiplied with at last."""
        out = Value(logits.rows, 2 * n_used, logits.name.replace("ffn_gate_inp", "ffn_route"))
        self._add("route", out, [logits, bias, expert_scale], i=[n_used, gating, int(normalize), *groups], f=[scale])
        return out

    def linear_experts(self, x: Value, weight: Weight, route: Value, rows: int, bias: Const | None = None) -> Value:
        """[T][n_used * rows]: x times the matrix [rows][weight.cols] of each expert of the token, plus its part of
        bias [n_experts * rows]. x is [T][weight.cols], or [T][n_used * weight.cols]: an input for each expert."""
        n_used = route.cols // 2
        out = Value(x.rows, n_used * rows, weight.name.removesuffix(".weight"))
        self._add("mm_id", out, [weight, x, route, bias], i=[1, 0, 0, 0, n_used, int(x.cols != weight.cols)])
        return out

    def linear_heads(self, x: Value, weight: Weight, n_heads: int) -> Value:
        """[T][weight.rows]: each of the n_heads heads of x [T][n_heads * weight.cols] times its own rows of the weight,
        which come from `experts`."""
        out = Value(x.rows, weight.rows, weight.name.removesuffix(".weight"))
        self._add("mm_id", out, [weight, x, None, None], i=[1, 0, 0, 0, n_heads, 1])
        return out

    def expert_sum(self, y: Value, route: Value, shared: Value | None = None, gate: Value | None = None) -> Value:
        """[T][n]: y [T][n_used * n] summed over a token's experts with their weights, plus shared [T][n] times sigmoid
        of gate [T][1] (or 1)."""
        n_used = route.cols // 2
        out = Value(y.rows, y.cols // n_used, y.name + ".sum")
        self._add("moe_sum", out, [y, route, shared, gate], i=[n_used])
        return out

    def output(
        self,
        x: Value,
        norm: Const,
        eps: float,
        head: Weight,
        *,
        layer_norm: bool = False,
        bias: Const | None = None,
        head_bias: Const | None = None,
        scale: float = 1.0,
        softcap: float = 0.0,
    ) -> None:
        """The end of the model: norm (RMS, or layer norm with its bias) and head (with its own) for the rows whose
        logits the step wants, times `scale`, and held within +-softcap by tanh if that is not 0 (Gemma 2)."""
        rows = Value(ROWS_O, x.cols, x.name + ".rows")
        self._add("gather", rows, [x], i=[0])
        normed = self.layer_norm(rows, norm, bias, eps) if layer_norm else self.rms_norm(rows, norm, eps)
        logits = self.linear(normed, head, head_bias)
        if scale != 1.0:
            logits = self.scale(logits, scale)
        if softcap:
            capped = Value(ROWS_O, logits.cols, "logits", alias=logits)
            self._add("softcap", capped, [logits], f=[softcap])
            logits = capped
        self.logits = logits
        self.logits.name = "logits"
