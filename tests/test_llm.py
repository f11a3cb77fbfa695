"""The Python API on tiny models: text, streams, stopping, limits, seeds, errors, chat and the memory plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyllm
from pyllm import model
from pyllm.backend.cpu import CpuBackend
from pyllm.kvcache import PAGE

DATA = Path(__file__).parent / "data"
QUANT = DATA / "quant" / "quant-Q4_1.gguf"  # llama, byte-level BPE
SPM = DATA / "models" / "llama_untied.gguf"  # llama, SentencePiece
QWEN = DATA / "models" / "qwen3.gguf"
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def llm() -> Iterator[pyllm.LLM]:
    with pyllm.LLM(QUANT, n_threads=1) as loaded:
        yield loaded


def greedy(llm: pyllm.LLM, prompt: Any, n: int = 12, **options: Any) -> Any:
    return llm.generate(prompt, max_tokens=n, temperature=0, ignore_eos=True, **options)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """script(ids): from now on every sampler draws these tokens, one after the other."""

    def write(ids: Sequence[int]) -> None:
        drawn: dict[object, int] = {}

        def sample(self: CpuBackend, samplers: Sequence[object]) -> list[int]:
            for sampler in samplers:
                drawn[sampler] = drawn.get(sampler, -1) + 1
            return [ids[drawn[sampler]] for sampler in samplers]

        monkeypatch.setattr(CpuBackend, "sample", sample)

    return write


def spelled(llm: pyllm.LLM, text: str) -> list[int]:
    return llm.tokenize(text, add_special=False)


# ---- text and ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [QUANT, SPM, QWEN], ids=lambda p: p.stem)
def test_text_ids_and_arrays_are_the_same_prompt(path: Path) -> None:
    with pyllm.LLM(path, n_threads=1) as llm:
        text = "the quick brown fox"
        ids = llm.tokenize(text)
        outs = [greedy(llm, p) for p in (text, ids, np.array(ids), tuple(ids))]
        assert len({tuple(o.tokens) for o in outs}) == 1
        assert all(o.usage.prompt_tokens == len(ids) for o in outs)
        answer = outs[0]
        decoder = llm.tokenizer.stream_decoder(skip_special=True)
        assert answer.text == "".join(map(decoder.push, answer.tokens)) + decoder.flush()
        assert answer.finish_reason == "length" and len(answer.tokens) == 12 == answer.usage.completion_tokens
        assert answer.usage.total_tokens == len(ids) + 12


def test_special_tokens_of_a_text_prompt_are_special(llm: pyllm.LLM) -> None:
    token = next(i for i in range(llm.n_vocab) if llm.tokenizer.is_special(i))
    ids = llm.tokenize(llm.tokenizer.token_text(token), parse_special=True)
    assert token in ids
    assert greedy(llm, llm.tokenizer.token_text(token)).tokens == greedy(llm, ids).tokens


@pytest.mark.parametrize("n_seqs", [2, 16])
def test_a_batch_equals_one_by_one_and_runs_together(n_seqs: int) -> None:
    prompts = ["a", "the quick brown fox jumps", [5] * 40, "once upon a time"]
    with pyllm.LLM(QUANT, n_threads=1, n_seqs=n_seqs) as llm:
        alone = [greedy(llm, p) for p in prompts]
    with pyllm.LLM(QUANT, n_threads=1, n_seqs=n_seqs, kv_tokens=1024) as llm:
        together = greedy(llm, prompts)
        steps = llm._engine.n_steps
    assert [o.tokens for o in together] == [o.tokens for o in alone]
    assert [o.text for o in together] == [o.text for o in alone]
    if n_seqs == 16:
        assert steps == 12  # one for all prompts and their first tokens, then one for each further token of all
    else:
        assert steps >= 24


def test_one_prompt_in_a_list_is_a_batch(llm: pyllm.LLM) -> None:
    outs = greedy(llm, ["a"])
    assert isinstance(outs, list) and len(outs) == 1
    assert isinstance(greedy(llm, [llm.tokenize("a")]), list)


def test_what_a_completion_says(llm: pyllm.LLM) -> None:
    out = llm.generate("the quick", max_tokens=5, temperature=0.5, ignore_eos=True)
    t = out.timings
    assert t.queued >= 0 and t.prompt > 0 and t.generation > 0
    assert t.prompt_per_second == pytest.approx((out.usage.prompt_tokens - out.usage.cached_tokens) / t.prompt)
    assert t.generation_per_second == pytest.approx(4 / t.generation)
    assert out.stop is None and isinstance(out.seed, int)


# ---- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_is_the_text_in_pieces(llm: pyllm.LLM) -> None:
    want = greedy(llm, "the quick")
    stream = llm.stream("the quick", max_tokens=12, temperature=0, ignore_eos=True)
    pieces = list(stream)
    assert "".join(pieces) == want.text and all(pieces) and len(pieces) > 1
    assert stream.completion is not None and stream.completion.tokens == want.tokens
    assert list(stream) == []


def test_pieces_never_hold_half_a_character(llm: pyllm.LLM, script: Any) -> None:
    """Every character of the text takes several tokens."""
    text = "😀é漢€😀"
    ids = spelled(llm, text)
    assert len(ids) > len(text)
    script(ids)
    stream = llm.stream("a", max_tokens=len(ids))
    pieces = list(stream)
    assert "".join(pieces) == text and "\ufffd" not in text
    assert [len(p) for p in pieces] == [1] * len(text)
    assert stream.completion is not None and stream.completion.text == text


@pytest.mark.parametrize("after", ["", "b"])
def test_an_unfinished_character_becomes_a_replacement(llm: pyllm.LLM, script: Any, after: str) -> None:
    ids = spelled(llm, "a😀")[:-1] + (spelled(llm, after) if after else [])
    script(ids)
    assert llm.generate("a", max_tokens=len(ids)).text == "a\ufffd" + after


def test_control_tokens_give_no_text(llm: pyllm.LLM, script: Any) -> None:
    bos = llm.tokenizer.bos_id
    assert bos is not None
    ids = [*spelled(llm, "a"), bos, *spelled(llm, "b")]
    script(ids)
    out = llm.generate("a", max_tokens=len(ids))
    assert out.text == "ab" and out.tokens == ids


# ---- stopping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "text"), [("lo W", "hel"), (["zz", "o", "lo"], "hel"), ("h", ""), ("rld", "hello Wo")]
)
def test_stop_strings_across_tokens(llm: pyllm.LLM, script: Any, stop: Any, text: str) -> None:
    ids = [i for c in "hello World, and more" for i in spelled(llm, c)]
    script(ids)
    stream = llm.stream("a", stop=stop, max_tokens=len(ids))
    pieces = list(stream)
    out = stream.completion
    assert out is not None and out.finish_reason == "stop"
    assert "".join(pieces) == out.text == text
    assert out.stop in ([stop] if isinstance(stop, str) else stop)
    assert isinstance(out.stop, str) and "hello World".startswith(text + out.stop)
    assert len(out.tokens) == len(text + out.stop)  # it ends with the token that completes the string


def test_text_that_only_begins_like_a_stop_string_is_given(llm: pyllm.LLM, script: Any) -> None:
    ids = spelled(llm, "hello")
    script(ids)
    assert llm.generate("a", stop="lox", max_tokens=len(ids)).text == "hello"


def test_every_end_token_ends(llm: pyllm.LLM, script: Any) -> None:
    assert len(llm.tokenizer.eog_ids) > 1
    for end in llm.tokenizer.eog_ids:
        ids = [*spelled(llm, "ab"), end, *spelled(llm, "c")]
        script(ids)
        out = llm.generate("a", max_tokens=len(ids))
        assert (out.text, out.finish_reason, out.stop, out.tokens) == ("ab", "stop", end, ids[: ids.index(end) + 1])
        on = llm.generate("a", max_tokens=len(ids), ignore_eos=True)
        assert (on.text, on.finish_reason, on.tokens) == ("abc", "length", ids)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_max_tokens(llm: pyllm.LLM, n: int) -> None:
    out = greedy(llm, "a", n)
    assert len(out.tokens) == n and out.finish_reason == "length"


@pytest.mark.parametrize("n_prompt", [1, 30, 31, 32])
def test_a_full_context_ends_the_answer(n_prompt: int) -> None:
    """The context holds the prompt and all of the answer but its last token, which nothing follows."""
    with pyllm.LLM(QUANT, n_threads=1, n_ctx=32) as llm:
        out = llm.generate([5] * n_prompt, temperature=0, ignore_eos=True)
        assert out.finish_reason == "length" and len(out.tokens) == 32 - n_prompt + 1
        wide = pyllm.LLM(QUANT, n_threads=1, n_ctx=64)
        assert greedy(wide, [5] * n_prompt, len(out.tokens)).tokens == out.tokens
        wide.close()


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pyllm.LLM(QUANT, n_threads=1, n_ctx=32) as llm:
        for call in (llm.generate, llm.stream, llm.logits):
            with pytest.raises(pyllm.ContextError, match=r"33 tokens.* 32") as error:
                call([5] * 33)
            assert (error.value.n_prompt, error.value.n_ctx) == (33, 32)
        with pytest.raises(pyllm.ContextError):
            llm.generate([[5], [5] * 33])
        assert llm._engine.n_steps == 0


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "options", "error", "words"),
    [
        ([], {}, ValueError, "empty"),
        ([[5], []], {}, ValueError, "empty"),
        ([5, -1], {}, ValueError, "-1 .*vocabulary of 512"),
        ([512], {}, ValueError, "512 .*vocabulary of 512"),
        ([[5, 1.5]], {}, TypeError, "integer"),
        ("a", {"max_tokens": 0}, ValueError, "max_tokens is 0"),
        ("a", {"max_tokens": 2.5}, TypeError, "integer"),
        ("a", {"stop": b"x"}, TypeError, "stop is"),
        ("a", {"stop": ["x", 3]}, TypeError, "stop is"),
        ("a", {"temprature": 1}, TypeError, "temprature"),
        ("a", {"temperature": float("nan")}, ValueError, "temperature"),
        ("a", {"top_k": 1.5}, ValueError, "top_k"),
        ("a", {"params": pyllm.SamplingParams(), "top_k": 3}, TypeError, "params or top_k"),
        ("a", {"logit_bias": {512: 1.0}}, ValueError, "512"),
    ],
)
def test_wrong_requests(llm: pyllm.LLM, prompt: Any, options: Any, error: type[Exception], words: str) -> None:
    for call in (llm.generate, llm.stream):
        if call == llm.stream and prompt and isinstance(prompt[0], list):
            continue
        with pytest.raises(error, match=words):
            call(prompt, **options)
    assert len(greedy(llm, "a").tokens) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_batch": 1.5}, "n_batch is 1.5"),
        ({"n_threads": True}, "n_threads is True"),
        ({"kv_tokens": -1}, "kv_tokens is -1"),
        ({"kv_type": "q4_1"}, "type_k is 'q4_1', expected one of .*f32"),
        ({"type_v": "f64"}, "type_v is 'f64'"),
        ({"compute": "fast"}, "compute is 'fast'"),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pyllm.LLM(QUANT, **options)


def test_files_that_are_not_models() -> None:
    with pytest.raises(pyllm.GGUFError):
        pyllm.LLM(Path(__file__))
    with pytest.raises(pyllm.PyllmError, match="vocabulary only"):
        pyllm.LLM(DATA / "tokenizers" / "tiny-bpe-llama3.gguf")


# ---- seeds -------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_text_whatever_runs_beside_it() -> None:
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 4.0, "ignore_eos": True}
    options |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
    with pyllm.LLM(QUANT, n_threads=1) as llm:
        want = llm.generate("once", seed=7, **options).tokens
        assert llm.generate("once", seed=7, **options).tokens == want
        assert llm.generate("once", seed=8, **options).tokens != want
        unseeded = llm.generate("once", **options)
        assert llm.generate("once", seed=unseeded.seed, **options).tokens == unseeded.tokens
        assert llm.generate("once", **options).tokens != unseeded.tokens
    for how in ({"n_threads": 2}, {"n_threads": 3, "n_batch": 3}, {"n_batch": 1}, {"kv_tokens": 512}):
        with pyllm.LLM(QUANT, **how) as llm:
            batch = llm.generate(["once", "twice upon a time", "once"], seed=7, **options)
            assert batch[0].tokens == batch[2].tokens == want != batch[1].tokens


def test_the_sampler_sees_its_own_answer_and_the_prompt(llm: pyllm.LLM) -> None:
    """With a penalty that nothing outweighs, no token comes twice, nor one of the prompt."""
    prompt = [5, 6, 7]
    options: dict[str, Any] = {"presence_penalty": 1e6, "repeat_last_n": -1}
    tokens = greedy(llm, prompt, 40, **options).tokens
    assert len(set(tokens) | set(prompt)) == 43
    assert len(set(greedy(llm, prompt, 40).tokens)) < 40


# ---- prefix reuse, few pages, cache types ------------------------------------------------------------------------


def test_a_second_prompt_computes_only_what_is_new() -> None:
    first, second = [7] * 40, [7] * 40 + [9] * 20
    with pyllm.LLM(QUANT, n_threads=1) as fresh:
        want = greedy(fresh, second).tokens
    with pyllm.LLM(QUANT, n_threads=1) as llm:
        assert greedy(llm, first).usage.cached_tokens == 0
        out = greedy(llm, second)
        assert out.usage.cached_tokens == 40 // PAGE * PAGE
        assert out.tokens == want
        again = greedy(llm, second)
        assert again.usage.cached_tokens == 59 // PAGE * PAGE and again.tokens == want
        # an answer is found as well as a prompt
        longer = greedy(llm, second + want)
        assert longer.usage.cached_tokens == (60 + 12 - 1) // PAGE * PAGE


def test_a_chat_goes_on_from_its_last_turn() -> None:
    messages = [{"role": "user", "content": "the quick brown fox jumps over the lazy dog"}]
    with pyllm.LLM(QUANT, n_threads=1) as llm, pyllm.LLM(QUANT, n_threads=1) as fresh:
        for each in (llm, fresh):
            each._template = pyllm.chat_template.ChatTemplate(TEMPLATE)
        first = llm.chat(messages, max_tokens=8, temperature=0, ignore_eos=True)
        assert first.usage.prompt_tokens == len(llm.apply_chat_template(messages))
        messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "and then"}]
        options: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
        second = llm.chat(messages, **options)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens // PAGE * PAGE > 0
        alone = fresh.chat(messages, **options)
        assert alone.usage.cached_tokens == 0
        assert (alone.text, alone.tokens) == (second.text, second.tokens)
        assert "".join(llm.chat(messages, stream=True, **options)) == second.text


def test_a_model_without_template_says_so(llm: pyllm.LLM) -> None:
    with pytest.raises(pyllm.TemplateError, match="no chat template"):
        llm.chat([{"role": "user", "content": "hi"}])


def test_a_cache_too_small_for_all_changes_nothing() -> None:
    """Six sequences of up to 64 tokens in room for one and a half: some are set aside, and all say the same."""
    prompts = [[k + 3] * (5 + 7 * k) for k in range(6)]
    with pyllm.LLM(QUANT, n_threads=1, n_ctx=64, kv_tokens=1024) as llm:
        want = [greedy(llm, p, 20).tokens for p in prompts]
    with pyllm.LLM(QUANT, n_threads=1, n_ctx=64, kv_tokens=96) as llm:
        aside: list[object] = []
        scheduler = llm._engine._scheduler
        set_aside = scheduler._set_aside
        scheduler._set_aside = lambda seq: (aside.append(seq), set_aside(seq))  # type: ignore[method-assign,assign,return-value]
        outs = greedy(llm, prompts, 20)
        assert [o.tokens for o in outs] == want
        assert aside


def test_cache_types() -> None:
    """The logits move in proportion to the rounding of K and V.

    float16 rounds by up to 2^-11 of a value, bfloat16 by eight times that, q8_0 by 1/254 of the largest of 32 values,
    which is two to three times the usual one.
    """
    ids = [int(i) for i in np.random.default_rng(1).integers(0, 500, 100)]
    found = {}
    for kind in ("f32", "f16", "bf16", "q8_0"):
        with pyllm.LLM(QUANT, n_threads=1, kv_type=kind, compute="precise") as llm:
            found[kind] = llm.logits(ids).astype(np.float64)
    size = {k: np.sqrt(((found[k] - found["f32"]) ** 2).mean()) / found["f32"].std() for k in ("f16", "bf16", "q8_0")}
    assert 0 < size["f16"] < 4 * 2**-11
    assert 4 < size["bf16"] / size["f16"] < 16
    assert 1 < size["q8_0"] / size["bf16"] < 10


def test_keys_and_values_may_have_types_of_their_own() -> None:
    with pyllm.LLM(QUANT, n_threads=1, type_k="q8_0", type_v="f32") as mixed:
        plan = mixed.plan().kv
        assert len(greedy(mixed, "a").tokens) == 12
    assert pyllm.plan(QUANT, kv_type="q8_0").kv < plan < pyllm.plan(QUANT, kv_type="f32").kv


# ---- logits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_batch", [5, 512])
def test_logits_are_those_that_generation_uses(n_batch: int) -> None:
    with pyllm.LLM(QUANT, n_threads=1, n_batch=n_batch) as llm:
        ids = llm.tokenize("the quick brown")
        out = greedy(llm, ids)
        logits = llm.logits(ids + out.tokens)
        assert logits.shape == (len(ids) + 12, llm.n_vocab) and logits.dtype == np.float32
        assert logits[len(ids) - 1 : -1].argmax(1).tolist() == out.tokens
        # and the same bits as those of a shorter text: what follows changes nothing
        assert np.array_equal(llm.logits(ids), logits[: len(ids)])
        for first in (1, 7, len(logits) - 1):
            assert np.array_equal(llm.logits(ids + out.tokens, first=first), logits[first:])
        for first in (-1, len(logits)):
            with pytest.raises(ValueError, match=f"first is {first}"):
                llm.logits(ids + out.tokens, first=first)


def test_scoring_is_not_shortened_by_what_is_cached(llm: pyllm.LLM) -> None:
    ids = [9] * 50
    first = llm.logits(ids)
    greedy(llm, ids)
    assert np.array_equal(llm.logits(ids), first)


# ---- memory plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repack", [True, False])
@pytest.mark.parametrize("compute", ["default", "f32"])
def test_the_plan_is_what_is_allocated(monkeypatch: pytest.MonkeyPatch, repack: bool, compute: str) -> None:
    taken: dict[str, int] = {}
    alloc = CpuBackend._alloc

    def record(self: CpuBackend, nbytes: int, what: str) -> Any:
        taken[what] = nbytes
        return alloc(self, nbytes, what)

    monkeypatch.setattr(CpuBackend, "_alloc", record)
    options: dict[str, Any] = {"n_ctx": 128, "n_threads": 2, "repack": repack, "compute": compute, "kv_type": "bf16"}
    with pyllm.LLM(QUANT, **options) as llm:
        plan = llm.plan()
        gguf = llm.model.gguf
        used = {w.name: w.tensor.nbytes for w in llm.model.graph.weights.values()}
    assert plan.weights_packed == taken["packed"] or (plan.weights_packed == 0 and taken["packed"] <= 64)
    assert (plan.kv, plan.scratch, plan.constants) == (taken["kv"], taken["arena"], taken["const"])
    one, three = (pyllm.plan(QUANT, **(options | {"n_threads": n})).threads for n in (1, 3))
    shared = plan.threads - 2 * one  # what several threads need together
    assert three - 3 * one == shared and one > shared > 0
    if repack and compute == "default":
        assert plan.weights_mapped == 0 and plan.weights_packed > 0
    else:
        assert plan.weights_mapped == sum(used.values()) and plan.weights_packed == 0
    assert plan.total == sum(v for k, v in plan.to_dict().items() if k not in ("total", "available") and v is not None)
    before = pyllm.plan(QUANT, **options)
    assert before.total == plan.total and before.to_dict().keys() == plan.to_dict().keys()
    assert gguf.metadata["general.architecture"] == "llama"


def test_a_plan_over_the_memory_is_refused_before_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    total = pyllm.plan(QUANT).total
    monkeypatch.setattr(CpuBackend, "_alloc", lambda *_: pytest.fail("memory was taken"))
    for available in (total - 1, 0):
        monkeypatch.setattr(model, "available_memory", lambda a=available: a)
        with pytest.raises(pyllm.MemoryPlanError, match=f"{total:,} bytes.* {available:,} are available"):
            pyllm.LLM(QUANT)


@pytest.mark.parametrize("short", [0, None])
def test_a_plan_that_fits_or_is_not_checked_loads(monkeypatch: pytest.MonkeyPatch, short: int | None) -> None:
    monkeypatch.setattr(model, "available_memory", lambda: short)
    with pyllm.LLM(QUANT, check_memory=short is None) as llm:
        assert llm.plan().available == short
    total = pyllm.plan(QUANT).total
    monkeypatch.setattr(model, "available_memory", lambda: total)
    pyllm.LLM(QUANT).close()


def test_loading_tells_its_progress() -> None:
    shares: list[float] = []
    pyllm.LLM(QUANT, progress=shares.append).close()
    assert shares == sorted(shares) and len(shares) > 3 and shares[-1] == 1.0


def test_reading_a_prompt_tells_its_progress() -> None:
    seen: list[tuple[int, int]] = []
    with pyllm.LLM(QUANT, n_threads=1, n_batch=10) as llm:
        greedy(llm, [5] * 25, progress=lambda *a: seen.append(a))
    assert seen == [(10, 25), (20, 25), (25, 25)]


def test_facts(llm: pyllm.LLM) -> None:
    assert (llm.n_ctx, llm.n_vocab, llm.n_threads) == (256, 512, 1)
    assert llm.metadata["general.architecture"] == "llama" and llm.load_time > 0
    assert repr(llm) == "<pyllm.LLM quant-Q4_1.gguf n_ctx=256 n_threads=1>"
    assert llm.detokenize(llm.tokenize("hello", add_special=False)) == "hello"
