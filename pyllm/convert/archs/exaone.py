"""exaone: EXAONE 3 and 3.5."""

from __future__ import annotations

from ..mapping import Mapping

CLASSES = ("ExaoneForCausalLM",)
NAMES = {
    "transformer.wte": "token_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
    "{L}.ln_1": "{B}.attn_norm",
    "{L}.ln_2": "{B}.ffn_norm",
    "{L}.attn.attention.q_proj": "{B}.attn_q",
    "{L}.attn.attention.k_proj": "{B}.attn_k",
    "{L}.attn.attention.v_proj": "{B}.attn_v",
    "{L}.attn.attention.out_proj": "{B}.attn_output",
    "{L}.mlp.c_fc_0": "{B}.ffn_gate",
    "{L}.mlp.c_fc_1": "{B}.ffn_up",
    "{L}.mlp.c_proj": "{B}.ffn_down",
}


def convert(m: Mapping) -> None:
    c = m.config
    c.values.setdefault("rms_norm_eps", c.real("layer_norm_epsilon", default=1e-5))
    m.hparams()
    m.key("rope.dimension_count", c.n_rot)
    m.move(NAMES)
