"""A GGUF file made ready to run: hyperparameters, graph, program, memory plan."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass

from ._lib import lib
from .backend.cpu import working_bytes
from .compile import Program, Target, compile_graph
from .errors import MemoryPlanError, ModelError
from .gguf import GGUFFile, tensor_types
from .graph import Graph
from .kvcache import PAGE
from .machine import available_memory, default_threads
from .models import builder
from .models.hparams import Hparams
from .options import DEFAULT_N_CTX, ModelOptions

#: Rows of logits that one step can give.
N_OUT = 64
#: tensors that files may hold and graphs need not use
_OPTIONAL_TENSORS = ("rope_freqs.weight",)


@dataclass(frozen=True)
class MemoryPlan:
    """Exact bytes that a loaded model takes, known before anything is allocated."""

    weights_mapped: int  # file pages read at every step, shared with other processes
    weights_packed: int  # a copy in the layout that the kernels read; its file pages are given back
    kv: int  # the whole cache; pages are touched as they are used
    scratch: int  # activations and logits of a step
    threads: int  # working memory of all threads
    constants: int  # norms, biases, rotary frequencies
    available: int | None  # what the system could give when the plan was made; None if unknown

    @property
    def total(self) -> int:
        return self.weights_mapped + self.weights_packed + self.kv + self.scratch + self.threads + self.constants

    def to_dict(self) -> dict[str, int | None]:
        return {**asdict(self), "total": self.total}

    def check(self) -> None:
        """MemoryPlanError with the numbers if the plan is over what is available."""
        if self.available is None or self.total <= self.available:
            return
        raise MemoryPlanError(
            f"the model needs {self.total:,} bytes (weights {self.weights_mapped + self.weights_packed:,}, KV cache "
            f"{self.kv:,}, working memory {self.scratch + self.threads + self.constants:,}) and {self.available:,} "
            "are available: take a smaller context (n_ctx, -c), a smaller KV type (-ctk, -ctv), a smaller model, or "
            "free memory"
        )


class Model:
    """Everything about a model that does not change while it runs."""

    def __init__(self, path: str | os.PathLike[str], options: ModelOptions) -> None:
        """Open, check and compile. GGUFError or ModelError if the file cannot be run; nothing large is allocated."""
        self.options = options
        self.gguf = GGUFFile.open(path)
        try:
            self._build(options)
        except BaseException:
            self.gguf.close()
            raise

    def _build(self, options: ModelOptions) -> None:
        build = builder(self.gguf.architecture)
        self.hparams = hp = Hparams.from_gguf(self.gguf)
        self.graph = Graph(self.gguf.tensors)
        build(self.graph, hp)
        self._check_unused()
        self.n_threads = options.n_threads or default_threads()
        self.n_ctx = options.n_ctx or min(DEFAULT_N_CTX, hp.n_ctx_train)
        last = self.graph.max_positions
        if last is not None and self.n_ctx > last:
            raise ModelError(f"the context (n_ctx, -c) is {self.n_ctx}, and this model has learned {last} positions")
        self.n_batch = min(options.n_batch, self.n_ctx)
        self.n_pages = -(-max(options.kv_tokens or self.n_ctx, self.n_ctx) // PAGE) + 1
        ids = {t.name.lower(): t.id for t in tensor_types().values()}
        target = Target(
            n_batch=self.n_batch,
            n_seqs=options.n_seqs,
            n_out=min(self.n_batch, max(N_OUT, options.n_seqs)),
            n_pages=self.n_pages,
            type_k=ids[options.type_k],
            type_v=ids[options.type_v],
            compute=options.compute,
            repack=options.repack,
            act_bytes=lib.pl_act_bytes(),
            pack_bytes=lambda kind, rows, cols: int(lib.pl_pack_bytes(kind, rows, cols)),
            kv_page_bytes=lambda kind, n_kv, head_dim, is_k: int(lib.pl_kv_page_bytes(kind, n_kv, head_dim, is_k)),
        )
        self.target = target
        self.program: Program = compile_graph(self.graph, target)

    def _check_unused(self) -> None:
        """A tensor that the graph does not read means that the file is of a kind this version does not know.

        Layers that only guess further tokens are left out."""
        read, hp = self.graph.read, self.hparams
        beyond = tuple(f"blk.{hp.n_layer + i}." for i in range(hp.n_layer_nextn))
        unused = [
            name
            for name in self.gguf.tensors
            if name not in read and name not in _OPTIONAL_TENSORS and not name.startswith(beyond)
        ]
        if unused:
            shown = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
            raise ModelError(
                f"{len(unused)} tensors of the file have no place in architecture {self.hparams.architecture!r} as "
                f"this version knows it ({shown}); running without them would give wrong answers"
            )

    def plan(self) -> MemoryPlan:
        sizes = self.program.sizes
        return MemoryPlan(
            weights_mapped=sum(w.tensor.nbytes for w in self.program.plain),
            weights_packed=sizes["packed"],
            kv=sizes["kv"],
            scratch=sizes["arena"],
            threads=working_bytes(self.program, len(self.gguf.maps), self.n_batch, self.n_threads),
            constants=sizes["const"],
            available=available_memory(),
        )

    @property
    def n_params(self) -> int:
        return sum(t.n_elements for t in self.gguf.tensors.values())

    @property
    def size(self) -> int:
        """Bytes of all tensors in the file."""
        return sum(t.nbytes for t in self.gguf.tensors.values())

    def close(self) -> None:
        self.gguf.close()
