"""seed_oss: Seed-OSS."""

from __future__ import annotations

from ..mapping import DECODER, Mapping

CLASSES = ("SeedOssForCausalLM",)


def convert(m: Mapping) -> None:
    m.hparams()
    m.move(DECODER | {"{L}.post_attention_layernorm": "{B}.post_attention_norm"})
