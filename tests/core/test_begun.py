"""What is taken from a source is begun: each item exactly once, or it is still in the source."""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio._internal import loops
from mtaio._internal.backend import is_asyncio
from mtaio.core import ExternalPool, Retry, TaskExecutor, _processes, merge
from mtaio.testing import run, settle
from tests.backends import BACKENDS
from tests.core.manual_pool import ManualPool
from tests.core.work import leave_a_mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from pathlib import Path

    from anyio.streams.memory import MemoryObjectReceiveStream

    from mtaio.core import Stream

Kind = Literal["iterator", "generator", "async generator", "class", "stream", "queue", "merge"]
Method = Literal["map", "for_each", "stream", "ordered"]
Stop = Literal[
    "nothing", "scope", "native", "item", "source", "progress", "break", "deadline", "each", "until"
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
        if self.kind == "merge":
            return merge(self.generate(), AsyncJobs(self), self.generate())
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
        if jobs.kind == "queue" and is_asyncio(loops.current_loop()):
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
    batch: int | None
    within: float | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a call; moments are quarters, so that much happens at the same one."""
    method = draw(st.sampled_from(get_args(Method)))
    every: tuple[Stop, ...] = get_args(Stop)
    streams = {"stream", "ordered"}
    stops: list[Stop] = [stop for stop in every if stop != "break" or method in streams]
    batch = draw(st.sampled_from([None, None, 1, 3, 5]))
    return Case(
        kind=draw(st.sampled_from(get_args(Kind))),
        method=method,
        batch=batch,
        within=None if batch is None else draw(st.sampled_from([None, 0, 0.25, 0.6])),
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

    async def work(self, given: Any) -> int:
        """Do a job, or a batch; given back by a real one, cancelled at the first checkpoint."""
        jobs: list[int] = [given] if self.case.batch is None else given
        assert 1 <= len(jobs) <= (self.case.batch or 1)
        self.begun += jobs
        self.at_work += 1
        assert self.at_work <= (self.case.limit or math.inf)
        try:
            await anyio.sleep(self.case.seconds)
            if self.case.stop == "item" and int(self.case.at) in jobs:
                raise OSError(jobs)
            return jobs[0]
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
            "until": self.wait if case.stop == "until" else None,
            "batch": case.batch,
            "within": case.within,
        }
        if case.method in {"map", "for_each"}:
            await getattr(executor, case.method)(self.work, source, **options)
            return
        ordered = case.method == "ordered"
        call: Any = executor.stream
        stream: Stream[int] = call(self.work, source, ordered=ordered, **options)
        async with stream as results:
            seen = 0
            async for _ in results:
                seen += 1
                if case.stop == "break" and seen > int(case.at):
                    break

    async def wait(self) -> None:
        """Wait until no more is to be taken."""
        if self.case.at:
            await anyio.sleep(self.case.at)

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
        left = self.jobs.left()
        assert sorted(self.begun + left) == list(range(ITEMS))
        assert case.stop != "nothing" or not left
        # Several that read one source are not stopped before the call hears of the error.
        assert self.jobs.asked_after_error == 0 or case.kind == "merge"
        assert self.executor.statistics().in_flight == 0
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
        elif case.stop == "native" and is_asyncio(loops.current_loop()):
            task = asyncio.ensure_future(self.call())
            await anyio.sleep(case.at)
            task.cancel()
            await asyncio.wait([task])
        else:
            await self.call()


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_every_item_is_begun_once_or_still_in_its_source(backend: str, case: Case) -> None:
    """However a call ends, what was taken from its source has begun, and nothing begins twice."""
    run(Play(case), backend=backend)


# ---- in pools -----------------------------------------------------------------------------------

Halt = Literal["nothing", "scope", "native", "item", "source", "progress", "break"]


@dataclass(frozen=True)
class PoolCase:
    """One call in a pool, how busy the pool is, and how the call is stopped."""

    kind: Kind
    method: Method
    stop: Halt
    limit: int | None
    max_workers: int | None
    places: int | None
    chunksize: int
    every: float
    rate: float | None
    begins: int
    ends: int
    at: int

    def most(self) -> float:
        """Return how many items may be between the source and their results."""
        in_hand = 2 if self.kind == "merge" else 0  # of three sources, beyond what was asked for
        return min(self.limit or math.inf, self.max_workers or math.inf) + in_hand


@st.composite
def pool_cases(draw: st.DrawFn) -> PoolCase:
    """Draw a call; the pool begins so many calls in a step, and ends so many."""
    method = draw(st.sampled_from(get_args(Method)))
    every: tuple[Halt, ...] = get_args(Halt)
    streams = {"stream", "ordered"}
    stops: list[Halt] = [stop for stop in every if stop != "break" or method in streams]
    return PoolCase(
        kind=draw(st.sampled_from([kind for kind in get_args(Kind) if kind != "merge"])),
        method=method,
        stop=draw(st.sampled_from(stops)),
        limit=draw(st.sampled_from([None, 1, 2, 5])),
        max_workers=draw(st.sampled_from([None, 1, 3])),
        places=draw(st.sampled_from([None, 1, 2])),
        chunksize=draw(st.sampled_from([1, 1, 3])),
        every=draw(st.sampled_from([0, 0.25])),
        rate=draw(st.sampled_from([None, 4])),
        begins=draw(st.integers(0, 3)),
        ends=draw(st.integers(1, 3)),
        at=draw(st.integers(0, ITEMS)),
    )


class HeardPool(ManualPool):
    """One that is heard of when it gets a call."""

    def __init__(self) -> None:
        super().__init__()
        self.came = anyio.Event()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call."""
        self.came.set()
        return super().submit(fn, *args, **kwargs)


class PoolPlay:
    """Runs a case, and is the workers of its pool."""

    def __init__(self, case: PoolCase) -> None:
        self.case = case
        self.begun: list[int] = []
        self.pool = HeardPool()
        fails_at = case.at if case.stop == "source" else None
        self.jobs = Jobs(case.kind, fails_at=fails_at, every=case.every)
        self.executor = TaskExecutor(case.max_workers)
        self.stop: Callable[[], object] = int

    def work(self, job: int) -> int:
        """Do a job, in the pool."""
        self.begun.append(job)
        if self.case.stop == "item" and job == self.case.at:
            raise OSError(job)
        return job

    def report(self, done: int, _total: int | None) -> None:
        """Fail when so many are done."""
        if self.case.stop == "progress" and done > self.case.at:
            raise OSError(done)

    async def call(self) -> None:
        """Make the call."""
        case = self.case
        executor, source = self.executor, self.jobs.open()
        places = case.places
        options: dict[str, Any] = {
            "via": self.pool if places is None else ExternalPool(self.pool, limit=places),
            "limit": case.limit,
            "rate": case.rate,
            "chunksize": case.chunksize,
            "on_progress": self.report,
        }
        if case.method in {"map", "for_each"}:
            await getattr(executor, case.method)(self.work, source, **options)
            return
        call: Any = partial(executor.stream, ordered=case.method == "ordered")
        stream: Stream[int] = call(self.work, source, **options)
        async with stream as results:
            seen = 0
            async for _ in results:
                seen += 1
                if case.stop == "break" and seen > case.at:
                    break

    async def be_workers(self) -> None:
        """Begin and end some of what the pool has, step by step, and stop the call at one."""
        for step in itertools.count():
            await settle()
            if step == self.case.at:
                self.stop()
                await settle()
            calls = [sent for sent in self.pool.sent if not sent.future.done()]
            if not calls:
                self.pool.came = anyio.Event()
                with anyio.move_on_after(0.25):
                    await self.pool.came.wait()
            for sent in calls[: self.case.begins]:
                assert sent.future.running() or sent.begin()
            for sent in calls[: self.case.ends]:
                sent.end()

    async def stopped(self) -> None:
        """Make the call and stop it."""
        if self.case.stop == "scope":
            with anyio.CancelScope() as scope:
                self.stop = scope.cancel
                await self.call()
        elif self.case.stop == "native" and is_asyncio(loops.current_loop()):
            task = asyncio.ensure_future(self.call())
            self.stop = task.cancel
            await asyncio.wait([task])
        else:
            await self.call()

    async def __call__(self) -> None:
        """Run the case, and see that nothing is lost."""
        case = self.case
        async with anyio.create_task_group() as group:
            group.start_soon(self.be_workers)
            try:
                await self.stopped()
            except OSError:
                assert case.stop in {"item", "source", "progress"}
            group.cancel_scope.cancel()
        sent, begun, left = len(self.pool.sent), len(self.begun), self.jobs.left()
        running = sum(each.future.running() for each in self.pool.sent)
        self.pool.end_all()
        await settle()
        assert len(self.pool.sent) == sent
        if case.places is None:  # what the pool had not begun is cancelled
            assert len(self.begun) <= begun + running * case.chunksize
        waited = {*range(ITEMS - len(left))} - {*self.begun}
        assert sorted([*self.begun, *waited, *left]) == [*range(ITEMS)]
        assert len(waited) <= (0 if case.stop == "nothing" else case.most())
        assert not left or case.stop != "nothing"
        assert self.jobs.asked_after_error == 0 or case.kind == "merge"  # as above
        assert self.executor.statistics().in_flight == self.executor.statistics().in_use == 0


@pytest.mark.heavy
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=150, deadline=None)
@given(case=pool_cases())
def test_every_item_of_a_pool_begins_once_or_waited_or_is_in_its_source(
    backend: str, case: PoolCase
) -> None:
    """However a call ends, its pool gets nothing more, and only what waited for it is dropped."""
    run(PoolPlay(case), backend=backend)


