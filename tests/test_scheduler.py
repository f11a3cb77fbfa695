"""The scheduler under random traffic, with a cache that remembers what was written where."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllm.kvcache import PAGE, KVCache
from pyllm.scheduler import Chunk, Scheduler, Sequence


def chain(before: int, token: int) -> int:
    """What a cell of the cache holds: the token and all before it."""
    return hash((before, token))


@dataclass(eq=False)
class Job:
    """A request: prompt, tokens to generate (0: the prompt's logits, from score_from on), step of arrival and of
    departure."""

    prompt: list[int]
    n_new: int
    arrives: int = 0
    leaves: int | None = None
    score_from: int = 0
    seq: Sequence = field(init=False)
    computed: int = 0  # positions computed since it last started
    found: int = 0  # of those, how many were in the cache when it first started
    n_set_aside: int = 0
    ended: bool = False
    scored: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.seq = Sequence(list(self.prompt), logits_from=None if self.n_new else self.score_from)


class World:
    """Plays engine and model: runs steps, checking everything that a step must keep to."""

    def __init__(self, jobs: list[Job], n_batch: int, n_seqs: int, n_out: int, n_pages: int) -> None:
        self.jobs, self.n_batch, self.n_seqs, self.n_out = jobs, n_batch, n_seqs, n_out
        self.kv = KVCache(n_pages)
        self.scheduler = Scheduler(self.kv, n_batch, n_seqs, n_out)
        self.cells: dict[tuple[int, int], int] = {}
        self.job_of: dict[Sequence, Job] = {}
        self.started: list[Job] = []
        self.n_steps = 0

    def run(self) -> None:
        lengths = [len(j.prompt) + j.n_new for j in self.jobs]
        most = (sum(lengths) + 1) * (len(lengths) + 1) + max((j.arrives for j in self.jobs), default=0)
        while not all(j.ended for j in self.jobs):
            assert self.n_steps <= most, "no end in sight"
            for job in self.jobs:
                if job.arrives == self.n_steps:
                    self.job_of[job.seq] = job
                    self.scheduler.add(job.seq)
                if job.leaves == self.n_steps and job.seq in self.job_of and not job.ended:
                    self.end(job)
            self.step()
            self.n_steps += 1
        assert not self.scheduler.busy
        assert self.kv.available == self.kv.n_pages

    def end(self, job: Job) -> None:
        job.ended = True
        self.scheduler.remove(job.seq)
        assert job.seq.pages == [] and job.seq.n_cached == job.found

    def step(self) -> None:
        chunks = self.scheduler.schedule()
        assert bool(chunks) == self.scheduler.busy
        for job in self.started:
            if not job.ended and job.seq.n_computed != job.computed:  # lost its pages, and may have found others
                job.n_set_aside += 1
                job.computed = 0
                job.scored.clear()
        self.check_budget(chunks)
        self.write(chunks)
        self.read(chunks)
        self.scheduler.done(chunks)
        for chunk in chunks:
            self.advance(self.job_of[chunk.seq], chunk)

    def check_budget(self, chunks: list[Chunk]) -> None:
        assert len({id(c.seq) for c in chunks}) == len(chunks) <= self.n_seqs
        assert len(self.scheduler.running) <= self.n_seqs
        assert sum(c.n for c in chunks) <= self.n_batch
        assert sum(c.n_out for c in chunks) <= self.n_out
        for c in chunks:
            assert c.n >= 1 and c.seq in self.scheduler.running
            end = c.start + c.n
            if c.seq.logits_from is None:
                assert c.n_out == int(end == len(c.seq.tokens))
            else:
                assert c.n_out == len(range(max(c.start, c.seq.logits_from), end))
            job = self.job_of[c.seq]
            assert c.seq.started
            if job not in self.started:
                self.first_start(job, c)
            if job.computed == 0:  # starts, or starts anew, behind what was found
                assert c.start % PAGE == 0 and not (c.start and c.seq.logits_from is not None)
                job.computed = c.start
            assert c.start == c.seq.n_computed and c.start + c.n <= len(c.seq.tokens)
            assert (c.start + c.n - 1) // PAGE < len(c.seq.pages)

    def first_start(self, job: Job, c: Chunk) -> None:
        self.started.append(job)
        job.found = c.start
        assert not any(self.job_of[s] in self.started for s in self.scheduler.waiting)  # the set aside go first

    def write(self, chunks: list[Chunk]) -> None:
        """K and V of the step's tokens; nobody else may hold a page that is written."""
        written: set[tuple[int, int]] = set()
        for c in chunks:
            others = {p for s in self.scheduler.running if s is not c.seq for p in s.pages}
            h = 0
            for p, token in enumerate(c.seq.tokens[: c.start + c.n]):
                h = chain(h, token)
                if p >= c.start:
                    cell = (c.seq.pages[p // PAGE], p % PAGE)
                    assert cell not in written and cell[0] not in others
                    written.add(cell)
                    self.cells[cell] = h

    def read(self, chunks: list[Chunk]) -> None:
        """Attention: every position up to the chunk's end holds this sequence's own beginning."""
        for c in chunks:
            h = 0
            for p, token in enumerate(c.seq.tokens[: c.start + c.n]):
                h = chain(h, token)
                assert self.cells[c.seq.pages[p // PAGE], p % PAGE] == h

    def advance(self, job: Job, chunk: Chunk) -> None:
        assert chunk.start == job.computed == chunk.seq.n_computed - chunk.n
        job.computed += chunk.n
        if job.n_new == 0:
            end = chunk.start + chunk.n
            job.scored.update(range(end - chunk.n_out, end))
            if chunk.seq.n_remaining == 0:
                assert job.scored == set(range(job.score_from, len(job.prompt)))
                self.end(job)
        elif chunk.n_out:
            if len(chunk.seq.tokens) == len(job.prompt) + job.n_new:
                self.end(job)
            else:
                chunk.seq.tokens.append(random.Random(hash(tuple(chunk.seq.tokens))).randrange(2))


def prompt(rng: random.Random, most: int) -> list[int]:
    """Often the beginning of another one."""
    n = rng.randint(1, most)
    head = rng.choice([0, 1])
    return [head] * min(n, rng.choice([0, PAGE, 2 * PAGE, 3 * PAGE])) + [
        rng.randrange(2) for _ in range(max(0, n - rng.choice([PAGE, 3 * PAGE])))
    ] or [head]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = random.Random(draw(st.integers(0, 2**32)))
    n_jobs = draw(st.integers(1, 8))
    longest = draw(st.sampled_from([5, 40, 100]))
    jobs = []
    for _ in range(n_jobs):
        text = prompt(rng, longest)
        arrives = rng.choice([0, 0, rng.randrange(40)])
        leaves = arrives + rng.randrange(30) if rng.random() < 0.15 else None
        jobs.append(Job(text, rng.choice([0, 1, 3, rng.randint(1, 60)]), arrives, leaves, rng.randrange(len(text))))
    n_ctx = max(len(j.prompt) + j.n_new for j in jobs)
    spare = draw(st.sampled_from([1, 1, 2, 5, 40]))
    return World(
        jobs,
        n_batch=draw(st.sampled_from([1, 2, 7, 16, 33, 512])),
        n_seqs=draw(st.sampled_from([1, 2, 3, 16])),
        n_out=draw(st.sampled_from([1, 2, 64])),
        n_pages=-(-n_ctx // PAGE) + spare,
    )


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_random_traffic(world: World) -> None:
    world.run()
    arrived = [j for _, j in sorted(enumerate(world.jobs), key=lambda e: (e[1].arrives, e[0]))]
    assert world.started == [j for j in arrived if j in world.started]  # first come, first served
    assert all(j in world.started for j in world.jobs if j.leaves is None)


def test_too_few_pages_set_the_latest_aside() -> None:
    """Three sequences that fit alone and not together: the first never stops, and all end."""
    jobs = [Job([k] * 20, 60) for k in range(3)]
    world = World(jobs, n_batch=64, n_seqs=4, n_out=4, n_pages=6)
    world.run()
    assert jobs[0].n_set_aside == 0
    assert jobs[1].n_set_aside + jobs[2].n_set_aside > 0
    assert jobs[0].seq.n_computed == 80  # the last token that is generated is not computed


@pytest.mark.parametrize("n_batch", [7, 64])
def test_equal_beginnings_share_pages(n_batch: int) -> None:
    jobs = [Job([5] * 50, 12), Job([5] * 50 + [6], 3, arrives=10)]
    world = World(jobs, n_batch=n_batch, n_seqs=4, n_out=4, n_pages=20)
    world.run()
    assert jobs[0].seq.n_cached == 0 and jobs[1].seq.n_cached == 48


def test_text_goes_on_while_a_long_prompt_is_read() -> None:
    writers = [Job([k], 40) for k in range(3)]
    reader = Job([9] * 300, 1, arrives=2)
    world = World([*writers, reader], n_batch=16, n_seqs=8, n_out=8, n_pages=60)
    taken: list[int] = []
    done = world.scheduler.done

    def watch(chunks: list[Chunk]) -> None:
        if any(c.seq is reader.seq for c in chunks):
            taken.append(sum(c.seq is not reader.seq for c in chunks))
            assert sum(c.n for c in chunks) == 16 or chunks[-1].n_out  # and no room in the step is wasted
        done(chunks)

    world.scheduler.done = watch  # type: ignore[method-assign]
    world.run()
    assert len(taken) >= 300 // 16 and set(taken) == {3}


def test_tokens_without_logits_come_in_whole_steps() -> None:
    job = Job([1] * 100, 0, score_from=60)
    world = World([job], n_batch=64, n_seqs=1, n_out=8, n_pages=7)
    world.run()
    assert world.n_steps == 1 + 5  # 64 tokens of which 4 have logits, then 8 at a time


def test_a_step_of_one_token_serves_everyone_in_the_end() -> None:
    world = World([Job([k] * 7, 5) for k in range(4)], n_batch=1, n_seqs=2, n_out=1, n_pages=4)
    world.run()


@pytest.mark.parametrize("state", ["waiting", "running", "gone"])
def test_remove_in_any_state_frees_all(state: str) -> None:
    kv = KVCache(8)
    scheduler = Scheduler(kv, 16, 1, 4)
    first, second = Sequence([1] * 40), Sequence([2] * 40)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.done(scheduler.schedule())
    assert kv.available < 8
    scheduler.remove({"waiting": second, "running": first, "gone": first}[state])
    if state == "gone":
        scheduler.remove(first)
    if state == "waiting":
        assert scheduler.running == [first] and not scheduler.waiting
        scheduler.remove(first)
    else:
        assert not scheduler.running and list(scheduler.waiting) == [second]
    assert kv.available == 8
