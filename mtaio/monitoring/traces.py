"""
Spans of OpenTelemetry for what mtaio runs: requests, items, loads and attempts.

Promise: a span is a child of the one that is current where its work begins, across tasks and
threads, and ends once, also if its work is cancelled. Errors are recorded, and change nothing else.
Cost: what OpenTelemetry takes for a span. While nothing is recorded, a comparison for each request,
load, attempt and call of an executor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtaio._internal import checks, spans
from mtaio._internal.access_log import shown
from mtaio._internal.answers import FAILED, METHODS
from mtaio._internal.cancellation import without_cancellation
from mtaio._internal.request_context import Trace

try:
    from opentelemetry import context, propagate, trace
except ImportError as _error:
    _msg = (
        "mtaio.monitoring.traces needs opentelemetry-api. Install it with: pip install "
        "'mtaio[otel]'"
    )
    raise ImportError(_msg, name=_error.name) from _error

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from contextvars import Token

    from mtaio._internal.asgi import Message

__all__ = ["record"]

_WEBSOCKET: Final = "WEBSOCKET"


def record(tracer: trace.Tracer | None) -> None:
    """
    Record what this process does as OpenTelemetry spans, with this tracer from now on.

    There is a span for

    - each request to `mtaio.app.Application.serve` or through `mtaio.asgi.AccessLog`:
      ``GET /orders/{id}``, of kind ``server``, with the parent that its headers name (read by
      OpenTelemetry's propagators); - each item of a `mtaio.TaskExecutor` (``run``, ``submit``,
      ``map`` and the like), without the wait for its slot: ``item fetch``, named after the
      function; - each load of a cache: ``load fetch``. Callers that wait for the load of another
      caller have none; - each attempt of a `mtaio.Retry`, including the first: ``attempt fetch``.

    If a call fails, its span records the error and has the status ``ERROR``. If it is cancelled,
    the span has the attribute ``mtaio.cancelled``. Log records written in a span have its
    ``trace_id`` and ``span_id`` (see `mtaio.logging`), and requests of `mtaio.clients` have the
    header ``traceparent``. The sampler of the SDK decides which spans are kept. Calls in progress
    keep the tracer with which they began.

    Not a checkpoint. It can be called from any thread.

    Args:
        tracer: The tracer, such as ``opentelemetry.trace.get_tracer("my.service")``; None to stop.

    Raises:
        TypeError: ``tracer`` is not a tracer.

    Example:
        ```python
        from opentelemetry import trace

        from mtaio.monitoring import traces

        traces.record(trace.get_tracer("my.service"))
        ```
    """
    if tracer is not None and not isinstance(tracer, trace.Tracer):  # pyright: ignore[reportUnnecessaryIsInstance] - a user may pass anything
        msg = f"tracer={tracer!r} is {checks.type_of(tracer)}, not a tracer"
        raise checks.refusal(TypeError, msg, "Pass trace.get_tracer(name), or None.")
    spans.hook = None if tracer is None else _Hook(tracer)


class _Hook:
    """Makes spans, and makes them current."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(self, kind: str, name: str, attributes: Mapping[str, str | int]) -> _Span:
        return _Span(self._tracer.start_span(f"{kind} {name}", attributes=attributes))

    def request(self, scope: Message) -> _RequestSpan:
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        parent = propagate.extract(carrier)
        method = scope.get("method", _WEBSOCKET)
        if method not in METHODS and method != _WEBSOCKET:
            method = "HTTP"
        span = self._tracer.start_span(
            method,
            parent,
            trace.SpanKind.SERVER,
            {
                "http.request.method": method,
                "url.path": shown(scope["path"]),
                "url.scheme": scope.get("scheme", "http"),
            },
        )
        return _RequestSpan(span, parent, method)

    def current(self) -> Trace | None:
        found = trace.get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return Trace(trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id))

    def inject(self, headers: MutableMapping[str, str]) -> None:
        propagate.inject(headers)


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, Exception | GeneratorExit):
        return isinstance(error, GeneratorExit)  # of a coroutine that will not go on
    try:
        return without_cancellation(error) is None
    except RuntimeError:  # in a thread
        return False


class _Span:
    """A span that is current in its context until it ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span, parent: context.Context | None = None) -> None:
        self._span = span
        self._token: Token[context.Context] = context.attach(
            trace.set_span_in_context(span, parent)
        )

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            self.failed(error)
        # The garbage collector closes coroutines in any context.
        if not isinstance(error, GeneratorExit) or trace.get_current_span() is self._span:
            context.detach(self._token)
        self._span.end()

    def failed(self, error: BaseException | None) -> None:
        """Note what came of it: an error, or None for a cancellation."""
        if error is None or _is_cancellation(error):
            self._span.set_attributes({"mtaio.cancelled": True})
            return
        self._span.record_exception(error)
        self._span.set_attribute("error.type", type(error).__qualname__)
        self._span.set_status(trace.StatusCode.ERROR)


class _RequestSpan(_Span):
    """The span of a request, which ends when that is answered, perhaps in another task."""

    __slots__ = ("_method",)

    def __init__(self, span: trace.Span, parent: context.Context, method: str) -> None:
        super().__init__(span, parent)
        self._method = method

    def answered(self, route: str | None, status: int) -> None:
        span = self._span
        if route is not None:
            span.update_name(f"{self._method} {route}")
            span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        if status >= FAILED:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def leave(self) -> None:
        context.detach(self._token)
