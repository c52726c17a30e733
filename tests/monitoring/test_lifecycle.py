"""From start to stop: in any task, twice, cancelled, in one loop after another, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.monitoring import ResourceMonitor
from mtaio.testing import Victim, injections, run, settle
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_samples_at_exact_times() -> None:
    """There is a sample for each interval of the loop's time."""
    monitor = ResourceMonitor(10)
    async with monitor:
        assert monitor.running
        assert monitor.latest is None
        await anyio.sleep(9.5)
        assert monitor.statistics().samples == 0
        await anyio.sleep(1)
        assert monitor.statistics().samples == 1
        await anyio.sleep(3600)
        assert monitor.statistics().samples == 361
        assert monitor.answering(1)
        assert monitor.current_stall() is None
        times = [moment for moment, _ in monitor.history("memory_usage")]
        assert [round(later - times[0], 3) for later in times] == [10 * n for n in range(361)]
    assert not monitor.running
    assert not monitor.answering(1e9)
    await anyio.sleep(100)
    assert monitor.statistics().samples == 361


async def test_left_in_another_task() -> None:
    """Its block may be left where it was not entered, as fixtures of pytest-asyncio are."""
    monitor = ResourceMonitor(10)
    for method in (monitor.__aenter__, partial(monitor.__aexit__, None, None, None)):
        async with anyio.create_task_group() as group:
            group.start_soon(method)
        await anyio.sleep(15)
    assert not monitor.running
    assert monitor.statistics().samples == 1


