"""apertus: Apertus. Norms of queries and keys, xIELU, whose factors are numbers of each layer."""

from __future__ import annotations

import numpy as np

from ..mapping import DECODER, QK_NORM, Mapping

CLASSES = ("ApertusForCausalLM",)
OWN = {"{L}.attention_layernorm": "{B}.attn_norm", "{L}.feedforward_layernorm": "{B}.ffn_norm"}


def convert(m: Mapping) -> None:
    c = m.config
    m.hparams(act=("xielu",))
    m.key("rope.dimension_count", c.n_rot)
    defaults = {"beta": 0.5, "eps": -1e-6}
    for name in ("alpha_n", "alpha_p", "beta", "eps"):
        values = []
        for layer in range(c.n_layer):
            old = f"model.layers.{layer}.mlp.act_fn.{name}"
            if m.has(old) or name not in defaults:
                values.append(float(next(m.take(old).reshape(1).pieces()).item()))
            else:
                values.append(defaults[name])
        m.metadata[f"xielu.{name}"] = np.array(values, np.float32), "array of f32"
    m.move(DECODER | QK_NORM | OWN)
