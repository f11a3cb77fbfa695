"""hunyuan-dense: Hunyuan 0.5B to 7B."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

NAME = "hunyuan-dense"
CLASSES = ("HunYuanDenseV1ForCausalLM",)
QK_NORM = {"{L}.self_attn.query_layernorm": "{B}.attn_q_norm", "{L}.self_attn.key_layernorm": "{B}.attn_k_norm"}


def stretch(m: Mapping) -> None:
    """NTK scaling goes into the rotary base."""
    c = m.config
    if str(c.rope.get("rope_type")) != "dynamic":
        return
    dim = c.head_dim
    alpha = c.rope_real("alpha", 1.0)
    if dim <= 2 or alpha <= 0:
        raise c.error("the rotary scaling of type 'dynamic' has impossible values")
    theta = c.rope_real("rope_theta", 10000.0) * alpha ** (dim / (dim - 2))
    c.values = {k: v for k, v in c.values.items() if k not in ("rope_parameters", "rope_scaling")} | {
        "rope_theta": theta
    }


def convert(m: Mapping) -> None:
    stretch(m)
    m.hparams()
    m.move(DECODER | QK_NORM)
