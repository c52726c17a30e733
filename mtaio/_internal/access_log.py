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
from mtaio._internal.answers import CANCELLED, FAILED, Answer, failure_of
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
        log: As above.
        answer: What has come of it.
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
        "_span",
        "_tokens",
        "answer",
        "answered",
        "log",
    )

    def __init__(self, scope: Message, routes: Routes, *, log: bool) -> None:
        scope[LOGGED] = self  # and no copy, from which nobody would learn the route
        self._scope = scope
        self._routes = routes
        self.log = log
        self._error: str | None = None
        self.answer: Final = Answer()
        self.answered = False
        self._ended = False
        headers = scope["headers"]
        self._id: Final = id_from(headers)
        self._tokens = request_id.set(self._id), trace.set(trace_from(headers))
        self._span = None if spans.hook is None else spans.hook.request(scope)

    def note(self, message: Message) -> Message:
        """Note what is sent to the client; return it, with the id if it begins the answer."""
        kind, answer = message["type"], self.answer
        if kind in _BODIES:
            answer.size += len(message.get("body", b""))
            ends = not message.get("more_body", False)
            self.answered = ends and (answer.status or 0) < FAILED
        elif kind in _STARTS:
            answer.begin(message.get("status", _SWITCHING))
            headers = [*message.get("headers", ())]  # which can perhaps be iterated once
            if not any(name.lower() == _HEADER for name, _ in headers):
                headers.append((_HEADER, self._id.encode()))
            return {**message, "headers": headers}
        elif kind == "websocket.send":
            answer.size += len(message.get("bytes") or (message.get("text") or "").encode())
        elif kind == "websocket.close":
            answer.begin(_FORBIDDEN)
            self.answered = True
        return message

    def fail(self, error: BaseException | None) -> None:
        """Note what the handler has raised; None if it was cancelled."""
        if self._ended:
            return
        self._error = "cancelled" if error is None else type(error).__name__
        if self._span is not None:
            self._span.failed(error)

    def end(self, otherwise: int = FAILED) -> None:
        """Log it and end its span, unless that was done; see `Answer.outcome`."""
        if self._ended:
            return
        self._ended = True
        seconds = clock.now() - self.answer.asked
        status = self.answer.outcome(otherwise)
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
        otherwise = FAILED
        if error is not None:
            failure = failure_of(error)
            self.fail(failure)
            otherwise = CANCELLED if failure is None else FAILED
        self.end(otherwise)
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
            "bytes": self.answer.size,
            "seconds": round(seconds, 6),
        }
        # As one text, and not with arguments: what masks secrets would go through each of them.
        text = (
            f"{entry['client']} {entry['method']} {entry['path']} {status}, {entry['bytes']} "
            f"bytes in {seconds:.6f} s"
        )
        if route is not None:
            entry["route"] = shown(route)
            text += f" route={entry['route']}"
        if self._error is not None:
            entry["error"] = self._error
            text += f" error={self._error}"
        _logger.info(text, extra=entry)
