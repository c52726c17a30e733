"""The body of ``async with app``, on the virtual clock: how long it is left to itself."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.app import Application
from mtaio.config import Settings
from mtaio.testing import Schedule, Victim, injections, run, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SETTINGS = Settings(drain_delay=2, shutdown_timeout=20)
BUDGET = SETTINGS.shutdown
DRAINED = BUDGET.drain_delay + BUDGET.drain


class Diary:
    """An application with a resource, and what happened in it when, from the stop on."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.app = Application(settings, probes=False, signals=False)
        self.lines: list[tuple[float, str]] = []
        self.began = 0.0
        self.app.resource(self.database)

    def note(self, line: str) -> None:
        """Write down that something happened."""
        self.lines.append((round(anyio.current_time() - self.began, 6), line))

    async def database(self) -> AsyncIterator[str]:
        """Write down when it is closed."""
        yield "database"
        self.note("closed")

    def stop(self) -> None:
        """Have the application stop, and count from now."""
        self.began = anyio.current_time()
        self.app.stop_nowait("all is done")

    async def wait(self, name: str = "body") -> None:
        """Wait for something that never comes."""
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.5)
            self.note(f"{name} cleaned up")


async def test_body_that_waits_for_nothing() -> None:
    """It is cancelled once nothing is in flight, cleans up, and the program goes on."""
    diary = Diary()
    async with diary.app:
        diary.stop()
        await diary.wait()
    diary.note("went on")
    assert diary.lines == [(2.5, "body cleaned up"), (2.5, "closed"), (2.5, "went on")]


async def test_body_is_cancelled_when_the_others_have_ended() -> None:
    """What is in flight may need what the body holds: it is cancelled after that has ended."""
    diary = Diary()

    @diary.app.service(drains=True)
    async def service() -> None:
        await diary.app.wait_draining()  # which does not count as the body's
        await anyio.sleep(3)
        diary.note("service")

    async with diary.app:
        diary.stop()
        await diary.wait()
    assert diary.lines == [(5, "service"), (5.5, "body cleaned up"), (5.5, "closed")]


async def test_what_a_cancelled_body_has_submitted() -> None:
    """It is drained, as what services have submitted is."""
    diary = Diary()

    async def task() -> None:
        await anyio.sleep(5)
        diary.note("task")

    async with diary.app:
        diary.stop()
        await diary.app.executor.submit(task)
        await anyio.sleep_forever()
    assert diary.lines == [(5, "task"), (5, "closed")]


async def test_body_that_drains() -> None:
    """A body that waits for the drain ends by itself."""
    diary = Diary()
    async with diary.app:
        diary.stop()
        await diary.app.wait_draining()
        await anyio.sleep(3)
        diary.note("left")
    assert diary.lines == [(5, "left"), (5, "closed")]


async def test_body_that_looks() -> None:
    """``app.draining`` is true after the drain delay; a body that looks at it ends by itself."""
    diary = Diary()
    app = diary.app
    assert not app.draining
    async with app:
        diary.stop()
        while not app.draining:
            assert not app.statistics().draining
            await anyio.sleep(0.75)
        diary.note("draining")
        assert (app.state, app.statistics().up, app.statistics().draining) == (
            "draining",
            False,
            True,
        )
        await anyio.sleep(3)
        diary.note("left")
    assert app.draining
    assert diary.lines == [(2.25, "draining"), (5.25, "left"), (5.25, "closed")]
    async with app:
        assert not app.draining
        assert app.statistics().up


async def test_body_whose_task_drains() -> None:
    """So does one of whose tasks one waits for it."""
    diary = Diary()

    async def drain() -> None:
        await diary.app.wait_draining()
        await anyio.sleep(3)
        diary.note("drained")

    async with diary.app:
        async with anyio.create_task_group() as group:
            group.start_soon(drain)
            diary.stop()
        diary.note("left")
    assert diary.lines == [(5, "drained"), (5, "left"), (5, "closed")]


async def test_body_that_drains_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """It is cancelled when the time to drain is over, as everything else, and the log says so."""
    caplog.set_level("WARNING")  # programs of the docs, run before in this process, want more
    diary = Diary()
    async with diary.app:
        diary.stop()
        await diary.app.wait_draining()
        await diary.wait()
    cancelled = round(DRAINED + 0.5, 6)
    assert diary.lines == [(cancelled, "body cleaned up"), (cancelled, "closed")]
    (message,) = caplog.messages
    assert message == (
        "cancelled because the time was up: requests: 0, submitted tasks: 0, services: "
        "none; and the body of its async with block"
    )


async def test_body_that_does_not_end(caplog: pytest.LogCaptureFixture) -> None:
    """Resources are closed all the same, when the time to clean up is over."""
    caplog.set_level("WARNING")  # programs of the docs, run before in this process, want more
    diary = Diary()
    async with diary.app:
        diary.stop()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(100)
        diary.note("left")
    closed = round(DRAINED + BUDGET.cancel, 6)
    assert diary.lines == [(closed, "closed"), (100, "left")]
    assert len(caplog.messages) == 1


async def test_body_that_waits_for_the_end() -> None:
    """It goes on when all is closed."""
    diary = Diary()
    async with diary.app:
        diary.stop()
        await diary.app.wait_closed()
        await anyio.sleep(1)
        diary.note("left")
    assert diary.lines == [(2, "closed"), (3, "left")]


