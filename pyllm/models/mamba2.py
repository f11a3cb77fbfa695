"""mamba2: Mamba 2. State space layers, nothing else."""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from ..graph import Graph, Value
from .blocks import linear, norm, output
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    for layer in range(hp.n_layer):
        x = g.add(x, mixer(g, hp, norm(g, hp, x, f"blk.{layer}.attn_norm"), layer))
    output(g, hp, x)


def mixer(g: Graph, hp: Hparams, x: Value, layer: int) -> Value:
    """[T][n_embd] of normed x: projection to gate, x, B, C and step, convolution, state space layer, gate, norm (where
    the file has one), projection."""
    blk, keys = f"blk.{layer}.", hp.keys
    inner, n_state, groups = (
        keys.integer("ssm.inner_size"),
        keys.integer("ssm.state_size"),
        keys.integer("ssm.group_count"),
    )
    heads, length = keys.integer("ssm.time_step_rank"), keys.integer("ssm.conv_kernel", low=2, high=64)
    if inner % heads or heads % groups:
        raise ModelError(f"{inner} values cannot be {heads} heads in {groups} groups")
    n_conv = inner + 2 * groups * n_state
    parts = {f"{blk}ssm_z.weight": inner, f"{blk}ssm_xbc.weight": n_conv, f"{blk}ssm_dt.weight": heads}
    z, xbc, dt = (g.linear(x, w) for w in g.split(f"{blk}ssm_in.weight", parts, hp.n_embd))
    weight = g.flat(f"{blk}ssm_conv1d.weight", n_conv, length).reshape(n_conv, length)
    kernel = g.const(f"{blk}ssm_conv1d.weight", np.ascontiguousarray(weight.T).ravel())
    xbc = g.conv_silu(xbc, kernel, g.vector(f"{blk}ssm_conv1d.bias", n_conv), length)
    consts = [g.vector(f"{blk}ssm_dt.bias", heads).data, *(g.flat(f"{blk}ssm_{k}", heads, 1) for k in "ad")]
    y = g.ssd(xbc, dt, g.const(f"{blk}ssm", np.concatenate(consts)), heads, inner // heads, n_state, groups)
    y = g.silu_mul(z, y)
    if g.has(f"{blk}ssm_norm.weight"):
        ones = g.const("ones", np.ones(inner // groups, np.float32))
        y = g.head_norm(y, ones, groups, inner // groups, hp.norm_eps)
        weight = g.flat(f"{blk}ssm_norm.weight", groups, inner // groups)
        y = g.multiply(y, g.const(f"{blk}ssm_norm.weight", weight))
    return linear(g, y, f"{blk}ssm_out", hp.n_embd)
