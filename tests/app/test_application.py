"""The life of an application on the virtual clock: what is opened and closed, and when."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread

from mtaio.app import Application, ErrorHandler, PartInfo
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import Retry, TaskExecutor
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, ResourceMonitor
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager
from mtaio.testing import Schedule, Victim, injections, run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from mtaio.core import TaskHandle

SETTINGS = Settings(drain_delay=2, shutdown_timeout=20)
BUDGET = SETTINGS.shutdown
REQUEST: ContextVar[str] = ContextVar("request")


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """An ASGI application that is not asked for anything."""
    raise NotImplementedError


def make(settings: Settings = SETTINGS, **options: Any) -> Application:
    """Make an application that touches nothing outside."""
    return Application(settings, probes=False, signals=False, **options)


make_any: Any = Application


class Diary:
    """An application, and what happened in it when."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.app = make(settings)
        self.lines: list[tuple[float, str]] = []
        self.began = 0.0

    def note(self, line: str) -> None:
        """Write down that something happened."""
        self.lines.append((round(anyio.current_time() - self.began, 6), line))

    def resource(self, name: str, *, opening: float = 0, closing: float = 0) -> None:
        """Register a resource that takes its time."""

        async def opened() -> AsyncIterator[str]:
            await anyio.sleep(opening)
            self.note(f"{name} open")
            try:
                yield name
                await anyio.sleep(closing)
            finally:
                self.note(f"{name} closed")

        opened.__qualname__ = name
        self.app.resource(opened)

    async def live(self, seconds: float = 0) -> None:
        """Start, stop after some seconds, and count from the moment of stopping."""
        async with self.app:
            await anyio.sleep(seconds)
            self.began = anyio.current_time()
        self.note("stopped")


# ---- its parts -----------------------------------------------------------------------------------


