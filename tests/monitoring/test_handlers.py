"""The handlers of a monitor: what they are told, in which order, and what they cannot spoil."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio.events import EventEmitter
from mtaio.monitoring import ResourceMonitor
from mtaio.monitoring._delivery import MAX_PENDING, Delivery, Handlers
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events import Event

WHO: ContextVar[str] = ContextVar("who", default="nobody")


class Level:
    """A monitor of one gauge whose threshold is 1."""

    def __init__(self, **options: Any) -> None:
        self.monitor = ResourceMonitor(**options)
        self.value = 0.0
        self.monitor.gauge("level", lambda: self.value)
        self.monitor.set_threshold("level", 1)

    async def rise(self) -> None:
        """Exceed the threshold."""
        self.value = 2.0
        await self.monitor.tick()

    async def fall(self) -> None:
        """Recover."""
        self.value = 0.0
        await self.monitor.tick()


async def test_handlers_are_told_of_the_edges() -> None:
    """One call when a threshold is exceeded, one when it has recovered, in sync and async code."""
    level = Level()
    told: list[tuple[object, ...]] = []

    @level.monitor.on_threshold_exceeded
    def exceeded(*what: object) -> None:
        told.append(("exceeded", *what))

    @level.monitor.on_recovered
    async def recovered(*what: object) -> None:
        await anyio.sleep(1)
        told.append(("recovered", *what))

    await level.rise()
    await level.rise()
    await level.fall()
    await level.rise()
    assert told == [
        ("exceeded", "level", 2.0, 1),
        ("recovered", "level", 0.0, 1),
        ("exceeded", "level", 2.0, 1),
    ]
    assert level.monitor.statistics().handled == 3
    assert level.monitor.statistics().alerts == 2
    assert [alert.state for alert in level.monitor.alerts] == ["firing", "recovered", "firing"]
    assert [alert.metric for alert in level.monitor.firing] == ["level"]
    exceeded("still", "a", "function")
    await recovered()


async def test_events_in_order_handlers_at_once() -> None:
    """The handlers of one event run side by side, those of the next afterwards."""
    level = Level(interval=1)
    told: list[tuple[str, float]] = []

    def slow(name: str, seconds: float) -> Callable[..., Any]:
        async def handler(*_: object) -> None:
            await anyio.sleep(seconds)
            told.append((name, anyio.current_time()))

        return handler

    level.monitor.on_threshold_exceeded(slow("a", 2))
    level.monitor.on_threshold_exceeded(slow("b", 3))
    level.monitor.on_recovered(slow("c", 1))
    start = anyio.current_time()
    async with level.monitor:
        level.value = 2.0
        await anyio.sleep(1.5)
        level.value = 0.0
        await anyio.sleep(1)
    assert [(name, at - start) for name, at in told] == [("a", 3), ("b", 4), ("c", 5)]


async def test_slow_handler_never_stops_sampling() -> None:
    """Samples go on while a handler waits."""
    level = Level(interval=1, handler_timeout=None)
    ended = anyio.Event()
    level.monitor.on_threshold_exceeded(lambda *_: ended.wait())
    async with level.monitor:
        level.value = 2.0
        await anyio.sleep(100.5)
        assert level.monitor.statistics().samples == 100
        ended.set()
    assert level.monitor.statistics().handled == 1


async def test_handler_that_is_too_slow(caplog: pytest.LogCaptureFixture) -> None:
    """It is cancelled, logged and counted."""
    level = Level(handler_timeout=5)
    start = anyio.current_time()

    @level.monitor.on_threshold_exceeded
    async def too_slow(*_: object) -> None:
        await anyio.sleep_forever()

    await level.rise()
    assert anyio.current_time() - start == 5
    assert level.monitor.statistics().handlers_timed_out == 1
    assert level.monitor.statistics().handled == 0
    (record,) = caplog.records
    assert record.getMessage().endswith("too_slow did not return within 5 s, and was cancelled")


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), ExceptionGroup("g", [OSError()])],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_handler_that_fails(
    error: BaseException,
    is_async: bool,  # noqa: FBT001 - a parameter of the test
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it raises is logged once and counted, and the others run."""
    level = Level()
    told: list[object] = []

    def sync_fails(*_: object) -> None:
        raise error

    async def async_fails(*_: object) -> None:
        await anyio.sleep(1)
        raise error

    level.monitor.on_threshold_exceeded(async_fails if is_async else sync_fails)
    level.monitor.on_threshold_exceeded(lambda *what: told.append(what))
    await level.rise()
    await level.fall()
    await level.rise()
    assert len(told) == 2
    assert level.monitor.statistics().handlers_failed == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_handler_that_cancels_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A stray cancellation is a failure of the handler, and ends nothing else."""
    level = Level()

    @level.monitor.on_threshold_exceeded
    async def cancels(*_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep(1)

    async def main() -> None:
        async with level.monitor:
            await level.rise()
            await level.fall()
            await level.rise()

    run(main, backend="asyncio")
    assert level.monitor.statistics().handlers_failed == 2
    assert "StrayCancellationError" in caplog.text


async def test_handlers_run_in_the_context_of_the_start() -> None:
    """What was set when the monitor was started is set in handlers; what they set is their own."""
    level = Level()
    seen: list[str] = []

    @level.monitor.on_threshold_exceeded
    def handler(*_: object) -> None:
        seen.append(WHO.get())
        WHO.set("handler")

    WHO.set("starter")
    async with level.monitor:
        WHO.set("later")
        await level.rise()
        await level.fall()
        await level.rise()
    assert seen == ["starter", "starter"]
    assert WHO.get() == "later"


async def test_events_that_wait_are_bounded() -> None:
    """So many events wait for a handler; what comes then is dropped and counted."""
    level = Level(handler_timeout=None)
    go = anyio.Event()
    told: list[str] = []

    @level.monitor.on_threshold_exceeded
    async def handler(metric: str, *_: object) -> None:
        await go.wait()
        told.append(metric)

    class Many:
        def statistics(self) -> dict[str, float]:
            return {f"m{number}": level.value for number in range(MAX_PENDING + 10)}

    level.monitor.watch(Many())
    for number in range(MAX_PENDING + 10):
        level.monitor._thresholds.set(f"many.m{number}", 1)  # set_threshold looks at all names
    async with level.monitor, anyio.create_task_group() as group:
        group.start_soon(level.rise)
        await settle()
        assert level.monitor.statistics().dropped == 11
        go.set()
    assert told == ["level", *(f"many.m{number}" for number in range(MAX_PENDING - 1))]


async def test_handlers_that_change_the_monitor() -> None:
    """A handler may add handlers, thresholds and gauges, and look at the figures."""
    level = Level()
    monitor = level.monitor
    told: list[str] = []

    @monitor.on_threshold_exceeded
    async def handler(metric: str, value: float, _: float) -> None:
        told.append(metric)
        if metric == "level":
            monitor.on_threshold_exceeded(lambda metric, *_: told.append(f"also {metric}"))
            monitor.gauge("depth", lambda: 5)
            monitor.set_threshold("depth", 3)
            monitor.remove_threshold("level")
            assert value == 2.0
            assert monitor.values()["level"] == 2.0
            assert (await monitor.get_current_stats()).memory.total > 0
            await monitor.tick()

    async with monitor:
        await level.rise()
        assert told[0] == "level"
        assert sorted(told[1:]) == ["also depth", "depth"]
    assert [each.metric for each in monitor.thresholds] == ["depth"]


async def test_forward_to_an_emitter() -> None:
    """The guide's health monitor: its alerts are events with a metric, a value and a threshold."""
    level = Level()
    emitter = EventEmitter()
    events: list[tuple[str, object]] = []

    @emitter.on("monitor.*")
    async def handle(event: Event[Any]) -> None:
        events.append((event.name, event.data))

    level.monitor.forward_to(emitter)
    await level.rise()
    await level.fall()
    assert events == [
        ("monitor.threshold_exceeded", {"metric": "level", "value": 2.0, "threshold": 1}),
        ("monitor.recovered", {"metric": "level", "value": 0.0, "threshold": 1}),
    ]


