"""
How a program ends whose application is told to exit: places, exceptions, ways and backends.

Promise: ``sys.exit`` and Ctrl-C mean the same wherever they are raised and however it was started.
"""

from __future__ import annotations

import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.app import Application
from mtaio.app._cli import main as command
from mtaio.config import Settings
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SETTINGS = Settings(shutdown_timeout=60, health_bind="127.0.0.1:0")

RAISED: dict[str, Callable[[], BaseException]] = {
    "code": lambda: SystemExit(7),
    "text": lambda: SystemExit("DATABASE_URL is not set"),
    "nothing": SystemExit,
    "Ctrl-C": KeyboardInterrupt,
    "group": lambda: BaseExceptionGroup("tasks", [OSError("lost"), SystemExit(7)]),
    "GeneratorExit": GeneratorExit,
    "error": lambda: OSError("mine"),
}
PLACES = ("open", "close", "service", "job", "check", "thread", "body")
WAYS = ("run", "command", "block", "start")

INTERRUPTED = 128 + signal.SIGINT


def expected(place: str, raised: str, way: str) -> int | str | None:
    """Return the exit code, or the text that is printed with the exit code 1."""
    if raised == "error" and place in {"check", "thread"}:
        return 0  # which fails the check, and nothing else
    exits: dict[str, int | str | None] = {
        "code": 7,
        "text": "DATABASE_URL is not set",
        "nothing": None,
        "Ctrl-C": INTERRUPTED,
    }
    if raised in exits:
        return exits[raised]
    if raised == "group" and place != "body":  # there it is the program's own, and left as it is
        return 7
    return 3 if place == "open" and way in {"run", "command"} else 1


def make(place: str, raised: str, trace: list[str]) -> Application:  # noqa: C901 - a table of places
    """Make an application in which that is raised there."""
    app = Application(SETTINGS, probes=False, logging=False)

    def raise_in(where: str) -> None:
        if where == place:
            error = RAISED[raised]()
            raise error

    @app.resource
    async def first() -> AsyncIterator[None]:
        try:
            yield
        finally:  # asyncio cancels everything when a submitted task exits
            trace.append("closed")

    @app.resource
    async def second() -> AsyncIterator[None]:
        raise_in("open")
        yield
        raise_in("close")

    @app.service
    async def service() -> None:
        raise_in("service")
        if place == "job":
            ran = anyio.Event()
            await app.executor.submit(job, ran)
            await ran.wait()
        if place in {"check", "thread"}:
            await app.health.report()
        if place != "body":
            app.stop_nowait("all is done")
        await anyio.sleep_forever()

    async def job(ran: anyio.Event) -> None:
        ran.set()
        raise_in("job")

    @app.health_check("async")
    async def check() -> None:
        raise_in("check")

    @app.health_check("plain")
    def plain() -> None:
        raise_in("thread")

    return app


async def live(app: Application, way: str, raised: str, place: str) -> None:
    """Have it live in this event loop."""
    if way == "start":
        await app.start()
        await app.wait_closed()
        return
    async with app:
        if place == "body":
            error = RAISED[raised]()
            raise error
        await app.wait_closed()


def end_of(app: Application, way: str, raised: str, place: str, backend: Any) -> Any:
    """Run it, and return the exit code of the program, or what is printed with the code 1."""
    try:
        if way == "run":
            app.run(backend)
        elif way == "command":
            return command(["run", "--backend", backend, "exiting:app"])
        else:
            anyio.run(live, app, way, raised, place, backend=backend)
    except SystemExit as error:
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:  # noqa: BLE001 - Python prints it
        return 1
    return 0


CASES = [
    (place, raised, way, BACKENDS[(first + second + third) % len(BACKENDS)])
    for first, place in enumerate(PLACES)
    for second, raised in enumerate(RAISED)
    for third, way in enumerate(WAYS)
    if place != "body" or way == "block"
]
"""Each on one backend: half of what is raised in one place and way on asyncio, half on trio."""


@pytest.mark.parametrize(("place", "raised", "way", "backend"), CASES)
def test_exit(
    place: str, raised: str, way: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program exits as it was told to, wherever, on both backends; and closes what is open."""
    trace: list[str] = []
    app = make(place, raised, trace)
    module = ModuleType("exiting")
    vars(module)["app"] = app
    monkeypatch.setitem(sys.modules, "exiting", module)
    assert end_of(app, way, raised, place, backend) == expected(place, raised, way)
    assert trace == ["closed"]
    assert app.state == "stopped"
