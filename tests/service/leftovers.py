"""
What keeps a process from ending: ``python -m tests.service.leftovers NAME BACKEND``.

Each is an Application as a user would write it, with one thing that does not end in ten minutes. It
says "ready", on the standard error, when that is there.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import anyio

from mtaio.app import Application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mtaio.types import Backend

app: Final = Application()


def ready() -> None:
    """Tell the test that it may go on."""
    os.write(2, b"ready\n")


def hang() -> None:
    """Stand still, as a driver without a timeout does."""
    ready()
    time.sleep(600)


async def is_up() -> None:
    """Be ready when the application is."""
    ready()


def sync_check() -> None:
    """Have a health check that is a plain function, and hangs."""
    app.health_check("database", timeout=0.1)(hang)

    @app.service
    async def probe() -> None:
        await app.health.report()


def abandoned_thread() -> None:
    """Abandon a call in a worker thread."""

    @app.service
    async def work() -> None:
        await app.executor.run_in_thread(hang, abandon_on_cancel=True)


def other_thread() -> None:
    """Start a thread of one's own, which is no daemon."""

    @app.service
    async def work() -> None:
        threading.Thread(target=hang, name="mine").start()


def at_exit() -> None:
    """Register a function that hangs at the exit."""
    atexit.register(hang)
    app.service(is_up)


def process() -> None:
    """Call something in a worker process."""

    @app.service
    async def work() -> None:
        await app.executor.run_in_process(hang)


def log_pipe() -> None:
    """Write the log to a pipe that nobody reads any more."""
    if sys.platform == "win32":
        raise NotImplementedError
    _, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    os.environ["MTAIO_LOG_FILE"] = f"/dev/fd/{writer}"
    os.environ["MTAIO_LOG_CONSOLE"] = "no"
    app.service(is_up)


def printed() -> None:
    """Leave something printed in the buffer of a pipe that nobody reads any more."""
    log_pipe()
    pipe = int(os.environ["MTAIO_LOG_FILE"].rpartition("/")[2])
    del os.environ["MTAIO_LOG_FILE"], os.environ["MTAIO_LOG_CONSOLE"]
    sys.stdout = os.fdopen(pipe, "w")  # which keeps what is printed until it is flushed
    sys.stdout.write("never read")


def resource() -> None:
    """Hold a resource that cannot even be cancelled when it closes."""

    @app.resource
    async def database() -> AsyncIterator[None]:
        yield
        with anyio.CancelScope(shield=True):
            await anyio.sleep(600)

    app.service(is_up)


def generator() -> None:
    """Leave an async generator that does not end."""

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(600)

    @app.service
    async def work() -> None:
        left.append(numbers())
        await anext(left[0])
        ready()

    left: list[AsyncIterator[int]] = []


LEFTOVERS: Final = (
    *(sync_check, abandoned_thread, other_thread, at_exit, process),
    *(log_pipe, printed, resource, generator),
)

if __name__ == "__main__":
    {each.__name__: each for each in LEFTOVERS}[sys.argv[1]]()
    app.run(cast("Backend", sys.argv[2]))
