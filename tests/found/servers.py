"""The servers that are hunted, each told how many seconds to give its clients at the end."""

from __future__ import annotations

from typing import Any, Final

import anyio
import sniffio
from aiohttp import web
from hypercorn import asyncio as on_asyncio
from hypercorn import trio as on_trio
from hypercorn.config import Config as HypercornConfig
from uvicorn import Config as UvicornConfig
from uvicorn import Server

GRACE: Final = 3
"""Seconds that each server is told to give its clients."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once, after a long time or with much, as the path says."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/late":
        await anyio.sleep(1000)
    for _ in range(100 if scope["path"] == "/much" else 1):
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def hypercorn(stop: anyio.Event) -> None:
    """Serve with hypercorn until told to stop."""
    config = HypercornConfig()
    config.bind = ["0.0.0.0:80"]
    config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = GRACE
    config.keep_alive_timeout = 1000
    serve = on_trio.serve if sniffio.current_async_library() == "trio" else on_asyncio.serve
    await serve(app, config, shutdown_trigger=stop.wait, mode="asgi")


async def uvicorn(stop: anyio.Event) -> None:
    """Serve with uvicorn until told to stop."""
    config = UvicornConfig(
        app,
        host="0.0.0.0",  # noqa: S104 - of a simulated host
        port=80,
        http="h11",
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=1000,
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server._serve)
        await stop.wait()
        server.should_exit = True


async def aiohttp(stop: anyio.Event) -> None:
    """Serve with aiohttp until told to stop."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        if request.path == "/late":
            await anyio.sleep(1000)
        for _ in range(100 if request.path == "/much" else 1):
            await response.write(b"x" * 100_000)
        return response

    site = web.Application()
    site.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(site, shutdown_timeout=GRACE, keepalive_timeout=1000)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", 80).start()  # noqa: S104 - of a simulated host
    await stop.wait()
    await runner.cleanup()
