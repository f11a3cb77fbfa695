"""A model folder as Hugging Face lays it out: its JSON files and the hyperparameters in config.json, checked."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

from ..errors import ConvertError

#: more than any real tokenizer.json
MAX_JSON: Final = 256 << 20
_MISSING: Final = object()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ConvertError if it cannot be read or is no object."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ConvertError(f"{path}: is too large to be what its name says")
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConvertError(f"{path.parent}: has no {path.name}: is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ConvertError(f"{path}: cannot be read as JSON: {e}") from e
    if not isinstance(value, dict):
        raise ConvertError(f"{path}: is no JSON object")
    return value


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As read_json; {} where there is no such file."""
    return read_json(path) if path.is_file() else {}


class Config:
    """config.json. Getters take several names, of which the first that is there counts (null is as not there), and
    raise ConvertError for what is missing or of the wrong type. Models that see have what concerns text in
    "text_config", which counts first."""

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.path = path
        inner = values.get("text_config")
        self.values = {**values, **inner} if isinstance(inner, dict) else values
        if values.get("tie_word_embeddings") is not None:  # the head belongs to the whole
            self.values["tie_word_embeddings"] = values["tie_word_embeddings"]
        names = values.get("architectures") or (inner or {}).get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise self.error('has no "architectures"')
        self.model_class = names[0]

    @classmethod
    def read(cls, folder: Path) -> Config:
        return cls(read_json(folder / "config.json"), folder / "config.json")

    def error(self, what: str) -> ConvertError:
        return ConvertError(f"{self.path}: {what}")

    def refuse_quantized(self) -> None:
        """ConvertError for weights that are packed in a way that is not read."""
        found = self.get("quantization_config", "compression_config", default={})
        method = found.get("quant_method", "some method") if isinstance(found, dict) else found
        if found and method != "mxfp4":
            raise self.error(f"the weights are quantized ({method!s:.40}): take the original model in BF16 or F16")

    def get(self, *names: str, default: Any = None) -> Any:
        return next((v for n in names if (v := self.values.get(n)) is not None), default)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def _typed(self, names: tuple[str, ...], default: Any, what: str, types: tuple[type, ...]) -> Any:
        value = self.get(*names, default=default)
        if value is _MISSING:
            raise self.error(f"has no {' or '.join(map(repr, names))}")
        if value is not None and (type(value) not in types or (isinstance(value, float) and not math.isfinite(value))):
            raise self.error(f"{names[0]!r} is {value!r:.60}, expected {what}")
        return value

    def integer(self, *names: str, default: Any = _MISSING) -> int:
        value: int = self._typed(names, default, "a number of things", (int,))
        if not 0 <= value < 1 << 32:
            raise self.error(f"{names[0]!r} is {value}, outside 0..{(1 << 32) - 1}")
        return value

    def real(self, *names: str, default: Any = _MISSING) -> float:
        return float(self._typed(names, default, "a number", (int, float)))

    def flag(self, *names: str, default: bool = False) -> bool:
        value: bool = self._typed(names, default, "true or false", (bool,))
        return value

    def items(self, name: str, type_: type, length: int | None = None) -> list[Any]:
        """A list of values of one type (float takes integers too)."""
        value = self.get(name, default=_MISSING)
        types = (int, float) if type_ is float else (type_,)
        if not isinstance(value, list) or any(type(v) not in types for v in value):
            raise self.error(f"{name!r} is no list of {type_.__name__}")
        if length is not None and len(value) != length:
            raise self.error(f"{name!r} has {len(value)} values, expected {length}")
        return [type_(v) for v in value]

    # -- what every model has -----------------------------------------------------------------------------

    @property
    def n_layer(self) -> int:
        n = self.integer("num_hidden_layers", "n_layer", "num_layers", "n_layers")
        if not 1 <= n <= 4096:
            raise self.error(f"there are {n} layers")
        return n

    @property
    def n_embd(self) -> int:
        return self.integer("hidden_size", "n_embd", "d_model")

    @property
    def n_head(self) -> int:
        n = self.integer("num_attention_heads", "n_head")
        if not 1 <= n <= 1 << 16:
            raise self.error(f"there are {n} attention heads")
        return n

    @property
    def n_head_kv(self) -> int:
        n = self.integer("num_key_value_heads", default=self.n_head)
        if not n or self.n_head % n:
            raise self.error(f"{self.n_head} attention heads cannot share {n} KV heads evenly")
        return n

    @property
    def head_dim(self) -> int:
        return self.integer("head_dim", default=self.n_embd // self.n_head)

    @property
    def n_rot(self) -> int:
        """Values of each head that are rotated."""
        return int(self.head_dim * self.rope_real("partial_rotary_factor", 1.0))

    @property
    def n_vocab(self) -> int:
        return self.integer("vocab_size")

    @property
    def rope(self) -> dict[str, Any]:
        """The rotary parameters, as transformers 5 spells them: rope_type, rope_theta, factor, ... Where kinds of
        layers differ, those of the full attention."""
        out = self.get("rope_parameters", "rope_scaling", default={})
        if not isinstance(out, dict):
            raise self.error("'rope_parameters' is no object")
        out = dict(out.get("full_attention") or out) if isinstance(out.get("full_attention", {}), dict) else out
        if out.get("rope_type") is None:
            out["rope_type"] = out.get("type", "default")
        for name, old in (
            ("rope_theta", ("rope_theta", "rotary_emb_base")),
            ("partial_rotary_factor", ("partial_rotary_factor", "rotary_pct")),
            ("original_max_position_embeddings", ("original_max_position_embeddings",)),
        ):
            if out.get(name) is None and self.get(*old) is not None:
                out[name] = self.get(*old)
        return out

    @property
    def local_rope_theta(self) -> float | None:
        """The rotary base of windowed layers, where they have one of their own."""
        local = self.get("rope_parameters", default={})
        local = local.get("sliding_attention") if isinstance(local, dict) else None
        value = local.get("rope_theta") if isinstance(local, dict) else self.get("rope_local_base_freq")
        if value is not None and type(value) not in (int, float):
            raise self.error(f"the rotary base of windowed layers is {value!r:.60}")
        return value

    def rope_real(self, name: str, default: Any = _MISSING) -> float:
        value = self.rope.get(name)
        if value is None:
            value = default
        if value is _MISSING:
            raise self.error(f"the rotary parameters have no {name!r}")
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.error(f"the rotary parameter {name!r} is {value!r:.60}, expected a number")
        return float(value)

    def rope_list(self, name: str, length: int) -> list[float]:
        value = self.rope.get(name)
        if not isinstance(value, list) or any(type(v) not in (int, float) for v in value) or len(value) != length:
            raise self.error(f"the rotary parameter {name!r} is no list of {length} numbers")
        return [float(v) for v in value]
