"""gpt2: GPT-2. Learned positions; matrices are stored transposed."""

from __future__ import annotations

from ..lazy import transpose
from ..mapping import GELU_TANH, Mapping

CLASSES = ("GPT2LMHeadModel",)
NAMES = {
    "{L}.attn.c_attn": "{B}.attn_qkv",
    "{L}.attn.c_proj": "{B}.attn_output",
    "{L}.ln_1": "{B}.attn_norm",
    "{L}.ln_2": "{B}.ffn_norm",
    "{L}.mlp.c_fc": "{B}.ffn_up",
    "{L}.mlp.c_proj": "{B}.ffn_down",
}
#: old checkpoints have no prefix
TOP = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}


def convert(m: Mapping) -> None:
    c = m.config
    c.values.setdefault("intermediate_size", c.get("n_inner") or 4 * c.n_embd)
    m.hparams(norm="layer", act=GELU_TANH)
    del m.metadata["gpt2.rope.freq_base"]
    m.drop(r"lm_head\.weight")
    top = TOP | {f"transformer.{old}": new for old, new in TOP.items()}
    flip = {
        n: lambda x: transpose(x) if len(x.shape) == 2 else x for n in ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
    }
    m.move(NAMES | top, flip)
