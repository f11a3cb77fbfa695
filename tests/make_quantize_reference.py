"""Write tests/data/quantize/errors.json: the errors of llama.cpp's quantizers on rows that tests make again.

    python tests/make_quantize_reference.py PYTHON

PYTHON has numpy and llama-cpp-python (0.3.36 was used). Each key is "TYPE SHAPE weighted|plain".
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # behind an installed pyllm

from bench import quantize  # noqa: E402

ROWS, COLS = 24, 768
SHAPES = {"bell": 11, "tails": 12}
WEIGHTS_SEED = 13


def main() -> None:
    names = list(quantize.NAMES)
    errors = {}
    for shape, seed in SHAPES.items():
        x = quantize.random_rows(shape, ROWS, COLS, seed)
        for w in (None, quantize.random_weights(COLS, WEIGHTS_SEED)):
            blocks, _ = quantize.peer_blocks(sys.argv[1], names, x, w)
            for name in names:
                key = f"{name} {shape} {'plain' if w is None else 'weighted'}"
                errors[key] = quantize.error(name, blocks[name], x, w)
    target = ROOT / "tests" / "data" / "quantize" / "errors.json"
    target.write_text(json.dumps(errors, indent=1) + "\n")


if __name__ == "__main__":
    main()
