"""Tokenizers: text to the ids of a model's vocabulary and back.

`Tokenizer` is the public face. A model kind (the file's tokenizer.ggml.model) is one file here, bpe.py, spm.py,
unigram.py or wordpiece.py, whose class is entered in tokenizer.KINDS. The pre-tokenizers of byte-level BPE
(tokenizer.ggml.pre) are the table in pre.py.
"""

from __future__ import annotations

from ..errors import TokenizerError
from .decode import StreamDecoder
from .tokenizer import Tokenizer, supported

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerError", "supported"]
