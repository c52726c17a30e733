"""TaskExecutor.statistics: right at every moment."""

from __future__ import annotations

import dataclasses
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.core import TaskExecutor
from mtaio.statistics import ExecutorStatistics
from mtaio.testing import settle
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from anyio.abc import TaskStatus as Readiness


async def fail() -> None:
    """Raise an error after a second."""
    await anyio.sleep(1)
    raise ValueError("mine")


def figures(statistics: ExecutorStatistics) -> list[float]:
    """Return all that is counted, without what is not recorded."""
    return [each for each in dataclasses.astuple(statistics) if each is not None]


def check(statistics: ExecutorStatistics) -> None:
    """Check what must hold at every moment."""
    ended = statistics.succeeded + statistics.failed + statistics.cancelled
    assert statistics.started == statistics.in_flight + ended
    assert statistics.timed_out <= statistics.failed + statistics.retried
    assert 0 <= statistics.in_flight <= statistics.peak
    assert min(figures(statistics)[1:]) >= 0


async def test_new_executor_has_done_nothing() -> None:
    """Every figure is 0, and the limit is told; frozen, so that it can be kept."""
    statistics = TaskExecutor(3).statistics()
    assert statistics.max_workers == 3
    assert set(figures(statistics)[1:]) == {0}
    assert TaskExecutor().statistics().max_workers is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        statistics.in_flight = 1  # type: ignore[misc] # the test's point


async def test_items_are_counted_by_how_they_end() -> None:
    """Succeeded, failed, timed out among the failed, cancelled."""
    executor = TaskExecutor(9)
    await executor.run(anyio.sleep, 1)
    for call in (fail, anyio.sleep_forever):
        with pytest.raises((ValueError, TimeoutError)):
            await executor.run(call, timeout=2)
    with anyio.move_on_after(1):
        await executor.run(anyio.sleep_forever)
    statistics = executor.statistics()
    check(statistics)
    assert (statistics.started, statistics.succeeded, statistics.failed) == (4, 1, 2)
    assert (statistics.timed_out, statistics.cancelled) == (1, 1)
    assert (statistics.in_flight, statistics.peak) == (0, 1)


async def test_running_waiting_and_the_time_spent_on_it() -> None:
    """Two of five run, three wait; their waits add up in number and seconds."""
    executor = TaskExecutor(2)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(executor.run, anyio.sleep, 2)
        await anyio.sleep(1)
        statistics = executor.statistics()
        assert (statistics.in_flight, statistics.waiting, statistics.peak) == (2, 3, 2)
        assert (statistics.waits, statistics.wait_seconds, statistics.max_wait_seconds) == (3, 0, 0)
    statistics = executor.statistics()
    assert (statistics.in_flight, statistics.waiting, statistics.peak) == (0, 0, 2)
    assert (statistics.waits, statistics.wait_seconds) == (3, 2 + 2 + 4)
    assert statistics.max_wait_seconds == 4


async def test_wait_that_is_given_up_counts() -> None:
    """The seconds were spent, for nothing."""
    executor = TaskExecutor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run, anyio.sleep, 5)
        await settle()
        with anyio.move_on_after(3):
            await executor.run(anyio.sleep, 1)
    statistics = executor.statistics()
    assert (statistics.waits, statistics.wait_seconds) == (1, 3)
    assert statistics.started == 1


async def test_running_counts_items_that_wait_for_nested_calls() -> None:
    """``running`` are the items in progress; those that are lent a slot come on top."""
    executor = TaskExecutor(1)

    async def inner() -> int:
        return executor.statistics().in_flight

    async def outer() -> int:
        return await executor.run(inner)

    assert await executor.run(outer) == 2
    assert executor.statistics().peak == 2


@pytest.mark.parametrize("way", ["run", "for_each"])
async def test_peak_of_calls_side_by_side(way: str) -> None:
    """The peak counts all calls, also when none of them has more items at once than before."""
    executor = TaskExecutor()

    async def source() -> AsyncGenerator[float]:
        for x in (1, 1):
            yield x
        await anyio.sleep(2)
        for x in (1, 1):
            yield x

    async def other() -> None:
        await anyio.sleep(1.5)
        if way == "run":
            await executor.run(anyio.sleep, 3)
        else:
            await executor.for_each(anyio.sleep, [3])

    async with anyio.create_task_group() as group:
        group.start_soon(executor.for_each, anyio.sleep, source())
        group.start_soon(other)
        await anyio.sleep(1.75)
        assert executor.statistics().peak == 2
    assert executor.statistics().peak == 3


