"""
An access log and request ids, for an ASGI application under any server.

Promise and cost: see `mtaio._internal.access_log`, which does the work.
"""

from __future__ import annotations

from typing import Final, final

from mtaio._internal import checks
from mtaio._internal.access_log import LOGGED, Entry
from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
from mtaio._internal.proxies import Proxies
from mtaio._internal.routes import Routes

__all__ = ["AccessLog"]


@final
class AccessLog:
    """
    An ASGI middleware that gives each request an id, and logs a line when it has been answered.

    The id is what the client sends as ``X-Request-ID``, if that is up to 128 letters, digits and
    ``_.:@/+=-``, and a new one otherwise. The answer has it, and all records that are logged during
    the request, in its tasks, threads and executor items too (see `mtaio.logging.request_id`). The
    records also have what the client sends as ``traceparent``.

    The line is an ordinary record of the logger ``mtaio.access``, of the level ``INFO``. As JSON it
    has ``client``, ``method``, ``path``, ``status``, ``bytes`` and ``seconds``; ``route`` if that
    is known, such as ``/orders/{id}``; and ``error``, the class of what the application raised.
    There is no query in it, for that may hold secrets. Of what the client sends all but plain ASCII
    is percent-encoded.

    In Starlette and FastAPI ``app.add_middleware(AccessLog)``; elsewhere ``AccessLog(app)``.
    `mtaio.app.Application.serve` does the same by itself; an application that has this as well gets
    one line a request.

    Args:
        app: The application.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` say what
            client and scheme of a request are, for the application as well: IP addresses and
            networks, separated by commas, and ``unix``. None if there are none, or the server
            looks after that.

    Raises:
        TypeError, ValueError: An argument is refused; the message names it and the way out.

    Example:
        ```python
        from starlette.applications import Starlette

        from mtaio.asgi import AccessLog

        app = Starlette()
        app.add_middleware(AccessLog)
        ```
    """

    __slots__ = ("_app", "_proxies", "_routes")

    def __init__(self, app: ASGIApp, *, trusted_proxies: str | None = None) -> None:
        checks.callable_("app", app, way_out="Pass an ASGI application.")
        self._app: Final = app
        self._proxies: Final = Proxies.parse("trusted_proxies", trusted_proxies)
        self._routes: Final = Routes()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Have the application answer, and log it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if self._proxies is not None:
            self._proxies.apply(scope)
        around: Entry | None = scope.get(LOGGED)
        if around is not None:
            around.log = True  # whoever has made it may have wanted no more than a span
            await self._app(scope, receive, send)
            return
        entry = Entry(scope, self._routes, log=True)

        async def receive_and_note() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                entry.answer.gone = True
            return message

        async def send_and_note(message: Message) -> None:
            await send(entry.note(message))
            if entry.answered:
                entry.end()

        try:
            await self._app(scope, receive_and_note, send_and_note)
        except BaseException as error:
            entry.leave(error)
            raise
        entry.leave()
