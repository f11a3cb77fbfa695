"""mamba2: Mamba 2. A = -exp(A_log); convolutions lose a dimension of 1."""

from __future__ import annotations

import numpy as np

from ..mapping import Change, Mapping

CLASSES = ("Mamba2ForCausalLM",)
NAMES = {
    "backbone.embeddings": "token_embd",
    "backbone.embedding": "token_embd",
    "backbone.norm_f": "output_norm",
    "lm_head": "output",
    "{L}.norm": "{B}.attn_norm",
    **{f"{{L}}.mixer.{old}": new for old, new in (
        ("in_proj", "{B}.ssm_in"), ("conv1d", "{B}.ssm_conv1d"), ("dt_bias", "{B}.ssm_dt.bias"), ("A_log", "{B}.ssm_a"),
        ("D", "{B}.ssm_d"), ("norm", "{B}.ssm_norm"), ("out_proj", "{B}.ssm_out"),
    )},
}  # fmt: skip


def changes(n_group: int) -> dict[str, Change]:
    """What the tensors of a state space layer become."""
    return {
        "ssm_a": lambda x: x.reshape(*x.shape, 1).map(lambda v: -np.exp(v)),
        "ssm_d": lambda x: x.reshape(*x.shape, 1),
        "ssm_conv1d": lambda x: x.reshape(x.shape[0], x.shape[2]) if len(x.shape) == 3 else x,
        "ssm_norm": lambda x: x.reshape(n_group, x.n_elements // n_group),
    }


def convert(m: Mapping) -> None:
    c = m.config
    inner = c.integer("expand", default=2) * c.n_embd
    n_group = c.integer("n_groups", default=1)
    heads = c.integer("head_dim", default=64)
    if not heads or inner % heads or not n_group or inner % n_group:
        raise c.error(f"{inner} values are not heads of {heads} in {n_group} groups")
    m.key("block_count", c.n_layer)
    m.key("context_length", 1 << 20)  # there is no limit
    m.key("embedding_length", c.n_embd)
    m.key("feed_forward_length", 0)
    m.key("attention.head_count", 0)
    m.key("attention.layer_norm_rms_epsilon", c.real("layer_norm_epsilon", "rms_norm_eps", default=1e-5))
    m.key("ssm.conv_kernel", c.integer("conv_kernel", default=4))
    m.key("ssm.inner_size", inner)
    m.key("ssm.state_size", c.integer("state_size", default=128))
    m.key("ssm.time_step_rank", inner // heads)
    m.key("ssm.group_count", n_group)
    m.key("vocab_size", c.n_vocab)
    m.move(NAMES, changes(n_group))
