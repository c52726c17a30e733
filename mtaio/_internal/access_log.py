"""
One request as logs and traces see it: its id, its line in the access log, its span.

Promise: what a client sends cannot forge a line, whatever formats it: what is logged of it is
printable ASCII without spaces and quotation marks, and of bounded length. The query is not logged,
for it may hold secrets. A line is logged when the answer has been sent, and once.
Cost: a pass over the headers, an id, and the log record.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mtaio._internal import clock, spans
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.request_context import id_from, request_id, trace, trace_from

if TYPE_CHECKING:
    from mtaio._internal.asgi import Message
    from mtaio._internal.routes import Routes

__all__ = ["LOGGED", "Entry", "shown"]

LOGGED: Final = "mtaio.access_log"
"""The key of a scope's `Entry`: a request has one, and is not logged twice."""

_LONGEST: Final = 500
"""Characters of a path that are logged."""

_SAFE: Final = "".join(chr(each) for each in range(0x21, 0x7F) if chr(each) not in '"%\\')
_PLAIN: Final = re.compile(f"[{re.escape(_SAFE)}]*")
_quoted: Final = partial(quote, safe=_SAFE, errors="backslashreplace")

_HEADER: Final = b"x-request-id"
_STARTS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept"}
)
_BODIES: Final = frozenset({"http.response.body", "websocket.http.response.body"})

_SWITCHING: Final = 101
_FORBIDDEN: Final = 403
_CLIENT_LEFT: Final = 499
_FAILED: Final = 500
_CANCELLED: Final = 503

_logger: Final = logging.getLogger("mtaio.access")


def shown(text: str) -> str:
    """Return what is logged of a text that a client has sent: what is not plain is escaped."""
    if len(text) > _LONGEST:
        return f"{_quoted(text[:_LONGEST])}..."
    return text if _PLAIN.fullmatch(text) else _quoted(text)


class Entry:
    """
    One request, from its begin to its end; made in its task, in whose context it is noted.

    Args:
        scope: What the server says of it; its client is looked up at the end.
        routes: Those of the application.
        log: Whether it gets a line in the access log.

    Attributes:
        gone: Whether the application was told that the client has left. An answer that begins after
            that counts as 499, as in the metrics of requests.
        log: As above.
        answered: Whether the last of the answer was noted. Not that of a failure: Starlette, for
            one, answers with 500 first, and raises the error then, which is to be logged.

    Invariants:
    - after `end` nothing changes: it is called when the answer has been sent, perhaps by another
      task, and again when the application has returned;
    - `leave` is called once, in the context in which it was made.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_id",
        "_routes",
        "_scope",
        "_size",
        "_span",
        "_started",
        "_status",
        "_tokens",
        "answered",
        "gone",
        "log",
    )

    def __init__(self, scope: Message, routes: Routes, *, log: bool) -> None:
        scope[LOGGED] = self  # and no copy, from which nobody would learn the route
        self._scope = scope
        self._routes = routes
        self.log = log
        self._status: int | None = None
        self._error: str | None = None
        self._size = 0
        self.answered = self.gone = False
        self._ended = False
        self._started = clock.now()
        headers = scope["headers"]
        self._id: Final = id_from(headers)
        self._tokens = request_id.set(self._id), trace.set(trace_from(headers))
        self._span = None if spans.hook is None else spans.hook.request(scope)

    def note(self, message: Message) -> Message:
        """Note what is sent to the client; return it, with the id if it begins the answer."""
        kind = message["type"]
        if kind in _BODIES:
            self._size += len(message.get("body", b""))
            ends = not message.get("more_body", False)
            self.answered = ends and (self._status or 0) < _FAILED
        elif kind in _STARTS:
            if self._status is None:  # a second one is an error, and not what the client is told
                self._status = _CLIENT_LEFT if self.gone else message.get("status", _SWITCHING)
            headers = [*message.get("headers", ())]  # which can perhaps be iterated once
            if not any(name.lower() == _HEADER for name, _ in headers):
                headers.append((_HEADER, self._id.encode()))
            return {**message, "headers": headers}
        elif kind == "websocket.send":
            self._size += len(message.get("bytes") or (message.get("text") or "").encode())
        elif kind == "websocket.close":
            self._status = self._status or _FORBIDDEN
            self.answered = True
        return message

    def fail(self, error: BaseException | None) -> None:
        """Note what the handler has raised; None if it was cancelled."""
        if self._ended:
            return
        self._error = "cancelled" if error is None else type(error).__name__
        if self._span is not None:
            self._span.failed(error)

    def end(self) -> None:
        """Log it and end its span, unless that was done."""
        if self._ended:
            return
        self._ended = True
        seconds = clock.now() - self._started
        status = self._status or (_CLIENT_LEFT if self.gone else _FAILED)
        route = self._routes.template(self._scope)
        if self.log and _logger.isEnabledFor(logging.INFO):
            self._write(route, status, seconds)
        if self._span is not None:
            self._span.answered(route, status)

    def leave(self, error: BaseException | None = None) -> None:
        """
        End it if it has not ended, and leave its context.

        Args:
            error: What has come out of the application. If it has not been answered, the server
                will: with 500, or 503 if it was cancelled.
        """
        if error is not None:
            closed = isinstance(error, GeneratorExit)  # by the garbage collector
            failure = None if closed else without_cancellation(error)
            self.fail(failure)
            if self._status is None and failure is None and not self.gone:
                self._status = _CANCELLED
        self.end()
        self._scope.pop(LOGGED, None)
        try:
            request_id.reset(self._tokens[0])
            trace.reset(self._tokens[1])
        except ValueError:  # the garbage collector closes it in any context
            return
        if self._span is not None:
            self._span.leave()

    def _write(self, route: str | None, status: int, seconds: float) -> None:
        scope = self._scope
        client = scope.get("client")
        entry: dict[str, object] = {
            "client": shown(str(client[0])) if client else "-",
            "method": shown(scope.get("method", "WEBSOCKET")),
            "path": shown(scope["path"]),
            "status": status,
            "bytes": self._size,
            "seconds": round(seconds, 6),
        }
        # As one text, and not with arguments: what masks secrets would go through each of them.
        text = (
            f"{entry['client']} {entry['method']} {entry['path']} {status}, {self._size} "
            f"bytes in {seconds:.6f} s"
        )
        if route is not None:
            entry["route"] = shown(route)
            text += f" route={entry['route']}"
        if self._error is not None:
            entry["error"] = self._error
            text += f" error={self._error}"
        _logger.info(text, extra=entry)
