"""The exceptions pyllm raises on purpose. Each message says what is wrong and, where possible, what to do."""

from __future__ import annotations


class PyllmError(Exception):
    """Base of every error that pyllm raises on purpose."""


class GGUFError(PyllmError):
    """The file is not a GGUF file that can be trusted: says what is wrong and at which byte or name."""


class ModelError(PyllmError):
    """The file is sound but the model cannot be run: unknown architecture or type, missing or misshapen tensor."""


class TokenizerError(PyllmError):
    """The vocabulary in the file is missing, inconsistent or of an unknown kind."""


class TemplateError(PyllmError):
    """The model's chat template failed, or the model has none."""


class ContextError(PyllmError):
    """The prompt does not fit the context; carries both numbers."""

    def __init__(self, message: str, n_prompt: int = 0, n_ctx: int = 0) -> None:
        super().__init__(message)
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


class MemoryPlanError(PyllmError):
    """The model does not fit the memory that is available; the message holds the numbers."""


class SamplingError(PyllmError):
    """No token can be drawn: every logit is -inf or NaN."""


class PerplexityError(PyllmError):
    """Perplexity cannot be measured so: too little text, or a base's file that is broken or of another model."""


class ConvertError(PyllmError):
    """The model folder cannot be converted: something is missing, damaged or not supported; no file was written."""


class DownloadError(PyllmError):
    """A model could not be fetched or did not match its checksum; nothing was left behind."""


class Cancelled(PyllmError):
    """The request was cancelled before it produced a result."""
