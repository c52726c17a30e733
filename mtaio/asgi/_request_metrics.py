"""
Metrics of the requests to an ASGI application: how many, how long, with what result.

Promise: plain ASGI, under any framework and server; messages and errors pass unchanged. What a
client sends cannot make a series: methods are those of HTTP, routes the program's templates, and
statuses what the application answers.
Cost: 3 µs for a request, and 0.3 for each further piece of a body; 0.5 KB for each method, route
and status, and as much for each method and route; a snapshot takes 2 µs for each histogram.

A request is counted once, when its answer has been handed to the server in full, or when the
application has ended without that. `mtaio._internal.answers` says what it counts as.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypeVar, final

from mtaio._internal import checks, clock
from mtaio._internal.answers import CANCELLED, FAILED, METHODS, Answer, failure_of
from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
from mtaio._internal.histogram import DURATIONS, SIZES, Histogram, HistogramStatistics
from mtaio._internal.routes import Routes
from mtaio._internal.statistics import COUNTER, GAUGE, HISTOGRAM, labels

__all__ = ["RequestMetrics", "RequestStatistics", "RequestWatcher"]

K = TypeVar("K")

OTHER: Final = "other"
"""The label of methods and routes that have none of their own."""

_COUNTED: Final = "mtaio.request_metrics"
"""The key of a scope whose request somebody counts already."""

_ROUTE: Final = labels("method", "route")

Endpoint: TypeAlias = tuple[str, str]
"""A method, and the template of a route."""
Outcome: TypeAlias = tuple[str, str, int]
"""The status as well."""

_Observe: TypeAlias = Callable[[float], None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatistics:
    """
    The counts of a `RequestMetrics`, by method, route and status.

    Unknown methods, requests without a route, and routes beyond ``max_routes`` count as
    ``"other"``.
    """

    in_flight: int = field(metadata=GAUGE)
    """Requests that are being answered."""
    peak: int = field(metadata=GAUGE)
    """The most requests at once."""
    duration_seconds: Mapping[tuple[str, str, int], HistogramStatistics] = field(
        metadata=HISTOGRAM | labels("method", "route", "status")
    )
    """Seconds from the request to the last byte of the response."""
    first_byte_seconds: Mapping[tuple[str, str], HistogramStatistics] = field(
        metadata=HISTOGRAM | _ROUTE
    )
    """Seconds from the request to the first piece of a response that is sent in pieces."""
    request_bytes: Mapping[tuple[str, str], HistogramStatistics] = field(
        metadata=HISTOGRAM | _ROUTE
    )
    """Bytes of request bodies that the application has read."""
    response_bytes: Mapping[tuple[str, str], HistogramStatistics] = field(
        metadata=HISTOGRAM | _ROUTE
    )
    """Bytes of response bodies that were sent."""
    unfinished: Mapping[tuple[str, str], int] = field(metadata=COUNTER | _ROUTE)
    """Responses that broke off, because the client left, or the application failed or was
    cancelled."""


class RequestWatcher(Protocol):
    """The protocol of what watches statistics, such as a `mtaio.monitoring.ResourceMonitor`."""

    def watch(self, obj: RequestMetrics, /) -> object:
        """Read ``obj.statistics()`` from time to time."""
        ...


@final
class RequestMetrics:
    """
    An ASGI middleware that counts and times requests by method, route and status.

    The route is the template of the path, such as ``/items/{id}``. It is known for Starlette,
    FastAPI and Litestar, including mounted applications; otherwise it is ``"other"``.

    In Starlette and FastAPI write ``app.add_middleware(RequestMetrics, monitor=monitor)``,
    elsewhere ``RequestMetrics(app, monitor=monitor)``. `mtaio.app.Application.serve` adds one by
    itself. If one is inside another, only the outer one counts. WebSockets are not counted.

    A request counts with the status that the client got. If the client got none, it counts as 499
    if the client had left before, as 503 if the request was cancelled, and otherwise as 500.

    Args:
        app: The application.
        name: Name shown in metrics.
        monitor: The monitor that watches it from now on; None to watch it yourself.
        max_routes: Maximum number of routes that are told apart; further ones count as ``"other"``.

    Raises:
        TypeError, ValueError: An argument is refused. The message names it and says what to pass.

    Example:
        ```python
        from starlette.applications import Starlette

        from mtaio.asgi import RequestMetrics
        from mtaio.monitoring import ResourceMonitor

        monitor = ResourceMonitor()
        app = Starlette()
        app.add_middleware(RequestMetrics, monitor=monitor)
        ```
    """

    __slots__ = ("_app", "_counts", "_name")

    def __init__(
        self,
        app: ASGIApp,
        *,
        name: str | None = None,
        monitor: RequestWatcher | None = None,
        max_routes: int = 200,
    ) -> None:
        checks.callable_("app", app, way_out="Pass an ASGI application.")
        way_out = "Pass how many routes are told apart, at least 1."
        self._counts: Final = _Counts(checks.count("max_routes", max_routes, way_out=way_out))
        self._name: Final = checks.title("name", name)
        self._app: Final = app
        if monitor is not None:
            watch: object = getattr(monitor, "watch", None)
            if not callable(watch):
                msg = f"monitor={monitor!r} is {checks.type_of(monitor)}, which watches nothing"
                raise checks.refusal(TypeError, msg, "Pass a ResourceMonitor.")
            watch(self)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<RequestMetrics{name} {len(self._counts.in_flight)} in flight>"

    @property
    def name(self) -> str | None:
        """The name given at construction."""
        return self._name

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the application answer a request, and count it."""
        if scope["type"] != "http" or _COUNTED in scope:
            await self._app(scope, receive, send)
            return
        scope[_COUNTED] = True
        exchange = _Exchange(self._counts, scope, receive, send)
        otherwise = FAILED
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if failure_of(error) is None:
                otherwise = CANCELLED
            raise
        finally:
            exchange.end(otherwise, whole=exchange.status is None)

    def statistics(self) -> RequestStatistics:
        """
        Return the counts so far.

        Not a checkpoint. It can be called from any thread.
        """
        return self._counts.statistics()


