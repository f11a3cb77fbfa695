"""falcon-h1: Falcon H1. The factors of the configuration go into the weights."""

from __future__ import annotations

import numpy as np

from ...errors import ConvertError
from ..lazy import Floats, Lazy, times
from ..mapping import DECODER, Mapping
from .mamba2 import changes

NAME = "falcon-h1"
CLASSES = ("FalconH1ForCausalLM",)
NAMES = {
    "model.final_layernorm": "output_norm",
    "{L}.pre_ff_layernorm": "{B}.ffn_norm",
    "{L}.feed_forward.gate_proj": "{B}.ffn_gate",
    "{L}.feed_forward.up_proj": "{B}.ffn_up",
    "{L}.feed_forward.down_proj": "{B}.ffn_down",
    **{f"{{L}}.mamba.{old}": new for old, new in (
        ("in_proj", "{B}.ssm_in"), ("conv1d", "{B}.ssm_conv1d"), ("dt_bias", "{B}.ssm_dt.bias"), ("A_log", "{B}.ssm_a"),
        ("D", "{B}.ssm_d"), ("norm", "{B}.ssm_norm"), ("out_proj", "{B}.ssm_out"),
    )},
}  # fmt: skip


def convert(m: Mapping) -> None:
    c = m.config
    inner, n_group, n_state = c.integer("mamba_d_ssm"), c.integer("mamba_n_groups"), c.integer("mamba_d_state")
    heads = c.integer("mamba_n_heads")
    if not n_group or inner % n_group or not heads or inner % heads:
        raise c.error(f"{inner} values are not {heads} heads in {n_group} groups")
    m.hparams()
    m.key("ssm.conv_kernel", c.integer("mamba_d_conv"))
    m.key("ssm.inner_size", inner)
    m.key("ssm.state_size", n_state)
    m.key("ssm.time_step_rank", heads)
    m.key("ssm.group_count", n_group)

    attention_in = c.real("attention_in_multiplier", default=1.0)
    gate, down = c.items("mlp_multipliers", float, 2) if c.has("mlp_multipliers") else (1.0, 1.0)
    parts = c.items("ssm_multipliers", float, 5) if c.has("ssm_multipliers") else [1.0] * 5
    widths = [inner, inner, n_group * n_state, n_group * n_state, heads]
    scale = np.repeat(np.array(parts, np.float32) * np.float32(c.real("ssm_in_multiplier", default=1.0)), widths)
    factors = {
        "token_embd": times(c.real("embedding_multiplier", default=1.0)),
        "output": times(c.real("lm_head_multiplier", default=1.0)),
        "attn_q": times(attention_in),
        "attn_k": times(attention_in * c.real("key_multiplier", default=1.0)),
        "attn_v": times(attention_in),
        "attn_output": times(c.real("attention_out_multiplier", default=1.0)),
        "ffn_gate": times(gate),
        "ffn_down": times(down),
        "ssm_in": lambda x: by_row(x, scale),
        "ssm_out": times(c.real("ssm_out_multiplier", default=1.0)),
    }
    m.move(DECODER | NAMES, changes(n_group) | factors)
    for layer in range(c.n_layer):  # llama.cpp knows this one without a suffix
        m.tensors[f"blk.{layer}.ffn_norm"] = m.tensors.pop(f"blk.{layer}.ffn_norm.weight")


def by_row(x: Lazy, scale: Floats) -> Lazy:
    """Each row of x times its factor."""
    if x.shape[0] != len(scale):
        raise ConvertError(f"{x.shape[0]} rows, expected {len(scale)}")
    views, start = [], 0
    array = x.array
    for end in [*np.flatnonzero(np.diff(scale)) + 1, len(scale)]:
        factor = scale[start]
        views.append((array[start:end], lambda v, f=factor: v * f))
        start = int(end)
    return Lazy(x.dtype, x.shape, tuple(views))