def test_reads_nothing_until_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read when a setting is first needed, and once."""
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "none")
    app = Application()
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "7")
    assert app.executor.max_workers == 7
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "8")
    assert app.settings.max_workers == 7


def test_parts_are_made_from_the_settings() -> None:
    """Each part obeys the settings that are for it."""
    app = make(
        Settings(
            max_workers=3,
            cache_size=5,
            cache_ttl=7,
            rate_limit=11,
            burst_limit=13,
            concurrency_limit=17,
            default_timeout=19,
            cpu_threshold=23,
            memory_threshold=29,
        )
    )
    assert app.executor.max_workers == 3
    assert (app.cache.max_size, app.cache.default_ttl) == (5, 7)
    assert (app.rate_limiter.rate, app.rate_limiter.burst) == (11, 13)
    assert app.concurrency_limiter.statistics().limit == 17
    assert app.timeout_manager.default_timeout == 19
    assert [(each.metric, each.value) for each in app.monitor.thresholds] == [
        ("cpu_usage", 23),
        ("memory_usage", 29),
    ]


def test_thresholds_of_100_percent_are_none() -> None:
    """What can never be exceeded is not watched for."""
    app = make(Settings(cpu_threshold=100, memory_threshold=100))
    assert app.monitor.thresholds == []


async def test_parts_that_are_handed_in() -> None:
    """A part that is handed in is entered, watched and left."""
    parts: dict[str, Any] = {
        "executor": TaskExecutor(2),
        "cache": TTLCache[int](),
        "rate_limiter": RateLimiter(1),
        "concurrency_limiter": ConcurrencyLimiter(1),
        "timeout_manager": TimeoutManager(1),
        "emitter": EventEmitter(),
        "monitor": ResourceMonitor(),
        "health": HealthRegistry(),
        "error_handler": ErrorHandler(),
    }
    app = make(**parts)
    for name, part in parts.items():
        assert getattr(app, name) is part
    async with app:
        handle = await app.executor.submit(anyio.sleep, 1)
        assert app.monitor.running
        await app.monitor.tick()
        names = app.monitor.metric_names()
    assert handle.done
    assert not app.monitor.running
    for kind in ("task_executor", "ttl_cache", "rate_limiter", "health_registry", "application"):
        assert any(name.startswith(f"{kind}.") for name in names), kind


@pytest.mark.parametrize(
    "part", ["settings", "executor", "cache", "rate_limiter", "timeout_manager", "monitor"]
)
def test_what_is_no_such_part(part: str) -> None:
    """A part of another type is refused at once."""
    with pytest.raises(TypeError, match=rf"^{part}=5 is an? int\. Pass a \w+, or None\.$"):
        make_any(**{part: 5})


async def test_alerts_are_emitted() -> None:
    """The emitter tells of what exceeds its threshold."""
    app = make(Settings(cpu_threshold=100, memory_threshold=0.001))
    heard: list[Any] = []
    app.emitter.on("monitor.threshold_exceeded")(heard.append)
    async with app:
        await app.monitor.tick()
    assert heard[0].data["metric"] == "memory_usage"


def test_repr() -> None:
    """The name and the state can be seen."""
    assert repr(Application()) == "<Application new>"
    assert repr(Application(name="shop")) == "<Application 'shop' new>"
    assert Application(name="shop").name == "shop"


# ---- resources -----------------------------------------------------------------------------------


async def test_opened_in_order_and_closed_in_reverse() -> None:
    """Resources are closed last in, first out, after the services have ended."""
    diary = Diary()
    diary.resource("database")
    diary.resource("queue")

    @diary.app.service
    async def work() -> None:
        diary.note("working")
        try:
            await anyio.sleep_forever()
        finally:
            diary.note("work ended")

    await diary.live(1)
    assert [line for _, line in diary.lines] == [
        *("database open", "queue open", "working"),
        *("work ended", "queue closed", "database closed", "stopped"),
    ]


async def test_value_of_a_resource() -> None:
    """The value can be had while the application is up, and at no other time."""
    app = make()

    @app.resource
    async def one() -> AsyncIterator[int]:
        yield 1

    @app.resource
    @asynccontextmanager
    async def two(application: Application) -> AsyncGenerator[tuple[Application, int]]:
        yield application, one.get() + 1

    refusal = r"^the resource '.*one' is not open\. Ask for it while the application is up: "
    with pytest.raises(RuntimeError, match=refusal):
        one.get()
    async with app:
        assert two.get() == (app, 2)
    with pytest.raises(RuntimeError, match=refusal):
        one.get()
    assert [each.name.rpartition(".")[2] for each in app.resources] == ["one", "two"]
    assert repr(one).startswith("<Resource 'test_value_of_a_resource")


async def test_resource_with_a_task_group() -> None:
    """A resource may hold a task group; when that fails, the application stops with the error."""
    app = make()

    @app.resource
    async def connection() -> AsyncIterator[None]:
        async def lose() -> None:
            await anyio.sleep(3)
            raise ConnectionError("lost")

        async with anyio.create_task_group() as group:
            group.start_soon(lose)
            yield

    started = anyio.current_time()
    with pytest.raises(ExceptionGroup) as caught:
        async with app:
            await app.wait_closed()
    assert isinstance(caught.value.exceptions[0], ConnectionError)
    assert anyio.current_time() == started + 3 + BUDGET.drain_delay


async def test_start_that_fails() -> None:
    """What was opened before is closed, the error is raised as it is, and nothing has run."""
    diary = Diary()
    diary.resource("database")
    ran: list[int] = []

    @diary.app.resource
    async def broken() -> AsyncIterator[None]:
        raise OSError("no such host")
        yield

    @diary.app.service
    async def service() -> None:
        ran.append(1)

    with pytest.raises(OSError, match=r"^no such host$"):
        await diary.app.start()
    assert [line for _, line in diary.lines] == ["database open", "database closed"]
    assert ran == []
    assert diary.app.state == "stopped"
    with pytest.raises(OSError, match=r"^no such host$"):
        await diary.app.wait_closed()


async def test_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """Nothing has started, whether or not the application handles signals."""
    settings = Settings(log_file=tmp_path / "missing" / "log")
    for signals in (False, True):
        app = Application(settings, probes=False, signals=signals, logging=True)
        with pytest.raises(FileNotFoundError):
            await app.start()
        assert app.state == "new"


async def test_resource_that_ends_by_itself() -> None:
    """What closes although nobody has closed it stops the application, as an error would."""
    app = make()

    @app.resource
    async def short() -> AsyncIterator[None]:
        with anyio.move_on_after(1):
            yield

    await app.start()
    with pytest.raises(RuntimeError, match=r"short' has closed by itself, without an "):
        with anyio.fail_after(100):
            await app.wait_closed()


async def test_resource_that_hangs_while_closing() -> None:
    """It is cancelled after half of the time that is left, so that others have some."""
    diary = Diary()
    diary.resource("database", closing=0.5)
    diary.resource("queue", closing=1000)
    await diary.live()
    half = BUDGET.teardown * 0.8 / 2
    assert diary.lines == [
        (0, "database open"),
        (0, "queue open"),
        (round(BUDGET.drain_delay + half, 6), "queue closed"),
        (round(BUDGET.drain_delay + half + 0.5, 6), "database closed"),
        (round(BUDGET.drain_delay + half + 0.5, 6), "stopped"),
    ]


async def test_resource_that_cannot_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    """One that shields itself is left, with a line in the log, and waited for in the end."""
    diary = Diary()

    @diary.app.resource
    async def stubborn() -> AsyncIterator[None]:
        yield
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)
        diary.note("closed at last")

    diary.resource("queue")
    await diary.live()
    assert diary.lines[-2:] == [(102, "closed at last"), (102, "stopped")]
    assert any(
        re.match(r"the resource '.*stubborn' does not close, though it was cancelled: ", each)
        for each in caplog.messages
    )


async def test_resource_that_fails_while_closing() -> None:
    """The others are closed, and the error is raised in the end."""
    diary = Diary()
    diary.resource("database")

    @diary.app.resource
    async def broken() -> AsyncIterator[None]:
        yield
        raise OSError("cannot say goodbye")

    with pytest.raises(OSError, match=r"^cannot say goodbye$"):
        await diary.live()
    assert diary.lines[-1][1] == "database closed"


async def test_what_did_not_start() -> None:
    """The report says which part it was, which its error often does not."""
    contexts: list[Mapping[str, object]] = []
    handler = SimpleNamespace(report=lambda _error, context: contexts.append(context))
    app = make(error_handler=handler)

    @app.resource
    async def database() -> AsyncIterator[None]:
        raise ConnectionError("refused")
        yield

    with pytest.raises(ConnectionError):
        await app.start()
    assert contexts == [{"what": "start-up", "of": f"the resource {database.name!r}"}]


@pytest.mark.parametrize("value", [1, "later"], ids=["value", "coroutine"])
async def test_what_is_no_resource(value: object) -> None:
    """A function that gives no context manager is told what to be."""
    app = make()

    async def later() -> int:
        raise NotImplementedError

    app.resource(lambda: later() if value == "later" else value)  # type: ignore[arg-type,return-value]  # what is tested
    with pytest.raises(
        TypeError,
        match=r"^the resource '.*' returned (a coroutine|an int), not an async context manager",
    ):
        await app.start()


def test_what_can_be_no_resource() -> None:
    """What is seen without calling the function is refused before anything starts."""
    app = make()

    async def no_yield() -> int:
        raise NotImplementedError

    def not_async() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"^the resource '.*no_yield' is an async function without"):
        app.resource(no_yield)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match=r"^the resource '.*not_async' is a generator that is not"):
        app.resource(not_async)  # type: ignore[arg-type]  # what is tested
    assert app.resources == ()


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        ("localhost", "^bind='localhost' does not end in a port"),
        (8000, "^bind=8000 is an int, not a str"),
    ],
)
def test_where_nothing_can_listen(bind: str, message: str) -> None:
    """An address that no machine has is refused when it is registered."""
    app = make()
    with pytest.raises((ValueError, TypeError), match=message):
        app.serve(nothing, bind=bind)
    assert app.servers == ()


async def test_run_in_an_event_loop() -> None:
    """Where a loop runs, the application is told how to be used in it."""
    app = make()
    with pytest.raises(
        RuntimeError, match=r"^app\.run\(\) starts an event loop, and one is already running"
    ):
        app.run()
    assert app.state == "new"


def test_what_cannot_be_called() -> None:
    """A resource or service takes the application or nothing."""
    app = make()

    async def two(one: int, other: int) -> None:
        raise NotImplementedError

    refusal = r"^test_what_cannot_be_called.*two\(one.*can be called neither with the application "
    with pytest.raises(TypeError, match=refusal):
        app.service(two)
    with pytest.raises(TypeError, match=refusal):
        app.resource(two)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match=r"^fn=5 is an? int, which is not callable"):
        app.resource(5)  # type: ignore[call-overload]  # what is tested
    with pytest.raises(TypeError, match=r"^asgi=5 is an int, which is not callable"):
        app.serve(5)  # type: ignore[arg-type]  # what is tested


# ---- services ------------------------------------------------------------------------------------


def test_services_are_listed() -> None:
    """What was registered can be seen."""
    app = make()
    patient = Retry(attempts=4)

    @app.service
    async def first() -> None:
        raise NotImplementedError

    @app.service(name="second", restart=patient, critical=False, drains=True)
    async def another(application: Application) -> None:
        raise NotImplementedError

    name = f"{test_services_are_listed.__qualname__}.<locals>.first"
    assert app.services == (
        PartInfo(name=name, restart=None, critical=True, drains=False),
        PartInfo(name="second", restart=patient, critical=False, drains=True),
    )
    with pytest.raises(
        ValueError, match=r"^there is already a service, .* named 'second'\. Give this one "
    ):
        app.service(name="second")(first)
    with pytest.raises(TypeError, match=r"^fn=.* is not an async function: a service must be"):
        app.service(lambda: None)  # type: ignore[type-var]  # what is tested
    with pytest.raises(
        ValueError, match=r"^restart=0 is less than 1\. Pass the number of attempts, or a Retry\."
    ):
        app.service(name="third", restart=0)(first)


async def test_service_is_started_again() -> None:
    """As often as its policy allows; then it stops the application with its error."""
    app = make(Settings())
    starts: list[float] = []
    policy = Retry(attempts=3, wait_initial=1, jitter=0)

    @app.service(restart=policy, name="poller")
    async def poller(application: Application) -> None:
        assert application is app
        starts.append(anyio.current_time() - began)
        msg = f"failure {len(starts)}"
        raise OSError(msg)

    began = anyio.current_time()
    with pytest.raises(OSError, match=r"^failure 3") as caught:
        async with app:
            await app.wait_closed()
    assert starts == [0, 1, 3]
    assert caught.value.__notes__ == ["gave up after 3 attempts"]
    assert app.statistics().restarts == 2


async def test_critical_service_drains_the_rest() -> None:
    """When a critical service has failed, what is in flight is not cut off."""
    app = make(Settings())

    @app.service
    async def dies() -> None:
        await app.executor.submit(anyio.sleep, 5)
        raise OSError("dead")

    began = anyio.current_time()
    with pytest.raises(OSError, match=r"^dead$"):
        async with app:
            await app.wait_closed()
    assert anyio.current_time() == began + 5
    assert app.executor.statistics().cancelled == 0


async def test_service_that_is_not_critical(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is reported, and the application goes on."""
    app = make()

    @app.service(critical=False)
    async def dies() -> None:
        raise OSError("dead")

    async with app:
        await anyio.sleep(10)
        assert app.state == "running"
    assert [each.levelname for each in caplog.records if each.name == "mtaio.errors"] == [
        "CRITICAL"
    ]


