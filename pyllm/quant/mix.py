"""Which tensor of a model gets which type: the mixes that llama.cpp's llama-quantize makes, by their names there.

A mix has one type for most matrices; those that suffer most from few bits get a better one, some of them in every
layer and some in the first, the last, and every third between. The rules are those of llama-quant.cpp (llama.cpp,
build of llama-cpp-python 0.3.36), written as tables: _HEAD to _OUTPUT below. tests/data/quantize_types.json holds what
llama.cpp itself chose, and the tests hold `choose` to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .._lib import ffi, lib
from ..errors import ModelError
from ..gguf import GGUFFile, TensorInfo, TypeInfo, tensor_types

#: types that hold floating point numbers as they are
FLOATS: Final = ("F32", "F16", "BF16", "F64")


@dataclass(frozen=True)
class Mix:
    """type: of most matrices. file_type: the number in general.file_type."""

    name: str
    type: str
    file_type: int


MIXES: Final = {
    mix.name: mix
    for mix in (
        Mix("F32", "F32", 0), Mix("F16", "F16", 1), Mix("BF16", "BF16", 32), Mix("Q8_0", "Q8_0", 7),
        Mix("Q4_0", "Q4_0", 2), Mix("Q4_1", "Q4_1", 3), Mix("Q5_0", "Q5_0", 8), Mix("Q5_1", "Q5_1", 9),
        Mix("Q2_K_S", "Q2_K", 21), Mix("Q2_K", "Q2_K", 10),
        Mix("Q3_K_S", "Q3_K", 11), Mix("Q3_K_M", "Q3_K", 12), Mix("Q3_K_L", "Q3_K", 13),
        Mix("Q4_K_S", "Q4_K", 14), Mix("Q4_K_M", "Q4_K", 15), Mix("Q5_K_S", "Q5_K", 16), Mix("Q5_K_M", "Q5_K", 17),
        Mix("Q6_K", "Q6_K", 18), Mix("IQ4_NL", "IQ4_NL", 25), Mix("IQ4_XS", "IQ4_XS", 30),
        Mix("MXFP4_MOE", "MXFP4", 38), Mix("TQ1_0", "TQ1_0", 36), Mix("TQ2_0", "TQ2_0", 37),
    )
}  # fmt: skip
ALIASES: Final = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}

#: Where rows are no multiple of a type's block: the type instead. Where that fits no better: F16.
FALLBACKS: Final = {
    "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
    "TQ1_0": "Q4_0", "TQ2_0": "Q4_0",
}  # fmt: skip

#: Matrices with one of these in their name stay as they are: small, or their errors weigh much.
_KEPT: Final = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight",
    *(f"time_mix_{name}.weight" for name in (
        "first", "w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2", "decay_w1", "decay_w2", "lerp_fused",
    )),
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_WHOLE: Final = ("position_embd.weight", "token_types.weight")

# Kinds of tensors that the rules tell apart, by what their names contain; the first that fits.
_KINDS: Final = (
    ("attn_qkv.weight", "values"), ("attn_kv_b.weight", "values"), ("attn_v.weight", "values"),
    ("attn_k.weight", "keys"), ("attn_output.weight", "attn_output"), ("ffn_down", "down"),
)  # fmt: skip
EMBEDDINGS: Final = ("token_embd.weight", "per_layer_token_embd.weight")


@dataclass(frozen=True)
class _Model:
    """What the rules ask of a model."""

    arch: str
    n_layer: int
    n_expert: int
    gqa: int  # heads of queries per head of keys
    is_70b: bool
    has_imatrix: bool

    @property
    def falcon(self) -> bool:
        return self.arch == "falcon"


#: a rule: the model, which of the kind this is, and how many there are -> a better type, or None
_Rule = Callable[[_Model, int, int], "str | None"]


def _more_bits(i: int, n: int) -> bool:
    """The first and the last eighth, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def _always(better: str) -> _Rule:
    return lambda model, i, n: better


def _shared_keys(better: str, otherwise: str | None = None) -> _Rule:
    """Where four heads of queries or more share one of keys, values are few."""
    return lambda model, i, n: better if model.gqa >= 4 else otherwise


#: values (attn_v, or what holds them): mix -> rule
_VALUES: Final[dict[str, _Rule]] = {
    "Q2_K": _shared_keys("Q4_K", "Q3_K"),
    "Q2_K_S": _shared_keys("Q4_K"),
    "Q3_K_M": lambda model, i, n: "Q5_K" if i < 2 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "Q4_K_S": lambda model, i, n: "Q5_K" if i < 4 else None,
    "Q4_K_M": lambda model, i, n: "Q6_K" if _more_bits(i, n) else None,
    "Q5_K_M": lambda model, i, n: "Q6_K" if _more_bits(i, n) else None,
    "IQ4_NL": _shared_keys("Q5_K"),
    "IQ4_XS": _shared_keys("Q5_K"),
}


