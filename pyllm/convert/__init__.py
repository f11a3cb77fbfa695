"""From a model folder of Hugging Face (safetensors and JSON) to a GGUF file.

    convert("Qwen3-0.6B", "qwen3.gguf", type="bf16")

Weights go through memory piece by piece; the file appears when it is whole.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ..errors import ConvertError
from .encode import FILE_TYPES, TYPES, encode, type_of

__all__ = ["TYPES", "convert"]

#: bytes of the checkpoint between two releases of its pages
_RELEASE: Final = 64 << 20
Progress = Callable[[str, int, int], None]


def convert(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    type: str = "auto",
    *,
    pre: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the model of `folder` to `path`; returns the path.

    type: of the matrices: "f32", "f16", "bf16", "q8_0", or "auto": as the folder has them. Vectors and what is small
    stay in float32. pre: the name of the pre-tokenizer, where it is not recognized. progress(tensor, done, total) is
    called with bytes written.

    Raises ConvertError for a folder that cannot be converted, GGUFError where the file cannot be written; then
    there is no new file.
    """
    from ..gguf.writer import GGUFWriter
    from .folder import Config
    from .mapping import Mapping, architecture_of
    from .safetensors import Checkpoint
    from .tokenizer import tokenizer_metadata

    folder, path = Path(folder), Path(path)
    if type not in TYPES:
        raise ConvertError(f"the type {type!r} is not one of {', '.join(TYPES)}")
    if not folder.is_dir():
        raise ConvertError(f"{folder}: is no folder")
    if path.exists() and not overwrite:
        raise ConvertError(f"{path}: is there already; delete it first")
    config = Config.read(folder)
    config.refuse_quantized()
    name, architecture = architecture_of(config)
    checkpoint = Checkpoint(folder)
    m = Mapping(name, config, checkpoint.tensors)
    architecture.convert(m)
    m.finish()
    types = {tensor: type_of(tensor, values, type) for tensor, values in m.tensors.items()}
    amounts: Counter[str] = Counter()
    for tensor, values in m.tensors.items():
        amounts[types[tensor].name] += math.prod(values.shape)

    with GGUFWriter(path) as out:
        out.add("general.architecture", name)
        out.add("general.type", "model")
        out.add("general.name", str(config.values.get("_name_or_path") or folder.resolve().name))
        out.add("general.file_type", FILE_TYPES[amounts.most_common(1)[0][0]], "u32")
        out.add("general.quantization_version", 2, "u32")
        metadata: dict[str, tuple[Any, str | None]] = dict(m.metadata)
        metadata |= tokenizer_metadata(folder, config, m.tensors["token_embd.weight"].shape[0], pre)
        for key, (value, value_type) in metadata.items():
            out.add(key, value, value_type)
        for tensor, values in m.tensors.items():
            out.add_tensor(tensor, values.shape[::-1], types[tensor])
        done, released = 0, 0
        for tensor, values in m.tensors.items():
            for piece in values.pieces():
                data = encode(piece, types[tensor], tensor)
                out.write(data)
                done += data.nbytes
                released += piece.nbytes
                if released > _RELEASE:
                    checkpoint.release()
                    released = 0
                if progress:
                    progress(tensor, done, out.nbytes)
    return path
