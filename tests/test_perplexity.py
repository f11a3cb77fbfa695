"""pyllm perplexity: the method by its definition, the file of a base by its layout, the command's output."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pyllm
from pyllm import perplexity as ppl
from pyllm.cli import main
from pyllm.errors import PerplexityError
from pyllm.tokenizer import Tokenizer

REFERENCE = Path(__file__).parent / "data" / "smollm2"
MODEL = Path(__file__).parent / "data" / "models" / "qwen2.gguf"  # without BOS
WITH_BOS = Path(__file__).parent / "data" / "models" / "llama_untied.gguf"


def some_ids(n: int) -> list[int]:
    return np.random.default_rng(3).integers(0, Tokenizer.from_gguf(MODEL).n_vocab, n).tolist()


def by_definition(logits: np.ndarray, token: int) -> float:
    """The negative log probability of a token after one position, in Python's floats."""
    x = [float(v) for v in logits]
    most = max(x)
    return most + math.log(math.fsum(math.exp(v - most) for v in x)) - x[token]


def read_base(path: Path) -> tuple[int, int, list[list[int]], list[list[tuple[float, float, list[int]]]]]:
    """(n_ctx, n_vocab, tokens of chunks, scale, least and codes of each row of each chunk): field by field, as
    llama-perplexity writes them."""
    data = path.read_bytes()
    assert data[:8] == b"_logits_"
    n_ctx, n_vocab, n_chunk = struct.unpack_from("<Iii", data, 8)
    at = 20
    tokens = [list(struct.unpack_from(f"<{n_ctx}i", data, at + 4 * n_ctx * i)) for i in range(n_chunk)]
    at += 4 * n_ctx * n_chunk
    chunks = []
    for _ in range(n_chunk):
        rows = []
        for _ in range(n_ctx - 1 - n_ctx // 2):
            scale, least = struct.unpack_from("<2f", data, at)
            rows.append((scale, least, list(struct.unpack_from(f"<{n_vocab}H", data, at + 8))))
            at += 8 + 2 * (n_vocab + n_vocab % 2)
        chunks.append(rows)
    assert at == len(data)
    return n_ctx, n_vocab, tokens, chunks


# ---- the method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_ctx", "limit"), [(32, None), (33, 2), (3, 5)])
def test_perplexity_by_its_definition(n_ctx: int, limit: int | None) -> None:
    ids = some_ids(100)
    count = min(len(ids) // n_ctx, limit or 99)
    nll: list[float] = []
    with pyllm.LLM(MODEL, n_threads=1, n_ctx=64) as llm:
        found = list(ppl.perplexity(llm, ids, n_ctx=n_ctx, limit=limit))
        for i in range(count):
            chunk = ids[i * n_ctx : (i + 1) * n_ctx]
            logits = llm.logits(chunk)
            nll += [by_definition(logits[k], chunk[k + 1]) for k in range(n_ctx // 2, n_ctx - 1)]
            value, error = found[i].perplexity
            assert value == pytest.approx(math.exp(math.fsum(nll) / len(nll)), rel=1e-6)
            spread = math.sqrt(max(math.fsum(v * v for v in nll) / len(nll) - (math.fsum(nll) / len(nll)) ** 2, 0))
            assert error == pytest.approx(value * spread / math.sqrt(max(len(nll) - 1, 1)), rel=1e-4)
    assert len(found) == count and len(found[-1]) == len(nll)


def test_bos_takes_the_place_of_a_chunks_first_token() -> None:
    tokenizer = Tokenizer.from_gguf(WITH_BOS)
    assert tokenizer.add_bos and tokenizer.bos_id is not None
    assert ppl.with_bos(tokenizer, np.array([7, 8, 9])) == [tokenizer.bos_id, 8, 9]
    assert ppl.with_bos(Tokenizer.from_gguf(MODEL), [7, 8, 9]) == [7, 8, 9]
    ids = some_ids(40)
    with pyllm.LLM(WITH_BOS, n_threads=1) as llm:
        (found,) = ppl.perplexity(llm, ids, n_ctx=40)
        logits = llm.logits([tokenizer.bos_id, *ids[1:]])
        assert found.nll[0] == pytest.approx(by_definition(logits[20], ids[21]), rel=1e-6)
        assert abs(found.nll[0] - by_definition(llm.logits(ids)[20], ids[21])) > 1e-4


def test_chunks_of_a_text() -> None:
    assert ppl.whole_chunks(range(25), 10).tolist() == [list(range(10)), list(range(10, 20))]
    assert ppl.whole_chunks(range(25), 10, limit=1).tolist() == [list(range(10))]
    with pytest.raises(PerplexityError, match="the text has 5 tokens and a chunk 10: take a longer text"):
        ppl.whole_chunks(range(5), 10)
    with pytest.raises(PerplexityError, match="none to score"):
        ppl.whole_chunks(range(5), 2)


def test_scores_against_a_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statistic by its formula in llama-perplexity, whose errors of differences come from covariances."""
    monkeypatch.setattr(ppl, "_BLOCK", 20)  # 3 rows at once
    rng = np.random.default_rng(0)
    logits, base_logits = rng.normal(size=(2, 50, 6)).astype(np.float32) * 2
    wanted = rng.integers(0, 6, 50)
    base = ppl.log_softmax(base_logits)
    found = ppl.scores(logits, wanted, lambda rows: base[rows])
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (base_logits.astype(float), logits.astype(float)))
    index = np.arange(50)
    a, b = -np.log(q[index, wanted]), -np.log(p[index, wanted])
    assert found.nll == pytest.approx(a) and found.base_nll == pytest.approx(b)
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(axis=1))
    assert found.p_diff == pytest.approx(q[index, wanted] - p[index, wanted])
    same = np.mean(p.argmax(axis=1) == q.argmax(axis=1))
    assert found.same_top_share == pytest.approx((same, math.sqrt(same * (1 - same) / 49)))
    cov = np.cov(a, b, ddof=0) / 49  # of the means
    assert found.mean_nll == pytest.approx((a.mean(), math.sqrt(cov[0, 0])))
    assert found.correlation == pytest.approx(cov[0, 1] / math.sqrt(cov[0, 0] * cov[1, 1]))
    error = math.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert found.log_ratio == pytest.approx((a.mean() - b.mean(), error))
    ratio = math.exp(a.mean() - b.mean())
    assert found.ratio == pytest.approx((ratio, ratio * error))
    x, y = math.exp(a.mean()), math.exp(b.mean())
    error = math.sqrt(x * x * cov[0, 0] + y * y * cov[1, 1] - 2 * x * y * cov[0, 1])
    assert found.difference == pytest.approx((x - y, error))
    square = found.p_diff**2
    rms = math.sqrt(square.mean())
    assert found.rms_p_diff == pytest.approx((rms, 0.5 / rms * square.std() / 7))
    nothing = ppl.scores(base_logits, wanted, lambda rows: base[rows])
    assert nothing.rms_p_diff.value < 1e-7 and abs(nothing.kl).max() < 1e-12 and nothing.same_top.all()


# ---- the file of a base ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_vocab", [6, 7])
def test_packed_rows(n_vocab: int) -> None:
    """Codes are steps of 1/65535 between the best logit and the least, or 16 below the best; nearest, ties to even."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(40, n_vocab)) * rng.uniform(0.1, 12, (40, 1))).astype(np.float32)
    x[0] = 2.5  # all alike
    x[1] = [0, -16, -20, -15.99, -8, -1000, -3][:n_vocab]
    rows = ppl.pack(x)
    assert rows.dtype == np.uint16 and rows.shape == (40, 4 + n_vocab + n_vocab % 2)
    assert rows.shape[1] == ppl.row_length(n_vocab)
    for row, logits in zip(rows, x, strict=True):
        most = logits.max()
        least = max(logits.min(), most - np.float32(16))
        scale, first = np.frombuffer(row[:4].tobytes(), "<f4")
        assert scale == np.float32((most - least) / np.float32(65535))
        norm = math.log(math.fsum(math.exp(float(v) - float(most)) for v in logits))
        assert first == pytest.approx(float(least) - float(most) - norm, rel=1e-6)
        inverse = np.float32(1) / scale if scale else np.float32(0)
        want = [round(float(inverse * (v - least))) if v > least else 0 for v in logits]
        assert row[4 : 4 + n_vocab].tolist() == want
    exact = ppl.log_softmax(x)
    wide = exact > exact.max(axis=1, keepdims=True) - 16
    assert np.abs(ppl.unpack(rows, n_vocab) - exact)[wide].max() < 16 / 65535 / 2 + 2e-6


def test_a_file_by_its_layout(tmp_path: Path) -> None:
    """What an independent reader finds in it; two runs of one model diverge by the rounding of the file alone."""
    ids, path = some_ids(100), tmp_path / "base.dat"
    with pyllm.LLM(WITH_BOS, n_threads=1, n_ctx=32) as llm:
        *_, own = ppl.perplexity(llm, ids, n_ctx=32, save=path)
        n_ctx, n_vocab, tokens, chunks = read_base(path)
        assert (n_ctx, n_vocab, tokens) == (32, llm.n_vocab, [ids[:32], ids[32:64], ids[64:96]])
        nll = []
        for chunk, rows in zip(tokens, chunks, strict=True):
            exact = ppl.log_softmax(llm.logits(ppl.with_bos(llm.tokenizer, chunk))[16:-1])
            for k, (scale, least, codes) in enumerate(rows):
                want = np.maximum(exact[k], exact[k].max() - 16)
                assert np.abs(want - (least + scale * np.array(codes))).max() < 0.51 * scale + 1e-6
                nll.append(-(least + scale * codes[chunk[17 + k]]))
        near = own.nll < 16  # others may be clipped
        assert near.sum() > 30 and own.nll[near] == pytest.approx(np.array(nll)[near], abs=2e-4)
        with ppl.BaseFile(path) as base:
            *_, found = ppl.divergence(llm, base)
        with ppl.BaseFile(path) as base:
            (first,) = ppl.divergence(llm, base, limit=1)
    assert np.array_equal(found.nll, own.nll) and np.array_equal(first.nll, own.nll[:15])
    assert found.base_nll == pytest.approx(np.array(nll))
    assert np.abs(found.kl).max() < 16 / 65535 / 2 + 2e-6 and found.same_top.all()
    assert [p.name for p in tmp_path.iterdir()] == ["base.dat"]


def write_base(path: Path, tokens: Sequence[Sequence[int]], n_vocab: int, rows: Sequence[Sequence[int]]) -> None:
    """A file of one code per token and row, scale 1e-3."""
    data = b"_logits_" + struct.pack("<Iii", len(tokens[0]), n_vocab, len(tokens))
    data += b"".join(struct.pack("<i", t) for chunk in tokens for t in chunk)
    for row in rows:
        data += struct.pack("<2f", 1e-3, -18.0) + struct.pack(f"<{n_vocab}H", *row) + bytes(2 * (n_vocab % 2))
    path.write_bytes(data)


def test_divergence_from_a_file_by_its_definition(tmp_path: Path) -> None:
    """Tokens under e^-16 in the base are left out."""
    ids, path = some_ids(12), tmp_path / "base.dat"
    with pyllm.LLM(MODEL, n_threads=1, n_ctx=16) as llm:
        codes = np.random.default_rng(2).integers(0, 18000, (5, llm.n_vocab))
        write_base(path, [ids], llm.n_vocab, codes.tolist())
        with ppl.BaseFile(path) as base:
            (found,) = ppl.divergence(llm, base)
        logits = llm.logits(ids)[6:11]
    for k in range(5):
        own = [-by_definition(logits[k], t) for t in range(llm.n_vocab)]
        truth = [1e-3 * float(c) - 18 for c in codes[k]]
        want = math.fsum(math.exp(b) * (b - a) for a, b in zip(own, truth, strict=True) if b > -16)
        assert found.kl[k] == pytest.approx(want, rel=1e-4)
        assert found.base_nll[k] == pytest.approx(-truth[ids[7 + k]], abs=2e-6)
        assert found.p_diff[k] == pytest.approx(math.exp(own[ids[7 + k]]) - math.exp(truth[ids[7 + k]]), rel=1e-4)
        assert found.same_top[k] == (np.argmax(own) == np.argmax(truth))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: b"", "no file of a base's"),
        (lambda d: b"GGUF" + d[4:], "no file of a base's"),
        (lambda d: d[:-1], "not whole"),
        (lambda d: d[:30], "not whole"),
        (lambda d: d[:8] + struct.pack("<I", 2) + d[12:], "make no sense"),
        (lambda d: d[:12] + struct.pack("<i", -5) + d[16:], "make no sense"),
        (lambda d: d[:16] + struct.pack("<i", 1 << 30) + d[20:], "not whole"),
        (lambda d: d[:20] + struct.pack("<i", 9999) + d[24:], "outside its vocabulary of 6"),
    ],
)
def test_broken_files(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "base.dat"
    write_base(path, [[0, 1, 2, 3]], 6, [[1] * 6])
    ppl.BaseFile(path).close()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(PerplexityError, match=message):
        ppl.BaseFile(path)


def test_a_base_of_another_vocabulary(tmp_path: Path) -> None:
    write_base(tmp_path / "base.dat", [[0, 1, 2, 3]], 6, [[1] * 6])
    with (
        pyllm.LLM(MODEL, n_threads=1) as llm,
        ppl.BaseFile(tmp_path / "base.dat") as base,
        pytest.raises(PerplexityError, match="vocabulary of 6 tokens"),
    ):
        next(ppl.divergence(llm, base))


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is known beforehand, to the byte."""
    write_base(tmp_path / "base.dat", [[0, 1, 2, 3], [4, 5, 6, 7]], 9, [[1] * 9] * 2)
    size = (tmp_path / "base.dat").stat().st_size
    out = ppl.BaseWriter(tmp_path / "new.dat", np.arange(8, dtype=np.int32).reshape(2, 4), 9)
    monkeypatch.setattr(ppl.shutil, "disk_usage", lambda path: SimpleNamespace(free=size - 1))
    with pytest.raises(PerplexityError, match="fewer chunks"), out:
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["base.dat"]
    gone = ppl.BaseWriter(tmp_path / "gone" / "new.dat", np.arange(4, dtype=np.int32).reshape(1, 4), 9)
    monkeypatch.undo()
    with pytest.raises(PerplexityError, match="cannot be written: No such"), gone:
        pass
    monkeypatch.setattr(ppl.shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
    with out:
        for _ in range(2):
            out.write(np.zeros((1, 9), np.float32))
    assert (tmp_path / "new.dat").stat().st_size == size


def test_what_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with pyllm.LLM(MODEL, n_threads=1) as llm:
        found = ppl.perplexity(llm, some_ids(64), n_ctx=32, save=tmp_path / "base.dat")
        next(found)
        assert len(list(tmp_path.iterdir())) == 1
        found.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match="1 chunks are missing"),
        ppl.BaseWriter(tmp_path / "x", np.zeros((1, 8), np.int32), 5) as out,
        pytest.raises(ValueError, match="expected 3"),
    ):
        out.write(np.zeros((4, 5), np.float32))
    assert not list(tmp_path.iterdir())


# ---- the command -----------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["perplexity", "-t", "1", *argv]) == 0
    return capsys.readouterr().out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, base = tmp_path / "text.txt", tmp_path / "base.dat"
    text.write_text("A text of some words, " * 60 + "\n")
    with pyllm.LLM(MODEL, n_threads=1) as llm:
        ids = llm.tokenize("A text of some words, " * 60)
        want = list(ppl.perplexity(llm, ids, n_ctx=48))
    common = ["-m", str(MODEL), "-f", str(text), "-c", "48"]
    out = run(capsys, *common)
    value, error = want[-1].perplexity
    sizes = "".join(f"[{i + 1}]{s.perplexity.value:.4f}," for i, s in enumerate(want))
    assert out == f"{sizes}\nFinal estimate: PPL = {value:.4f} +/- {error:.5f}\n"
    lines = run(capsys, *common, "--ppl-output-type", "1", "--chunks", "2").splitlines()
    mean = want[1].mean_nll
    assert lines[1] == f"      48  {want[1].perplexity.value:.4f}  {mean.value:4f}  {mean.error:4f}"
    assert lines[-1].startswith("Final estimate") and len(lines) == 4
    found = json.loads(run(capsys, *common, "--json", "--kl-divergence-base", str(base)))
    assert found["n"] == len(want[-1]) and found["perplexity"] == [value, error] and len(found["chunks"]) == len(want)

    known = [str(MODEL), "--kl-divergence-base", str(base), "--kl-divergence"]
    out = run(capsys, *known, "--compute", "f32")
    assert re.findall(r"^ +(\d+)    .* %$", out, flags=re.M) == [str(i + 1) for i in range(len(want))]
    found = json.loads(run(capsys, *known, "--compute", "f32", "--json"))
    for key, label in (("base_perplexity", "Mean PPL(base)                :"), ("kl", "Mean    KLD:")):
        value, error = found[key]
        assert f"\n{label} {value:10.6f} ± {error:10.6f}\n" in out
    assert f"\nMaximum Δp: {100 * found['p_diff_percentiles']['Maximum']:6.3f}%\n" in out
    assert abs(found["kl"][0]) < 1.3e-4 and found["same_top"][0] == 1 and found["n"] == len(want[-1])
    assert found["kl_percentiles"]["Minimum"] <= found["kl_percentiles"]["Median"] < 1.3e-4


FLOAT32 = ["--compute", "f32", "-ctk", "f32", "-ctv", "f32"]


def alike(own: str, theirs: str) -> None:
    """The same text with the same decimals, and numbers that differ by what float32 logits leave open."""
    number = r"(-?\d+\.\d+)"
    words, other_words = (re.split(r" *" + number, text.strip()) for text in (own, theirs))
    assert len(words) == len(other_words)
    for word, other in zip(words, other_words, strict=True):
        if re.fullmatch(number, other):
            decimals = len(other.split(".")[1])
            assert len(word.split(".")[1]) == decimals
            assert float(word) == pytest.approx(float(other), rel=5e-6, abs=1.5 * 10**-decimals + 3e-6), (word, other)
        else:
            assert word == other


def test_output_and_file_are_llama_perplexitys(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """data/perplexity: text, tokens with BOS, perplexity and file of one model; divergence of another one from it."""
    folder, models = data / "perplexity", data / "models"
    own = tmp_path / "base.dat"
    out = run(capsys, "-m", str(models / "llama_hd.gguf"), "-f", str(folder / "text.txt"), "-c", "48", "--chunks", "5",
              "--kl-divergence-base", str(own), *FLOAT32)  # fmt: skip
    alike(out, "\n".join(re.findall(r"^    (\[1\].*|Final .*)$", (folder / "README.md").read_text(), flags=re.M)))
    with ppl.BaseFile(own) as mine, ppl.BaseFile(folder / "base.dat") as theirs:
        assert (mine.n_ctx, mine.n_vocab) == (theirs.n_ctx, theirs.n_vocab) == (48, 512)
        assert np.array_equal(mine.tokens, theirs.tokens)
        for _ in range(len(mine.tokens)):
            found, wanted = (file.read()(slice(None)) for file in (mine, theirs))
            assert np.abs(found - wanted).max() < 16 / 65535 + 3e-5  # a code more or less
    out = run(capsys, "-m", str(models / "qwen3.gguf"), "--kl-divergence", "--kl-divergence-base",
              str(folder / "base.dat"), *FLOAT32)  # fmt: skip
    alike(out, (folder / "divergence.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give a text"),
        (["-f", "x", "-p", "y"], "give a text"),
        (["a", "-m", "b", "-p", "y"], "model once"),
        (["-p", "y", "--chunks", "0"], "--chunks 0"),
        (["-p", "y", "-c", "2"], "-c 2"),
        (["--kl-divergence"], "needs a base's file"),
        (["--kl-divergence", "--kl-divergence-base", "x", "-p", "y"], "leave out -f"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perplexity", *argv]) == 2
    out, err = capsys.readouterr()
    assert message in err and not out


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perplexity", str(MODEL), "-p", "short"]) == 1
    assert "take a longer text or a smaller n_ctx (-c)" in capsys.readouterr().err
    write_base(tmp_path / "base.dat", [[0, 1, 2, 3]], 6, [[1] * 6])
    known = ["--kl-divergence", "--kl-divergence-base", str(tmp_path / "base.dat")]
    assert main(["perplexity", str(MODEL), *known]) == 1
    assert "vocabulary of 6" in capsys.readouterr().err
    assert main(["perplexity", str(MODEL), *known, "-c", "3"]) == 2
    assert "chunks of 4 tokens" in capsys.readouterr().err
    assert main(["perplexity", str(MODEL), "--kl-divergence", "--kl-divergence-base", str(tmp_path / "gone")]) == 1
    assert "gone" in capsys.readouterr().err
