"""What compare.py measures and how it is told: tests, rows of samples, ratios, tables, plots, the machine's limits."""

from __future__ import annotations

import importlib.util
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Test:
    """kind "run": n_prompt tokens at once, then n_gen one by one by each of n_seqs sequences that have n_depth tokens;
    "first": from a prompt of n_prompt ids to the first token; "start": from the start of the process through import
    and load to the first token after n_prompt ids; "memory": peak RSS after load and n_gen tokens."""

    kind: str
    n_prompt: int = 0
    n_gen: int = 0
    n_depth: int = 0
    n_seqs: int = 1

    __test__ = False  # of no interest to pytest

    @property
    def name(self) -> str:
        """llama-bench's name where it has one: pp512, tg128 @ d2048; tg32 x 8 is eight sequences together."""
        if self.kind != "run":
            words = {"first": f"first token, {self.n_prompt}", "start": "start to first token", "memory": "peak RSS"}
            return words[self.kind]
        parts = [f"pp{self.n_prompt}"] * (self.n_prompt > 0) + [f"tg{self.n_gen}"] * (self.n_gen > 0)
        many = f" x {self.n_seqs}" if self.n_seqs > 1 else ""
        return "+".join(parts) + many + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def unit(self) -> str:
        return {"run": "t/s", "memory": "MB"}.get(self.kind, "ms")

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence comes to have."""
        return self.n_depth + self.n_prompt + self.n_gen + 2

    def value(self, amount: int) -> float:
        """A sample in the test's unit, of nanoseconds or bytes."""
        if self.kind == "run":
            return (self.n_prompt + self.n_gen * self.n_seqs) * 1e9 / amount
        return amount / 1e6


@dataclass(frozen=True)
class Setup:
    """What the engines are told. level: pyllm's CPU level, "" for the best."""

    model: str
    threads: int = 1
    type_k: str = "f16"
    type_v: str = "f16"
    level: str = ""

    @property
    def kv(self) -> str:
        return self.type_k if self.type_k == self.type_v else f"{self.type_k}/{self.type_v}"


@dataclass
class Row:
    """One test in one setup: samples of each round, by engine; engines that cannot run it are absent.

    limit: what the machine could do at best, in the test's unit; None if unknown."""

    setup: Setup
    test: Test
    samples: dict[str, list[float]] = field(default_factory=dict)
    limit: float | None = None

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def ratio(self, first: str, other: str) -> tuple[float, float, float]:
        """Least, median and greatest of how many times better the first engine is, round by round."""
        pairs = list(zip(self.samples[first], self.samples[other], strict=True))
        better = [a / b for a, b in pairs] if self.test.kind == "run" else [b / a for a, b in pairs]
        return min(better), statistics.median(better), max(better)

    def best_peer(self, first: str) -> tuple[str, float] | None:
        """The peer that comes closest to the first engine, or is ahead by most, and the median ratio to it."""
        peers = [(name, self.ratio(first, name)[1]) for name, s in self.samples.items() if name != first and s]
        return min(peers, key=lambda p: p[1], default=None)

    @property
    def label(self) -> str:
        """The row in words."""
        s = self.setup
        more = [s.level] * bool(s.level) + [f"KV {s.kv}"] * (s.kv != "f16")
        threads = f"{s.threads} threads" if s.threads > 1 else "1 thread"
        return ", ".join([Path(s.model).stem, self.test.name, threads, *more])


# ---- limits --------------------------------------------------------------------------------------------------

#: bytes per element of a KV cache
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


@dataclass(frozen=True)
class Work:
    """What a model's tokens cost: bytes of weights read per step, operations per token of a prompt (a multiplication
    and an addition are two; the head runs for the last token only and is left out), and per layer the elements of K
    and V that a token adds, and operations of attention per token and token of context."""

    weight_bytes: int
    prompt_ops: int
    kv_elements: tuple[int, int]
    attention_ops: int

    @classmethod
    def of(cls, path: str) -> Work:
        from pyllm.gguf import GGUFFile
        from pyllm.models.hparams import Hparams

        gguf = GGUFFile.open(path)
        try:
            hp = Hparams.from_gguf(gguf)
            head = "output.weight" if "output.weight" in gguf.tensors else "token_embd.weight"
            layers = [t for name, t in gguf.tensors.items() if name.startswith("blk.") and len(t.shape) == 2]
            return cls(
                weight_bytes=sum(t.nbytes for t in layers) + gguf.tensors[head].nbytes,
                prompt_ops=2 * sum(t.n_elements for t in layers),
                kv_elements=(hp.n_layer * hp.n_head_kv * hp.head_dim_k, hp.n_layer * hp.n_head_kv * hp.head_dim_v),
                attention_ops=2 * hp.n_layer * hp.n_head * (hp.head_dim_k + hp.head_dim_v),
            )
        finally:
            gguf.close()

    def limit(self, test: Test, setup: Setup, machine: dict[str, float], level: str) -> float | None:
        """Tokens per second at best: decoding reads weights once per step and each sequence's K and V once per
        token; a prompt is held against the peak of 8-bit dot products. machine: what checkkern --limits finds at as
        many threads."""
        if test.kind != "run" or (test.n_prompt and test.n_gen):
            return None
        if test.n_gen:
            n_k, n_v = self.kv_elements
            per_token = n_k * KV_BYTES[setup.type_k] + n_v * KV_BYTES[setup.type_v]
            kv = per_token * (test.n_depth + test.n_gen / 2) * test.n_seqs
            return test.n_seqs * machine["read_gb_per_s"] * 1e9 / (self.weight_bytes + kv)
        peak = machine.get(f"int8_gop_per_s_{level}")
        if not peak:
            return None
        return peak * 1e9 / (self.prompt_ops + self.attention_ops * (test.n_depth + test.n_prompt / 2))


