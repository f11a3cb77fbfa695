"""Token ids of much mixed text, compared with `tokenizers` and `sentencepiece`.

    PYTHONPATH=. python tests/tokenizer_run.py --mb 50 VOCABULARY.gguf ...

The text is divided among the files: scripts of the world, code and prose found on the machine, emoji, random
Unicode, and bytes that are not UTF-8. Each difference is printed as the shortest text that shows it.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
import time
import unicodedata
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from tokenizer_tools import _settled, english, huggingface, random_text, sentencepiece_of, wordpiece_of

from pyllm.gguf import GGUFFile
from pyllm.tokenizer import Tokenizer

PIECE: Final = 2000  # characters of a text
SCRIPTS: Final = {
    "Latin": [(0x61, 0x7B)] * 4 + [(0xC0, 0x180)],
    "Cyrillic": [(0x410, 0x450)],
    "Chinese": [(0x4E00, 0x9FA6)],
    "Japanese": [(0x3041, 0x3097), (0x30A1, 0x30FB), (0x4E00, 0x9FA6)],
    "Arabic": [(0x620, 0x653)],
    "Hindi": [(0x904, 0x93A), (0x93E, 0x94E)],
    "Korean": [(0xAC00, 0xD7A4)],
    "Thai": [(0xE01, 0xE3B), (0xE40, 0xE4F)],
    "emoji": [(0x1F300, 0x1F650), (0x1F680, 0x1F6C6), (0x1F90D, 0x1F940), (0x200D, 0x200E), (0xFE0F, 0xFE10)],
}


def script(rng: random.Random, ranges: list[tuple[int, int]]) -> str:
    """Words of random letters of a script, with digits and marks between."""
    out: list[str] = []
    while sum(map(len, out)) < PIECE:
        out.append("".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randrange(1, 9))))
        out.append(rng.choice([" "] * 9 + [", ", ".\n", "  ", f" {rng.randrange(10**6)} ", "!", "\n\n", " (", ") "]))
    return "".join(filter(_settled, "".join(out)))


def found(rng: random.Random) -> Iterator[str]:
    """Stretches of the Python library's sources and of other texts on the machine, over and over."""
    folders = [
        (Path(sysconfig.get_path("stdlib")), "*.py"),
        (Path("/usr/share/doc"), "*"),
        (Path("/usr/share/i18n"), "*"),
    ]
    files = [f for folder, what in folders for f in sorted(folder.rglob(what)) if f.is_file() and f.suffix != ".gz"]
    while True:
        data = rng.choice(files).read_bytes()
        at = rng.randrange(max(1, len(data) - PIECE))
        yield "".join(filter(_settled, data[at : at + PIECE].decode("utf-8", "replace")))


def mixed(seed: int) -> Iterator[str | bytes]:
    """Endless texts of about PIECE characters."""
    rng = random.Random(seed)
    library = found(rng)
    while True:
        yield english(PIECE, rng.randrange(2**32))
        yield next(library)
        yield next(library)
        for ranges in SCRIPTS.values():
            yield script(rng, ranges)
        yield "".join(random_text(rng) for _ in range(15))
        characters = map(chr, (rng.randrange(0x20000) for _ in range(PIECE)))
        yield "".join(filter(_settled, characters))
        yield bytes(rng.choice([rng.randrange(256), 0x20, 0x61, 0xE4, 0xB8, 0xAD]) for _ in range(PIECE))


def compared(metadata: dict[str, Any]) -> tuple[Callable[[str], str], Callable[[str], list[int]], Callable[..., bool]]:
    """What to leave out of a text that the other library takes for something else, its ids, and when ids agree."""
    kind = metadata["tokenizer.ggml.model"]
    if kind == "gpt2":
        oracle = huggingface(metadata)
        return str, lambda text: oracle.encode(text, add_special_tokens=False).ids, list.__eq__
    if kind == "bert":
        then, now = unicodedata.ucd_3_2_0.category, unicodedata.category
        late = {c for c in map(chr, range(0x80, 0x20000)) if now(c) != then(c) and {now(c)[0], then(c)[0]} & {*"MP"}}
        late |= {c for c in map(chr, range(0x80, 0x20000)) if now(c) != then(c) and now(c)[0] == "C"}
        pieces = wordpiece_of(metadata)
        clean = str.maketrans(dict.fromkeys(late))
        return (
            lambda text: text.translate(clean),
            lambda text: pieces.encode(text, add_special_tokens=False).ids,
            list.__eq__,
        )
    metadata.setdefault("tokenizer.ggml.unknown_token_id", metadata["tokenizer.ggml.tokens"].index("<unk>"))
    sentences, scores = sentencepiece_of(metadata), metadata["tokenizer.ggml.scores"].tolist()
    control = [t for t, y in zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True)
               if y in (2, 3)]  # fmt: skip

    def without(text: str) -> str:
        text = text.replace("\0", "").replace("\u2581", " ")
        for token in control:
            text = text.replace(token, "")
        return text

    def agree(ids: list[int], expected: list[int]) -> bool:
        """Of a unigram the best spellings may be several: sentencepiece adds up in float32."""
        if ids == expected or kind != "t5":
            return ids == expected
        return sum(Fraction(scores[i]) for i in ids) >= sum(Fraction(scores[i]) for i in expected)

    return without, sentences.encode, agree


def shortest(text: str, differs: Callable[[str], bool]) -> str:
    """A part of the text that differs still, of which nothing can be left out."""
    step = len(text) // 2
    while step:
        for at in range(0, len(text), step):
            part = text[:at] + text[at + step :]
            if differs(part):
                text = part
                break
        else:
            step //= 2
    return text


def run(metadata: dict[str, Any], n_bytes: int, seed: int) -> tuple[int, list[str]]:
    """The bytes compared, and the shortest texts that differ (at most ten)."""
    tokenizer = Tokenizer(metadata)
    without, ids_of, agree = compared(metadata)
    parse = tokenizer.model in ("gpt2", "bert")

    def differs(text: str) -> bool:
        return not agree(tokenizer.encode(text, add_special=False, parse_special=parse), ids_of(text))

    done, wrong = 0, []
    for piece in mixed(seed):
        text = piece if isinstance(piece, str) else "".join(filter(_settled, piece.decode("utf-8", "replace")))
        text = without(text)
        if isinstance(piece, bytes):
            assert tokenizer.encode(piece) == tokenizer.encode(piece.decode("utf-8", "replace"))
        done += len(text.encode())
        if differs(text):
            wrong.append(shortest(text, differs))
        if done >= n_bytes or len(wrong) == 10:
            return done, wrong
    raise AssertionError("the text is endless")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="GGUF files with a vocabulary")
    parser.add_argument("--mb", type=float, default=2, help="megabytes of text, over all files (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    failed, total = False, 0
    for i, path in enumerate(args.files):
        with GGUFFile.open(path) as file:
            metadata = dict(file.metadata)
        start = time.process_time()
        done, wrong = run(metadata, int(args.mb * 1e6 / len(args.files)), args.seed + i)
        total += done
        print(f"{path.stem}: {done / 1e6:.2f} MB, {len(wrong)} differ, {time.process_time() - start:.0f} s", flush=True)
        for text in wrong:
            print(f"  {text!a}")
        failed |= bool(wrong)
    print(f"{total / 1e6:.1f} MB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
