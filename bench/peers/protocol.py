"""What compare.py says to a worker: one JSON object per line on its stdin, one per line as the answer on stdout.

    {"do": "load", "model": PATH, "n_threads": N, "n_ctx": N, "n_seqs": N, "type_k": TYPE, "type_v": TYPE}
        -> {"engine": NAME AND VERSION, ...}
    {"do": "run", "n_prompt": N, "n_gen": N, "n_depth": N, "n_seqs": N}     -> {"ns": NANOSECONDS}
    {"do": "first", "n_prompt": N}                                          -> {"ns": NANOSECONDS}
    {"do": "logits", "ids": [ID, ...], "first": I, "file": PATH}            -> {"n_vocab": N}
    {"do": "peak"}                                                          -> {"bytes": PEAK RSS OF THE PROCESS}

n_ctx: tokens that each of n_seqs sequences may have. run: each of n_seqs sequences has n_depth tokens already, which
are not timed; then n_prompt tokens at once (one sequence only) and n_gen one by one, all sequences together. first:
from a prompt of random token ids, as ids, to the greedy first token. logits: float32 rows after ids[I], ids[I+1], ...
written to FILE one after another.

An answer {"unsupported": TEXT} means that the engine cannot do that; {"error": TEXT} ends the work. Workers run in
interpreters that need not have pyllm, and import this file from their own folder; it uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


class Unsupported(Exception):
    """The engine has no such thing."""


class Engine:
    """A loaded model in some engine; methods as the protocol says, in nanoseconds."""

    def run(self, n_prompt: int, n_gen: int, n_depth: int, n_seqs: int) -> int:
        raise Unsupported("run")

    def first(self, n_prompt: int) -> int:
        raise Unsupported("first")

    def logits(self, ids: list[int], first: int, file: str) -> int:
        raise Unsupported("logits")


def peak() -> int:
    """Peak resident set of this process, bytes."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(load: Callable[..., tuple[dict[str, str], Engine]]) -> None:
    """Answer until stdin ends. load takes the fields of the request and gives the answer and the engine. Whatever the
    engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine: Engine | None = None
    for line in sys.stdin:
        ask: dict[str, Any] = json.loads(line)
        do = ask.pop("do")
        answer: dict[str, Any]
        try:
            if do == "load":
                facts, engine = load(**ask)
                answer = {**facts}
            elif do == "peak":
                answer = {"bytes": peak()}
            elif engine is None:
                answer = {"error": "nothing is loaded"}
            elif do == "logits":
                answer = {"n_vocab": engine.logits(**ask)}
            elif do == "first":
                answer = {"ns": engine.first(**ask)}
            elif do == "run":
                answer = {"ns": engine.run(**ask)}
            else:
                answer = {"error": f"unknown request {do!r}"}
        except Unsupported as error:
            answer = {"unsupported": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
