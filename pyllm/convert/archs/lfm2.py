"""lfm2: LFM2 (dense). Short convolutions; layers without attention have no KV heads."""

from __future__ import annotations

from ..mapping import Change, Mapping

CLASSES = ("Lfm2ForCausalLM", "LFM2ForCausalLM")
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.embedding_norm": "token_embd_norm",
    "lm_head": "output",
    "{L}.operator_norm": "{B}.attn_norm",
    "{L}.ffn_norm": "{B}.ffn_norm",
    "{L}.conv.conv": "{B}.shortconv.conv",
    "{L}.conv.in_proj": "{B}.shortconv.in_proj",
    "{L}.conv.out_proj": "{B}.shortconv.out_proj",
    "{L}.self_attn.q_proj": "{B}.attn_q",
    "{L}.self_attn.k_proj": "{B}.attn_k",
    "{L}.self_attn.v_proj": "{B}.attn_v",
    "{L}.self_attn.out_proj": "{B}.attn_output",
    "{L}.self_attn.q_layernorm": "{B}.attn_q_norm",
    "{L}.self_attn.k_layernorm": "{B}.attn_k_norm",
    "{L}.feed_forward.w1": "{B}.ffn_gate",
    "{L}.feed_forward.w2": "{B}.ffn_down",
    "{L}.feed_forward.w3": "{B}.ffn_up",
}


#: convolutions lose a dimension of 1
CHANGES: dict[str, Change] = {"conv": lambda x: x.reshape(x.shape[0], x.shape[2]) if len(x.shape) == 3 else x}


def layers(m: Mapping) -> None:
    """Which layers attend, and how long the convolutions of the others are."""
    c, n = m.config, m.config.n_layer
    if c.has("layer_types"):
        kinds = [kind != "conv" for kind in c.items("layer_types", str, n)]
    else:
        full = c.items("full_attn_idxs", int)
        kinds = [i in full for i in range(n)]
    m.key("attention.head_count_kv", [c.n_head_kv if attends else 0 for attends in kinds], "array of i32")
    m.key("shortconv.l_cache", c.integer("conv_L_cache"))


def convert(m: Mapping) -> None:
    c = m.config
    if not c.has("intermediate_size"):
        c.values["intermediate_size"] = c.integer("block_ff_dim")
    c.values["intermediate_size"] = _width(m)
    m.hparams()
    layers(m)
    m.move(NAMES, CHANGES)


def _width(m: Mapping) -> int:
    """Of the feed-forward network: two thirds of what the configuration says, rounded up, if it says so."""
    c = m.config
    width = c.integer("intermediate_size")
    if c.flag("block_auto_adjust_ff_dim", default=True):
        width = int(int(2 * width / 3) * c.real("block_ffn_dim_multiplier", default=1.0))
        step = max(1, c.integer("block_multiple_of", default=256))
        width = -(-width // step) * step
    return width
