"""What both servers of `benchmarks.serving` serve; run as a program, hypercorn alone serves it."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
from hypercorn.config import Config

from benchmarks._harness import LOOPS
from mtaio.app import Application

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """Answer each request with two bytes."""
    if scope["type"] == "lifespan":
        for end in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{end}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})


def config() -> Config:
    """Return a configuration with which connections are kept for as long as it takes."""
    made = Config()
    made.keep_alive_timeout = 600
    made.keep_alive_max_requests = 10**9
    return made


def application() -> Application:
    """Return it as mtaio serves it."""
    ours = Application()
    ours.serve(app, config=config(), access_log=False)
    return ours


async def serve(loop: str, bind: str) -> None:
    """Serve it with hypercorn alone, until the process is ended."""
    own = config()
    own.bind = [bind]
    library: Any = import_module(f"hypercorn.{'trio' if loop == 'trio' else 'asyncio'}")
    await library.serve(app, own, shutdown_trigger=anyio.sleep_forever, mode="asgi")


if __name__ == "__main__":
    backend, where = sys.argv[1:]
    anyio.run(serve, backend, where, **LOOPS[backend])
