"""How a checkpoint becomes a GGUF model: what the files of `archs/` are written with.

An architecture is a module of `archs/` named after GGUF's general.architecture, with the classes of transformers it
takes and one function that says, in terms of a Mapping, which hyperparameters and tensors the model has:

    CLASSES = ("Qwen3ForCausalLM",)

    def convert(m: Mapping) -> None:
        m.decoder()
        m.move(DECODER | {"{L}.self_attn.q_norm": "{B}.attn_q_norm", "{L}.self_attn.k_norm": "{B}.attn_k_norm"})

Names and keys are those that llama.cpp's convert_hf_to_gguf.py gives, so that its readers take the file.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from typing import Any, Final, Protocol, cast

import numpy as np

from ..errors import ConvertError
from ..gguf.header import show
from .folder import Config
from .lazy import Lazy, Packed
from .safetensors import StoredTensor

Change = Callable[[Lazy], Lazy]

#: of models that see or hear: what is no part of the language model
_NO_TEXT: Final = re.compile(
    r"(^|\.)(vision_tower|vision_model|visual|audio_tower|embed_vision|embed_audio|multi_modal_projector|connector)\."
)
#: buffers that old checkpoints carry and that are computed from the configuration
_BUFFERS: Final = re.compile(
    r"(\.rotary_emb\.inv_freq|\.rotary_pos_emb\.inv_freq|\.attn\.(masked_)?bias|\.attention\.(masked_)?bias"
    r"|\.rotary_emb\.(cos|sin)_cached)$"
)
_PREFIX: Final = re.compile(r"^(?:model\.language_model\.|language_model\.model\.|model\.text_model\.|text_model\.)")

#: names of activation functions
SILU: Final = ("silu", "swish")
GELU: Final = ("gelu",)
RELU2: Final = ("relu2",)
GELU_TANH: Final = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
#: names of most decoders: {L} is a layer of the checkpoint, {B} one of the file
DECODER: Final[dict[str, str]] = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "{L}.input_layernorm": "{B}.attn_norm",
    "{L}.self_attn.q_proj": "{B}.attn_q",
    "{L}.self_attn.k_proj": "{B}.attn_k",
    "{L}.self_attn.v_proj": "{B}.attn_v",
    "{L}.self_attn.o_proj": "{B}.attn_output",
    "{L}.post_attention_layernorm": "{B}.ffn_norm",
    "{L}.mlp.gate_proj": "{B}.ffn_gate",
    "{L}.mlp.up_proj": "{B}.ffn_up",
    "{L}.mlp.down_proj": "{B}.ffn_down",
}
#: norms per head of queries and keys
QK_NORM: Final = {"{L}.self_attn.q_norm": "{B}.attn_q_norm", "{L}.self_attn.k_norm": "{B}.attn_k_norm"}
#: experts that all tokens take, and what helps to choose the others
SHARED: Final[dict[str, str]] = {
    **{f"{{L}}.mlp.shared_experts.{k}_proj": f"{{B}}.ffn_{k}_shexp" for k in ("gate", "up", "down")},
    "{L}.mlp.gate.e_score_correction_bias": "{B}.exp_probs_b.bias",
}
#: experts of the Qwen family and its kin; {E} is an expert
EXPERTS: Final[dict[str, str]] = {
    "{L}.mlp.gate": "{B}.ffn_gate_inp",
    "{L}.mlp.experts.{E}.gate_proj": "{B}.ffn_gate_exps",
    "{L}.mlp.experts.{E}.up_proj": "{B}.ffn_up_exps",
    "{L}.mlp.experts.{E}.down_proj": "{B}.ffn_down_exps",
}


class Architecture(Protocol):
    """A module of archs/."""

    CLASSES: tuple[str, ...]

    def convert(self, m: Mapping) -> None: ...


class Mapping:
    """What the file will hold: metadata and tensors, in order.

    metadata: key -> (value, GGUF type or None). tensors: GGUF name -> values. ignored: tensors of the checkpoint that
    are no part of the language model.
    """

    def __init__(self, architecture: str, config: Config, tensors: MappingType[str, StoredTensor]) -> None:
        self.architecture = architecture
        self.config = config
        self.metadata: dict[str, tuple[Any, str | None]] = {}
        self.tensors: dict[str, Lazy | Packed] = {}
        self.ignored: list[str] = []
        self._left: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            if _NO_TEXT.search(name) or _BUFFERS.search(name):
                self.ignored.append(name)
                continue
            short = _PREFIX.sub("model.", name).removeprefix("language_model.")
            if short in self._left:
                raise config.error(f"the tensors {show(name)} and {show(short)} mean the same")
            self._left[short] = tensor

    # -- hyperparameters ------------------------------------------------------------------------------------

    def key(self, name: str, value: Any, type_: str | None = None) -> None:
        """A metadata key under the architecture's name; a float stays one even if it is whole."""
        self.metadata[f"{self.architecture}.{name}"] = (value, type_)

    def hparams(self, *, norm: str = "rms", head_dim: bool = True, act: tuple[str, ...] = SILU) -> None:
        """What most models have: sizes, heads, epsilon of the norms ("rms" or "layer"), rotary base and scaling.
        head_dim: the size of heads is a key where the configuration has it. act: names of the activation function that
        models of this architecture have; others are refused."""
        c = self.config
        found = c.get("hidden_activation", "hidden_act", "activation_function", "activation", default=act[0])
        if found not in act:
            raise c.error(f"the activation function {found!r:.40} is not the one of {self.architecture} ({act[0]})")
        self.key("block_count", c.n_layer)
        self.key("context_length", c.integer("max_position_embeddings", "n_positions", "n_ctx", "seq_length"))
        self.key("embedding_length", c.n_embd)
        self.key("feed_forward_length", c.integer("intermediate_size", "n_inner", "ffn_hidden_size"))
        self.key("attention.head_count", c.n_head)
        self.key("attention.head_count_kv", c.n_head_kv)
        self.key("vocab_size", c.n_vocab)
        if norm == "rms":
            self.key("attention.layer_norm_rms_epsilon", c.real("rms_norm_eps", "norm_eps", default=1e-6))
        else:
            names = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
            self.key("attention.layer_norm_epsilon", c.real(*names, default=1e-5))
        if head_dim and c.has("head_dim"):
            self.key("attention.key_length", c.head_dim)
            self.key("attention.value_length", c.head_dim)
        self.rope()
        if c.n_rot != c.head_dim:
            self.key("rope.dimension_count", c.n_rot)

    def rope(self) -> None:
        """Rotary base and scaling; llama3's is in a tensor of divisors, longrope's is up to the architecture."""
        c = self.config
        self.key("rope.freq_base", c.rope_real("rope_theta", 10000.0))
        kind = str(c.rope.get("rope_type")).lower()
        if kind == "linear":
            self.key("rope.scaling.type", "linear")
            self.key("rope.scaling.factor", c.rope_real("factor"))
        elif kind == "yarn":
            self.key("rope.scaling.type", "yarn")
            self.key("rope.scaling.factor", c.rope_real("factor"))
            original = c.rope_real("original_max_position_embeddings")
            self.key("rope.scaling.original_context_length", int(original))
            for ours, theirs in (
                ("attn_factor", "attention_factor"), ("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")
            ):  # fmt: skip
                if c.rope.get(theirs) is not None:
                    self.key(f"rope.scaling.{ours}", c.rope_real(theirs))
        elif kind == "llama3":
            self.tensors["rope_freqs.weight"] = Lazy.values(self._llama3_divisors())
        elif kind not in ("default", "longrope", "su", "mrope"):  # mrope: sections of positions, the same for text
            raise c.error(f"the rotary scaling {kind!r} is not supported (linear, yarn, llama3, longrope)")

    def _llama3_divisors(self) -> Any:
        """[n_rot / 2]: what the rotary frequencies are divided by (Llama 3.1): 1 for short waves, the factor for
        those longer than the original context, and in between a mean of frequencies."""
        c = self.config
        dim = c.head_dim
        factor, low, high = (c.rope_real(k) for k in ("factor", "low_freq_factor", "high_freq_factor"))
        original = c.rope_real("original_max_position_embeddings")
        if dim % 2 or not 0 < low < high or factor <= 0 or original <= 0:
            raise c.error("the rotary scaling of type 'llama3' has impossible values")
        theta = c.rope_real("rope_theta", 10000.0)
        frequency = (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32)
        turns = original * frequency / np.float32(2 * math.pi)  # within the original context
        smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)

    def experts(self, n: int, n_used: int, n_ff: int | None = None) -> None:
        """Numbers of experts, of those that a token takes, and the width of each."""
        self.key("expert_count", n)
        self.key("expert_used_count", n_used)
        if n_ff is not None:
            self.key("expert_feed_forward_length", n_ff)

    def routed_experts(self, *, sigmoid: bool, normalize: bool) -> None:
        """As DeepSeek's configurations have them: chosen by softmax or sigmoid, some shared, the first layers without.
        sigmoid, normalize: where the configuration does not say."""
        c = self.config
        n = c.integer("n_routed_experts", "num_experts")
        self.experts(n, c.integer("num_experts_per_tok"), c.integer("moe_intermediate_size"))
        self.key("expert_shared_count", c.integer("n_shared_experts", "num_shared_experts", default=0))
        self.key("expert_weights_scale", c.real("routed_scaling_factor", default=1.0))
        self.key("expert_weights_norm", c.flag("norm_topk_prob", default=normalize))
        kind = c.get("scoring_func", default="sigmoid" if sigmoid else "softmax")
        if kind not in ("sigmoid", "softmax"):
            raise c.error(f"experts chosen by {kind!r:.40} are not supported")
        self.key("expert_gating_func", 2 if kind == "sigmoid" else 1)
        self.key("leading_dense_block_count", c.integer("first_k_dense_replace", default=0))
        for ours, theirs in (("expert_group_count", "n_group"), ("expert_group_used_count", "topk_group")):
            if c.has(theirs):
                self.key(ours, c.integer(theirs))

    def drop_predictors(self) -> None:
        """Leave out the layers after the last, which guess later tokens."""
        n = self.config.n_layer
        for layer in range(n, n + self.config.integer("num_nextn_predict_layers", default=0)):
            self.drop(rf"model\.layers\.{layer}\..*")

    def windows(self, period: int) -> None:
        """The sliding window, and which layers have it: all but the last of each period, unless the configuration
        lists them."""
        c, n = self.config, self.config.n_layer
        if c.has("sliding_window"):
            self.key("attention.sliding_window", c.integer("sliding_window"))
            kinds = c.items("layer_types", str, n) if c.has("layer_types") else None
            default = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(n)]
            pattern = [kind == "sliding_attention" for kind in kinds or default]
            self.key("attention.sliding_window_pattern", pattern, "array of bool")

    def window(self) -> None:
        """The sliding window, where the configuration has one in use."""
        c = self.config
        if c.has("sliding_window") and c.get("use_sliding_window") is not False:
            self.key("attention.sliding_window", c.integer("sliding_window"))

    # -- tensors --------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the checkpoint has a tensor of this name that was not taken yet."""
        return name in self._left

    def take(self, name: str) -> Lazy:
        """A tensor of the checkpoint, by its name; ConvertError if it is not there."""
        if name not in self._left:
            raise self.config.error(f"the model has no tensor {show(name)}, which a {self.config.model_class} has")
        return Lazy.of(self._left.pop(name))

    def put(self, name: str, values: Lazy | Packed) -> None:
        """A tensor of the file."""
        if name in self.tensors:
            raise self.config.error(f"two tensors of the checkpoint would be {show(name)}")
        self.tensors[name] = values

    def each(self, pattern: str) -> list[tuple[int, str]]:
        """(layer, name) of all tensors not taken yet that match: {L} is "model.layers.N"."""
        regex = _regex(pattern)
        found = ((regex.fullmatch(name), name) for name in list(self._left))
        return sorted((int(m["layer"]), name) for m, name in found if m)

    def move(self, names: MappingType[str, str], changes: MappingType[str, Change] | None = None) -> None:
        """Take all tensors whose names, without .weight or .bias, match one of `names`, and put them under the name
        beside it. {L}: a layer, "model.layers.N"; {B}: "blk.N"; {E}: an expert, all of which are stacked. changes: what
        is done to some of them, by the last part of the new name; weights and biases alike."""
        changes = changes or {}
        stacks: dict[str, dict[int, Lazy]] = {}
        rules = [(_regex(old, suffix=True), new) for old, new in names.items()]
        for name in list(self._left):
            for regex, new in rules:
                match = regex.fullmatch(name)
                if not match:
                    continue
                parts = match.groupdict()
                if "layer" in parts and int(parts["layer"]) >= self.config.n_layer:
                    continue
                target = new.format(B=f"blk.{parts.get('layer')}") + (parts["suffix"] or "")
                change = changes.get(new.rpartition(".")[2], _same)
                values = self._changed(name, change)
                if "expert" in parts:
                    stacks.setdefault(target, {})[int(parts["expert"])] = values
                else:
                    self.put(target, values)
                break
        for target, experts in stacks.items():
            n = len(experts)
            if sorted(experts) != list(range(n)):
                raise self.config.error(f"{show(target)} needs all experts from 0 on, and some are missing")
            self.put(target, Lazy.join([experts[i] for i in range(n)], (n, *experts[0].shape)))

    def _changed(self, name: str, change: Change) -> Lazy:
        try:
            return change(self.take(name))
        except ConvertError as e:
            raise self.config.error(f"tensor {show(name)}: {e}") from e

    def drop(self, pattern: str) -> None:
        """Leave out the tensors that match (a regular expression)."""
        for name in [n for n in self._left if re.fullmatch(pattern, n)]:
            self.ignored.append(name)
            del self._left[name]

    def finish(self) -> None:
        """All of the checkpoint must have been taken: what is left would be missing from the model. Tensors are put
        into the order of their names, layers by number."""
        if self.config.flag("tie_word_embeddings", default=False):
            self.tensors.pop("output.weight", None)
            self._left.pop("lm_head.weight", None)
        if self._left:
            name = next(iter(self._left))
            more = f" and {len(self._left) - 1} more" if len(self._left) > 1 else ""
            raise self.config.error(
                f"the tensor {show(name)}{more} would be left out: this is not a {self.config.model_class} as pyllm "
                "knows it"
            )
        if "token_embd.weight" not in self.tensors:
            raise self.config.error("the checkpoint has no embedding")

        def place(item: tuple[str, Lazy | Packed]) -> tuple[int, int, str]:
            layer = re.match(r"blk\.(\d+)\.", item[0])
            return (1, int(layer[1]), item[0]) if layer else (0 if item[0].startswith("token") else 2, 0, item[0])

        self.tensors = dict(sorted(self.tensors.items(), key=place))


