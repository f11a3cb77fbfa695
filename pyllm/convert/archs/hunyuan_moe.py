"""hunyuan-moe: Hunyuan A13B."""

from __future__ import annotations

from ..mapping import DECODER, EXPERTS, Mapping
from .hunyuan_dense import QK_NORM, stretch

NAME = "hunyuan-moe"
CLASSES = ("HunYuanMoEV1ForCausalLM",)
OWN = {
    "{L}.mlp.gate.wg": "{B}.ffn_gate_inp",
    **{f"{{L}}.mlp.shared_mlp.{k}_proj": f"{{B}}.ffn_{k}_shexp" for k in ("gate", "up", "down")},
}


def convert(m: Mapping) -> None:
    c = m.config

    def same(name: str) -> int:
        """A number that may be listed for each layer."""
        value = c.get(name)
        values = set(c.items(name, int)) if isinstance(value, list) else {c.integer(name)}
        if len(values) != 1:
            raise c.error(f"{name!r} differs between layers, which is not supported")
        return int(values.pop())

    stretch(m)
    m.hparams()
    m.experts(same("num_experts"), same("moe_topk"), c.integer("intermediate_size"))
    m.key("expert_shared_feed_forward_length", c.integer("intermediate_size"))
    m.move(DECODER | EXPERTS | QK_NORM | OWN)