async def test_submitted_tasks_and_services_are_told_apart() -> None:
    """Tasks that have not ended, pending or running; services that run."""
    executor = TaskExecutor(1, max_pending=9)

    async def service(*, task_status: Readiness[None]) -> None:
        task_status.started()
        await anyio.sleep(9)

    async with executor:
        await executor.start(service)
        for _ in range(3):
            await executor.submit(anyio.sleep, 1)
        await settle()
        statistics = executor.statistics()
        assert (statistics.submitted, statistics.services) == (3, 1)
        assert (statistics.in_flight, statistics.waiting) == (1, 2)
        await executor.drain()
        assert executor.statistics().submitted == 0
        await anyio.sleep(7)
        assert executor.statistics().services == 0
    check(executor.statistics())
    assert executor.statistics().succeeded == 3


async def test_consistent_at_every_moment() -> None:
    """Looked at after every event of a mixed lot of work, the figures add up."""
    executor = TaskExecutor(2, max_pending=3, timeout=3)
    seen: list[ExecutorStatistics] = []

    def look() -> None:
        seen.append(executor.statistics())
        check(seen[-1])

    async def item(number: int) -> int:
        look()
        await anyio.sleep(1 + number / 8)
        look()
        if number % 4 == 1:
            raise ValueError(number)
        if number % 4 == 2:
            await anyio.sleep(9)
        if number % 4 == 3:
            await executor.run(anyio.sleep, 1 / 4)
        look()
        return number

    async with executor, anyio.create_task_group() as group:

        async def watch() -> None:
            while True:
                look()
                await anyio.sleep(1 / 16)

        group.start_soon(watch)
        handles = [await executor.submit(item, number) for number in range(8)]
        await executor.map(item, range(8), errors="return", on_progress=lambda *_: look())
        handles[-1].cancel()
        for handle in handles:
            await handle.wait()
            look()
        with anyio.move_on_after(1 / 2):
            await executor.gather(item(0), item(4), item(8))
        look()
        group.cancel_scope.cancel()
        assert [number for number, handle in enumerate(handles) if handle.exception] == [
            1,
            2,
            5,
            6,
        ]
    look()
    assert seen[-1].in_flight == 0
    assert len(seen) > 100
    totals = [(each.started, each.succeeded + each.failed + each.cancelled) for each in seen]
    assert totals == sorted(totals), "totals only grow"


@pytest.fixture
def eager_threads() -> Generator[None]:
    """Let threads switch after every few steps."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("eager_threads")
def test_read_from_another_thread_under_load(backend: str) -> None:
    """A thread that reads all the time, as a monitor may, gets figures that fit together."""
    executor = TaskExecutor(4, max_pending=4)
    snapshots: list[ExecutorStatistics] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            snapshots.append(executor.statistics())

    async def item(number: int) -> None:
        await checkpoint()
        if number % 5 == 0:
            raise ValueError(number)

    async def main() -> None:
        async with executor:
            for _ in range(40):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(partial(executor.map, item, range(5), errors="return"))
                    handle = await executor.submit(item, 1)
                    await executor.run(item, 2)
                    await handle

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        anyio.run(main, backend=backend)
    finally:
        over.set()
        thread.join()
    assert snapshots
    for snapshot in snapshots:
        check(snapshot)
        assert snapshot.in_use <= 4
    totals = [(each.started, each.succeeded, each.failed, each.waits) for each in snapshots]
    assert totals == sorted(totals)
    last = executor.statistics()
    assert (last.started, last.failed, last.in_flight) == (40 * 27, 40 * 5, 0)


def test_every_field_says_what_kind_of_number_it_is() -> None:
    """A monitor can export them without knowing the class."""
    kinds = {field.name: field.metadata["kind"] for field in dataclasses.fields(ExecutorStatistics)}
    assert kinds.pop("max_workers") == "limit"
    assert {name for name, kind in kinds.items() if kind == "counter"} == {
        *("started", "succeeded", "failed", "cancelled", "timed_out", "retried"),
        *("waits", "wait_seconds"),
    }
    assert set(kinds.values()) == {"counter", "gauge", "histogram"}
