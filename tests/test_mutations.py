"""Damaged models: each is refused with pyllm's own error or works; none crashes, hangs, or takes memory for a lie.

Mutants are tried in worker processes, which have five seconds for each and address space for the file's mapping, twice
its size and 64 MiB (tests/mutate.py).
"""

from __future__ import annotations

import os
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mutate
import pytest

import pyllm
from pyllm.errors import GGUFError, PyllmError

DATA = Path(__file__).parent / "data"
MODELS = [
    *(DATA / "models" / f"{n}.gguf" for n in ("llama_hd", "llama_untied", "llama_yarn", "qwen2", "qwen3")),
    *(DATA / "quant" / f"quant-{n}.gguf" for n in ("Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0")),
]
GENERATE = "mutate:generate"  # load the whole model and let it write
#: mutants of SmolLM2, and of each small model: 10,000 in all
N_SMOLLM2, N_SMALL = 1000, 900


def survive(jobs: list[tuple[Path, range, str, str]]) -> list[mutate.Report]:
    """Try (file, seeds, check, source), two at a time."""
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        reports = list(pool.map(lambda j: mutate.run(j[0], j[1], j[2], source=j[3]), jobs))
    failures = [str(f) for r in reports for f in r.failures]
    assert not failures, "\n".join([f"{len(failures)} mutants ended badly", *failures[:5]])
    return reports


@pytest.mark.slow
def test_ten_thousand_mutants(smollm2: Path) -> None:
    half = N_SMOLLM2 // 2
    jobs = [
        (smollm2, range(half), GENERATE, "mutate:Source"),
        (smollm2, range(half, 2 * half), GENERATE, "mutate:Source"),
    ]
    jobs += [(path, range(N_SMALL), GENERATE, "mutate:Source") for path in MODELS]
    reports = survive(jobs)
    worked, refused = sum(r.worked for r in reports), sum(r.refused for r in reports)
    assert worked + refused == 10_000
    assert worked > 500 and refused > 5000  # neither is a test that tests nothing
    assert max(r.slowest for r in reports) < 5


# ---- numbers that the header may hold and a model cannot ----------------------------------------------------------

#: bit patterns of 4 bytes: small and large numbers, and as floats NaN, infinities, tiny, negative
HOSTILE = [0, 1, 2, 3, 5, 31, 33, 255, 4096, 1 << 16, 1 << 24, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
HOSTILE += [struct.unpack("<I", struct.pack("<f", x))[0] for x in (float("nan"), float("inf"), -1.0, 1.0, 1e-40, 3e38)]


class Values(mutate.Source):
    """Each number among the metadata, one at a time, becomes each hostile one."""

    def mutant(self, seed: int) -> mutate.Mutant:
        places = self.fields.kinds["value"]
        at, width = places[seed // len(HOSTILE) % len(places)]
        value = HOSTILE[seed % len(HOSTILE)]
        new = value.to_bytes(8, "little")[:width]
        return mutate.Mutant(seed, f"value at {at} becomes {value:#x}", ((at, new),), None)


class Weights(mutate.Source):
    """The header stays sound; stretches of the tensors become NaN, infinities, zeros, ones or noise."""

    def mutant(self, seed: int) -> mutate.Mutant:
        rng = random.Random(seed)
        patches = []
        for _ in range(rng.choice((1, 1, 4, 20))):
            at = rng.randrange(len(self.header) + 32, self.size)
            n = min(rng.choice((2, 4, 64, 1 << 12, 1 << 16)), self.size - at)
            new = rng.choice((b"\0" * n, b"\xff" * n, rng.randbytes(n), b"\x00\x7c" * n, b"\x00\x00\x80\x7f" * n))[:n]
            patches.append((at, new))
        return mutate.Mutant(seed, f"{len(patches)} stretches of weights", tuple(patches), None)


def run_all_ways(path: Path) -> None:
    """Load in both modes, with each type of cache, and use everything that touches numbers."""
    try:
        for compute, kind in (("default", "f16"), ("f32", "f32"), ("default", "q8_0"), ("default", "q4_0")):
            with pyllm.LLM(path, n_ctx=64, n_batch=16, n_seqs=2, n_threads=1, compute=compute, kv_type=kind) as llm:
                assert llm.logits([0, 1, 2]).shape == (3, llm.n_vocab)
                prompts = [[*llm.tokenize("Hello, world")[:8], 0], [k % llm.n_vocab for k in range(40)]]
                for options in (
                    {"temperature": 0.0},
                    {"temperature": 1.0, "dry_multiplier": 0.5, "repeat_penalty": 1.1},
                ):
                    for out in llm.generate(prompts, max_tokens=3, ignore_eos=True, seed=1, **options):
                        assert len(out.tokens) == 3 and isinstance(out.text, str)
    except PyllmError as e:
        raise GGUFError(str(e)) from e


@pytest.mark.parametrize("path", [MODELS[2], MODELS[4], MODELS[6]], ids=lambda p: p.stem)
def test_every_number_of_the_metadata(path: Path) -> None:
    """No combination of a sound file and one lie does harm; some lies are harmless."""
    places = len(mutate.Source(path).fields.kinds["value"])
    assert places > 10
    n = places * len(HOSTILE)
    (report, other) = survive(
        [
            (path, range(n // 2), "test_mutations:run_all_ways", "test_mutations:Values"),
            (path, range(n // 2, n), "test_mutations:run_all_ways", "test_mutations:Values"),
        ]
    )
    assert report.worked + other.worked > n // 20 and report.refused + other.refused > n // 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek2", "falcon_h1", "gemma3n", "gptoss", "phi3_partial"])
def test_every_number_of_other_architectures(shared: Path, name: str) -> None:
    path = shared / "goldens" / "models" / f"{name}.gguf"
    n = len(mutate.Source(path).fields.kinds["value"]) * len(HOSTILE)
    half = n // 2
    reports = survive(
        [(path, r, "test_mutations:run_all_ways", "test_mutations:Values") for r in (range(half), range(half, n))]
    )
    assert sum(r.worked for r in reports) > n // 20 and sum(r.refused for r in reports) > n // 20


@pytest.mark.parametrize("path", [MODELS[1], MODELS[4], *MODELS[5:]], ids=lambda p: p.stem)
def test_weights_that_are_noise(path: Path) -> None:
    """NaN and infinities in the weights give arbitrary text or SamplingError."""
    (report,) = survive([(path, range(60), "test_mutations:run_all_ways", "test_mutations:Weights")])
    assert report.worked > 0 and report.worked + report.refused == 60
