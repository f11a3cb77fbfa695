"""Speed of prompt processing and generation, measured and reported as llama-bench does.

`pp512` is 512 random tokens through the model; `tg128` is 128 tokens one after another. Both run as requests of the
engine and so include everything that a user waits for; the only sampling is greedy. A warm-up run comes first, then
repetitions; random tokens are new each time, so that nothing is found again in the cache.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from .kvcache import PAGE

if TYPE_CHECKING:
    import os

    from .llm import LLM

#: general.file_type -> the name that llama.cpp prints
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K Small",
    12: "Q3_K Medium", 13: "Q3_K Large", 14: "Q4_K Small", 15: "Q4_K Medium", 16: "Q5_K Small",
    17: "Q5_K Medium", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """n_prompt tokens at once and then n_gen one by one, after n_depth tokens that are not timed."""

    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0

    def __post_init__(self) -> None:
        if min(self.n_prompt, self.n_gen, self.n_depth) < 0 or self.n_prompt + self.n_gen == 0:
            raise ValueError(f"nothing to measure: n_prompt {self.n_prompt}, n_gen {self.n_gen}")

    @property
    def name(self) -> str:
        """llama-bench's name: pp512, tg128, pp512+tg128, tg128 @ d1024."""
        parts = [f"pp{self.n_prompt}"] * (self.n_prompt > 0) + [f"tg{self.n_gen}"] * (self.n_gen > 0)
        return "+".join(parts) + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def n_tokens(self) -> int:
        """Tokens that are timed."""
        return self.n_prompt + self.n_gen

    @property
    def n_ctx(self) -> int:
        """The context that a model needs to run it."""
        return max(self.n_depth, 1) + self.n_prompt + self.n_gen + 1


@dataclass(frozen=True)
class Result:
    """Samples of one workload. `facts` holds llama-bench's fields about model, machine and settings."""

    facts: dict[str, Any]
    workload: Workload
    samples_ns: list[int]
    test_time: str

    @property
    def samples_ts(self) -> list[float]:
        """Tokens per second of each sample."""
        return [self.workload.n_tokens * 1e9 / ns for ns in self.samples_ns]

    def to_dict(self) -> dict[str, Any]:
        """llama-bench's JSON fields, in its order, and cpu_level."""
        w, ns, ts = self.workload, self.samples_ns, self.samples_ts
        return {
            **self.facts,
            "n_prompt": w.n_prompt,
            "n_gen": w.n_gen,
            "n_depth": w.n_depth,
            "test_time": self.test_time,
            "avg_ns": round(statistics.fmean(ns)),
            "stddev_ns": round(statistics.stdev(ns)) if len(ns) > 1 else 0,
            "avg_ts": statistics.fmean(ts),
            "stddev_ts": statistics.stdev(ts) if len(ts) > 1 else 0.0,
            "samples_ns": ns,
            "samples_ts": ts,
        }


def facts_of(llm: LLM) -> dict[str, Any]:
    """llama-bench's fields that do not depend on the workload."""
    from . import __version__, machine

    model = llm.model
    n = model.n_params
    size = f"{n / 1e9:.2f}B" if n >= 1e9 else f"{n / 1e6:.0f}M"
    file_type = llm.metadata.get("general.file_type")
    kind = _FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else ""
    return {
        "build_commit": f"pyllm {__version__}",
        "build_number": 0,
        "cpu_info": machine.cpu_name(),
        "gpu_info": "",
        "backends": "CPU",
        "model_filename": str(llm.path),
        "model_type": f"{model.hparams.architecture} {size} {kind}".rstrip(),
        "model_size": model.size,
        "model_n_params": n,
        "n_batch": model.n_batch,
        "n_ubatch": model.n_batch,
        "n_threads": llm.n_threads,
        "type_k": model.options.type_k,
        "type_v": model.options.type_v,
        "n_gpu_layers": 0,
        "cpu_level": machine.cpu_level(),
    }


def sample(llm: LLM, workload: Workload, rng: np.random.Generator) -> int:
    """Nanoseconds of one run. ValueError if the context is too small.

    The depth of prompt processing counts in whole pages of the cache (16 tokens).
    """
    w = workload
    if w.n_ctx > llm.n_ctx:
        raise ValueError(f"{w.name} needs a context of {w.n_ctx} tokens, the model has {llm.n_ctx} (n_ctx)")
    depth = w.n_depth if w.n_prompt == 0 else w.n_depth // PAGE * PAGE
    past = rng.integers(0, llm.n_vocab, depth).tolist()
    greedy: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
    if w.n_prompt == 0:
        prompt = past or rng.integers(0, llm.n_vocab, 1).tolist()
    else:
        if past:
            llm.generate(past, max_tokens=1, **greedy)
        prompt = past + rng.integers(0, llm.n_vocab, w.n_prompt).tolist()
    done = llm.generate(prompt, max_tokens=w.n_gen + 1, **greedy)
    if len(done.tokens) != w.n_gen + 1 or (w.n_prompt and done.usage.cached_tokens != depth):
        raise RuntimeError(f"{w.name} did not run as asked: {done.usage}, {done.finish_reason}")
    seconds = done.timings.prompt * (w.n_prompt > 0) + done.timings.generation * (w.n_gen > 0)
    return int(max(round(seconds * 1e9), 1))