async def test_guide_block() -> None:
    """A handler that emits an event of its own, as in the deployment guide."""
    level = Level()
    emitter = EventEmitter()
    alerts: list[object] = []
    emitter.on("health_alert", lambda event: alerts.append(event.data))

    @level.monitor.on_threshold_exceeded
    async def handle_threshold(metric: str, value: float, threshold: float) -> None:
        await emitter.emit(
            "health_alert", {"metric": metric, "value": value, "threshold": threshold}
        )

    await level.monitor.start()
    await level.rise()
    stats = await level.monitor.get_current_stats()
    await level.monitor.stop()
    assert alerts == [{"metric": "level", "value": 2.0, "threshold": 1}]
    assert 0 <= stats.cpu.usage_percent <= 100
    assert 0 < stats.memory.percent < 100
    assert stats.uptime > 0


def test_what_is_no_handler() -> None:
    """Each refusal says what is wrong, and the way out."""
    monitor = ResourceMonitor()
    for register in (monitor.on_threshold_exceeded, monitor.on_recovered, monitor.on_loop_blocked):
        with pytest.raises(TypeError, match=r"^handler=7 is an int, which is not callable\. Pass"):
            register(7)  # type: ignore[type-var]  # the mistake itself
    with pytest.raises(TypeError, match=r"^cannot forward to 7: it has no method emit\(\)\. Pass"):
        monitor.forward_to(7)  # type: ignore[arg-type]  # the mistake itself