async def test_ten_minutes_of_alerts() -> None:
    """Thresholds follow the loop's time, not the machine's."""
    monitor = ResourceMonitor(1)
    start = anyio.current_time()
    told: list[tuple[str, int]] = []
    monitor.gauge("minute", lambda: (anyio.current_time() - start) // 60 % 2)
    monitor.set_threshold("minute", 0.5, for_seconds=30)
    monitor.on_threshold_exceeded(
        lambda *_: told.append(("exceeded", round(anyio.current_time() - start)))
    )
    monitor.on_recovered(lambda *_: told.append(("recovered", round(anyio.current_time() - start))))
    async with monitor:
        await anyio.sleep(600.5)
    assert len(told) == 10
    assert told[:3] == [("exceeded", 90), ("recovered", 120), ("exceeded", 210)]
    assert [alert.seconds for alert in monitor.alerts if alert.state == "recovered"] == [30] * 5


async def test_start_and_stop_twice() -> None:
    """What is done already is done; counters go on, and do not go back."""
    monitor = ResourceMonitor(1)
    await monitor.stop()
    await monitor.start()
    await monitor.start()
    await anyio.sleep(2.5)
    await monitor.stop()
    await monitor.stop()
    assert monitor.statistics().samples == 2
    async with monitor:
        await anyio.sleep(2.5)
        assert monitor.statistics().samples == 4
        assert repr(monitor) == "<ResourceMonitor running>"
    assert repr(ResourceMonitor(name="api")) == "<ResourceMonitor 'api' not running>"
    assert (ResourceMonitor(name="api").name, monitor.name, monitor.interval) == ("api", None, 1)


async def test_started_and_stopped_in_other_tasks() -> None:
    """The task that starts need not live on, nor be the one that stops."""
    monitor = ResourceMonitor(1)
    async with anyio.create_task_group() as group:
        group.start_soon(monitor.start)
    await anyio.sleep(1.5)
    async with anyio.create_task_group() as group:
        group.start_soon(monitor.stop)
        group.start_soon(monitor.stop)
    assert monitor.statistics().samples == 1
    assert not monitor.running


async def test_stopped_at_once() -> None:
    """A monitor that is stopped before its task has run takes no sample."""
    monitor = ResourceMonitor(1)
    before = len(anyio.get_running_tasks())
    await monitor.start()
    await monitor.stop()
    assert len(anyio.get_running_tasks()) == before
    await anyio.sleep(5)
    assert monitor.statistics().samples == 0


async def test_stopped_at_the_moment_of_a_sample() -> None:
    """There is no sample after the stop, even if it was due at that very moment."""
    monitor = ResourceMonitor(1)
    async with monitor:
        await anyio.sleep(1)
    before = monitor.statistics().samples
    await settle()
    assert monitor.statistics().samples == before


async def test_several_monitors_at_once() -> None:
    """Each has its own interval, thresholds and handlers."""
    one, two = ResourceMonitor(1), ResourceMonitor(2)
    async with one, two:
        await anyio.sleep(4.5)
    assert (one.statistics().samples, two.statistics().samples) == (4, 2)


async def test_stop_in_a_handler() -> None:
    """A handler may stop the monitor: it does not wait for itself."""
    monitor = ResourceMonitor(1)
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    stopped = anyio.Event()

    @monitor.on_threshold_exceeded
    async def stop(*_: object) -> None:
        await monitor.stop()
        stopped.set()

    await monitor.start()
    await stopped.wait()
    assert not monitor.running
    await anyio.sleep(5)
    assert monitor.statistics().samples == 1
    assert monitor.statistics().handled == 1


async def test_stop_beside_a_handler_that_stops() -> None:
    """Whoever is no handler waits for the handlers, also if one of them was the first to stop."""
    monitor = ResourceMonitor(1)
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    stopped = anyio.Event()

    @monitor.on_threshold_exceeded
    async def stop(*_: object) -> None:
        await monitor.stop()
        stopped.set()
        await anyio.sleep(3)

    start = anyio.current_time()
    async with monitor:
        await stopped.wait()
    assert anyio.current_time() - start == 4
    assert monitor.statistics().handled == 1


async def test_stop_waits_for_handlers() -> None:
    """What was found out before the stop is handled before it returns."""
    monitor = ResourceMonitor(1)
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    start = anyio.current_time()
    monitor.on_threshold_exceeded(lambda *_: anyio.sleep(3))
    async with monitor:
        await anyio.sleep(1.5)
    assert anyio.current_time() - start == 4
    assert monitor.statistics().handled == 1


@pytest.mark.parametrize("queued", [1, 2])
async def test_cancelled_block_cancels_handlers(queued: int) -> None:
    """A block that is cancelled cancels the handlers, waits for them, and drops what waits."""
    monitor = ResourceMonitor(1)
    ended: list[float] = []
    for number in range(queued):
        monitor.gauge(f"level{number}", lambda: 2)
        monitor.set_threshold(f"level{number}", 1)

    @monitor.on_threshold_exceeded
    async def handler(*_: object) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
            ended.append(anyio.current_time())

    start = anyio.current_time()
    with anyio.move_on_after(1.5) as scope:
        async with monitor:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [at - start for at in ended] == [3.5]
    assert not monitor.running
    assert monitor.statistics().handlers_failed == 0


async def test_stop_cancelled_before_the_handlers_have_begun() -> None:
    """Nothing outlives a stop that is cancelled: handlers that have not begun never do."""
    monitor = ResourceMonitor(1)
    called: list[object] = []
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    monitor.on_threshold_exceeded(lambda *_: called.append(1))
    await monitor.start()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await monitor.tick()
    assert monitor.running
    with anyio.CancelScope() as scope:
        scope.cancel()
        await monitor.stop()
    assert not monitor.running
    before = len(called)
    await settle()
    assert len(called) == before


async def test_start_under_a_timeout_that_has_passed() -> None:
    """A start that was cancelled has not started."""
    monitor = ResourceMonitor(1)
    with anyio.move_on_after(0):
        await monitor.start()
    assert not monitor.running
    await monitor.stop()


CALLS: dict[str, Callable[[ResourceMonitor], Any]] = {
    "start": lambda monitor: monitor.start(),
    "stop": lambda monitor: monitor.stop(),
    "tick": lambda monitor: monitor.tick(),
    "get_current_stats": lambda monitor: monitor.get_current_stats(),
}


@pytest.mark.parametrize("mode", ["checkpoint", "step", "native"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("started", [True, False])
def test_cancelled_everywhere(backend: str, mode: Any, call: str, started: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Wherever a call is cancelled, nothing is left over and the monitor can be used on."""
    if mode == "native" and backend != "asyncio":
        pytest.skip("only asyncio's tasks have cancel()")

    async def scenario(victim: Victim) -> None:
        monitor = ResourceMonitor(1)
        monitor.gauge("level", lambda: 2)
        monitor.set_threshold("level", 1)
        at_work: list[int] = []

        @monitor.on_threshold_exceeded
        async def handler(*_: object) -> None:
            at_work.append(1)
            try:
                await anyio.sleep(1)
            finally:
                at_work.pop()

        before = len(anyio.get_running_tasks())
        if started:
            await monitor.start()
            await anyio.sleep(1.5)
        await victim(lambda: CALLS[call](monitor))
        if call == "stop":
            assert not monitor.running
        elif call == "start" and not started:
            assert monitor.running is not victim.cancelled
        else:
            assert monitor.running is started
        if call in {"stop", "tick"}:
            assert at_work == []
        await monitor.start()
        assert (await monitor.get_current_stats()).memory.total > 0
        await monitor.stop()
        assert at_work == []
        assert len(anyio.get_running_tasks()) == before

    for victim in injections(mode):
        run(scenario, victim, backend=backend)


@pytest.mark.parametrize("first", BACKENDS)
@pytest.mark.parametrize("second", BACKENDS)
def test_loop_that_ended_without_a_stop(first: str, second: str) -> None:
    """The next loop, on whatever backend, may start it; its figures go on."""
    monitor = ResourceMonitor(1)

    async def main() -> None:
        await monitor.start()
        await monitor.get_current_stats()
        await anyio.sleep(2.5)

    run(main, backend=first)
    assert not monitor.running
    assert not monitor.answering(1e9)
    run(main, backend=second)
    run(monitor.stop, backend=first)
    assert monitor.statistics().samples == 4
    assert not monitor.running


async def test_tick_without_a_start(caplog: pytest.LogCaptureFixture) -> None:
    """One sample is taken now, whether the monitor runs or not."""
    monitor = ResourceMonitor(1)
    await monitor.tick()
    assert monitor.statistics().samples == 1
    assert monitor.latest is not None
    assert monitor.latest.loop.tasks
    assert not monitor.running
    async with monitor:
        await monitor.tick()
        assert monitor.statistics().samples == 2
    assert caplog.records == []


def test_time_of_samples_after_virtual_time(backend: str) -> None:
    """Where time is real again, samples have the time of the clock on the wall."""
    monitor = ResourceMonitor(10)

    async def main() -> None:
        async with monitor:
            await anyio.sleep(3600)

    run(main, backend=backend)
    anyio.run(monitor.tick, backend=backend)
    assert monitor.latest is not None
    assert abs(monitor.latest.timestamp - time.time()) < 60


async def test_current_stats() -> None:
    """It is the latest sample while that is fresh, and a new one otherwise."""
    monitor = ResourceMonitor(1)
    start = anyio.current_time()
    first = await monitor.get_current_stats()
    assert monitor.latest is first
    assert first.loop.tasks
    assert await monitor.get_current_stats() is not first
    async with monitor:
        just_started = await monitor.get_current_stats()
        assert just_started.timestamp >= first.timestamp
        await anyio.sleep(1.5)
        sampled = await monitor.get_current_stats()
        assert sampled is monitor.latest
        assert sampled is await monitor.get_current_stats()
    assert await monitor.get_current_stats() is not sampled
    await monitor.start()
    assert await monitor.get_current_stats() is not sampled
    await monitor.stop()
    assert anyio.current_time() - start == 1.5


async def test_sample_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A sample that cannot be taken is counted, the first of them logged; the next may work."""
    caplog.set_level(logging.ERROR)
    monitor = ResourceMonitor(1)

    async with monitor:
        monitor._watched.add_gauge("bad", lambda: 1.0, ())
        monitor._thresholds.set("bad", 1.0)
        monitor._thresholds._rules["bad"].threshold = None  # type: ignore[assignment]  # what could fail otherwise?
        await anyio.sleep(3.5)
        assert monitor.statistics().failed == 3
        monitor.remove_threshold("bad")
        await anyio.sleep(1)
        assert monitor.statistics().failed == 3
        for thread in threading.enumerate():
            if thread.name == "mtaio.monitoring.log":
                thread.join()
        assert [record.getMessage() for record in caplog.records] == [
            f"{monitor!r} could not take a sample; there are no figures until that works"
        ]


@pytest.mark.parametrize("begun", [True, False])
def test_tasks_that_are_cancelled_from_outside(begun: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A program that cancels all of asyncio's tasks can still stop its monitor."""
    monitor = ResourceMonitor(1)
    monitor.gauge("level", lambda: 2)
    monitor.set_threshold("level", 1)
    called: list[object] = []

    @monitor.on_threshold_exceeded
    async def handler(*_: object) -> None:
        called.append(1)
        await anyio.sleep(5)

    def cancel_all() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def main() -> None:
        await monitor.start()
        if begun:
            await anyio.sleep(1.5)
        cancel_all()
        await settle()
        assert not monitor.running
        await monitor.stop()
        assert len(asyncio.all_tasks()) == 1

    run(main, backend="asyncio")
    assert called == [1] * begun


class TestRefusals:
    """What a monitor cannot be made of."""

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"interval": 0}, ValueError, r"^interval=0 is not a positive, finite number of sec"),
            ({"interval": -1.0}, ValueError, r"^interval=-1\.0 is not a positive, finite number"),
            ({"interval": float("inf")}, ValueError, r"^interval=inf is not a positive, finite"),
            ({"interval": float("nan")}, ValueError, r"^interval=nan is not a number\. Pass sec"),
            ({"interval": "1"}, TypeError, r"^interval='1' is a str, not a number\. Pass seconds"),
            ({"interval": True}, TypeError, r"^interval=True is a bool, not a number\."),
            ({"history_size": 0}, ValueError, r"^history_size=0 is less than 1\. Pass how many"),
            ({"history_size": 1.5}, TypeError, r"^history_size=1\.5 is a float, not an int\."),
            ({"loop_interval": 0}, ValueError, r"^loop_interval=0 is not a positive, finite"),
            ({"blocked_after": -1}, ValueError, r"^blocked_after=-1 is not a positive, finite"),
            ({"handler_timeout": -1}, ValueError, r"^handler_timeout=-1 is less than 0\."),
            ({"name": 5}, TypeError, r"^name=5 is an int, not a str\. Pass a short name, or None"),
        ],
    )
    def test_arguments(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        """Each message names the value, the reason and the way out."""
        with pytest.raises(error, match=message):
            ResourceMonitor(**options)

    def test_thresholds(self) -> None:
        """A threshold needs a metric there is, and a number."""
        monitor = ResourceMonitor()
        with pytest.raises(ValueError, match=r"^metric='cpu_usge' is not measured here\."):
            monitor.set_threshold("cpu_usge", 5)
        with pytest.raises(ValueError, match=r"^value=nan is not a number\."):
            monitor.set_threshold("cpu_usage", float("nan"))
        monitor.set_threshold("loop.tasks", 1000)
        monitor.remove_threshold("never set")
        assert [each.metric for each in monitor.thresholds] == ["loop.tasks"]