async def test_service_that_returns() -> None:
    """A service may be done; the application goes on."""
    app = make()

    @app.service
    async def short() -> None:
        pass

    async with app:
        await anyio.sleep(1)
        assert app.statistics().services == 0
        assert app.state == "running"


async def test_service_that_drains() -> None:
    """One that asked for it goes on until it is done; others are cancelled before that."""
    diary = Diary()
    app = diary.app

    @app.service(drains=True)
    async def worker() -> None:
        await app.wait_draining()
        await anyio.sleep(3)
        diary.note("worked off")

    @app.service
    async def poller() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            diary.note("cancelled")

    await diary.live(1)
    assert diary.lines == [(2, "cancelled"), (5, "worked off"), (5, "stopped")]
    assert app.statistics().cancelled == 0


# ---- the end -------------------------------------------------------------------------------------


async def test_what_takes_too_long_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """When the time to drain is over, what is left is cancelled, counted and told."""
    diary = Diary()
    app = diary.app

    async def forever(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            diary.note(name)

    @app.service(drains=True, name="worker")
    async def worker() -> None:
        await app.executor.submit(forever, "task")
        await app.executor.submit(forever, "task")
        await forever("service")

    await diary.live(1)
    end = round(BUDGET.drain_delay + BUDGET.drain, 6)
    assert sorted(diary.lines) == [(end, "service"), (end, "stopped"), (end, "task"), (end, "task")]
    assert app.statistics().cancelled == 3
    assert (
        "cancelled because the time was up: requests: 0, submitted tasks: 2, services: "
        "worker" in caplog.messages
    )


async def test_what_does_not_end_when_cancelled() -> None:
    """Resources are closed when the time for cancelling is over, whatever still runs."""
    diary = Diary()
    diary.resource("database")

    @diary.app.service
    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)

    await diary.live(1)
    closed = round(BUDGET.drain_delay + BUDGET.drain + BUDGET.cancel, 6)
    assert diary.lines[-2:] == [(closed, "database closed"), (99, "stopped")]


