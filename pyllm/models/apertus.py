"""apertus: Apertus 8B, 70B. An RMSNorm per head on q and k, xIELU without gate."""

from __future__ import annotations

import math

from ..errors import ModelError
from ..graph import Graph
from .blocks import attention, linear, norm, output, rope_table
from .hparams import Hparams


def build(g: Graph, hp: Hparams) -> None:
    table = rope_table(g, hp)
    x = g.embed(g.weight("token_embd.weight", hp.n_vocab, hp.n_embd))
    factors = [_per_layer(hp, f"xielu.{key}") for key in ("alpha_n", "alpha_p", "beta", "eps")]
    for layer, (alpha_n, alpha_p, beta, eps) in enumerate(zip(*factors, strict=True)):
        y = norm(g, hp, x, f"blk.{layer}.attn_norm")
        x = g.add(x, attention(g, hp, y, layer, table, interleaved=False, qk_norm="head"))
        y = linear(g, norm(g, hp, x, f"blk.{layer}.ffn_norm"), f"blk.{layer}.ffn_up", hp.n_ff)
        # the file has what softplus makes the factors of
        y = g.xielu(y, beta + math.log1p(math.exp(alpha_n)), math.log1p(math.exp(alpha_p)), beta, eps)
        x = g.add(x, linear(g, y, f"blk.{layer}.ffn_down", hp.n_embd))
    output(g, hp, x)


def _per_layer(hp: Hparams, key: str) -> list[float]:
    """A number for all layers, or one for each; GGUFError where it is missing."""
    gguf, n = hp.keys.gguf, hp.n_layer
    if key in gguf.metadata and gguf.type_of(key).startswith("array"):
        values = gguf.get_list(key, float, length=n)
    else:
        values = [gguf.get_float(key)] * n
    if not all(abs(value) < 80 for value in values):
        raise ModelError(f"{key} has a value that cannot be")
    return values
