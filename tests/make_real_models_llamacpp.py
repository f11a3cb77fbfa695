"""Write tests/data/real_models_llamacpp.json: what llama.cpp makes of real models.

Run it with a Python that has numpy, jinja2 and llama-cpp-python (0.3.36 was used), giving a text (the GPL-3's was used)
and files named after pyllm's catalogue:

    python tests/make_real_models_llamacpp.py text.txt smollm2.gguf gemma3-270m.gguf ...

For each model, on its weights in float32 (requantized by llama.cpp, cache in float32): greedy continuations of prompts
(chats through the file's own template), with log probabilities and margins (gap of the two best logits), and the
negative log probabilities that llama-perplexity's method scores in chunks of 512 tokens of the text. Of the file as it
is: the perplexity of the same chunks.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp as lc
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

N_CTX, N_GREEDY = 512, 32
#: chunks of the text: 4, of models over this many bytes 1
LARGE, CHUNKS = 400_000_000, (4, 1)
CHATS = ["What is the capital of France?", "Write a Python function that adds two numbers."]
TEXTS = ["The capital of France is", "Once upon a time"]
TARGET = Path(__file__).parent / "data" / "real_models_llamacpp.json"


@lc.llama_log_callback
def quiet(level: int, text: bytes, data: Any) -> None:
    pass


class Model:
    """A file, with a context of one sequence."""

    def __init__(self, path: Path, float32: bool) -> None:
        self.model = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.n_vocab = lc.llama_vocab_n_tokens(self.vocab)
        params = lc.llama_context_default_params()
        params.n_ctx = params.n_batch = N_CTX
        if float32:
            params.type_k = params.type_v = 0
            params.flash_attn_type = 0
        self.context = lc.llama_init_from_model(self.model, params)
        self.batch = lc.llama_batch_init(N_CTX, 0, 1)
        self.past = 0

    def close(self) -> None:
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.context)
        lc.llama_model_free(self.model)

    def tokens(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        ids = (lc.llama_token * (len(data) + 8))()
        n = lc.llama_tokenize(self.vocab, data, len(data), ids, len(ids), add_special, parse_special)
        return list(ids[:n])

    def piece(self, token: int) -> str:
        text = lc.llama_vocab_get_text(self.vocab, token) if token >= 0 else b""
        return text.decode()

    def chat(self, question: str) -> str | None:
        template = lc.llama_model_chat_template(self.model, None)
        if not template:
            return None
        eos, bos = self.piece(lc.llama_vocab_eos(self.vocab)), self.piece(lc.llama_vocab_bos(self.vocab))
        messages = [{"role": "user", "content": question}]
        return Jinja2ChatFormatter(template=template.decode(), eos_token=eos, bos_token=bos)(messages=messages).prompt

    def clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)
        self.past = 0

    def logits(self, ids: list[int], first: int) -> np.ndarray:
        """[len(ids) - first, n_vocab] after each of the next tokens, in float64."""
        self.batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i] = token, self.past + i, 1
            self.batch.seq_id[i][0], self.batch.logits[i] = 0, i >= first
        if lc.llama_decode(self.context, self.batch):
            raise RuntimeError("llama_decode failed")
        self.past += len(ids)
        rows = [lc.llama_get_logits_ith(self.context, i) for i in range(first, len(ids))]
        return np.array([np.ctypeslib.as_array(row, (self.n_vocab,)) for row in rows], np.float64)

    def greedy(self, ids: list[int]) -> dict[str, Any]:
        self.clear()
        found: dict[str, Any] = {"ids": ids, "greedy": [], "logprobs": [], "margins": []}
        step = ids
        while len(found["greedy"]) < N_GREEDY:
            row = self.logits(step, len(step) - 1)[0]
            second, best = np.partition(row, -2)[-2:]
            token = int(row.argmax())
            found["greedy"].append(token)
            found["logprobs"].append(round(float(-np.log(np.exp(row - best).sum())), 5))
            found["margins"].append(round(float(best - second), 5))
            if lc.llama_vocab_is_eog(self.vocab, token):
                break
            step = [token]
        return found

    def nll(self, ids: list[int]) -> list[float]:
        """Of the tokens that are scored in chunks of N_CTX."""
        found: list[float] = []
        for at in range(0, len(ids), N_CTX):
            self.clear()
            chunk = ids[at : at + N_CTX]
            if lc.llama_vocab_get_add_bos(self.vocab):
                chunk[0] = lc.llama_vocab_bos(self.vocab)
            rows = self.logits(chunk, N_CTX // 2)[:-1]
            rows -= rows.max(axis=1, keepdims=True)
            wanted = rows[np.arange(len(rows)), chunk[N_CTX // 2 + 1 :]]
            found += (np.log(np.exp(rows).sum(axis=1)) - wanted).tolist()
        return found


def figures(path: Path, text: str, folder: Path) -> dict[str, Any]:
    """All that is written about one file."""
    as_it_is = Model(path, float32=False)
    ids = as_it_is.tokens(text, True, False)[: N_CTX * CHUNKS[path.stat().st_size > LARGE]]
    quantized = float(np.exp(np.mean(as_it_is.nll(ids))))
    as_it_is.close()
    params = lc.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = lc.LLAMA_FTYPE_ALL_F32, True
    if lc.llama_model_quantize(str(path).encode(), str(folder / "f32.gguf").encode(), params):
        raise RuntimeError(f"{path} cannot be requantized")
    exact = Model(folder / "f32.gguf", float32=True)
    prompts = []
    for question in CHATS:
        if (chat := exact.chat(question)) is not None:
            prompts.append({"chat": question, **exact.greedy(exact.tokens(chat, False, True))})
    for start in TEXTS:
        prompts.append({"text": start, **exact.greedy(exact.tokens(start, True, False))})
    nll = [round(x, 5) for x in exact.nll(ids)]
    exact.close()
    return {"prompts": prompts, "text_ids": ids, "nll": nll, "quantized_perplexity": round(quantized, 4)}


def main() -> None:
    lc.llama_log_set(quiet, None)
    lc.llama_backend_init()
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    found = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    for name in sys.argv[2:]:
        with tempfile.TemporaryDirectory() as folder:
            found[Path(name).stem] = figures(Path(name), text, Path(folder))
        print(name, np.exp(np.mean(found[Path(name).stem]["nll"])), found[Path(name).stem]["quantized_perplexity"])
        lines = (f" {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(found.items()))
        TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