async def test_work_in_flight_may_submit() -> None:
    """While services drain, the executor still takes work."""
    app = make()
    done: list[bool] = []

    async def task() -> None:
        await anyio.sleep(1)
        done.append(True)

    @app.service(drains=True)
    async def worker() -> None:
        await app.wait_draining()
        await app.executor.submit(task)

    async with app:
        await anyio.sleep(1)
    assert done == [True]


async def test_submitted_task_whose_handle_is_gone() -> None:
    """Its failure is reported at once, and once; its end is that of the executor's block."""
    reported: list[tuple[float, str, object]] = []

    class Handler:
        def report(self, error: Exception, context: Mapping[str, object]) -> None:
            reported.append((anyio.current_time() - began, str(error), context["what"]))

    app = make(error_handler=Handler(), executor=TaskExecutor())

    async def fail(seconds: float) -> None:
        await anyio.sleep(seconds)
        msg = f"after {seconds:g}"
        raise ValueError(msg)

    async def awaits(handle: TaskHandle[None]) -> None:
        await anyio.sleep(3)
        with pytest.raises(ValueError, match="after"):
            await handle

    async def drops(handle: TaskHandle[None]) -> None:
        await anyio.sleep(4)
        assert handle.done

    async def live() -> None:
        async with app, anyio.create_task_group() as group:
            await app.executor.submit(fail, 1)
            app.executor.submit_nowait(fail, 2)
            for fn, seconds in ((awaits, 1.5), (awaits, 3.5), (drops, 2.5)):
                group.start_soon(fn, app.executor.submit_nowait(fail, seconds))
            kept = await app.executor.submit(fail, 1.2)
            await anyio.sleep(9)
            assert kept.done

    began = anyio.current_time()
    with pytest.raises(ExceptionGroup) as raised:
        await live()
    assert sorted(map(str, raised.value.exceptions)) == [
        *("after 1", "after 1.2", "after 2", "after 2.5"),
    ]
    *found, (_, last, whole) = reported
    assert [each[:2] for each in found] == [(1, "after 1"), (2, "after 2"), (4, "after 2.5")]
    assert re.match(r"the submitted task '.*fail'$", str(found[0][2]))
    assert (last, whole) == ("4 errors in one block (1 sub-exception)", "the executor")


