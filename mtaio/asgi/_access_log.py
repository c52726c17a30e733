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
    An ASGI middleware that gives each request an id and logs a line for it.

    The id is the client's ``X-Request-ID``, if that has at most 128 letters, digits and
    ``_.:@/+=-``, and otherwise a new one. It is sent with the response and added to all records
    that are logged during the request, also in its tasks, threads and executor items (see
    `mtaio.logging.request_id`), like the trace id and span id in the client's ``traceparent``.

    The line is a record of the logger ``mtaio.access`` with level ``INFO``, logged after the
    response. As JSON it has ``client``, ``method``, ``path``, ``status``, ``bytes`` and
    ``seconds``, ``route`` if that is known, such as ``/orders/{id}``, and ``error``, the class of
    an exception from the application. It does not contain the query, which may hold secrets. Text
    from the client is percent-encoded unless it is plain ASCII.

    In Starlette and FastAPI write ``app.add_middleware(AccessLog)``, elsewhere ``AccessLog(app)``.
    `mtaio.app.Application.serve` does the same by itself; with both there is still one line for a
    request.

    Args:
        app: The application.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are
            trusted, also in the scope for the application: IP addresses and networks, separated by
            commas, and ``unix``. None if there are none, or if the server takes care of that.

    Raises:
        TypeError, ValueError: An argument is refused. The message names it and says what to pass.

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
        """Let the application answer a request, and log it."""
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