def _down_q3_k_m(model: _Model, i: int, n: int) -> str | None:
    if i < n // 16:
        return "Q5_K"
    return "Q4_K" if not model.falcon or _more_bits(i, n) else None


def _down_q4_k_m(model: _Model, i: int, n: int) -> str | None:
    if model.falcon:
        return "Q6_K" if i < n // 16 else "Q5_K" if _more_bits(i, n) else None
    return "Q6_K" if _more_bits(i, n) else None


def _first_eighth(better: str, when: Callable[[_Model], bool] = lambda model: True) -> _Rule:
    return lambda model, i, n: better if i < n // 8 and when(model) else None


#: ffn_down, of experts too: mix -> rule
_DOWN: Final[dict[str, _Rule]] = {
    "Q2_K": _always("Q3_K"),
    "Q2_K_S": _first_eighth("Q4_K"),
    "Q3_K_M": _down_q3_k_m,
    "Q3_K_L": lambda model, i, n: "Q4_K" if model.falcon else "Q5_K",
    "Q4_K_S": _first_eighth("Q5_K", lambda model: not model.falcon),
    "Q4_K_M": _down_q4_k_m,
    "Q5_K_M": lambda model, i, n: "Q6_K" if _more_bits(i, n) else None,
    "IQ4_NL": _first_eighth("Q5_K", lambda model: not model.has_imatrix),
    "IQ4_XS": _first_eighth("Q5_K", lambda model: not model.has_imatrix),
    "Q4_0": _first_eighth("Q4_1", lambda model: model.has_imatrix),
    "Q5_0": _first_eighth("Q5_1", lambda model: model.has_imatrix),
}

#: attn_output: mix -> type, in most models, in falcon, and in models of eight experts (whose attention is small)
_OUTPUT: Final = {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}
_OUTPUT_FALCON: Final = {"Q3_K_L": "Q4_K"}
_OUTPUT_OF_8: Final = dict.fromkeys(("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"), "Q5_K")

#: layers of the models that llama.cpp calls 70B
_LAYERS_OF_70B: Final = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


@dataclass(frozen=True)
class Choice:
    """The type that a tensor gets. wanted: what it would be if its rows were a multiple of that type's block."""

    tensor: TensorInfo
    type: TypeInfo
    wanted: TypeInfo

    @property
    def nbytes(self) -> int:
        return self.tensor.n_elements // self.type.block * self.type.bytes


def find_mix(name: str) -> Mix:
    """The mix of this name, in any case; ValueError if there is none."""
    upper = name.upper()
    mix = MIXES.get(ALIASES.get(upper, upper))
    if mix is None:
        raise ValueError(f"there is no quantization {name!r}: take one of {', '.join(MIXES)}")
    return mix


def find_type(name: str) -> TypeInfo:
    """The tensor type of this name, in any case; ValueError if there is none to quantize to."""
    known = {
        t.name: t
        for t in tensor_types().values()
        if lib.pl_quantize(t.id, ffi.NULL, 0, t.block, ffi.NULL, ffi.NULL) != lib.PL_E_TYPE
    }
    if name.upper() not in known:
        raise ValueError(f"there is no quantization to type {name!r}: take one of {', '.join(known)}")
    return known[name.upper()]


def choose(
    file: GGUFFile,
    mix: Mix,
    *,
    tensor_types: Sequence[tuple[str, TypeInfo]] = (),
    output_type: TypeInfo | None = None,
    embedding_type: TypeInfo | None = None,
    pure: bool = False,
    leave_output: bool = False,
    has_imatrix: bool = False,
) -> list[Choice]:
    """What each tensor of the file becomes, in the order of llama-quantize's files: by layer, then by name.

    tensor_types: (regular expression, type) for tensors whose name holds a match, the first that fits; quantized
    mixes only. output_type: of output.weight, or of the embedding where that is the head too. embedding_type: of the
    embedding. pure: no better types for some. leave_output: output.weight stays. has_imatrix: the mixes Q4_0, Q5_0
    and IQ4 choose otherwise with one. ModelError if the file's metadata lack what the rules need.
    """
    chooser = _Chooser(file, mix, output_type, embedding_type, pure, has_imatrix)
    patterns = [(re.compile(pattern), type_) for pattern, type_ in tensor_types]
    choices = []
    for tensor in sorted(file.tensors.values(), key=lambda t: (_layer(t.name), t.name)):
        if not is_quantizable(tensor) or (leave_output and tensor.name == "output.weight"):
            choices.append(Choice(tensor, tensor.type, tensor.type))
        else:
            wanted = chooser.type_of(tensor, patterns)
            choices.append(Choice(tensor, _fitting(wanted, tensor.cols), wanted))
    return choices


