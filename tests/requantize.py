"""Another type for the matrices of a GGUF file."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

#: matrices that files keep as they are
_KEPT = re.compile(r"norm|conv|ssm_a|ssm_d|ffn_gate_inp|altup_(predict|correct|router)|rope|position")


def copy_keys(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    """All metadata but the architecture, which the writer has been made with."""
    for key, f in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        if f.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, f.contents())
        else:
            writer.add_key_value(key, f.contents(), f.types[0])


def requantize(source: Path, target: Path, kind: str, experts: str | None = None) -> None:
    """Write source to target with matrices in type `kind`, those of experts in `experts`, where the rows allow it."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    copy_keys(reader, writer)
    for t in reader.tensors:
        data = np.array(t.data)
        name = experts if experts and "_exps" in t.name else kind
        wanted = gguf.GGMLQuantizationType[name]
        block = gguf.GGML_QUANT_SIZES[wanted][0]
        if data.ndim < 2 or data.shape[-1] % block or t.name.endswith(".bias") or _KEPT.search(t.name):
            writer.add_tensor(t.name, data)
        else:
            writer.add_tensor(t.name, quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
