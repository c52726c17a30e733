"""Jobs: an application that ends when its work is done, and says whether it is."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio._internal import unfinished
from mtaio.app import Application, PartInfo
from mtaio.config import Settings
from mtaio.core import Retry, TaskExecutor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from mtaio.testing import Simulation

SETTINGS = Settings(shutdown_timeout=20)
BUDGET = SETTINGS.shutdown


def make(**options: Any) -> Application:
    """Make an application that touches nothing outside."""
    return Application(SETTINGS, probes=False, signals=False, **options)


async def until_closed(app: Application) -> float:
    """Have it live, and return for how long."""
    start = anyio.current_time()
    async with app:
        await app.wait_closed()
    return anyio.current_time() - start


async def test_it_stops_when_all_jobs_have_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Services and resources are there until then, and are ended after it."""
    caplog.set_level(logging.INFO, "mtaio.app")
    app, ended = make(), list[str]()

    @app.resource
    async def resource() -> AsyncIterator[int]:
        yield 1
        ended.append("resource")

    @app.service
    async def service() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("service")

    async def work(name: str, seconds: float) -> None:
        assert resource.get() == 1
        await anyio.sleep(seconds)
        ended.append(name)

    app.job(name="short")(partial(work, "short", 1))
    app.job(name="long")(partial(work, "long", 3))
    assert await until_closed(app) == 3
    assert ended == ["short", "long", "service", "resource"]
    assert app.statistics().jobs == app.statistics().services == 0
    assert "stopping: all jobs have ended" in caplog.messages
    assert await until_closed(app) == 3  # again


async def test_jobs_that_end_at_once() -> None:
    """The program goes on behind the block all the same, where others are kept out of it."""
    app, seen = make(), list[str]()

    @app.job
    async def nothing_to_do() -> None:
        pass

    for _ in range(2):
        async with app:
            seen.append(app.state)
            await app.wait_closed()
        seen.append(app.state)
    assert seen[1::2] == ["stopped", "stopped"]
    assert {*seen} <= {"running", "draining", "stopped"}
    assert app.statistics().jobs == 0


async def test_statistics_and_state() -> None:
    """Jobs count until they have ended, beside services; it is ready while they run."""
    app = make()

    @app.job(name="work", restart=3)
    async def work(its: Application) -> None:
        assert its is app
        await anyio.sleep(2)

    @app.service
    async def service() -> None:
        await anyio.sleep_forever()

    assert app.jobs == (PartInfo(name="work", restart=3, drains=True, job=True),)
    assert [each.name for each in app.services] == [service.__qualname__]
    assert app.statistics().jobs == 0
    async with app:
        await anyio.sleep(1)
        statistics = app.statistics()
        assert (statistics.jobs, statistics.services, statistics.up) == (1, 1, True)
        assert (await app.health.report()).ready
        assert app._describe().endswith(f"services: {service.__qualname__}, jobs: work")
        await app.wait_closed()


async def item(seconds: float) -> float:
    """Take so long."""
    await anyio.sleep(seconds)
    return seconds


def job_of(app: Application, kind: str) -> Callable[[], Coroutine[Any, Any, object]]:
    """Return a job."""
    executor = TaskExecutor()

    async def returns() -> None:
        await anyio.sleep(5)

    async def takes_no_more() -> None:
        await executor.map(item, [1, 1, 1, 1, 1], limit=1, until=app.wait_draining)

    async def takes_all() -> None:
        await executor.map(item, [4, 4], until=app.wait_draining)

    async def never_ends() -> None:
        await anyio.sleep_forever()

    async def ends_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return  # a mistake, but not a result

    async def submits() -> None:
        await app.executor.submit(item, 100)

    async def says_so() -> None:
        await app.wait_draining()
        sys.exit(75)

    async def fails() -> None:
        await app.wait_draining()
        raise ZeroDivisionError

    job: Callable[[], Coroutine[Any, Any, object]] = vars()[kind]
    return job


