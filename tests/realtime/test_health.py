"""Health checks in threads, and in loops that end badly, in real time on each event loop."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.monitoring import HealthRegistry
from mtaio.testing import assert_quiescent

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from mtaio.monitoring import CheckResult, HealthReport

FOREVER = 60.0
"""Longer than a test may take."""


def only(report: HealthReport) -> CheckResult:
    """Return the result of the only check."""
    (result,) = report.checks
    return result


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a thread does."""
    while not condition():  # noqa: ASYNC110 - a thread sets no event of the loop
        await anyio.sleep(0.001)


async def until_idle(health: HealthRegistry) -> None:
    """Wait until nothing of the checks runs any more."""
    await until(lambda: not health.statistics().in_flight)


async def until_hung(health: HealthRegistry) -> HealthReport:
    """Return the first report in which the only check hangs: its thread may be slow to begin."""
    while True:
        report = await health.report()
        if only(report).hung_seconds:
            return report


async def test_check_that_blocks_its_thread() -> None:
    """A report does not wait for it, and starts no other thread beside it."""
    release = threading.Event()
    threads: list[int] = []
    health = HealthRegistry()

    @health.check(timeout=0.05, ttl=0)
    def block() -> None:
        threads.append(threading.get_ident())
        release.wait(FOREVER)

    try:
        first = only(await until_hung(health))
        hung = 0.0
        for failures in (1, 2, 3):
            result = only(await health.report())
            assert (result.status, result.failures) == ("failing", first.failures + failures)
            assert result.error is not None
            assert result.error.startswith("still running after ")
            assert result.hung_seconds > hung
            hung = result.hung_seconds
        assert len(threads) == 1
        statistics = health.statistics()
        assert (statistics.hung, statistics.in_flight) == (1, 1)
        assert statistics.timed_out == first.failures + 3
    finally:
        release.set()
    await until_idle(health)
    while not (await health.report()).ready:
        pass
    assert len(threads) > 1
    assert_quiescent(health)


async def test_blocked_threads_are_not_the_applications() -> None:
    """However many checks block their threads, there are others for the application."""
    release = threading.Event()
    health = HealthRegistry()
    limiter = anyio.to_thread.current_default_thread_limiter()
    for number in range(int(limiter.total_tokens) + 5):
        health.add(
            str(number),
            lambda: None if release.wait(FOREVER) else "late",
            timeout=0.2,
            critical=False,
        )
    health.add("good", lambda: None, timeout=FOREVER)
    try:
        report = await health.report()
        assert report.ready
        assert limiter.borrowed_tokens == 0
        assert await anyio.to_thread.run_sync(lambda: 1) == 1
    finally:
        release.set()
    await until_idle(health)


async def test_cancelled_caller_of_a_thread() -> None:
    """The thread goes on, the next caller joins it, and what it returns is kept."""
    release = threading.Event()
    started = threading.Event()
    runs: list[int] = []
    health = HealthRegistry()

    @health.check(timeout=FOREVER, ttl=FOREVER)
    def block() -> None:
        runs.append(1)
        started.set()
        release.wait(FOREVER)

    async with anyio.create_task_group() as group:
        group.start_soon(health.report)
        await until(started.is_set)
        group.cancel_scope.cancel()
    assert health.statistics().in_flight == 1
    async with anyio.create_task_group() as group:
        group.start_soon(health.report)
        await until(lambda: health.statistics().waiting)
        release.set()
    assert (await health.report()).ready
    statistics = health.statistics()
    assert (len(runs), statistics.failed, statistics.cancelled) == (1, 0, 0)