class CountedThreads(ThreadPoolExecutor):
    """Threads that count the calls they get."""

    def __init__(self) -> None:
        super().__init__(2)
        self.sent = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call."""
        self.sent += 1
        return super().submit(fn, *args, **kwargs)


async def until_three(
    method: Method, stop: Halt, work: Callable[[int], int], source: Iterator[int], **options: Any
) -> None:
    """Make a call that is stopped by its third item, in one way or another."""
    executor = TaskExecutor()
    with anyio.CancelScope() as scope:

        def report(done: int, _: int | None) -> None:
            if stop == "scope" and done == 3:
                scope.cancel()

        options |= {"on_progress": report, "limit": 3}
        if method in {"map", "for_each"}:
            await getattr(executor, method)(work, source, **options)
            return
        call: Any = partial(executor.stream, ordered=method == "ordered")
        async with call(work, source, **options) as results:
            async for result in results:
                if stop == "break" and result >= 2:
                    break


STOPPED = [
    *[(method, stop) for method in get_args(Method) for stop in ("nothing", "scope", "item")],
    *[(method, "break") for method in ("stream", "ordered")],
]


@pytest.mark.parametrize(("method", "stop"), STOPPED)
async def test_every_item_of_threads(method: Method, stop: Halt) -> None:
    """Threads get nothing more once the call has ended, and drop only what waited for them."""
    begun: list[int] = []

    def work(job: int) -> int:
        begun.append(job)
        if stop == "item" and job == 2:
            raise OSError(job)
        return job

    source = iter(range(ITEMS))
    with CountedThreads() as pool:
        try:
            await until_three(method, stop, work, source, via=pool)
        except OSError:
            assert stop == "item"
        sent = pool.sent
    left = [*source]
    await settle()
    assert pool.sent == sent
    waited = {*range(ITEMS - len(left))} - {*begun}
    assert sorted([*begun, *waited, *left]) == [*range(ITEMS)]
    assert len(waited) <= (0 if stop == "nothing" else 3)
    assert not left or stop != "nothing"


def marks(folder: Path) -> list[int]:
    """Return the numbers of the calls that were made, each as often as it was."""
    return [int(mark.name.partition(" ")[0]) for mark in folder.iterdir()]


@pytest.mark.parametrize(
    ("method", "stop"),
    [("map", "nothing"), ("for_each", "scope"), ("map", "item"), ("stream", "break")],
)
async def test_every_item_of_processes(
    method: Method, stop: Halt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process begins no item twice, and one that is killed had one item at most."""
    monkeypatch.setattr(_processes, "_END_SECONDS", 60)  # as it ends, it writes its coverage
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    source = iter(range(ITEMS))
    bad = 2 if stop == "item" else None
    try:
        work = partial(leave_a_mark, str(tmp_path), bad)
        await until_three(method, stop, work, source, via="processes")
    except LookupError:
        assert stop == "item"
    begun = marks(tmp_path)
    left = [*source]
    waited = {*range(ITEMS - len(left))} - {*begun}
    assert sorted([*begun, *waited, *left]) == [*range(ITEMS)]
    assert len(waited) <= (0 if stop == "nothing" else 3)
    assert not left or stop != "nothing"


