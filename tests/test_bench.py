"""The measuring core: what is timed, the arithmetic, and llama-bench's formats."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pyllm import bench
from pyllm.bench import Result, Workload

# every field that llama-bench writes about a CPU run and scripts read
LLAMA_BENCH = {
    "build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename", "model_type",
    "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "n_gpu_layers",
    "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "samples_ns",
    "samples_ts",
}  # fmt: skip


class FakeLLM:
    """Takes 2 ms per prompt token and 30 ms per generated one, and remembers whole pages of prompts."""

    n_ctx, n_vocab, n_threads, path = 4096, 1000, 3, Path("some.gguf")
    metadata: dict[str, Any] = {"general.file_type": 15}  # noqa: RUF012
    model = SimpleNamespace(
        n_params=134_515_008,
        size=96_576_768,
        n_batch=512,
        hparams=SimpleNamespace(architecture="llama"),
        options=SimpleNamespace(type_k="f16", type_v="q8_0"),
    )

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []
        self.seen: set[tuple[int, ...]] = set()

    def generate(self, prompt: list[int], *, max_tokens: int, temperature: float, ignore_eos: bool) -> Any:
        assert temperature == 0
        assert ignore_eos
        assert all(0 <= token < self.n_vocab for token in prompt)
        cached = max((n for n in range(0, len(prompt), 16) if tuple(prompt[:n]) in self.seen), default=0)
        self.seen.update(tuple(prompt[:n]) for n in range(16, len(prompt) + 1, 16))
        self.prompts.append(prompt)
        timings = SimpleNamespace(prompt=0.002 * (len(prompt) - cached), generation=0.03 * (max_tokens - 1))
        usage = SimpleNamespace(cached_tokens=cached)
        return SimpleNamespace(tokens=[0] * max_tokens, usage=usage, timings=timings, finish_reason="length")


@pytest.mark.parametrize(
    ("workload", "ms"),
    [
        (Workload(512), 1024), (Workload(1), 2), (Workload(0, 128), 3840), (Workload(0, 1), 30),
        (Workload(64, 16), 128 + 480), (Workload(100, 0, 512), 200), (Workload(0, 8, 77), 240),
        (Workload(100, 3, 515), 200 + 90),
    ],
    ids=lambda v: v.name if isinstance(v, Workload) else "",
)  # fmt: skip
def test_only_the_workload_is_timed(workload: Workload, ms: int) -> None:
    llm: Any = FakeLLM()
    rng = np.random.default_rng(0)
    for _ in range(3):
        assert bench.sample(llm, workload, rng) == pytest.approx(ms * 1e6)
    last = llm.prompts[-1]
    depth = workload.n_depth // 16 * 16 if workload.n_prompt else workload.n_depth
    assert len(last) == max(depth + workload.n_prompt, 1)


def test_prompts_are_never_the_same() -> None:
    llm: Any = FakeLLM()
    result = bench.measure(llm, Workload(64), repetitions=4)
    assert len({tuple(p) for p in llm.prompts}) == len(llm.prompts) == 5
    assert len(result.samples_ns) == 4
    assert len(bench.measure(llm, Workload(64), repetitions=1, warmup=False).samples_ns) == 1
    assert len({tuple(p) for p in llm.prompts}) == len(llm.prompts) == 6


def test_what_cannot_be_measured_is_refused() -> None:
    llm: Any = FakeLLM()
    with pytest.raises(ValueError, match="context of 4098 tokens, the model has 4096"):
        bench.sample(llm, Workload(4096), np.random.default_rng(0))
    with pytest.raises(ValueError, match="repetitions"):
        bench.measure(llm, Workload(1), repetitions=0)
    for wrong in ({}, {"n_prompt": -1, "n_gen": 5}, {"n_depth": 5}):
        with pytest.raises(ValueError, match="nothing to measure"):
            Workload(**wrong)
    llm.seen = set()
    llm.generate = lambda prompt, **_: SimpleNamespace(tokens=[0], usage=None, finish_reason="stop")
    with pytest.raises(RuntimeError, match="did not run as asked"):
        bench.sample(llm, Workload(0, 5), np.random.default_rng(0))


def test_names_are_llama_benchs() -> None:
    assert Workload(512).name == "pp512"
    assert Workload(0, 128).name == "tg128"
    assert Workload(512, 128).name == "pp512+tg128"
    assert Workload(0, 32, 1024).name == "tg32 @ d1024"


def make(samples: list[int], workload: Workload | None = None, **facts: Any) -> Result:
    llm: Any = FakeLLM()
    time = "2025-01-02T03:04:05Z"
    return Result({**bench.facts_of(llm), **facts}, workload or Workload(512), samples, time)


def test_arithmetic() -> None:
    row = make([1_000_000_000, 2_000_000_000, 4_000_000_000]).to_dict()
    assert row["samples_ts"] == [512.0, 256.0, 128.0]
    assert row["avg_ts"] == pytest.approx(896 / 3)
    assert row["stddev_ts"] == pytest.approx(math.sqrt(sum((v - 896 / 3) ** 2 for v in (512, 256, 128)) / 2))
    assert row["avg_ns"] == round(7e9 / 3)
    assert row["stddev_ns"] == round(math.sqrt(sum((v - 7e9 / 3) ** 2 for v in (1e9, 2e9, 4e9)) / 2))
    one = make([5]).to_dict()
    assert (one["stddev_ns"], one["stddev_ts"]) == (0, 0.0)
    assert row["model_type"] == "llama 135M Q4_K Medium"


def test_json_has_llama_benchs_fields() -> None:
    rows = json.loads(bench.render([make([10, 20]), make([30], Workload(0, 4))], "json"))
    assert all(set(row) >= LLAMA_BENCH for row in rows)
    assert [row["n_gen"] for row in rows] == [0, 4]
    lines = bench.render([make([10, 20]), make([30])], "jsonl").splitlines()
    assert [json.loads(line)["samples_ns"] for line in lines] == [[10, 20], [30]]


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(bench.render([make([1000], Workload(0, 7))], "csv"))))
    assert rows[0]["n_gen"] == "7"
    assert float(rows[0]["avg_ts"]) == 7e6
    assert not any(name.startswith("samples") for name in rows[0])


def test_markdown_shows_what_differs() -> None:
    same = bench.render([make([512_000_000_000]), make([128_000_000_000], Workload(0, 128))])
    lines = same.splitlines()
    assert [c.strip() for c in lines[0].strip("|").split("|")] == [
        "model", "size", "params", "backend", "threads", "test", "t/s",
    ]  # fmt: skip
    assert "| pp512 | 1.00 ± 0.00 |" in lines[2]
    assert "92.10 MiB" in lines[2]
    assert "134.52 M" in lines[2]
    assert len({len(line) for line in lines}) == 1
    assert "n_batch" in bench.render([make([10], n_batch=256), make([10])]).splitlines()[0]
    with pytest.raises(ValueError, match="unknown format"):
        bench.render([], "xml")


def test_a_real_model_runs(data: Path) -> None:
    model = data / "models" / "qwen2.gguf"
    workloads = [Workload(40), Workload(0, 5), Workload(20, 4, 33)]
    told: list[str] = []
    results = list(bench.run(model, workloads, n_threads=(1, 2), repetitions=2, progress=told.append))
    assert [(r.facts["n_threads"], r.workload) for r in results] == [(t, w) for t in (1, 2) for w in workloads]
    assert told[0] == "pp40, 1 threads"
    assert all(min(r.samples_ns) > 0 and len(r.samples_ns) == 2 for r in results)
    assert bench.render(results).count("\n") == 2 + len(results)
