"""What compare.py says to a worker: one JSON object per line on its stdin, one per line as the answer on stdout.

    {"do": "load", "model": PATH, "n_threads": N, "n_ctx": N}   -> {"engine": NAME AND VERSION, ...}
    {"do": "run", "n_prompt": N, "n_gen": N}                    -> {"ns": NANOSECONDS}

pyllm's own worker takes a model's name as well and also answers "path", the file behind it, and "cpu".

An answer {"error": TEXT} ends the work. Workers run in interpreters that need not have pyllm, and import this file
from their own folder; it uses the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[[int, int], int]


def serve(load: Callable[..., tuple[dict[str, str], Run]]) -> None:
    """Answer until stdin ends. load(model, n_threads, n_ctx) gives the answer and run(n_prompt, n_gen), which
    returns nanoseconds. Whatever the engine prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    run: Run | None = None
    for line in sys.stdin:
        ask: dict[str, Any] = json.loads(line)
        do = ask.pop("do")
        try:
            if do == "load":
                facts, run = load(**ask)
                answer: dict[str, Any] = {**facts}
            elif run is None:
                answer = {"error": "nothing is loaded"}
            else:
                answer = {"ns": run(**ask)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