# ---- one by one ---------------------------------------------------------------------------------


async def test_item_that_waits_for_a_token_is_begun() -> None:
    """Cancelled as they wait for their tokens, items are called, once, retries or not."""
    for retry in (None, 3):
        called: list[int] = []

        async def work(job: int, called: list[int] = called) -> None:
            called.append(job)
            await anyio.sleep(1)

        source = iter(range(100))
        with anyio.move_on_after(0.3):
            await TaskExecutor(3).for_each(work, source, rate=4, retry=retry)
        assert sorted(called) == list(range(next(source)))


async def test_plain_function_that_waits_for_a_token_is_not_called() -> None:
    """A plain function would do all its work."""
    called: list[int] = []
    with anyio.move_on_after(0.1):
        await TaskExecutor(3).for_each(called.append, range(100), rate=4)
    assert called == [0]


async def test_call_of_a_race_that_waits_for_a_token_is_not_begun() -> None:
    """What was passed in, and not taken from a source, is closed instead."""
    called: list[int] = []

    async def call(number: int) -> int:
        called.append(number)
        await anyio.sleep(0.1)
        return number

    assert await TaskExecutor().race(call(0), call(1), rate=1) == 0
    assert called == [0]


class Stubborn:
    """A source that gives its next job even if it is cancelled as it waits for it."""

    def __init__(self) -> None:
        self.given = 0

    def __aiter__(self) -> Stubborn:
        return self

    async def __anext__(self) -> int:
        try:
            await anyio.sleep(1)
        except anyio.get_cancelled_exc_class():
            pass
        self.given += 1
        return self.given - 1