class _Counts:
    """
    What was counted.

    Args:
        max_routes: How many routes are told apart.

    Attributes:
        in_flight: The requests that are being answered.
    """

    # Invariant: a route is one of _templates or OTHER, and a method one of METHODS or OTHER, so
    # the series are as many as the program has routes, and statuses that it answers.
    __slots__ = (
        "_durations",
        "_first_bytes",
        "_max_routes",
        "_observe",
        "_peak",
        "_received",
        "_routes",
        "_sent",
        "_templates",
        "_unfinished",
        "in_flight",
    )

    def __init__(self, max_routes: int) -> None:
        self._max_routes: Final = max_routes
        self._routes: Final = Routes()
        self._templates: Final[set[str]] = set()
        self.in_flight: Final[set[_Exchange]] = set()
        self._peak = 0
        self._durations: Final[dict[Outcome, Histogram]] = {}
        self._first_bytes: Final[dict[Endpoint, Histogram]] = {}
        self._received: Final[dict[Endpoint, Histogram]] = {}
        self._sent: Final[dict[Endpoint, Histogram]] = {}
        self._unfinished: Final[dict[Endpoint, int]] = {}
        # What each request observes: its duration, and the size of its answer.
        self._observe: Final[dict[Outcome, tuple[_Observe, _Observe]]] = {}

    def begin(self, exchange: _Exchange) -> None:
        """Count a request that has begun."""
        self.in_flight.add(exchange)
        if len(self.in_flight) > self._peak:  # noqa: PLR1730 - max() takes longer
            self._peak = len(self.in_flight)

    def end(self, exchange: _Exchange, status: int, *, whole: bool) -> None:
        """Count what has come of a request, and whether its answer is whole."""
        self.in_flight.discard(exchange)
        method: str = exchange.scope["method"]
        if method not in METHODS:
            method = OTHER
        route = self._routes.template(exchange.scope)
        if route not in self._templates:
            if route is None or len(self._templates) >= self._max_routes:
                route = OTHER
            else:
                self._templates.add(route)
        key = method, route, status
        observe = self._observe.get(key)
        if observe is None:
            durations = _of(self._durations, key, DURATIONS)
            sent = _of(self._sent, (method, route), SIZES)
            observe = self._observe[key] = durations.observe, sent.observe
        observe[0](clock.now() - exchange.asked)
        observe[1](exchange.size)
        endpoint = method, route
        if exchange.received:
            _of(self._received, endpoint, SIZES).observe(exchange.received)
        if exchange.first_byte is not None:
            first = exchange.first_byte - exchange.asked
            _of(self._first_bytes, endpoint, DURATIONS).observe(first)
        if not whole:
            self._unfinished[endpoint] = self._unfinished.get(endpoint, 0) + 1

    def statistics(self) -> RequestStatistics:
        """Return the counts."""
        return RequestStatistics(
            in_flight=len(self.in_flight),
            peak=self._peak,
            duration_seconds=_snapshots(self._durations),
            first_byte_seconds=_snapshots(self._first_bytes),
            request_bytes=_snapshots(self._received),
            response_bytes=_snapshots(self._sent),
            unfinished=self._unfinished.copy(),
        )


