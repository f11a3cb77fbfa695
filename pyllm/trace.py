"""PYLLM_TRACE: run a step op by op, and write one JSON line per op.

PYLLM_TRACE=1 writes to stderr, any other value names a file to append to. A line holds the step, the op's index, kind
and name, its milliseconds, and of a float32 result the shape, mean, standard deviation and first values. The same op
ranges and views serve any comparison of two backends or levels.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import TextIO

import numpy as np

from .backend import Backend, Step
from .compile import Program
from .graph import ROWS_O, ROWS_T


class Tracer:
    """Runs steps one op at a time."""

    def __init__(self, program: Program, out: TextIO) -> None:
        self.program, self.out, self.n_steps = program, out, 0

    @classmethod
    def from_env(cls, program: Program) -> Tracer | None:
        where = os.environ.get("PYLLM_TRACE")
        if not where or where == "0":
            return None
        return cls(program, sys.stderr if where == "1" else open(where, "a", encoding="utf-8"))

    def run(self, backend: Backend, step: Step) -> None:
        counts = {ROWS_T: step.n_tokens, ROWS_O: step.n_out}
        lines = []
        for index, op in enumerate(self.program.ops):
            start = time.perf_counter()
            backend.run(index, index + 1)
            line: dict[str, object] = {
                "step": self.n_steps,
                "op": index,
                "kind": op.kind,
                "name": op.name,
                "barrier": bool(op.barrier),
                "ms": round((time.perf_counter() - start) * 1e3, 4),
            }
            view = op.dst[0]
            if view is not None and view.buf == "arena" and counts[view.rows]:
                y = backend.read(view, counts[view.rows])
                line |= {"shape": list(y.shape), "mean": _number(y.mean()), "std": _number(y.std())}
                line["first"] = [_number(v) for v in y[0, :4]]
            lines.append(json.dumps(line) + "\n")
        self.out.write("".join(lines))
        self.out.flush()
        self.n_steps += 1

    def close(self) -> None:
        if self.out is not sys.stderr:
            self.out.close()


def _number(value: np.float32) -> float | None:
    """As JSON can hold it: null for what is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