def is_quantizable(tensor: TensorInfo) -> bool:
    """Whether a tensor is a matrix of weights, or a stack of them, that may be quantized at all."""
    name = tensor.name
    return (
        any(n > 1 for n in tensor.shape[1:])
        and name.endswith("weight")
        and name not in _KEPT_WHOLE
        and not any(part in name for part in _KEPT)
    )


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _fitting(wanted: TypeInfo, cols: int) -> TypeInfo:
    """The type, or what takes its place where rows of cols elements are no multiple of its block."""
    if cols % wanted.block == 0:
        return wanted
    types = {t.name: t for t in tensor_types().values()}
    instead = types[FALLBACKS.get(wanted.name, wanted.name)]
    return instead if cols % instead.block == 0 else types["F16"]


class _Chooser:
    """Goes through the tensors in order: some rules count those of a kind."""

    def __init__(
        self,
        file: GGUFFile,
        mix: Mix,
        output_type: TypeInfo | None,
        embedding_type: TypeInfo | None,
        pure: bool,
        has_imatrix: bool,
    ) -> None:
        self.mix, self.pure = mix, pure
        self.output_type, self.embedding_type = output_type, embedding_type
        self.types = {t.name: t for t in tensor_types().values()}
        self.tied = "output.weight" not in file.tensors
        self.model = _facts(file, has_imatrix)
        self.n_values = sum(_kind(name) == "values" for name in file.tensors)
        self.seen = {"values": 0, "down": 0}

    def type_of(self, tensor: TensorInfo, patterns: Iterable[tuple[re.Pattern[str], TypeInfo]]) -> TypeInfo:
        name = tensor.name
        named = next((type_ for pattern, type_ in patterns if pattern.search(name)), None)
        # the second table of embeddings, that of each layer, is large, and can be named on its own
        if self.embedding_type and name in EMBEDDINGS and (named is None or name == EMBEDDINGS[0]):
            return self.embedding_type
        if self.output_type and name == "output.weight":
            return self.output_type
        if self.mix.type in FLOATS:
            return self.types[self.mix.type]
        if named is not None:
            return named
        return self.types[self.mix.type if self.pure else self._by_rule(tensor) or self.mix.type]

    def _by_rule(self, tensor: TensorInfo) -> str | None:
        name, mix, model = tensor.name, self.mix.name, self.model
        if name == "output.weight" or (self.tied and name in EMBEDDINGS):
            return self._head(tensor)
        if mix == "MXFP4_MOE":
            return "MXFP4" if len(tensor.shape) > 2 and tensor.shape[2] > 1 else "Q8_0"
        if name in EMBEDDINGS:
            return "Q4_K" if mix in ("TQ1_0", "TQ2_0") else None
        kind = _kind(name)
        if kind == "values":
            better = self._rule(_VALUES, kind, self.seen[kind], self.n_values)
            if model.is_70b and (better or self.mix.type) in ("Q3_K", "Q4_K"):
                better = "Q5_K"
            return "Q8_0" if model.n_expert == 8 else better
        if kind == "keys":
            return "Q8_0" if model.n_expert == 8 else None
        if kind == "down":
            i = _layer(name) if model.n_expert > 1 else self.seen[kind]
            if not 0 <= i < model.n_layer and model.n_expert > 1:
                raise ModelError(f"tensor {name!r} belongs to none of the model's {model.n_layer} layers")
            return self._rule(_DOWN, kind, i, model.n_layer)
        if kind == "attn_output":
            table = _OUTPUT_FALCON if model.falcon else _OUTPUT_OF_8 if model.n_expert == 8 else _OUTPUT
            return table.get(mix)
        return None

    def _rule(self, rules: dict[str, _Rule], kind: str, i: int, n: int) -> str | None:
        self.seen[kind] += 1
        rule = rules.get(self.mix.name)
        return rule(self.model, i, n) if rule else None

    def _head(self, tensor: TensorInfo) -> str:
        """Of output.weight, or of the embedding that stands in for it."""
        if self.output_type:
            return self.output_type.name
        base = self.types[self.mix.type]
        if self.mix.name == "MXFP4_MOE" or self.model.falcon or tensor.cols % base.block or base.name == "Q8_0":
            return "Q8_0"
        return "Q6_K"


def _kind(name: str) -> str:
    return next((kind for part, kind in _KINDS if part in name), "")


def _facts(file: GGUFFile, has_imatrix: bool) -> _Model:
    arch = file.architecture
    n_layer = file.get_int(f"{arch}.block_count", 0, min=0)
    heads = _first(file, f"{arch}.attention.head_count", 0)
    kv_heads = _first(file, f"{arch}.attention.head_count_kv", heads)
    is_70b = _LAYERS_OF_70B.get(arch) == n_layer and not (arch == "llama" and heads == kv_heads)
    n_expert = file.get_int(f"{arch}.expert_count", 0, min=0)
    return _Model(arch, n_layer, n_expert, heads // kv_heads if kv_heads > 0 else 0, is_70b, has_imatrix)


def _first(file: GGUFFile, key: str, default: int) -> int:
    """A number of heads; that of the first layer where layers differ."""
    value: Any = file.metadata.get(key)
    if value is not None and file.type_of(key).startswith("array"):
        return file.get_list(key, int)[0] if len(value) else default
    return file.get_int(key, default)