@pytest.mark.parametrize("max_workers", [None, 2])
async def test_job_that_comes_in_spite_of_the_cancellation_is_begun(
    max_workers: int | None,
) -> None:
    """An item that no worker is left for is begun all the same, and may clean up."""
    begun: list[int] = []
    back: list[int] = []

    async def work(job: int) -> None:
        begun.append(job)
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            back.append(job)

    source = Stubborn()
    executor = TaskExecutor(max_workers)
    with anyio.move_on_after(1.5):
        await executor.for_each(work, source)
    assert begun == back == list(range(source.given))
    assert anyio.current_time() == 3.5
    assert executor.statistics().cancelled == 2
    assert executor.statistics().in_use == 0


async def test_error_of_what_is_begun_late_comes_out() -> None:
    """What such an item raises instead of its cancellation is raised."""

    async def work(job: int) -> None:
        try:
            await anyio.sleep(10)
        finally:
            raise LookupError(job)

    with anyio.move_on_after(0.5), pytest.raises(LookupError):
        await TaskExecutor().for_each(work, Stubborn())

    async def interrupted(_: int) -> None:
        try:
            await anyio.sleep(10)
        finally:
            raise KeyboardInterrupt

    with anyio.move_on_after(0.5), pytest.raises(KeyboardInterrupt):
        await TaskExecutor().for_each(interrupted, Stubborn())


async def test_item_waits_while_the_slots_are_taken() -> None:
    """Nothing is read while other calls have all slots."""
    executor = TaskExecutor(2)
    read: list[float] = []

    async def source() -> AsyncIterator[int]:
        for number in range(2):
            read.append(anyio.current_time())
            yield number

    async with anyio.create_task_group() as group:
        group.start_soon(executor.map, anyio.sleep, [3, 3])
        await settle()
        await executor.for_each(anyio.sleep, source())
    assert read == [3, 3]


async def test_no_slot_is_kept_while_the_source_waits() -> None:
    """A call that waits for its source lets others use the slots, also those it had in hand."""
    executor = TaskExecutor(2)
    send, receive = anyio.create_memory_object_stream[float](9)
    async with receive, anyio.create_task_group() as group:
        group.start_soon(executor.for_each, anyio.sleep, receive)
        await settle()
        assert executor.statistics().in_use == 0
        await executor.map(anyio.sleep, [1, 1])
        for _ in range(2):
            send.send_nowait(1)
        await settle()
        assert executor.statistics().in_use == 2
        await anyio.sleep(1.5)
        assert executor.statistics().in_use == 0
        send.close()
    assert anyio.current_time() == 2.5


