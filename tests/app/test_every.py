"""``@app.every``: periodic work of an application, from its start to its drain."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.core import Cron

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

SETTINGS = Settings(drain_delay=2, shutdown_timeout=20)


def make(**options: Any) -> Application:
    """Make an application that touches nothing outside."""
    return Application(SETTINGS, probes=False, signals=False, **options)


async def test_from_the_start_to_the_drain() -> None:
    """Resources are open; none begins once nothing new is accepted; one under way ends."""
    app = make()
    began: list[float] = []
    ended: list[float] = []

    @app.resource
    async def number() -> AsyncIterator[int]:
        await anyio.sleep(1)
        yield 7

    @app.every(2)
    async def work(given: Application) -> None:
        assert (given, number.get()) == (app, 7)
        began.append(anyio.current_time())
        await anyio.sleep(1.5)
        ended.append(anyio.current_time())

    for _ in range(2):  # an application can be started again
        async with app:
            start = anyio.current_time()
            assert app.statistics().services == 1
            await anyio.sleep(3)
            name = "test_from_the_start_to_the_drain.<locals>.work"
            assert f"periodic_task.{name}.runs" in app.monitor.metric_names()
            checks = (await app.health.report()).checks
            assert [each.name for each in checks] == ["application", name]
        # Stopped at 3, it accepts nothing new from 5 on; the run that began at 4 goes on to 5.5.
        assert [each - start for each in began] == [0, 2, 4]
        assert [each - start for each in ended] == [1.5, 3.5, 5.5]
        assert app.statistics().cancelled == 0
        began.clear()
        ended.clear()


async def test_run_that_outlasts_the_drain_is_cancelled() -> None:
    """As requests are, and the application ends in time."""
    app = make()

    @app.every(60, name="endless")
    async def work() -> None:
        await anyio.sleep_forever()

    async with app:
        await anyio.sleep(1)
        began = anyio.current_time()
    assert anyio.current_time() - began < 20
    assert app.statistics().cancelled == 1


async def test_failed_runs() -> None:
    """Go to the error handler, and make the health check fail in the end; the schedule goes on."""
    reported: list[tuple[str, Any]] = []

    class Handler:
        def report(self, error: Exception, context: Mapping[str, object]) -> None:
            reported.append((str(error), context["what"]))

    app = make(error_handler=Handler())

    @app.every(Cron("*/10 * * * * *"), name="job", critical=True)
    def work() -> None:
        msg = "no"
        raise OSError(msg)

    async with app:
        await anyio.sleep(35)
        assert (await app.health.report()).ready
        await anyio.sleep(10)
        report = await app.health.report()
        assert not report.ready
        assert (
            report.checks[1].error == "no run has succeeded, in 4 attempts; the last raised OSError"
        )
    assert reported == [("no", "the periodic function 'job'")] * 4


async def test_only_degraded(caplog: pytest.LogCaptureFixture) -> None:
    """Unless it is critical, an application whose periodic work fails still takes requests."""
    app = make()

    @app.every(1)
    async def work() -> None:
        raise OSError

    async with app:
        await anyio.sleep(10)
        report = await app.health.report()
    assert (report.ready, report.degraded) == (True, True)
    assert all(each.levelno < logging.CRITICAL for each in caplog.records if "slow" in each.message)


def test_refusals() -> None:
    """Options are checked where they are written, and names are one service's."""
    app = make()
    every: Any = app.every

    @app.service(name="job")
    async def service() -> None:
        raise NotImplementedError

    with pytest.raises(
        ValueError, match=r"^there is already a service, .* named 'job'\. Give this one"
    ):
        app.every(1, name="job")(service)
    app.every(1, name="work")(service)
    with pytest.raises(
        ValueError, match=r"^there is already a .* periodic function named 'work'\."
    ):
        app.service(name="work")(service)
    with pytest.raises(ValueError, match=r"^period=-1 is not"):
        app.every(-1)
    with pytest.raises(TypeError, match=r"^critical='yes' is a str, not a bool"):
        every(1, critical="yes")
    with pytest.raises(ValueError, match=r"^timeout=-1 is less than 0"):
        every(1, timeout=-1)
    with pytest.raises(ValueError, match=r"^retry=0 is less than 1\. Pass the number of attempts"):
        every(1, retry=0)
    with pytest.raises(TypeError, match=r"^fn=None is "):
        every(1)(None)
    with pytest.raises(TypeError, match="can be called neither with the application nor without"):
        every(1)(lambda a, b: (a, b))

    def steps() -> Any:
        yield

    async def async_steps() -> Any:
        yield

    for fn in (steps, async_steps):
        with pytest.raises(TypeError, match=r"steps at .* is a generator function: calling it"):
            every(1)(fn)