async def test_submitted_tasks_that_were_all_reported(caplog: pytest.LogCaptureFixture) -> None:
    """They are not reported again at the end, which fails as it would without."""
    app = make()

    async def fail() -> None:
        raise ValueError("once")

    async def live() -> None:
        async with app:
            await app.executor.submit(fail)
            await anyio.sleep(1)
            assert "once" in caplog.text

    for _ in range(2):
        with pytest.raises(ValueError, match="once"):
            await live()
        found = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert [each.getMessage().partition(":")[0] for each in found] == [
            "unexpected ValueError",
            "the executor ends with errors of submitted tasks, which are logged above",
        ]
        assert found[0].exc_info is not None
        caplog.clear()


async def test_reports_of_submitted_tasks_are_made_in_their_contexts() -> None:
    """The error handler may be async, and sees the context of the task, whoever drops a handle."""
    told: list[tuple[str, str]] = []

    class Handler:
        async def handle_error(self, error: Exception, context: Mapping[str, object]) -> None:
            await anyio.sleep(1)
            assert str(context["what"]).startswith("the submitted task")
            told.append((REQUEST.get(), str(error)))

    app = make(error_handler=Handler(), executor=TaskExecutor())

    async def fail(text: str) -> None:
        raise ValueError(text)

    async def submit(number: int) -> TaskHandle[None]:
        REQUEST.set(f"request {number}")
        return await app.executor.submit(fail, f"error {number}")

    async def live() -> None:
        async with app:
            handles = [await submit(number) for number in range(4)]
            REQUEST.set("another")
            await anyio.sleep(1)
            await to_thread.run_sync(handles.pop)
            handles.pop()
            cycle: list[object] = [handles.pop()]
            cycle.append(cycle)
            del cycle
            await to_thread.run_sync(gc.collect)
            await anyio.sleep(2)
            assert sorted(told) == [(f"request {each}", f"error {each}") for each in (1, 2, 3)]
            with pytest.raises(ValueError, match="error 0"):
                await handles.pop()
            await anyio.sleep(2)

    with pytest.raises(ExceptionGroup):
        await live()
    assert len(told) == 3


def test_report_of_a_submitted_task_under_asyncio_run() -> None:
    """As everywhere: what only AnyIO's own way to run leaves in contexts is not needed."""
    told: list[bool] = []

    class Handler:
        def report(self, _error: Exception, _context: Mapping[str, object]) -> None:
            told.append(anyio.current_time() > 0)

    app = make(error_handler=Handler(), executor=TaskExecutor())

    async def fail() -> None:
        raise ValueError("mine")

    async def live() -> None:
        async with app:
            handles = [await app.executor.submit(fail), await app.executor.submit(fail)]
            await asyncio.sleep(0.01)
            await asyncio.to_thread(handles.pop)
            handles.clear()
            await asyncio.sleep(0.01)
            assert told == [True, True]

    with pytest.raises(ExceptionGroup, match="2 errors"):
        asyncio.run(live())