async def test_nothing_is_read_while_results_have_no_space() -> None:
    """Workers that wait for a source count the results that nobody has taken."""
    send, receive = anyio.create_memory_object_stream[int](9)

    async def work(job: int) -> int:
        await anyio.sleep(1)
        return job

    stream = TaskExecutor(3).stream(work, receive, limit=3, max_pending=0)
    async with send, receive, stream as results:
        for job in range(2):
            send.send_nowait(job)
        await anyio.sleep(2)  # both are done, and two workers wait for more
        for job in range(2, 6):
            send.send_nowait(job)
        await anyio.sleep(2)
        assert receive.statistics().current_buffer_used == 3
        send.close()
        assert sorted([result async for result in results]) == list(range(6))


async def test_item_that_came_when_the_slots_were_taken() -> None:
    """If other calls took the slots while the source waited, one item waits for one, and begins."""
    executor = TaskExecutor(1)
    begun: list[int] = []

    async def work(job: int) -> None:
        begun.append(job)
        await anyio.sleep(1)

    send, receive = anyio.create_memory_object_stream[int](9)
    with receive, send, anyio.move_on_after(2):
        async with anyio.create_task_group() as group:
            group.start_soon(executor.for_each, work, receive)
            await settle()
            group.start_soon(executor.run, anyio.sleep, 5)
            await settle()
            for job in range(3):
                send.send_nowait(job)
            await anyio.sleep(1)
            assert begun == []
            assert receive.statistics().current_buffer_used == 2
    assert begun == [0]
    assert executor.statistics().in_use == 0


async def test_nothing_is_taken_after_an_error() -> None:
    """A source that goes on after its error is not asked again, and the error comes alone."""
    jobs = Jobs("iterator", fails_at=3, every=0)
    ran: list[int] = []

    async def work(job: int) -> None:
        await anyio.sleep(job / 4)
        ran.append(job)

    with pytest.raises(OSError, match=r"^the source broke$"):
        await TaskExecutor(3).for_each(work, jobs, errors="collect")
    assert (jobs.given, jobs.asked_after_error) == (3, 0)


async def test_progress_that_fails_is_not_called_again() -> None:
    """Items that end together with the one whose report failed report nothing."""
    calls: list[int] = []

    def report(done: int, _total: int | None) -> None:
        calls.append(done)
        raise LookupError

    with pytest.raises(LookupError):
        await TaskExecutor(3).for_each(anyio.sleep, [1] * 9, on_progress=report)
    assert calls == [1]


async def test_silent_ends_are_errors() -> None:
    """An item that raises what ends a loop does not end the stream as if it were complete."""

    async def first(number: int) -> int:
        await anyio.lowlevel.checkpoint()
        if number == 3:
            raise StopAsyncIteration
        return number

    async def consume() -> None:
        async with TaskExecutor(2).stream(first, range(100)) as stream:
            results.extend([result async for result in stream])

    results: list[int] = []
    with pytest.raises(RuntimeError, match=r"^an item, or the source, of this stream rai") as info:
        await consume()
    assert isinstance(info.value.__cause__, StopAsyncIteration)
    assert info.value.__notes__[0].startswith("in item 3: ")
    assert results == []
    with pytest.raises(StopAsyncIteration):
        await TaskExecutor(2).map(first, range(100))


async def test_generator_exit_of_an_item_is_an_error() -> None:
    """Only the event loop raises it to throw a task away."""

    async def leave(_: int) -> None:
        raise GeneratorExit

    def source() -> Iterator[int]:
        yield from ()
        raise GeneratorExit

    with pytest.raises(RuntimeError, match=r"leave raised GeneratorExit, which would end"):
        await TaskExecutor(2).map(leave, [1])
    with pytest.raises(RuntimeError, match=r"^the source raised GeneratorExit, which would end"):
        await TaskExecutor(2).map(leave, source())


@pytest.mark.parametrize("max_workers", [None, 1])
async def test_source_of_any_awaitable(max_workers: int | None) -> None:
    """``__anext__`` may return anything that can be awaited."""

    class Waits:
        def __init__(self, left: int) -> None:
            self._left = left

        def __await__(self) -> Generator[Any, Any, int]:
            yield from anyio.sleep(1).__await__()
            if not self._left:
                raise StopAsyncIteration
            return self._left

    class Source:
        left = 3

        def __aiter__(self) -> Source:
            return self

        def __anext__(self) -> Waits:
            self.left -= 1
            return Waits(self.left)

    async def same(x: int) -> int:
        return x

    assert await TaskExecutor(max_workers).map(same, Source()) == [2, 1]
