"""Hyperparameters, read from a GGUF file's metadata and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

if TYPE_CHECKING:
    from ..gguf import GGUFFile


class Keys:
    """The metadata under the architecture's name, each value checked as it is read."""

    def __init__(self, gguf: GGUFFile) -> None:
        self.gguf = gguf
        self.architecture = gguf.architecture

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.gguf.metadata

    def integer(self, key: str, default: int | None = None, low: int = 1, high: int = 1 << 24) -> int:
        """An integer of [low, high]; GGUFError where it is missing and there is no default, ModelError outside."""
        name = f"{self.architecture}.{key}"
        value = self.gguf.get_int(name) if default is None else self.gguf.get_int(name, default)
        if not low <= value <= high:
            raise ModelError(f"{name} is {value}, outside {low}..{high}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A positive number; errors as for integer."""
        name = f"{self.architecture}.{key}"
        value = self.gguf.get_float(name) if default is None else self.gguf.get_float(name, default)
        if not (math.isfinite(value) and value > 0):
            raise ModelError(f"{name} is {value}, expected a positive number")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return self.gguf.get_bool(f"{self.architecture}.{key}", default)

    def is_array(self, key: str) -> bool:
        return self.has(key) and self.gguf.type_of(f"{self.architecture}.{key}").startswith("array")

    def per_layer(self, key: str, low: int = 1, high: int = 1 << 24) -> list[int]:
        """A key that holds one integer, or one for each layer: [block_count]."""
        name, n = f"{self.architecture}.{key}", self.integer("block_count", high=4096)
        if not self.is_array(key):
            return [self.integer(key, low=low, high=high)] * n
        values = self.gguf.get_list(name, int, length=n)
        if any(not low <= value <= high for value in values):
            raise ModelError(f"{name} has a value outside {low}..{high}")
        return values

    def flags(self, key: str) -> list[bool]:
        """A bool for each layer: [block_count]."""
        n = self.integer("block_count", high=4096)
        return self.gguf.get_list(f"{self.architecture}.{key}", bool, length=n)

    def reals(self, key: str) -> list[float]:
        """A number for each layer, which may be infinite: [block_count]."""
        n = self.integer("block_count", high=4096)
        return self.gguf.get_list(f"{self.architecture}.{key}", float, length=n)


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context; names as in GGUF's rope.scaling.* keys."""

    type: str = "none"  # none, linear, yarn
    factor: float = 1.0
    original_context_length: int = 0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class Hparams:
    """Shapes are those of GGUF: n_embd model width, n_rot rotated values per head, n_ff feed-forward width."""

    architecture: str
    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_layer: int
    n_layer_nextn: int  # layers after those, which guess tokens beyond the next (multi-token prediction)
    n_head: int
    n_head_kv: int
    head_dim_k: int
    head_dim_v: int
    n_ff: int
    n_rot: int
    norm_eps: float
    layer_norm: bool  # the norms are LayerNorm, not RMSNorm
    rope_theta: float
    rope_scaling: RopeScaling
    sliding_window: int
    n_expert: int  # 0: the model has none
    n_expert_used: int
    keys: Keys  # for what only some architectures have

    @classmethod
    def from_gguf(cls, gguf: GGUFFile) -> Hparams:
        """Read and check. GGUFError for a missing or mistyped key, ModelError for values that cannot be."""
        keys = Keys(gguf)
        arch, integer, real = keys.architecture, keys.integer, keys.real
        embd = gguf.tensors.get("token_embd.weight")
        if embd is None or len(embd.shape) != 2:
            raise ModelError("the file has no matrix 'token_embd.weight': it holds a vocabulary only, or is no model")
        least = 0 if keys.has("ssm.inner_size") else 1  # models without attention say so
        n_head = integer("attention.head_count", low=least, high=1 << 16) or 1
        n_embd = integer("embedding_length")
        head_dim_k = integer("attention.key_length", max(1, n_embd // n_head), high=4096)
        n_head_kv = n_head
        if keys.has("attention.head_count_kv"):  # 0: a layer without attention
            n_head_kv = max(1, *keys.per_layer("attention.head_count_kv", low=0, high=1 << 16))
        if n_head % n_head_kv:
            raise ModelError(f"{n_head} attention heads cannot share {n_head_kv} KV heads evenly")
        n_rot = integer("rope.dimension_count", head_dim_k, high=4096)
        if n_rot > head_dim_k or n_rot % 2:
            raise ModelError(f"{arch}.rope.dimension_count is {n_rot}, expected an even number up to {head_dim_k}")
        rms = f"{arch}.attention.layer_norm_rms_epsilon"
        layer_norm = rms not in gguf.metadata and f"{arch}.attention.layer_norm_epsilon" in gguf.metadata
        n_layer = integer("block_count", high=4096)
        n_layer_nextn = integer("nextn_predict_layers", 0, low=0, high=n_layer - 1)
        n_expert = integer("expert_count", 0, low=0, high=1 << 16)
        return cls(
            architecture=arch,
            n_vocab=embd.shape[1],
            n_ctx_train=integer("context_length", high=1 << 30),
            n_embd=n_embd,
            n_layer=n_layer - n_layer_nextn,
            n_layer_nextn=n_layer_nextn,
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim_k=head_dim_k,
            head_dim_v=integer("attention.value_length", head_dim_k, high=4096),
            n_ff=max(keys.per_layer("feed_forward_length", low=least)),
            n_rot=n_rot,
            norm_eps=real("attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon"),
            layer_norm=layer_norm,
            rope_theta=real("rope.freq_base", 10000.0),
            rope_scaling=RopeScaling(
                type=gguf.get_str(f"{arch}.rope.scaling.type", "none"),
                # older files say rope.scale_linear instead of rope.scaling.factor
                factor=real("rope.scaling.factor", gguf.get_float(f"{arch}.rope.scale_linear", 1.0)),
                original_context_length=integer("rope.scaling.original_context_length", 0, low=0, high=1 << 30),
                attn_factor=real("rope.scaling.attn_factor", 1.0),
                beta_fast=real("rope.scaling.yarn_beta_fast", 32.0),
                beta_slow=real("rope.scaling.yarn_beta_slow", 1.0),
            ),
            n_expert=n_expert,
            n_expert_used=integer("expert_used_count", high=n_expert) if n_expert else 0,
            sliding_window=integer("attention.sliding_window", 0, low=0, high=1 << 30),
            keys=keys,
        )

    def rope_frequencies(
        self, divisors: npt.NDArray[np.float32] | None = None, *, rounded: bool = True
    ) -> tuple[npt.NDArray[np.float32], float]:
        """(inv_freq [n_rot / 2] float32, factor for cos and sin); `divisors` [n_rot / 2] as in rope_freqs; rounded: the
        bounds of YaRN's ramp are whole dimensions.

        theta^(-2i/n_rot) (RoFormer), divided by `divisors` where the file has rope_freqs (Llama 3.1), by the factor
        (linear: Chen et al. 2023), or blended per frequency (YaRN: Peng et al. 2023, with its attention temperature).
        """
        with np.errstate(all="ignore"):
            inv, factor = self._rope_frequencies(divisors, rounded)
        if not (np.isfinite(inv).all() and math.isfinite(factor)):
            raise ModelError("the file's rope keys or rope_freqs give rotary frequencies that are not finite")
        return inv, factor

    def _rope_frequencies(
        self, divisors: npt.NDArray[np.float32] | None, rounded: bool
    ) -> tuple[npt.NDArray[np.float32], float]:
        scaling = self.rope_scaling
        i = np.arange(0, self.n_rot, 2, dtype=np.float64)
        inv = 1.0 / self.rope_theta ** (i / self.n_rot)
        if divisors is not None:
            inv = inv / divisors.astype(np.float64)
        if scaling.type in ("none", "longrope"):  # longrope: the divisors are all of it
            return inv.astype(np.float32), scaling.attn_factor
        if scaling.type == "linear":
            return (inv / scaling.factor).astype(np.float32), scaling.attn_factor
        if scaling.type != "yarn":
            raise ModelError(f"rope scaling type {scaling.type!r} is not supported (none, linear, yarn)")
        original = scaling.original_context_length or self.n_ctx_train

        def dimension(rotations: float) -> float:
            """The (fractional) dimension whose wave turns `rotations` times within the original context."""
            return self.n_rot * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(self.rope_theta))

        try:
            low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
            if rounded:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, self.n_rot - 1)
        except (ArithmeticError, ValueError) as error:
            raise ModelError(f"the file's YaRN scaling cannot be computed: {error}") from error
        ramp = np.clip((np.arange(self.n_rot // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
        inv = inv / scaling.factor * ramp + inv * (1.0 - ramp)
        return inv.astype(np.float32), scaling.attn_factor * (0.1 * math.log(scaling.factor) + 1.0)
