"""
Which request the running code belongs to, for log records and spans.

Promise: the variables go where Python's context goes: into the tasks and the threads that a request
starts, and the items that it hands to an executor. Nothing that a client sends gets into them
unless it is short and of plain characters.
Cost: one look at a context variable for each record.

Source: W3C Trace Context (``traceparent``).
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal import spans

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Trace", "id_from", "request_id", "trace", "trace_from", "trace_now"]

_SANE_ID: Final = re.compile(rb"[\w.:@/+=-]{1,128}", re.ASCII)
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)


class Trace(NamedTuple):
    """A place in a trace, in hexadecimal digits."""

    trace_id: str
    span_id: str


request_id: Final[ContextVar[str | None]] = ContextVar("mtaio.request_id", default=None)
"""
The id of the request that the running code belongs to; None outside a request.

`mtaio.asgi.AccessLog` and `mtaio.app.Application.serve` set it. Set it yourself where other work
begins, such as the handling of a queue's message. `JsonFormatter` and the handlers of `configure`
add it to each record.
"""

trace: Final[ContextVar[Trace | None]] = ContextVar("mtaio.trace", default=None)
"""What the client of the request has said of its trace."""


def trace_now() -> Trace | None:
    """Return the span that is current, without OpenTelemetry that of the request's client."""
    hook = spans.hook
    return trace.get() if hook is None else hook.current()


def id_from(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that a request has in ``X-Request-ID``, or a new one if that will not do."""
    for name, value in headers:
        if name == b"x-request-id":
            if _SANE_ID.fullmatch(value):
                return value.decode()
            break
    return os.urandom(16).hex()


def trace_from(headers: Iterable[tuple[bytes, bytes]]) -> Trace | None:
    """Return what ``traceparent`` says; None if it is not there once, and valid."""
    given = [value for name, value in headers if name == b"traceparent"]
    found = _TRACEPARENT.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None or (found[1] == b"00" and found[4] is not None):
        return None
    return Trace(found[2].decode(), found[3].decode())
