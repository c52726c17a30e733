"""
The answers of `mtaio.monitoring.Probes` as an ASGI application, for the server you have.

Promise: a bare ASGI callable, mountable in any framework, with no dependency.

It runs in the event loop that it reports on: while that is blocked, it does not answer at all. For
a ``/livez`` that still answers, use `mtaio.monitoring.Probes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import quote

from anyio.lowlevel import checkpoint

from mtaio._internal import loops
from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
from mtaio._internal.task_document import Document
from mtaio._internal.task_tree import TaskTree
from mtaio.monitoring._endpoints import (
    LIVE_AFTER,
    Access,
    Endpoints,
    Request,
    Response,
    registry_of,
    text,
)
from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._report import CheckKind, HealthReport
from mtaio.monitoring._task_reader import TaskReader

__all__ = ["health_app"]


def health_app(
    monitor: ResourceMonitor,
    health: HealthRegistry | None = None,
    *,
    token: str | None = None,
    name: str | None = None,
) -> ASGIApp:
    """
    Return an ASGI application that answers probes.

    The paths and the access rules are those of `Probes`, below the path at which it is mounted. A
    client without an address, as on a Unix socket, counts as local, so set a token behind a proxy
    that uses such a socket.

    Args:
        monitor: The monitor whose figures are shown. While it is not running, ``/livez`` is 200,
            because the event loop answers.
        health: The checks; None for the event loop alone.
        token: What clients must send for figures and the page; None for local clients only.
        name: The service's name, which is the heading of the page; None for the monitor's name.

    Returns:
        The application.

    Raises:
        ValueError: ``token`` is empty or cannot be sent.
        TypeError: An argument has the wrong type.

    Example:
        ```python
        from mtaio.monitoring import HealthRegistry, ResourceMonitor
        from mtaio.monitoring.asgi import health_app

        monitor, health = ResourceMonitor(), HealthRegistry()
        app = health_app(monitor, health, token="a long random string")
        ```
    """
    registry = registry_of(monitor, health)

    async def report(kind: CheckKind | None, *, within: float) -> HealthReport:  # noqa: ARG001 - it is made here, and its checks have their timeouts
        return await registry.report(kind)

    def answering() -> bool:
        return not monitor.running or monitor.answering(LIVE_AFTER)

    async def read_tasks(show: Callable[[TaskTree], Document]) -> Document:
        return await TaskReader(loops.current_loop()).read(show)

    endpoints = Endpoints(
        monitor,
        registry,
        access=Access(token),
        report=report,
        answering=answering,
        read_tasks=read_tasks,
        name=name,
    )

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            send_answer = partial(_send, send, with_body=scope["method"] != "HEAD")
            with suppress(OSError):  # the client is gone, or too slow
                await _respond(endpoints, scope, send_answer)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})  # unaccepted, it is a 403
        else:
            msg = f"the probes speak http, not {scope['type']!r}. Mount them where http arrives."
            raise ValueError(msg)

    return app


async def _respond(
    endpoints: Endpoints, scope: Message, send: Callable[[Response], Awaitable[None]]
) -> None:
    root = scope.get("root_path", "").rstrip("/")
    path = scope["path"]
    if path == root or path.startswith(f"{root}/"):
        path = path[len(root) :]
    if not path:  # the page loads stats from its own directory
        await send(text(307, "the page is below this path", ("location", f"{_last(root)}/")))
        return
    client = scope.get("client")
    try:
        request = Request.of(
            scope["method"],
            path,
            scope.get("query_string", b"").decode("latin-1"),
            scope["headers"],
            client=None if client is None else str(client[0]),
        )
    except ValueError as error:
        await send(text(400, str(error)))
    else:
        await endpoints.respond(request, send)


async def _send(send: Send, response: Response, *, with_body: bool) -> None:
    status, given, body, rest = response
    headers = [(name.encode(), value.encode()) for name, value in given]
    if rest is None:
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if with_body:
        for piece in rest or ():
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await checkpoint()  # others have their turn before the next piece is made
            body = piece
    await send({"type": "http.response.body", "body": body if with_body else b""})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _last(root: str) -> str:
    return quote(root.rpartition("/")[2])