def test_handler_that_takes_other_arguments() -> None:
    """A handler that could not be called is refused at once, not found out by the first alert."""
    monitor = ResourceMonitor()

    async def of_an_alert(alert: object) -> None:
        raise AssertionError(alert)

    for register in (monitor.on_threshold_exceeded, monitor.on_recovered):
        with pytest.raises(
            TypeError,
            match=r"^handler=<function .*> cannot be called as .*of_an_alert\(metric, value, "
            r"threshold\): too many positional arguments\. Let it take these arguments\.$",
        ):
            register(of_an_alert)
    with pytest.raises(TypeError, match=r"^handler=.*\(stall\): missing a required argument: 'b'"):
        monitor.on_loop_blocked(lambda a, b: None)  # noqa: ARG005 - the mistake itself


def test_handler_whose_parameters_are_hidden() -> None:
    """A wrapper is judged by itself, and what tells nothing of its parameters is accepted."""
    monitor = ResourceMonitor()

    def with_database(database: object, *event: object) -> None:
        raise AssertionError(database, event)

    @wraps(with_database)
    def wrapper(metric: str, value: float, threshold: float) -> None:
        raise AssertionError(metric, value, threshold)

    assert monitor.on_threshold_exceeded(wrapper) is wrapper
    assert monitor.on_threshold_exceeded(max) is max  # inspect.signature knows nothing of it


async def test_partial_and_callable_objects_are_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """Anything that can be called will do, and is called by its name in the log."""
    level = Level()

    class Fails:
        def __call__(self, *_: object) -> None:
            raise ValueError

    def add(first: int, *_: object) -> None:
        raise ValueError(first)

    level.monitor.on_threshold_exceeded(partial(add, 1))
    level.monitor.on_threshold_exceeded(Fails())
    caplog.set_level(logging.ERROR)
    await level.rise()
    names = sorted(record.getMessage().rpartition(".")[2] for record in caplog.records)
    assert names == ["Fails failed", "add failed"]


@pytest.mark.parametrize("steps", range(8))
def test_told_as_the_loop_ends(steps: int, backend: str) -> None:
    """Handlers that are called so many steps before the loop's last print nothing."""

    async def main() -> None:
        level = Level(interval=1)
        level.value = 2.0
        for _ in range(2):
            level.monitor.on_threshold_exceeded(lambda *_: anyio.sleep_forever())
        await level.monitor.start()
        await anyio.sleep(1)
        for _ in range(steps):
            await checkpoint()

    unraisable: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        run(main, backend=backend)
    finally:
        sys.unraisablehook = hook
    assert unraisable == []


async def test_loop_that_takes_no_new_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens when the loop is ending has no handlers; trio takes no new task then."""
    handlers = Handlers(1.0)

    def handler(_stall: object) -> None:
        raise AssertionError

    handlers.add("blocked", handler)
    delivery = Delivery(loops.current_loop(), copy_context(), handlers)
    monkeypatch.setattr(loops, "start_task", lambda _loop, _fn, _context, ended: ended())
    delivery.post("blocked", None)
    await anyio.sleep(1)
    await delivery.finish()
