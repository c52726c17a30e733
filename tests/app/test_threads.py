"""Every public method of mtaio.app, called from where its loop does not run: `tests.threads`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from inspect import isawaitable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest
from anyio import to_thread

from mtaio import app
from mtaio.app import Application, ErrorHandler, Resource
from mtaio.config import Settings
from mtaio.testing import run
from tests.backends import BACKENDS
from tests.threads import (
    PLACES,
    Case,
    attempt_alone,
    attempt_in_loop,
    check_elsewhere,
    check_without_a_loop,
    public,
    readable,
    within,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable


async def second(*_: object) -> int:
    """Take a second."""
    await anyio.sleep(1)
    return 1


async def another() -> None:
    """Be another service."""


def plain() -> None:
    """Take no time."""


async def opened() -> AsyncIterator[int]:
    """Yield the value of a resource."""
    yield 1


async def asgi(*_: object) -> None:
    """Be an application that is never called."""


def make() -> Application:
    """Make an application that touches nothing outside."""
    made = Application(Settings(drain_delay=0), probes=False, signals=False, logging=False)
    made.service(second)
    return made


@asynccontextmanager
async def in_application(made: Any) -> AsyncGenerator[Any]:
    """Enter the application of a resource."""
    async with made.app:
        yield made


class Opened:
    """An application with a resource."""

    def __init__(self) -> None:
        self.app = make()
        self.resource = self.app.resource(opened)


async def its_resource(made: Opened) -> Resource[int]:
    """Return the resource."""
    return made.resource


CASES: Final[dict[type, Case]] = {
    Application: Case(make, second, entered=True),
    ErrorHandler: Case(ErrorHandler, second),
    Resource: Case(Opened, second, around=in_application, wanted=its_resource),
}

# A value.
OTHERS: Final = {"PartInfo"}

CALLS: Final[dict[type, dict[str, Callable[[Any], Any]]]] = {
    Application: {
        "every": lambda it: it.every(1)(another),
        "health_check": lambda it: it.health_check("check")(plain),
        "job": lambda it: it.job(another),
        "lifespan": within(lambda it: it.lifespan()),
        "stop_nowait": lambda it: it.stop_nowait(),
        "resource": lambda it: it.resource(opened),
        "run": lambda it: it.run(),
        "serve": lambda it: it.serve(asgi, bind="127.0.0.1:0"),
        "service": lambda it: it.service(another),
        "start": lambda it: it.start(),
        "statistics": lambda it: it.statistics(),
        "stop": lambda it: it.stop(),
        "wait_closed": lambda it: it.wait_closed(),
        "wait_draining": lambda it: it.wait_draining(),
    },
    ErrorHandler: {
        "catch": lambda it: it.catch(),
        "report": lambda it: it.report(ValueError("wrong")),
        "statistics": lambda it: it.statistics(),
    },
    Resource: {
        "get": lambda it: it.get(),
    },
}

CALLS_AND_READS: Final = {
    (kind, name): call
    for kind, calls in CALLS.items()
    for name, call in ({name: attrgetter(name) for name in sorted(readable(kind))} | calls).items()
}


def test_every_method_has_its_row() -> None:
    """A new method is a new row, and a new class its rows: this says which are missing."""
    assert {kind: public(kind) for kind in CASES} == {
        kind: set(names) for kind, names in CALLS.items()
    }
    kinds = set(app.__all__) - OTHERS
    assert {getattr(app, name) for name in kinds} == set(CASES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("kind", "name"), CALLS_AND_READS, ids=lambda part: getattr(part, "__name__", part)
)
def test_elsewhere(kind: type, name: str, place: str, backend: str) -> None:
    """Beside the loop in which it is up, it works, or refuses and has changed nothing."""
    check_elsewhere(CASES[kind], CALLS_AND_READS[kind, name], place, backend)


@pytest.mark.parametrize(
    ("kind", "name"),
    [row for row in CALLS_AND_READS if row[1] != "run"],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_without_a_loop(kind: type, name: str, backend: str) -> None:
    """Where no loop runs, before any did and after, it works, or refuses with a text."""
    check_without_a_loop(CASES[kind], CALLS_AND_READS[kind, name], backend)


def test_run_in_a_thread(backend: Any) -> None:
    """An application whose loop is that of another thread runs there, and may run again."""
    made = make()

    @made.service
    async def brief() -> None:
        await to_thread.run_sync(made.stop_nowait)

    for _ in range(2):
        assert attempt_alone(partial(made.run, backend)) is None
        assert made.state == "stopped"


@pytest.mark.parametrize("name", ["stop", "wait_closed", "wait_draining"])
async def test_waits_for_it_in_its_loop(name: str) -> None:
    """In another loop nobody would be woken, so the wait is refused, and nothing is stopped."""
    made = make()
    async with made:
        call = partial(CALLS_AND_READS[Application, name], made)
        error = await to_thread.run_sync(attempt_in_loop, call)
        assert str(error).startswith(
            "<Application running> is in use by tasks of another running event loop"
        )
        await anyio.sleep(1)
        assert made.state == "running"


@pytest.mark.parametrize("name", ["stop", "wait_closed", "wait_draining"])
def test_waits_for_it_after_its_loop(name: str, backend: str) -> None:
    """When all is over, this is answered in any loop, of either backend."""

    async def main() -> None:
        async with made:
            await anyio.sleep(1)

    async def ask() -> None:
        answer = CALLS_AND_READS[Application, name](made)
        if isawaitable(answer):
            await answer

    made = make()
    run(main, backend=backend)
    for other in BACKENDS:
        anyio.run(ask, backend=other)
    assert made.draining


async def test_stop_after_its_loop_was_closed() -> None:
    """Nothing of it runs any more: there is nothing to stop, and nothing to wait for."""
    made = make()
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    await to_thread.run_sync(loop.run_until_complete, made.start())
    await to_thread.run_sync(loop.close)
    await made.stop()
    made.stop_nowait()
    await made.wait_draining()
    await made.wait_closed()


@pytest.mark.parametrize("place", ["worker", "thread"])
async def test_draining_seen_from_a_thread(place: str) -> None:
    """A thread that works on may look whether it is to end."""

    def look() -> None:
        seen.append(made.draining)

    seen: list[bool] = []
    made = make()
    async with made:
        assert await to_thread.run_sync(PLACES[place], look) is None
    assert await to_thread.run_sync(PLACES[place], look) is None
    assert seen == [False, True]
