"""Memory: nothing grows with use, and a loaded model takes what its plan says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import child_env

QUANT = Path(__file__).parent / "data" / "quant" / "quant-Q4_1.gguf"

STACK = 2 << 20  # bytes, of a thread
SLACK = 512 << 10  # some hundreds of ops, once as Python's and once as C's

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory as Linux shows it")

PRELUDE = """
import gc, json, os, sys
import pyllm
path = sys.argv[1]
def memory(key="VmRSS"):
    gc.collect()
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))
"""


def child(code: str, path: Path) -> object:
    """The JSON that a Python of its own prints; one heap for all of its threads, and small stacks."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    env = {k: v for k, v in child_env(MALLOC_ARENA_MAX="1").items() if not k.startswith("COV")}  # coverage takes memory
    run = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, str(path)],
        env=env,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (STACK, hard)),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


GENERATIONS = """
llm = pyllm.LLM(path, n_threads=2)
def generations(first, last):
    for k in range(first, last):
        if k % 4 == 0:
            llm.generate("the quick brown", max_tokens=6, seed=k, stop=["zzz"], dry_multiplier=0.8)
        elif k % 4 == 1:
            list(llm.stream([5 + k % 100] * 20, max_tokens=6))
        elif k % 4 == 2:
            llm.generate([[5] * (1 + k % 40), [6] * 3], max_tokens=4, repeat_penalty=1.1)
        else:
            stream = llm.stream("a", max_tokens=6)
            next(stream, "")
            del stream
            llm.logits([k % 500] * 5)
generations(0, 200)
before = memory(), len(gc.get_objects())
generations(200, 1000)
print(json.dumps([memory() - before[0], len(gc.get_objects()) - before[1]]))
"""


def test_nothing_grows_over_a_thousand_generations() -> None:
    """From the 200th to the 1,000th: 256 KiB would be 328 bytes for each, less than the smallest of its objects."""
    grown, objects = child(GENERATIONS, QUANT)  # type: ignore[misc]
    assert grown < 256 << 10
    assert objects < 80  # of Python's, a tenth for each


OPENINGS = """
def openings(n):
    for k in range(n):
        with pyllm.LLM(path, n_threads=2) as llm:
            llm.generate("a", max_tokens=3)
        try:
            pyllm.LLM("/proc/self/status")
        except pyllm.GGUFError:
            pass
        llm = pyllm.LLM(path, n_threads=2)
        llm.stream("a")
        del llm
    gc.collect()
def state():
    return memory(), memory("VmSize"), len(os.listdir("/proc/self/fd"))
openings(60)
grown = []
for _ in range(3):
    before = state()
    openings(60)
    grown.append([b - a for a, b in zip(before, state())])
print(json.dumps([min(g) for g in zip(*grown)]))
"""


def test_nothing_is_left_of_closed_models() -> None:
    """Sixty of each: closed, refused, forgotten. Thrice, since what is left is left each time, and what the allocator
    takes now and then is not."""
    resident, mapped, files = child(OPENINGS, QUANT)  # type: ignore[misc]
    assert resident < 60 * 3200  # the smallest buffer of a model, once for each
    assert mapped < 8 << 20  # its cache, once for each; stacks of 2 MiB that are kept for the next thread
    assert files == 0


PLAN = """
from pyllm.backend import Step
from pyllm.backend.cpu import CpuBackend
from pyllm.model import Model, ModelOptions

found = []
for options in ({}, {"repack": False}, {"compute": "f32"}, {"type_k": "q8_0"}):
    model = Model(path, ModelOptions(n_ctx=512, n_batch=256, n_threads=2, **options))
    plan = model.plan()
    step = Step(model.n_batch, model.target.n_seqs, model.target.n_out, 32)
    step.n_tokens, step.n_seqs, step.n_out = 256, 1, 64
    step.pos[:], step.slot[:], step.out[:] = range(256), range(256), range(64)
    step.q_start[1], step.kv_len[0], step.page[0] = 256, 256, range(32)
    before = memory("VmSize"), memory("RssAnon")
    backend = CpuBackend(2)
    backend.load(model.program, model.gguf, step)
    loaded = memory("RssAnon") - before[1]
    backend.run()
    taken, resident = memory("VmSize") - before[0], memory("RssAnon") - before[1]
    backend.close()
    model.close()
    found.append({
        "own": plan.total - plan.weights_mapped, "packed": plan.weights_packed, "loaded": loaded, "taken": taken,
        "resident": resident,
    })
print(json.dumps(found))
"""


def test_a_model_takes_what_its_plan_says(smollm2: Path) -> None:
    """Address space: the plan, the second thread's stack (which stays for the next one), and the ops themselves."""
    results: list[dict[str, int]] = child(PLAN, smollm2)  # type: ignore[assignment]
    assert len(results) == 4
    for k, found in enumerate(results):
        stack = 0 if k else STACK
        assert 0 <= found["taken"] - found["own"] - stack < SLACK, found
        assert found["packed"] <= found["loaded"] <= found["resident"] < found["own"] + SLACK, found


PEAK = """
from pyllm._lib import ffi, lib

file = pyllm.GGUFFile.open(path)
tensor = file.tensors["token_embd.weight"]
cols, rows = tensor.shape
size = lib.pl_pack_bytes(tensor.type.id, rows, cols)
packed = lib.pl_mem_alloc(size, 1)
ffi.buffer(packed, size)[:] = bytes(size)
view = ffi.from_buffer("uint8_t[]", file.maps[tensor.part])
found = []
for n_threads in (1, 2):
    pool = lib.pl_pool_new(n_threads)
    for mapped in (1, 0):
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the peak starts anew
        before = memory()
        assert lib.pl_pool_pack(pool, tensor.type.id, view + tensor.offset, rows, cols, packed, mapped) == 0
        found.append([memory("VmHWM") - before, memory() - before, tensor.nbytes])
        file.maps[tensor.part].madvise(4)  # MADV_DONTNEED
    lib.pl_pool_free(pool)
print(json.dumps(found))
"""


def test_packing_drops_what_it_has_read(smollm2: Path) -> None:
    """The file's pages are resident a few chunks at a time; only without that, all of a tensor's are."""
    for k, (peak, after, nbytes) in enumerate(child(PEAK, smollm2)):  # type: ignore[arg-type]
        if k % 2 == 0:
            assert after < 1 << 20 and peak < 6 << 20
        else:
            assert peak >= after > nbytes * 0.9