def _same(x: Lazy) -> Lazy:
    return x


def _regex(pattern: str, suffix: bool = False) -> re.Pattern[str]:
    text = re.escape(pattern)
    layer = r"(?:(?:model|transformer|gpt_neox|backbone|transformer\.encoder)\.)?(?:layers|h)\.(?P<layer>\d{1,5})"
    text = text.replace(r"\{L\}", layer).replace(r"\{E\}", r"(?P<expert>\d{1,5})")
    return re.compile(text + (r"(?P<suffix>\.weight|\.bias)?" if suffix else ""))


def architectures() -> dict[str, Architecture]:
    """What can be converted: general.architecture -> the module that does it."""
    from . import archs

    found = {}
    for info in pkgutil.iter_modules(archs.__path__):
        module = importlib.import_module(f"{archs.__name__}.{info.name}")
        found[getattr(module, "NAME", info.name)] = cast(Architecture, module)
    return found


def architecture_of(config: Config) -> tuple[str, Architecture]:
    """The architecture that takes the model's class; ConvertError naming it and those that are supported."""
    known = architectures()
    for name, module in known.items():
        if config.model_class in module.CLASSES:
            return name, module
    classes = sorted(c for module in known.values() for c in module.CLASSES)
    raise config.error(f"{config.model_class} cannot be converted; this version converts {', '.join(classes)}")