def _of(histograms: dict[K, Histogram], key: K, bounds: tuple[float, ...]) -> Histogram:
    """Return the histogram of a key, which may be new."""
    found = histograms.get(key)
    return found if found is not None else histograms.setdefault(key, Histogram(bounds))


def _snapshots(histograms: dict[K, Histogram]) -> dict[K, HistogramStatistics]:
    return {key: each.snapshot() for key, each in histograms.copy().items()}


class _Exchange(Answer):
    """
    A request and its answer, of which the application gets what the server has given.

    Args:
        counts: Where it is counted.
        scope: The request's.
        receive: The server's.
        send: The server's.

    Attributes:
        ended: Whether its answer is whole, or broke off.
        first_byte: When the first piece of its answer was sent, if there are several.
        received: Bytes of the body that the application has read.
    """

    __slots__ = (
        "_counts",
        "_receive",
        "_send",
        "ended",
        "first_byte",
        "received",
        "scope",
    )

    def __init__(self, counts: _Counts, scope: Message, receive: Receive, send: Send) -> None:
        super().__init__()  # it is one, and has none: each request would pay for it
        self.scope: Final = scope
        self._counts: Final = counts
        self._receive: Final = receive
        self._send: Final = send
        self.ended = False
        self.first_byte: float | None = None
        self.received = 0
        counts.begin(self)

    @property
    def closed(self) -> bool:
        """Whether the client has left, which hypercorn shows at the object whose method sends."""
        return bool(getattr(getattr(self._send, "__self__", None), "closed", False))

    async def receive(self) -> Message:
        """Return what comes next from the client."""
        message = await self._receive()
        self.received += len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            self.gone = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """
        Send to the client what the application sends.

        What is not the last is given to the server as it is, without a coroutine around it.
        """
        kind = message["type"]
        if kind == "http.response.body":
            self.size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return self._send_last(message)
            if self.first_byte is None:
                self.first_byte = clock.now()
        elif kind == "http.response.start":
            self.begin(message["status"])
        elif kind == "http.response.pathsend":  # a file, which is all of the body
            return self._send_last(message)
        return self._send(message)

    async def _send_last(self, message: Message) -> None:
        await self._send(message)
        self.end(FAILED, whole=True)

    def end(self, otherwise: int, *, whole: bool) -> None:
        """Count it, unless that was done; see `Answer.outcome`."""
        if not self.ended:
            self.ended = True
            self._counts.end(self, self.outcome(otherwise), whole=whole)