def test_thread_that_outlives_its_loop(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """The next loop starts no other beside it, and does so when it has ended."""
    name, options = anyio_backend
    release = threading.Event()
    runs: list[int] = []
    health = HealthRegistry()

    @health.check(timeout=0.05, ttl=0)
    def block() -> None:
        runs.append(1)
        release.wait(FOREVER)

    async def report() -> HealthReport:
        return await health.report()

    async def wait() -> None:
        while not (await health.report()).ready:
            pass

    async def hang() -> None:
        await until_hung(health)

    try:
        anyio.run(hang, backend=name, backend_options=options)
        result = only(anyio.run(report, backend=name, backend_options=options))
        assert (result.status, result.failures) == ("failing", 1)
        assert len(runs) == 1
    finally:
        release.set()
    while health.statistics().in_flight:
        time.sleep(0.01)
    anyio.run(wait, backend=name, backend_options=options)
    assert len(runs) > 1


def test_loop_that_ends_before_a_thread(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """A run in a thread for which nobody waits is cancelled by the end of the loop: no failure."""
    name, options = anyio_backend
    release = threading.Event()
    started = threading.Event()
    health = HealthRegistry()

    @health.check(timeout=FOREVER)
    def block() -> None:
        started.set()
        release.wait(FOREVER)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(health.report)
            await until(started.is_set)
            group.cancel_scope.cancel()
        assert health.statistics().in_flight == 1

    anyio.run(main, backend=name, backend_options=options)
    statistics = health.statistics()
    assert (statistics.cancelled, statistics.failed, statistics.in_flight) == (1, 0, 1)
    release.set()
    while health.statistics().in_flight:
        time.sleep(0.01)


def test_loops_in_turn() -> None:
    """A loop that may go on is no other than one that is over, while nothing runs in it."""
    health = HealthRegistry()
    runs: list[int] = []

    @health.check(kind="startup", ttl=FOREVER)
    async def check() -> None:
        runs.append(1)

    @health.check(kind="live")
    async def not_asked() -> None:
        raise AssertionError

    loops = [asyncio.new_event_loop() for _ in range(2)]
    for loop in (*loops, *loops, loops[1]):
        assert loop.run_until_complete(health.report("ready")).ready
    for loop in loops:
        loop.close()
    assert len(runs) == 4


def test_loop_that_is_closed_around_a_check(capfd: pytest.CaptureFixture[str]) -> None:
    """A loop that is closed without cancelling its tasks leaves nothing to the next, nor a word."""
    health = HealthRegistry()

    @health.check(timeout=FOREVER)
    async def check() -> None:
        await anyio.sleep(FOREVER * (health.statistics().runs == 1))

    async def start() -> None:
        asking.append(asyncio.ensure_future(health.report()))
        await until(lambda: health.statistics().in_flight)

    asking: list[asyncio.Future[HealthReport]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    loop.close()
    logger = logging.getLogger("asyncio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # asyncio complains about the tasks, and rightly
    try:
        assert anyio.run(health.report).ready
        asking.clear()
        gc.collect()
    finally:
        logger.setLevel(level)
    statistics = health.statistics()
    assert (statistics.in_flight, statistics.failed, statistics.runs) == (0, 0, 2)
    assert capfd.readouterr().err == ""


def test_look_from_a_thread_while_another_loop_begins() -> None:
    """A thread that finds the loop over takes nothing from the next one, which has begun since."""
    finds, go_on = threading.Event(), threading.Event()

    class Slow(asyncio.SelectorEventLoop):
        """Lets other threads wait for an answer."""

        def is_closed(self) -> bool:
            """Return whether it is closed."""
            if threading.current_thread() is looking:
                finds.set()
                go_on.wait()
            return super().is_closed()

    health = HealthRegistry()
    looking = threading.Thread(target=lambda: health.latest)

    async def main() -> None:
        looking.start()
        finds.wait()
        assert (await health.report()).ready
        health.set_ready(False)
        go_on.set()
        looking.join()
        assert health.draining
        assert health.latest is not None

    first = Slow()
    first.run_until_complete(health.report())
    first.close()
    asyncio.run(main())


def test_all_tasks_cancelled_natively() -> None:
    """As some programs do before they end: whatever it hit, the next report is as good as new."""
    health = HealthRegistry()

    @health.check(timeout=10, ttl=0)
    async def check() -> None:
        await anyio.sleep(0.01)

    async def main(turns: int) -> None:
        asking = asyncio.ensure_future(health.report())
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait([asking])
        await health.report()
        assert (await health.report()).ready
        assert health.statistics().in_flight == 0

    for turns in range(6):
        asyncio.run(main(turns))