async def test_end_that_others_wait_for() -> None:
    """Who waits for the end outside of the body does not speak for it."""
    diary = Diary()
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            await settle()
            diary.began = anyio.current_time()
            await diary.app.stop()
            diary.note("stopped")

        group.start_soon(stop)
        async with diary.app:
            await diary.wait()
    assert diary.lines == [(2.5, "body cleaned up"), (2.5, "closed"), (2.5, "stopped")]


async def test_body_that_fails_as_it_cleans_up() -> None:
    """Its error travels untouched."""
    diary = Diary()

    async def block() -> None:
        async with diary.app:
            diary.stop()
            try:
                await anyio.Event().wait()
            finally:
                raise KeyError("mine")

    with pytest.raises(KeyError, match=r"^'mine'$"):
        await block()
    assert diary.lines == [(2, "closed")]


async def test_body_of_an_application_that_fails() -> None:
    """When it has been cancelled, the block raises what the application has failed with."""
    diary = Diary()

    @diary.app.service
    async def service() -> None:
        await anyio.sleep(1)
        diary.began = anyio.current_time()
        raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        async with diary.app:
            await diary.wait()
    assert diary.lines == [(2.5, "body cleaned up"), (2.5, "closed")]


async def test_applications_in_each_other() -> None:
    """The body of one that holds another is cancelled with that, which closes first."""
    outer, inner = Diary(), Diary(Settings())
    async with outer.app:
        async with inner.app:
            outer.began = inner.began = anyio.current_time()
            outer.app.stop_nowait()
            await inner.wait()
        outer.note("not reached")
    assert inner.lines == [(2.5, "body cleaned up"), (2.5, "closed")]
    assert outer.lines == [(2.5, "closed")]


async def test_body_of_a_server() -> None:
    """Where somebody else handles SIGTERM too, the body is theirs to leave."""
    diary = Diary()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        async with diary.app:
            diary.stop()
            await anyio.sleep(10)
            diary.note("left")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert diary.lines == [(10, "left"), (10, "closed")]


def test_block_left_in_another_task() -> None:
    """Fixtures of pytest-asyncio do that: the first task is over, and nobody tries to cancel it."""

    async def main() -> None:
        diary = Diary()
        await asyncio.create_task(diary.app.__aenter__())
        diary.stop()
        await anyio.sleep(10)
        diary.note("left")
        await asyncio.create_task(diary.app.__aexit__(None, None, None))
        assert diary.lines == [(10, "left"), (10, "closed")]

    run(main, backend="asyncio")


async def test_body_does_not_begin() -> None:
    """An application that is told to stop as it starts keeps its body out."""
    diary = Diary()

    async def slow() -> AsyncIterator[None]:
        diary.stop()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        yield

    diary.app.resource(slow)
    with pytest.raises(SystemExit) as caught:
        await begin(diary)
    assert caught.value.code == 0
    assert diary.lines == [(1, "closed")]
    assert diary.app.state == "stopped"


async def begin(diary: Diary) -> None:
    """Enter and leave the block."""
    async with diary.app:
        diary.note("begun")


async def test_error_as_it_stops_before_its_body() -> None:
    """What fails as it is closed then is raised, and no body begins."""
    diary = Diary()

    async def broken() -> AsyncIterator[None]:
        diary.stop()
        yield
        raise LookupError("mine")

    diary.app.resource(broken)
    with pytest.raises(LookupError, match=r"^mine$"):
        await begin(diary)
    assert "begun" not in {line for _, line in diary.lines}


def test_stopped_as_its_body_begins(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever comes first: the body begins with all that is open, or does not begin."""
    caplog.set_level("INFO")

    async def main() -> tuple[str, ...]:
        diary, is_open = Diary(Settings()), anyio.Event()

        async def last() -> AsyncIterator[str]:
            is_open.set()
            yield "last"

        resource = diary.app.resource(last)

        async def stop() -> None:
            await is_open.wait()
            diary.app.stop_nowait()

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            try:
                async with diary.app:
                    diary.note(f"begun with {resource.get()}")
                    await diary.wait()
            except SystemExit as error:
                diary.note(f"exit {error.code}")
        return tuple(line for _, line in diary.lines)

    seen = {run(main, backend=backend, schedule=Schedule(seed=seed)) for seed in range(16)}
    assert seen <= {("closed", "exit 0"), ("begun with last", "body cleaned up", "closed")}
    assert ("closed", "exit 0") in seen
    assert not [each for each in caplog.messages if re.match("cancelled", each)]


@pytest.mark.parametrize("mode", ["checkpoint", "step"])
def test_cancelled_at_every_moment_of_the_end(mode: Any, backend: str) -> None:
    """Whoever cancels the body, and when: all is closed, and only the cancellation goes on."""

    async def scenario(victim: Victim) -> None:
        diary = Diary(Settings())

        async def block() -> None:
            async with diary.app:
                diary.app.stop_nowait()
                await diary.wait()

        await victim(block)
        assert not diary.lines or diary.lines[-1][1] == "closed"
        assert diary.app.state in ("new", "stopped")

    for victim in injections(mode):
        run(scenario, victim, backend=backend)
