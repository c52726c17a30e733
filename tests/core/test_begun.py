"""What is taken from a source is begun: each item exactly once, or it is still in the source."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import anyio
import pytest
import sniffio
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio.core import Retry, TaskExecutor
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream

Kind = Literal["iterator", "generator", "async generator", "class", "stream", "queue"]
Method = Literal["map", "for_each", "stream", "ordered"]
Stop = Literal[
    "nothing", "scope", "native", "item", "source", "progress", "break", "deadline", "each"
]
ITEMS = 12


class Jobs:
    """A source of jobs that knows which it still has, in the shape of one kind or another."""

    def __init__(self, kind: Kind, *, fails_at: int | None, every: float) -> None:
        self.kind = kind
        self.every = every
        self.given = 0
        self.asked_after_error = 0
        self.receive: MemoryObjectReceiveStream[int] | None = None
        self._fails_at = fails_at
        self._failed = False

    def left(self) -> list[int]:
        """Return the jobs that were not taken."""
        if self.receive is None:
            return list(range(self.given, ITEMS))
        with self.receive:
            return [
                self.receive.receive_nowait()
                for _ in range(self.receive.statistics().current_buffer_used)
            ]

    def take(self) -> int:
        """Take the next job, or fail; an error does not end it."""
        self.asked_after_error += self._failed
        if self.given == self._fails_at and not self._failed:
            self._failed = True
            raise OSError("the source broke")
        if self.given == ITEMS:
            raise LookupError
        self.given += 1
        return self.given - 1

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        try:
            return self.take()
        except LookupError:
            raise StopIteration from None

    async def wait(self) -> None:
        """Wait for the next job to be there."""
        if self.every:
            await anyio.sleep(self.every)

    def open(self) -> Any:
        """Return it as its kind."""
        if self.kind == "generator":
            return (job for job in self)
        if self.kind == "async generator":
            return self.generate()
        if self.kind == "stream":
            send, self.receive = anyio.create_memory_object_stream[int](ITEMS)
            with send:
                for job in range(ITEMS):
                    send.send_nowait(job)
            return self.receive
        return self if self.kind == "iterator" else AsyncJobs(self)

    async def generate(self) -> AsyncIterator[int]:
        """Yield the jobs."""
        while True:
            await self.wait()
            try:
                job = self.take()
            except LookupError:
                return
            yield job


class AsyncJobs:
    """An async iterator that outlives its errors; on asyncio, maybe around a queue."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._queue: asyncio.Queue[None] | None = None
        if jobs.kind == "queue" and sniffio.current_async_library() == "asyncio":
            self._queue = asyncio.Queue()
            for _ in range(ITEMS + 1):
                self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncJobs:
        return self

    async def __anext__(self) -> int:
        await self._jobs.wait()
        if self._queue is not None:
            await self._queue.get()
        try:
            return self._jobs.take()
        except LookupError:
            raise StopAsyncIteration from None


@dataclass(frozen=True)
class Case:
    """One call, and how it is stopped."""

    kind: Kind
    method: Method
    stop: Stop
    limit: int | None
    max_workers: int | None
    busy: bool
    every: float
    seconds: float
    rate: float | None
    retry: bool
    at: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a call; moments are quarters, so that much happens at the same one."""
    method = draw(st.sampled_from(get_args(Method)))
    stops = [s for s in get_args(Stop) if s != "break" or method in {"stream", "ordered"}]
    return Case(
        kind=draw(st.sampled_from(get_args(Kind))),
        method=method,
        stop=draw(st.sampled_from(stops)),
        limit=draw(st.sampled_from([None, 1, 2, 5])),
        max_workers=draw(st.sampled_from([None, 1, 3])),
        busy=draw(st.booleans()),
        every=draw(st.sampled_from([0, 0.25, 1])),
        seconds=draw(st.sampled_from([0, 0.25, 0.5, 2])),
        rate=draw(st.sampled_from([None, 4])),
        retry=draw(st.booleans()),
        at=draw(st.integers(0, 12)) / 4,
    )


class Play:
    """Runs a case, and notes what begins."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.begun: list[int] = []
        self.at_work = 0
        fails_at = int(case.at * 4) if case.stop == "source" else None
        self.jobs = Jobs(case.kind, fails_at=fails_at, every=case.every)
        self.executor = TaskExecutor(case.max_workers)

    async def work(self, job: int) -> int:
        """Do a job; given back by a real one, cancelled at the first checkpoint."""
        self.begun.append(job)
        self.at_work += 1
        assert self.at_work <= (self.case.limit or math.inf)
        try:
            await anyio.sleep(self.case.seconds)
            if self.case.stop == "item" and job == int(self.case.at):
                raise OSError(job)
            return job
        finally:
            self.at_work -= 1

    def report(self, done: int, _total: int | None) -> None:
        """Fail when so many are done."""
        if self.case.stop == "progress" and done > int(self.case.at):
            raise OSError(done)

    async def call(self) -> None:
        """Make the call."""
        case = self.case
        executor, source = self.executor, self.jobs.open()
        options: dict[str, Any] = {
            "limit": case.limit,
            "rate": case.rate,
            "on_progress": self.report,
            "timeout": 0.25 if case.stop == "each" else None,
            "retry": Retry(attempts=2, on=KeyError) if case.retry else None,
        }
        if case.method in {"map", "for_each"}:
            await getattr(executor, case.method)(self.work, source, **options)
            return
        ordered = case.method == "ordered"
        async with executor.stream(self.work, source, ordered=ordered, **options) as results:
            seen = 0
            async for _ in results:
                seen += 1
                if case.stop == "break" and seen > int(case.at):
                    break

    async def occupy(self) -> None:
        """Take slots from the call now and then."""
        for _ in range(4):
            await self.executor.map(anyio.sleep, [0.25, 0.5])

    async def __call__(self) -> None:
        """Run the case, and see that nothing is lost."""
        case = self.case
        failed = False
        async with anyio.create_task_group() as group:
            if case.busy:
                group.start_soon(self.occupy)
                await settle()
            try:
                await self.stopped()
            except TimeoutError:
                assert case.stop in {"each", "deadline"}
            except OSError:
                failed = True
            except ExceptionGroup:  # several items that began together are out of time together
                assert case.stop == "each"
            group.cancel_scope.cancel()
        assert sorted(self.begun + self.jobs.left()) == list(range(ITEMS))
        assert self.jobs.asked_after_error == 0
        assert self.executor.statistics().running == 0
        assert self.executor.statistics().in_use == 0
        assert case.stop in {"item", "source", "progress"} or not failed

    async def stopped(self) -> None:
        """Make the call and stop it."""
        case = self.case
        if case.stop == "scope":
            with anyio.move_on_after(case.at):
                await self.call()
        elif case.stop == "deadline":
            with anyio.fail_after(case.at):
                await self.call()
        elif case.stop == "native" and sniffio.current_async_library() == "asyncio":
            task = asyncio.ensure_future(self.call())
            await anyio.sleep(case.at)
            task.cancel()
            await asyncio.wait([task])
        else:
            await self.call()


@pytest.mark.heavy
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=400, deadline=None)
@given(case=cases())
def test_every_item_is_begun_once_or_still_in_its_source(backend: str, case: Case) -> None:
    """However a call ends, what was taken from its source has begun, and nothing begins twice."""
    run(Play(case), backend=backend)
