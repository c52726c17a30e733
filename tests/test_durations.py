"""
How long things take: what is recorded where ``record_durations()`` was called, and what is not.

Each object that records has its place in one of the tables here. What a monitor makes of the
histograms is in tests/monitoring.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal.durations import timed
from mtaio._internal.histogram import Histogram
from mtaio.cache import TTLCache
from mtaio.clients import ServerBuckets
from mtaio.core import TaskExecutor, TaskStatus
from mtaio.core._slots import Slots
from mtaio.events import Event, EventEmitter
from mtaio.logging import AsyncFileHandler
from mtaio.logging._queue import RecordQueue
from mtaio.resilience import AdaptiveLimiter, Fallback, Keyed, Pipeline, Retry, Timeout
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedConcurrencyLimiter,
    KeyedQuota,
    KeyedRateLimiter,
    Quota,
    RateLimiter,
    ResourceLimiter,
)
from mtaio.statistics import HistogramStatistics
from mtaio.testing import run, settle
from tests.closed_loops import leave_waiting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
    from pathlib import Path


def recorded(statistics: Any) -> dict[str, tuple[int, float]]:
    """Return how many values each histogram has, and their sum; of parts too."""
    found: dict[str, tuple[int, float]] = {}
    for field in fields(statistics):
        value = getattr(statistics, field.name)
        if isinstance(value, HistogramStatistics):
            found[field.name] = value.count, round(value.sum, 9)
        elif is_dataclass(value):
            found |= recorded(value)
        elif field.name == "parts":
            for part in value.values():
                found |= recorded(part)
    return found


# ---- waits ---------------------------------------------------------------------------------------


async def _hold(limiter: Any, *keys: str) -> None:
    await limiter.acquire(*keys)
    await anyio.sleep(1)
    limiter.release(*keys)


async def _enter(limiter: Any, *_: str) -> None:
    async with limiter:
        await anyio.sleep(1)


async def _acquire(limiter: Any, *keys: str) -> None:
    await limiter.acquire(*keys)


async def _take(quota: Any, *keys: str) -> None:
    async with quota.take(*keys):
        pass


async def _call(part: Any, *_: str) -> None:
    await part.run(anyio.sleep, 1)


async def _call_with_key(part: Any, key: str) -> None:
    await part.run(anyio.sleep, 1, key=key)


WAITING: dict[
    str, tuple[Callable[[], Any], Callable[..., Coroutine[Any, Any, None]], tuple[str, ...]]
] = {
    "slots": (lambda: ConcurrencyLimiter(1), _hold, ()),
    "slots of a key": (lambda: KeyedConcurrencyLimiter(1), _hold, ("key",)),
    "tokens": (lambda: RateLimiter(1), _acquire, ()),
    "tokens of a key": (lambda: KeyedRateLimiter(1), _acquire, ("key",)),
    "quota": (lambda: Quota(requests=1, per=1), _take, ()),
    "quota of a key": (lambda: KeyedQuota(requests=1, per=1), _take, ("key",)),
    "resource": (lambda: ResourceLimiter(concurrency=1), _enter, ()),
    "resource with a rate": (lambda: ResourceLimiter(rate=1), _enter, ()),
    "adaptive": (lambda: AdaptiveLimiter(initial=1, max_waiting=9), _call, ()),
    "executor": (lambda: TaskExecutor(1), _call, ()),
    "pipeline": (lambda: Pipeline(ConcurrencyLimiter(1)), _call, ()),
    "pipeline with a quota": (lambda: Pipeline([1]), _call, ()),
    "keyed": (lambda: Keyed(lambda _: ConcurrencyLimiter(1)), _call_with_key, ("key",)),
}


@pytest.mark.parametrize("name", WAITING)
async def test_a_wait_is_recorded_once(name: str) -> None:
    """That of the second of two who want the same; nothing before anybody asks for it."""
    make, use, keys = WAITING[name]
    limiter = make()

    async def two_at_once() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(use, limiter, *keys)
            group.start_soon(use, limiter, *keys)
        await anyio.sleep(10)

    await two_at_once()
    assert recorded(limiter.statistics()) == {}
    limiter.record_durations()
    assert recorded(limiter.statistics())["wait_duration"] == (0, 0)
    await two_at_once()
    limiter.record_durations()  # which changes nothing
    assert recorded(limiter.statistics())["wait_duration"] == (1, 1)


async def test_a_foreign_limiter_need_not_record() -> None:
    """A pipeline, and a resource limiter, ask only those parts that have the method."""

    class Foreign:
        rate = 1.0

        async def acquire(self) -> None: ...

    for limiter in (Pipeline(Foreign()), ResourceLimiter(rate=Foreign())):
        limiter.record_durations()
        assert "wait_duration" not in recorded(limiter.statistics())


async def test_two_objects_record_for_themselves() -> None:
    """What one records shows nowhere else."""
    one, other = ConcurrencyLimiter(1), ConcurrencyLimiter(1)
    one.record_durations()
    assert other.statistics().wait_duration is None


def test_one_loop_after_another(backend: str) -> None:
    """A histogram goes on in the next event loop, whose clock says something else."""
    executor = TaskExecutor(1)
    executor.record_durations()
    for _ in range(2):
        run(executor.map, partial(anyio.sleep), [1, 2], backend=backend)
    assert recorded(executor.statistics())["run_duration"] == (4, 6)


# ---- what runs -----------------------------------------------------------------------------------


async def work(seconds: float) -> None:
    """Take so long; fail after 2 seconds."""
    await anyio.sleep(seconds)
    if seconds == 2:
        raise ValueError(seconds)


async def _map(executor: TaskExecutor, seconds: list[float]) -> None:
    await executor.map(work, seconds, errors="return")


async def _run_each(executor: TaskExecutor, seconds: list[float]) -> None:
    for each in seconds:
        with suppress(ValueError, TimeoutError):
            await executor.run(work, each)


async def _submit(executor: TaskExecutor, seconds: list[float]) -> None:
    async with executor:
        handles = [await executor.submit(work, each) for each in seconds]
        for handle in handles:
            await handle.wait()
            assert handle.exception is None or handle.status is TaskStatus.FAILED


async def _as_completed(executor: TaskExecutor, seconds: list[float]) -> None:
    async with executor.as_completed(*[partial(work, each) for each in seconds]) as outcomes:
        async for _ in outcomes:
            pass


@pytest.mark.parametrize("way", [_map, _run_each, _submit, _as_completed])
async def test_each_end_of_an_item_is_recorded(way: Any) -> None:
    """A result after 1 s, an error after 2, the timeout after 3."""
    executor = TaskExecutor(9, timeout=3)
    executor.record_durations()
    await way(executor, [1, 2, 10])
    assert recorded(executor.statistics())["run_duration"] == (3, 6)


@pytest.mark.parametrize("way", [_map, _run_each, _as_completed])
async def test_a_cancelled_item_is_recorded(way: Any) -> None:
    """The time until then was spent; one that had not begun took none."""
    executor = TaskExecutor(1)
    executor.record_durations()
    with anyio.move_on_after(5):
        await way(executor, [10, 10])
    assert recorded(executor.statistics())["run_duration"] == (1, 5)


async def test_an_item_counts_if_it_began_after() -> None:
    """Recording starts in the middle of a call, and with the next item of that."""
    executor = TaskExecutor(1)

    async def item(number: int) -> None:
        await anyio.sleep(1)
        if number == 1:
            executor.record_durations()

    await executor.map(item, range(5))
    assert recorded(executor.statistics())["run_duration"] == (3, 3)


async def _awaited() -> None:
    await anyio.sleep(1)


def plain(number: int) -> object:
    """Return, raise, or return something to await."""
    if number == 3:
        raise ValueError(number)
    return _awaited() if number == 5 else number


async def test_items_in_threads_are_recorded() -> None:
    """Each that a thread takes, and those that it leaves to the event loop."""
    executor = TaskExecutor(threads=3)
    executor.record_durations()
    with pytest.warns(RuntimeWarning, match="^plain is a plain function"):
        await executor.map(plain, range(100), errors="return")
    took = executor.statistics().run_duration
    assert took is not None
    assert took.count == 100
    assert took.sum >= 1


class Suspended:
    """Is awaited for ever, also where no event loop runs."""

    def __await__(self) -> Generator[None]:
        yield


def test_what_a_finished_loop_left_is_not_recorded() -> None:
    """Its coroutines are closed at any time, by a clock that is not theirs."""
    durations = Histogram()
    call = timed(durations, Suspended)
    call.send(None)
    call.close()
    assert durations.snapshot().count == 0
    slots = Slots(1, "slots")

    async def wait() -> None:
        slots.acquire_nowait(None)
        await slots.acquire(None)

    waiting = wait()
    leave_waiting(waiting, lambda: slots.waits)
    waiting.close()
    assert slots.wait_times.wait_seconds == 0


# ---- loads ---------------------------------------------------------------------------------------


async def test_loads_that_end_are_recorded() -> None:
    """With a value or an error, each key of several by itself; not if they are cancelled."""
    cache = TTLCache[Any](60)
    cache.record_durations()
    cache.record_durations()
    await cache.get_or_set(1, partial(work, 1))
    with suppress(ValueError):
        await cache.get_or_set(2, partial(work, 2))
    with anyio.move_on_after(1):
        await cache.get_or_set(3, partial(work, 10))

    async def several(keys: Any) -> dict[int, int]:
        await anyio.sleep(1)
        return {key: 0 for key in keys if key != 7}

    await cache.get_or_set_many([5, 6, 7], several)
    assert recorded(cache.statistics())["load_duration"] == (5, 6)
    assert cache.statistics().load_seconds == 6


# ---- handlers ------------------------------------------------------------------------------------


async def test_handlers_are_recorded() -> None:
    """Async ones, plain ones, and what those return to be awaited; however they end."""
    emitter = EventEmitter(errors="log")

    @emitter.on("before")
    async def _(event: Event[float]) -> None:
        await work(event.data)

    await emitter.emit("before", 1)
    emitter.record_durations()

    @emitter.on("after")
    def _(event: Event[float]) -> Awaitable[None] | None:
        if event.data == 2:
            raise ValueError
        return None if event.data == 3 else anyio.sleep(event.data)

    for name in ("before", "after"):
        for seconds in (1, 2, 3):
            await emitter.emit(name, seconds)
    emitter.record_durations()
    assert recorded(emitter.statistics())["handler_duration"] == (6, 6 + 1)
    with anyio.move_on_after(5):
        await emitter.emit("before", 10)
    assert recorded(emitter.statistics())["handler_duration"] == (7, 12)


async def test_each_handler_of_an_event_is_recorded() -> None:
    """Of several that run at once, and of one that runs once; streams and waiters are none."""
    emitter = EventEmitter()
    emitter.record_durations()
    for _ in range(2):
        emitter.on("event", lambda _: anyio.sleep(1))
        emitter.on("event", _sleep)
    emitter.once("event", _sleep)

    async def wait() -> None:
        await emitter.wait_for("event")

    async with emitter.stream("event", "alone"), anyio.create_task_group() as group:
        group.start_soon(wait)
        await settle()
        await emitter.emit("event")
        await emitter.emit("alone")
    assert recorded(emitter.statistics())["handler_duration"] == (5, 5)


async def _sleep(_: object) -> None:
    await anyio.sleep(1)


# ---- calls ---------------------------------------------------------------------------------------


class Source:
    """Fails for the first two times, after a second each, and then takes so long."""

    def __init__(self) -> None:
        self.calls = 0

    async def fetch(self, seconds: float) -> float:
        """Do so."""
        self.calls += 1
        await anyio.sleep(1 if self.calls < 3 else seconds)
        if self.calls < 3:
            raise ValueError
        return seconds

    async def items(self, seconds: float) -> AsyncGenerator[float]:
        """Give two items."""
        yield await self.fetch(seconds)
        await anyio.sleep(1)
        yield seconds


async def _through(api: Pipeline, source: Source) -> None:
    await api.run(source.fetch, 3, key="key")


async def _decorated(api: Pipeline, source: Source) -> None:
    await api(source.fetch)(3)


async def _streamed(api: Pipeline, source: Source) -> None:
    async with api.stream(source.items, 2, key="key") as items:
        assert [each async for each in items] == [2, 2]


@pytest.mark.parametrize("way", [_through, _decorated, _streamed])
@pytest.mark.parametrize("parts", [(), (Timeout(60),)], ids=["direct", "parts"])
async def test_calls_and_attempts_are_recorded(way: Any, parts: Any) -> None:
    """A call that takes three attempts, with 2 s between them; of a stream to its end."""
    api = Pipeline(Retry(3, wait_initial=2, jitter=0, wait_max=2), *parts)
    for _ in range(2):
        await way(api, Source())
        api.record_durations()
    attempts = 5 if way is not _streamed else 4
    assert recorded(api.statistics()) == {
        "call_duration": (1, 5 + 4),
        "attempt_duration": (3, attempts),
    }


async def test_decorated_functions_are_recorded_from_then_on() -> None:
    """Also those that were decorated when nothing was recorded yet."""
    api = Pipeline(Retry(3))
    nap = api(anyio.sleep)
    await nap(1)
    api.record_durations()
    await nap(2)
    assert recorded(api.statistics()) == {"call_duration": (1, 2), "attempt_duration": (1, 2)}
    assert api.statistics().succeeded == 2


@pytest.mark.parametrize("way", [_through, _decorated, _streamed])
async def test_calls_that_fail_or_are_cancelled_are_recorded(way: Any) -> None:
    """So are attempts, by a timeout for example."""
    api = Pipeline(Fallback(lambda _: None, on=KeyError), Timeout(0.5))
    api.record_durations()
    with pytest.raises(TimeoutError):
        await way(api, Source())
    with anyio.move_on_after(0.25):
        await way(api, Source())
    assert recorded(api.statistics()) == {
        "call_duration": (2, 0.75),
        "attempt_duration": (2, 0.75),
    }


async def test_limits_by_key_record_for_keys_to_come() -> None:
    """The part of a key that is made later records like those that were there."""
    api = Pipeline(Keyed(lambda _: ConcurrencyLimiter(1)))
    await api.run(anyio.sleep, 1, key="old")
    api.record_durations()
    async with anyio.create_task_group() as group:
        for key in ("old", "new") * 2:
            group.start_soon(partial(api.run, anyio.sleep, 1, key=key))
    assert recorded(api.statistics())["wait_duration"] == (2, 2)


async def test_buckets_of_a_server_record_waits() -> None:
    """As the limiters do; each request waits, if only for its turn."""
    buckets = ServerBuckets()
    buckets.record_durations()
    async with buckets.take("route"):
        pass
    assert recorded(buckets.statistics())["wait_duration"] == (1, 0)


# ---- the log -------------------------------------------------------------------------------------


def test_the_time_in_the_log_queue_is_recorded(tmp_path: Path) -> None:
    """Of a record that finds the queue empty, in any case."""
    handler = AsyncFileHandler(tmp_path / "log")
    assert recorded(handler.statistics()) == {}
    handler.record_durations()
    handler.record_durations()
    try:
        for number in range(3):
            handler.handle(logging.makeLogRecord({"msg": str(number)}))
            handler.flush()
    finally:
        handler.close()
    took = handler.statistics().queue_duration
    assert took is not None
    assert took.count == 3
    assert 0 <= took.sum <= 3 * handler.statistics().max_queue_seconds


def test_every_measured_record_of_a_batch_is_recorded() -> None:
    """And in a process that a fork has made, only what is queued there."""
    queue = RecordQueue(size=None, keep_room=0, keep_level=0, blocks=False)
    queue.durations = Histogram()
    moment = time.monotonic()
    for item in ((moment, b"1"), b"2", (moment - 10, b"3")):
        queue.items.put(item)
    queue.take(wait=False)
    queue.batch_done()
    took = queue.durations.snapshot()
    assert took.count == 2
    assert took.sum >= 10
    queue.clear()
    assert queue.durations.snapshot().count == 0