async def test_groups_of_submitted_tasks_are_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The errors in them are known again at the end, where the rest is reported."""
    app = make(executor=TaskExecutor())

    async def fail(*errors: Exception) -> None:
        msg = "several"
        raise ExceptionGroup(msg, errors)

    async def live() -> None:
        async with app:
            await app.executor.submit(fail, ValueError("a"), ExceptionGroup("", [KeyError("b")]))
            kept = await app.executor.submit(fail, ValueError("c"))
            await anyio.sleep(1)
            assert kept.done

    with pytest.raises(ExceptionGroup):
        await live()
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["a", "'b'", "c"]


async def test_handles_that_are_gone_after_the_end() -> None:
    """The end has told of their failures, if only how many there were."""
    told: list[Exception] = []

    class Handler:
        async def handle_error(self, error: Exception, _context: Mapping[str, object]) -> None:
            told.append(error)

    app = make(error_handler=Handler(), executor=TaskExecutor())
    handles: list[TaskHandle[None]] = []

    async def fail() -> None:
        raise ValueError("mine")

    async def live() -> None:
        async with app:
            handles.extend([await app.executor.submit(fail) for _ in range(1002)])

    with pytest.raises(ExceptionGroup, match="1000 errors") as raised:
        await live()
    handles.clear()
    await anyio.sleep(1)
    assert len(told) == 1
    assert raised.value.exceptions[-1].__notes__ == ["2 more submitted tasks failed after this one"]


def test_native_cancellation_of_all_is_no_failure_of_each_submitted_task() -> None:
    """As by `asyncio.run` at its end: it came for the executor's block, which says so."""
    told: list[object] = []

    class Handler:
        def report(self, _error: Exception, context: Mapping[str, object]) -> None:
            told.append(context["what"])

    async def live() -> None:
        async with make(error_handler=Handler(), executor=TaskExecutor()) as app:
            for _ in range(3):
                await app.executor.submit(anyio.sleep_forever)
            await anyio.sleep_forever()

    async def main() -> None:
        task = asyncio.create_task(live())
        await asyncio.sleep(0.05)
        assert not task.done()

    asyncio.run(main())
    assert not [each for each in told if "submitted" in str(each)]


async def test_health_checks_are_its_own() -> None:
    """A check that is added to the application is one of its registry."""
    app = make()

    @app.health_check("database", critical=False)
    def database() -> str:
        return "gone"

    async with app:
        report = await app.health.report()
    assert [(each.name, each.status) for each in report.checks] == [
        ("database", "degraded"),
        ("application", "passing"),
    ]


async def test_readiness() -> None:
    """Ready from the start to the first word of stopping, also when it is started again."""
    app = make()
    seen: list[tuple[str, bool, bool]] = []

    async def look() -> None:
        report = await app.health.report()
        seen.append((app.state, report.started, report.ready))

    @app.resource
    async def looks() -> AsyncIterator[None]:
        await look()
        yield

    @app.service(drains=True)
    async def service() -> None:
        await app.wait_draining()
        await look()

    for _ in range(2):
        async with app:
            await look()
    assert seen == 2 * [
        ("starting", False, False),
        ("running", True, True),
        ("draining", True, False),
    ]


async def test_stop_from_inside() -> None:
    """A service may ask the application to stop, with a reason, from any thread."""
    app = make(Settings())

    @app.service
    async def worker() -> None:
        await anyio.sleep(2)
        await to_thread.run_sync(app.stop_nowait, "all is done")
        await anyio.sleep_forever()

    began = anyio.current_time()
    async with app:
        await app.wait_closed()
    assert anyio.current_time() == began + 2
    assert app.state == "stopped"


async def test_start_and_stop() -> None:
    """The two halves of the block, in any task; stopping twice is stopping once."""
    app = make(Settings())
    await app.stop()
    app.stop_nowait()
    assert app.state == "new"
    with pytest.raises(RuntimeError, match=r"^<Application new> was never started\. Call await "):
        await app.wait_closed()
    assert not app.draining
    with pytest.raises(RuntimeError, match=r"^<Application new> was never started\. Await "):
        await app.wait_draining()
    await app.start()
    assert not app.draining
    assert str(app.state) == "running"
    with pytest.raises(
        RuntimeError, match=r"^<Application running> is already running\. Stop it first"
    ):
        await app.start()
    with pytest.raises(
        RuntimeError, match=r"^<Application running> has already started: it is too late"
    ):
        app.serve(nothing)
    async with anyio.create_task_group() as group:
        group.start_soon(app.stop, "enough")
        group.start_soon(app.stop)
    assert str(app.state) == "stopped"
    await app.stop()


