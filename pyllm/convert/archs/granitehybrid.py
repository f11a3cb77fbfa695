"""granitehybrid: Granite 4 H. As granite; most layers are state space layers. Gates and ups are one tensor."""

from __future__ import annotations

from ..lazy import interleave
from ..mapping import DECODER, Mapping
from .granite import factors
from .granitemoe import MOE, split_experts
from .mamba2 import changes

CLASSES = ("GraniteMoeHybridForCausalLM",)
MAMBA = {f"{{L}}.mamba.{old}": new for old, new in (
    ("in_proj", "{B}.ssm_in"), ("conv1d", "{B}.ssm_conv1d"), ("dt_bias", "{B}.ssm_dt.bias"), ("A_log", "{B}.ssm_a"),
    ("D", "{B}.ssm_d"), ("norm", "{B}.ssm_norm"), ("out_proj", "{B}.ssm_out"),
)}  # fmt: skip


def convert(m: Mapping) -> None:
    c = m.config
    n_group, heads = c.integer("mamba_n_groups"), c.integer("mamba_n_heads")
    n_expert, n_shared = c.integer("num_local_experts", default=0), c.integer("shared_intermediate_size", default=0)
    dim = c.get("mamba_d_head")
    inner = heads * c.integer("mamba_d_head") if type(dim) is int else c.integer("mamba_expand") * c.n_embd
    if not n_group or not heads or inner % heads or inner % n_group:
        raise c.error(f"{inner} values are not {heads} heads in {n_group} groups")
    if not n_expert:
        c.values["intermediate_size"] = n_shared
    m.hparams(head_dim=False)
    m.key("rope.dimension_count", c.n_embd // c.n_head)
    m.key(
        "rope.scaling.finetuned",
        c.get("position_embedding_type") == "rope" or "position_embedding_type" not in c.values,
    )
    factors(m)
    kinds = c.items("layer_types", str, c.n_layer)
    attends = [kind in ("attention", "full_attention") for kind in kinds]
    m.key("attention.head_count_kv", [c.n_head_kv if a else 0 for a in attends], "array of i32")
    m.key("ssm.conv_kernel", c.integer("mamba_d_conv"))
    m.key("ssm.inner_size", inner)
    m.key("ssm.state_size", c.integer("mamba_d_state"))
    m.key("ssm.time_step_rank", heads)
    m.key("ssm.group_count", n_group)
    if n_expert:
        m.experts(n_expert, c.integer("num_experts_per_tok"))
        m.key("expert_shared_feed_forward_length", n_shared)
        split_experts(m)
    end = "_shexp" if n_expert else ""
    for layer, name in m.each("{L}.shared_mlp.input_linear.weight"):
        both = m.take(name)  # [gate|up][n_embd]
        n = both.shape[0] // 2
        m.put(f"blk.{layer}.ffn_gate{end}.weight", both[:n])
        m.put(f"blk.{layer}.ffn_up{end}.weight", both[n:])
    names = DECODER | MOE | MAMBA | {"{L}.shared_mlp.output_linear": f"{{B}}.ffn_down{end}"}
    heads_of = {"attn_q": interleave(c.n_head), "attn_k": interleave(c.n_head_kv)}
    m.move(names, changes(n_group) | heads_of)
