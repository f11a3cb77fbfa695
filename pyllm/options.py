"""How to run a model: options that the API and the command line share. Imports nothing, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass

#: Tokens of context unless told, or the model's own if that is less.
DEFAULT_N_CTX = 4096
#: Types that the KV cache can hold, by the names users give. Quantized ones hold rotated vectors (csrc/prog/kv.h). Mean
#: KL divergence from a float32 cache, SmolLM2-135M on 4 x 512 tokens of English text (bench/fidelity.py, -ctk -ctv):
#: f16 0.000001, bf16 0.00006, q8_0 0.00014 (K alone 0.00011), q4_0 0.031 (K alone 0.025, V alone 0.0053). Bits per
#: value in heads of 128: 16, 16, 9.1 (K) and 8.5 (V), 5.1 and 4.5.
KV_TYPES = ("f16", "f32", "bf16", "q8_0", "q4_0")
#: What matmuls with quantized weights multiply with: 8-bit activations, with a second 8-bit term for the blocks that
#: need it ("default") or for all ("precise"); or float32, the weights widened ("f32").
COMPUTE_MODES = ("default", "precise", "f32")


@dataclass(frozen=True)
class ModelOptions:
    """How to run a model; see pyllm.LLM for the meaning of each."""

    n_ctx: int | None = None
    n_batch: int = 512
    n_seqs: int = 16
    n_threads: int | None = None
    kv_tokens: int | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    compute: str = "default"
    repack: bool = True
    huge_pages: bool = True

    def __post_init__(self) -> None:
        for name in ("n_ctx", "n_batch", "n_seqs", "n_threads", "kv_tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a positive whole number")
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in KV_TYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(KV_TYPES)}")
        if self.compute not in COMPUTE_MODES:
            raise ValueError(f"compute is {self.compute!r}, expected one of {', '.join(COMPUTE_MODES)}")