def measure(llm: LLM, workload: Workload, repetitions: int = 5, warmup: bool = True, seed: int | None = None) -> Result:
    """Run a workload `repetitions` times, after one run that does not count. seed: of the random tokens; two
    measurements of one LLM need different ones, or the second finds its prompts in the cache."""
    if repetitions < 1:
        raise ValueError(f"repetitions is {repetitions}, expected at least 1")
    rng = np.random.default_rng(seed)
    if warmup:
        w = workload
        sample(llm, Workload(w.n_prompt, min(w.n_gen, 8) if w.n_gen else 0, 0), rng)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Result(facts_of(llm), workload, [sample(llm, workload, rng) for _ in range(repetitions)], now)


def run(
    model: str | os.PathLike[str],
    workloads: Sequence[Workload],
    *,
    n_threads: Iterable[int | None] = (None,),
    n_batch: Iterable[int] = (512,),
    type_k: Iterable[str] = ("f16",),
    type_v: Iterable[str] = ("f16",),
    repetitions: int = 5,
    warmup: bool = True,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Iterator[Result]:
    """Every workload under every combination of settings; the model is loaded once per combination.

    progress: told in words what is about to run. options: for LLM.
    """
    from .llm import LLM

    for threads, batch, k, v in itertools.product(n_threads, n_batch, type_k, type_v):
        n_ctx = max(w.n_ctx for w in workloads)
        with LLM(model, n_ctx=n_ctx, n_threads=threads, n_batch=batch, type_k=k, type_v=v, **options) as llm:
            for workload in workloads:
                if progress:
                    progress(f"{workload.name}, {llm.n_threads} threads")
                yield measure(llm, workload, repetitions, warmup)


# ---- output --------------------------------------------------------------------------------------------------

FORMATS = ("md", "json", "jsonl", "csv")


def render(results: Sequence[Result], form: str = "md") -> str:
    """The results as llama-bench's `-o md|json|jsonl|csv` writes them."""
    rows = [r.to_dict() for r in results]
    if form == "json":
        return json.dumps(rows, indent=2) + "\n"
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    if form == "csv":
        out = io.StringIO()
        names = [name for name in (rows[0] if rows else ()) if not name.startswith("samples_")]
        writer = csv.DictWriter(out, names, extrasaction="ignore", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()
    if form != "md":
        raise ValueError(f"unknown format {form!r}, expected one of {', '.join(FORMATS)}")
    return _markdown(results, rows)


def _markdown(results: Sequence[Result], rows: Sequence[dict[str, Any]]) -> str:
    """A table with the columns that llama-bench shows; settings that are the same everywhere stay out."""
    columns: list[tuple[str, Callable[[dict[str, Any]], str], bool]] = [
        ("model", lambda r: str(r["model_type"]), False),
        ("size", lambda r: f"{r['model_size'] / 2**20:.2f} MiB", True),
        ("params", lambda r: f"{r['model_n_params'] / 1e6:.2f} M", True),
        ("backend", lambda r: f"{r['backends']} ({r['cpu_level']})", False),
        ("threads", lambda r: str(r["n_threads"]), True),
    ]
    for name in ("n_batch", "type_k", "type_v"):
        if len({row[name] for row in rows}) > 1:
            columns.append((name, lambda r, name=name: str(r[name]), True))  # type: ignore[misc]
    lines = [[name for name, _, _ in columns] + ["test", "t/s"]]
    for result, row in zip(results, rows, strict=True):
        speed = f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"
        lines.append([show(row) for _, show, _ in columns] + [result.workload.name, speed])
    return table(lines, [right for _, _, right in columns] + [True, True])


def table(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A markdown table, padded so that it also reads well as plain text; lines[0] is the header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(right))]
    out = []
    for line in lines:
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        out.append("| " + " | ".join(cells) + " |")
    rule = ("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    out.insert(1, "|" + "|".join(rule) + "|")
    return "\n".join(out) + "\n"