@pytest.mark.parametrize(
    ("kind", "seconds", "code"),
    [
        ("returns", 5, 0),
        ("takes_no_more", 3, 75),
        ("takes_all", 4, 0),
        ("never_ends", 2.5 + BUDGET.drain, 75),
        ("ends_when_cancelled", 2.5 + BUDGET.drain, 75),
        ("submits", 0, 75),
        ("says_so", 2.5, 75),
        ("fails", 2.5, 1),
    ],
)
async def test_told_to_stop(
    kind: str, seconds: float, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A job goes on until it returns or time runs out; then it is known whether it is complete."""
    app = make()
    app.job(name="work")(job_of(app, kind))
    start, found = anyio.current_time(), 0
    try:
        async with app:
            await anyio.sleep(2.5)
            app.stop_nowait("told to")
            await app.wait_closed()
    except ZeroDivisionError:
        found = 1
    except SystemExit as error:
        found = error.code  # type: ignore[assignment] # a number here
    if kind == "submits":  # it ends before it is told to: what it has submitted has the usual time
        seconds = BUDGET.drain
    assert anyio.current_time() - start == pytest.approx(seconds)
    if not found:
        found = 75 if app.statistics().jobs else 0
        assert ("not completed, to be run again: work" in caplog.messages) == bool(found)
    assert found == code


async def test_restart() -> None:
    """A job that fails is started again; what an attempt that failed left undone is not held."""
    app, attempts = make(), 0

    @app.job(restart=Retry(attempts=2, wait_initial=1, jitter=0))
    async def work() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            unfinished.note()
            raise ZeroDivisionError

    assert await until_closed(app) == 1
    assert (attempts, app.statistics().jobs, app.statistics().restarts) == (2, 0, 1)


async def test_job_that_fails_ends_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """The application drains as by a signal, and its error is the job's."""
    caplog.set_level(logging.INFO, "mtaio.app")
    app = make()

    @app.job(name="bad")
    async def bad() -> None:
        await anyio.sleep(1)
        raise ZeroDivisionError

    @app.job
    async def good() -> None:
        await app.wait_draining()
        await anyio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        await until_closed(app)
    assert app.statistics().jobs == 1  # the other is complete
    assert "stopping: the job 'bad' failed: ZeroDivisionError" in caplog.messages


async def test_stopped_as_it_starts() -> None:
    """A job that was not begun is not complete."""
    app = make()

    @app.resource
    async def slow() -> AsyncIterator[None]:
        app.stop_nowait("at once")
        await anyio.sleep_forever()
        yield

    @app.job
    async def work() -> None:
        raise NotImplementedError

    with pytest.raises(SystemExit) as caught:
        async with app:
            raise NotImplementedError
    assert caught.value.code == 75
    assert app.statistics().jobs == 1


def test_exit_codes_of_run(backend: Any) -> None:
    """``run`` raises ``SystemExit`` with 75 if a job is not complete, and returns otherwise."""
    app = Application(Settings(health_bind="127.0.0.1:0"), probes=False, logging=False)
    complete = True

    @app.job
    async def work() -> None:
        if not complete:
            unfinished.note()

    app.run(backend)
    complete = False
    with pytest.raises(SystemExit) as caught:
        app.run(backend)
    assert caught.value.code == 75


async def test_refusals() -> None:
    """What can be no job is refused, and so is a second one of the same name."""
    app = make()
    job: Any = app.job
    with pytest.raises(TypeError, match=r"^fn=<.*> is not an async function: a job must be async"):
        job(lambda: None)

    async def opened() -> AsyncIterator[None]:
        yield

    with pytest.raises(TypeError, match=r"a job must not yield\. .* @app\.resource\."):
        job(opened)
    app.job(name="one")(anyio.sleep_forever)
    with pytest.raises(
        ValueError, match=r"^there is already a service, job or periodic function named 'one'"
    ):
        app.job(name="one")(anyio.sleep_forever)
    async with app:
        with pytest.raises(RuntimeError, match=r"it is too late for job\(\). Register"):
            app.job(anyio.sleep_forever)


async def test_several_calls_in_one_task_group(sim: Simulation) -> None:
    """A call that is cut short in any task of the job counts."""
    app = make()

    @app.job
    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(item, 1)
            call = partial(TaskExecutor().for_each, item, [1, 1], limit=1, until=app.wait_draining)
            group.start_soon(call)

    async with app:
        await anyio.sleep(0.5)
        app.stop_nowait()
        await app.wait_closed()
    assert sim.time() == 1
    assert app.statistics().jobs == 1