# ---- output --------------------------------------------------------------------------------------------------


def figure(value: float) -> str:
    """Three digits or more."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is the head, columns padded."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["| " + " | ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|")
    return "\n".join(text)


def report(rows: Sequence[Row], first: str) -> str:
    """A markdown table: medians, and how many times better the first engine is than each other one, with the least
    and the greatest of the rounds. Columns that say the same everywhere stay out."""
    others = list(dict.fromkeys(name for row in rows for name in row.samples if name != first))
    columns = [
        ("model", [Path(row.setup.model).stem for row in rows]),
        ("threads", [str(row.setup.threads) for row in rows]),
        ("KV", [row.setup.kv for row in rows]),
        ("level", [row.setup.level or "best" for row in rows]),
    ]
    columns = [(name, cells) for name, cells in columns if name == "threads" or len(set(cells)) > 1]
    columns.append(("test", [row.test.name for row in rows]))
    columns.append((first, [f"{figure(row.median(first))} {row.test.unit}" for row in rows]))
    if any(row.limit for row in rows):
        shares = [f"{100 * row.median(first) / row.limit:.0f} %" if row.limit else "" for row in rows]
        columns.append(("of the limit", shares))
    for name in others:
        spreads = [row.ratio(first, name) if row.samples.get(name) else None for row in rows]
        columns.append((name, [figure(row.median(name)) if row.samples.get(name) else "-" for row in rows]))
        columns.append((f"{first} / {name}", [f"{s[1]:.2f}" if s else "-" for s in spreads]))
        columns.append(("min to max", [f"{s[0]:.2f} to {s[2]:.2f}" if s else "-" for s in spreads]))
    return markdown([[name for name, _ in columns], *map(list, zip(*(cells for _, cells in columns), strict=True))])


def to_dict(rows: Sequence[Row], facts: dict[str, dict[str, str]], first: str) -> dict[str, Any]:
    """All samples and what the table says, for machines."""
    results = []
    for row in rows:
        engines = {}
        for name, samples in row.samples.items():
            low, middle, high = row.ratio(first, name)
            engines[name] = {
                "median": statistics.median(samples),
                "samples": samples,
                "ratio": middle,
                "ratio_range": [low, high],
            }
        setup = {"model": row.setup.model, "threads": row.setup.threads, "kv": row.setup.kv, "level": row.setup.level}
        results.append({**setup, "test": row.test.name, "unit": row.test.unit, "limit": row.limit, "engines": engines})
    return {
        "cpu": facts[first].get("cpu"),
        "engines": {name: fact["engine"] for name, fact in facts.items()},
        "first": first,
        "results": results,
    }


def write_json(path: str | Path, data: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def can_plot() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def plot(rows: Sequence[Row], first: str, path: str | Path) -> None:
    """How many times better the first engine is, one bar per row and peer, with the rounds' range; the format is told
    by the suffix (.svg, .png). Needs matplotlib (the extra `bench`)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    others = list(dict.fromkeys(name for row in rows for name in row.samples if name != first))
    shown = [row for row in rows if any(row.samples.get(name) for name in others)]
    height = 0.8 / max(len(others), 1)
    fig, ax = pyplot.subplots(figsize=(9, 1.2 + 0.22 * max(len(shown), 1) * (1 + len(others))))
    for k, name in enumerate(others):
        at = [i + (k - (len(others) - 1) / 2) * height for i, row in enumerate(shown) if row.samples.get(name)]
        spreads = [row.ratio(first, name) for row in shown if row.samples.get(name)]
        middle = [s[1] for s in spreads]
        reach = [[s[1] - s[0] for s in spreads], [s[2] - s[1] for s in spreads]]
        bars = ax.barh(at, middle, height * 0.9, xerr=reach, label=name, error_kw={"elinewidth": 0.8})
        ax.bar_label(bars, [f" {v:.2f}" for v in middle], fontsize=7)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_yticks(range(len(shown)), [row.label for row in shown], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel(f"times better: {first} over each peer, median and range of the rounds")
    ax.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path)
    pyplot.close(fig)