async def test_block_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """Its error travels untouched; what is in flight is cancelled, and resources are closed."""
    diary = Diary()
    diary.resource("database", closing=1)

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            diary.note("cancelled")

    @diary.app.service(drains=True, name="it")
    async def service() -> None:
        await work()

    async def block() -> None:
        async with diary.app:
            await diary.app.executor.submit(work)
            await anyio.sleep(1)
            diary.began = anyio.current_time()
            raise KeyError("mine")

    with pytest.raises(KeyError, match=r"^'mine'$"):
        await block()
    assert diary.lines[1:] == [(0, "cancelled"), (0, "cancelled"), (1, "database closed")]
    assert (
        "cancelled before the time was up: requests: 0, submitted tasks: 1, services: it"
        in caplog.messages
    )


async def test_block_that_is_cancelled_while_it_drains() -> None:
    """Cancelling the wait cuts the draining short; resources are closed all the same."""
    diary = Diary()
    diary.resource("database", closing=1)

    @diary.app.service(drains=True)
    async def service() -> None:
        await anyio.sleep_forever()

    with anyio.move_on_after(3) as scope:
        await diary.live()
    assert scope.cancelled_caught
    assert diary.lines == [(0, "database open"), (4, "database closed")]
    assert diary.app.state == "stopped"


async def test_start_that_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """It closes what it had opened, what was being opened first."""
    diary = Diary()
    diary.resource("database")

    @diary.app.resource
    async def slow() -> AsyncIterator[None]:
        try:
            await anyio.sleep_forever()
            yield
        finally:
            diary.note("slow cancelled")

    with anyio.move_on_after(3):
        await diary.app.start()
    assert diary.lines == [(0, "database open"), (3, "slow cancelled"), (3, "database closed")]
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_stopped_while_it_starts() -> None:
    """A stop during the start closes what is open, and is no error."""
    diary = Diary()
    diary.resource("database")
    diary.resource("queue", opening=1000)
    async with anyio.create_task_group() as group:
        group.start_soon(diary.app.start)
        await anyio.sleep(1)
        diary.app.stop_nowait("it was a mistake")
    assert diary.lines == [(0, "database open"), (1, "database closed")]
    await diary.app.wait_closed()


def test_stopped_as_its_last_part_opens(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """No service begins then, and nothing is said to have taken too long."""
    caplog.set_level(logging.INFO)

    async def main() -> list[str]:
        diary, is_open = Diary(Settings()), anyio.Event()

        @diary.app.resource
        async def database() -> AsyncIterator[None]:
            is_open.set()
            yield
            diary.note("closed")

        @diary.app.service
        async def service() -> None:
            diary.note("begun")
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(diary.app.start)
            await is_open.wait()
            await diary.app.stop("SIGINT")
        return [line for _, line in diary.lines]

    seen = set[tuple[str, ...]]()
    for seed in range(8):
        caplog.clear()
        lines = run(main, backend=backend, schedule=Schedule(seed=seed))
        seen.add((*lines, *(re.sub(r" in .*", "", each) for each in caplog.messages)))
    assert seen == {
        ("closed", "stopping: SIGINT", "stopped"),
        ("begun", "closed", "started", "stopping: SIGINT", "drained", "stopped"),
    }


@pytest.mark.parametrize("mode", ["checkpoint", "step"])
def test_cancelled_at_every_moment(mode: Any, backend: str) -> None:
    """Whenever the block is cancelled, all that was opened is closed, and it can be used again."""
    opened: list[str] = []
    app = make(Settings())

    class Open(AbstractAsyncContextManager[None]):
        def __init__(self, name: str) -> None:
            self.name = name

        async def __aenter__(self) -> None:
            await anyio.sleep(0.1)
            opened.append(self.name)

        async def __aexit__(self, *_: object) -> None:
            assert opened.pop() == self.name
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)

    for name in ("database", "queue"):
        app.resource(partial(Open, name))

    @app.service(restart=2)
    async def service() -> None:
        await anyio.sleep_forever()

    async def scenario(victim: Victim) -> None:
        async def block() -> None:
            async with app:
                await anyio.sleep(0.1)

        await victim(block)
        assert opened == []
        assert app.state in ("new", "stopped")
        assert app.statistics().services == 0

    for victim in injections(mode):
        run(scenario, victim, backend=backend)


def test_one_event_loop_after_another(backend: str) -> None:
    """It is used by one loop after another, each from the start."""
    app = make(Settings())
    opened: list[bool] = []

    @app.resource
    async def resource() -> AsyncIterator[None]:
        opened.append(True)
        yield

    async def main() -> None:
        async with app:
            assert app.state == "running"

    for _ in range(2):
        run(main, backend=backend)
    assert opened == [True, True]


def test_loop_that_ends(backend: str) -> None:
    """An application that nobody stops ends with its event loop, and closes what is open."""
    app = make(Settings())
    closed: list[bool] = []

    @app.resource
    async def resource() -> AsyncIterator[None]:
        try:
            yield
        finally:
            closed.append(True)

    @app.service
    async def service() -> None:
        await anyio.sleep_forever()

    async def forget() -> None:
        await app.start()

    async def again() -> None:
        async with app:
            pass

    run(forget, backend=backend)
    assert (app.state, closed) == ("stopped", [True])
    run(again, backend=backend)


async def test_error_that_is_no_exception() -> None:
    """A service that exits stops the application, with that as its error."""
    app = make(Settings())

    @app.service
    async def exits() -> None:
        raise SystemExit(5)

    with pytest.raises(SystemExit):
        async with app:
            await app.wait_closed()


# ---- logging -------------------------------------------------------------------------------------


async def test_logging_is_set_up_and_taken_away(tmp_path: Any) -> None:
    """With logging=True the settings decide, until it has stopped; the last line is in the file."""
    settings = Settings(log_file=tmp_path / "app.log", log_console=False, log_level="INFO")
    app = make(settings, logging=True)
    before = list(logging.getLogger().handlers)
    async with app:
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before
    lines = (tmp_path / "app.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("mtaio.app: ")[2] for line in lines] == [
        *("started in 0 s", "stopping: its block was left", "drained in 0 s", "stopped"),
    ]


async def test_logging_is_left_alone() -> None:
    """Where the root logger has handlers, or with logging=False, nothing is set up."""
    root = logging.getLogger()
    before = list(root.handlers)
    for app in (make(), make(logging=False)):
        async with app:
            assert root.handlers == before


# ---- errors --------------------------------------------------------------------------------------


class GuideHandler:
    """What the guide's error handler has: one async method."""

    def __init__(self) -> None:
        self.handled: list[tuple[Exception, dict[str, Any]]] = []

    async def handle_error(self, error: Exception, context: dict[str, Any]) -> None:
        """Handle an error; one without arguments cannot be handled."""
        await anyio.sleep(1)
        self.handled.append((error, context))
        if not error.args:
            raise KeyError("message")


class Reporter:
    """An error handler that fails."""

    def __init__(self, failure: type[BaseException] = KeyError) -> None:
        self._failure = failure

    def report(self, *_: object) -> None:
        """Handle nothing."""
        raise self._failure


def dying(handler: object, error: Exception) -> Application:
    """Return an application whose service dies."""
    app = make(error_handler=handler)

    @app.service(name="dies", critical=False)
    async def dies() -> None:
        raise error

    return app


async def test_error_handler_of_the_guide() -> None:
    """An object with ``async handle_error`` alone will do."""
    handler, error = GuideHandler(), OSError("dead")
    async with dying(handler, error):
        await anyio.sleep(2)
    assert handler.handled == [(error, {"what": "the service 'dies'"})]


def test_error_handler_that_nobody_would_await() -> None:
    """An async ``report`` would never run."""

    class Handler:
        async def report(self, error: Exception, context: dict[str, Any]) -> None:
            """Handle an error."""

    with pytest.raises(TypeError, match=r"has an async report\(\), which would not be awaited"):
        make(error_handler=Handler())


@pytest.mark.parametrize(
    "handler",
    [GuideHandler(), Reporter(), Reporter(SystemExit)],
    ids=["async", "report", "exit"],
)
async def test_error_handler_that_fails(handler: object, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises is logged, and the error that it was to handle."""
    async with dying(handler, OSError()):
        await anyio.sleep(2)
    assert [each.message for each in caplog.records if each.levelname in {"ERROR", "CRITICAL"}] == [
        "the error handler failed",
        "OSError:  ({'what': \"the service 'dies'\"})",
    ]
