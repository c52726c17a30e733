"""
The answers to HTTP requests, whichever server receives them.

Promise: anyone gets a probe's status and its one word. An internal error is a 500 and a line in the
log. At most two answers with history or tasks are on their way at once, and each is written as it
is sent.

Figures and the page are for clients that `Access` lets in: with a token, those that send it;
without one, local clients that name a loopback address, so that neither a web page (DNS rebinding)
nor a proxy that identifies itself opens the door to others. A proxy that does not cannot be
distinguished from a local client: set a token there. The token appears in no message and no
representation. While wrong tokens come, looking at one takes a second: who guesses has as many
guesses a second as connections.
"""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self
from urllib.parse import parse_qs

import anyio

from mtaio._internal import checks, clock
from mtaio._internal.addresses import is_loopback
from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_text import text_pieces
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.monitoring._delivery import logger
from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._metrics import CONTENT_TYPE, metrics, to_prometheus
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._page import content_security_policy, history, page, snapshot
from mtaio.resources import ConcurrencyLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from mtaio._internal.task_document import Document
    from mtaio._internal.task_tree import TaskTree
    from mtaio.monitoring._report import CheckKind, HealthReport

__all__ = [
    "LIVE_AFTER",
    "Access",
    "Endpoints",
    "ReadTasks",
    "Report",
    "Request",
    "Response",
    "WrongTokens",
    "is_forwarded",
    "registry_of",
    "text",
]

LIVE_AFTER: Final = 30.0
"""Seconds without an answer of the event loop after which ``/livez`` fails."""

_STANDS_STILL: Final = 0.5
"""Seconds without an answer of the event loop after which none is waited for."""
_WAIT_LIVE: Final = 0.025
_WAIT_READY: Final = 2.0
_WAIT_STATS: Final = 0.1
_WAIT_LARGE: Final = 2.0
_SEND_LARGE: Final = 60.0
"""Seconds that an answer with history or tasks may take, whatever the server allows."""

_PAUSE: Final = 1.0
"""Seconds before a token is looked at, while wrong ones come."""
_PAUSE_AFTER: Final = 10.0
"""For how many seconds after a wrong token there is that pause."""
_BETWEEN_REPORTS: Final = 60.0

_MOST_LARGE: Final = 2
"""
Answers with history or tasks that may be on their way at once: one may have twenty megabytes.
"""
_MOST_POINTS: Final = 3600

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_HTML: Final = "text/html; charset=utf-8"

_COMMON: Final = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client requests."""

    method: str
    path: str
    query: str
    authorization: bytes | None = field(repr=False)
    host: str | None
    client: str | None
    """The client's address; None for one without, as on a Unix socket."""
    forwarded: bool
    accept: bytes = b""
    """The kinds of content that the client prefers."""

    @classmethod
    def of(
        cls,
        method: str,
        path: str,
        query: str,
        fields: Iterable[tuple[bytes, bytes]],
        *,
        client: str | None,
    ) -> Self:
        """
        Return a request with these header fields, whose names are in lower case.

        Raises:
            ValueError: Fields that decide on access are repeated.
        """
        found: dict[bytes, bytes] = {}
        forwarded = False
        for name, value in fields:
            forwarded = forwarded or is_forwarded(name)
            first = found.setdefault(name, value)
            if name in (b"host", b"authorization") and first is not value:
                raise ValueError("a header field is repeated")
        host = found.get(b"host")
        return cls(
            method,
            path,
            query,
            found.get(b"authorization"),
            None if host is None else host.decode("latin-1"),
            client,
            forwarded,
            found.get(b"accept", b""),
        )

    @property
    def client_is_local(self) -> bool:
        """Whether the client is on this machine."""
        return self.client is None or is_loopback(self.client)


class Response(NamedTuple):
    """What the client gets."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    rest: Iterator[bytes] | None = None
    """What comes after ``body``, in pieces, each made when it is to be sent."""


class Access:
    """
    Decides who gets more than a probe's answer.

    Args:
        token: What clients must send; None for local clients only.

    Raises:
        TypeError: ``token`` is not a str.
        ValueError: ``token`` is empty, or cannot be sent in a header field.
    """

    __slots__ = ("_token",)

    def __init__(self, token: str | None) -> None:
        self._token: Final = None if token is None else checks.token("token", token).encode()

    def status(self, request: Request) -> int:
        """Return 200; 401 if the token is missing or wrong, 403 if the client is not local."""
        if self._token is not None:
            given = _credentials(request.authorization)
            return 200 if given is not None and hmac.compare_digest(given, self._token) else 401
        local = request.client_is_local and not request.forwarded
        return 200 if local and _names_loopback(request.host) else 403


class WrongTokens:
    """
    The requests that came with a wrong token: counted, logged once a minute, and slowed.

    The pause is before a token is looked at, and the same for a right one: if only the refusal were
    late, an early answer would reveal the right one, and nobody who guesses would wait for a
    refusal. It does not depend on the client's address, of which an attacker may have many, and a
    proxy one for all.
    """

    __slots__ = ("_last", "_reported", "_unreported", "count")

    def __init__(self) -> None:
        self.count: int = 0
        self._unreported = 0
        self._last: float | None = None
        self._reported: float | None = None

    async def pause(self) -> None:
        """Wait before a token is looked at. A checkpoint while wrong ones come."""
        if _is_within(_PAUSE_AFTER, self._last):
            await anyio.sleep(_PAUSE)

    def add(self, client: str | None, path: str) -> None:
        """Take note of one."""
        self.count += 1
        self._unreported += 1
        self._last = clock.now()
        if not _is_within(_BETWEEN_REPORTS, self._reported):
            logger.warning(
                "wrong token for %s from %s; %d since the last such line",
                path,
                client or "a Unix socket",
                self._unreported,
            )
            self._reported, self._unreported = self._last, 0


class Report(Protocol):
    """Makes health reports, or has them made."""

    async def __call__(self, kind: CheckKind | None, *, within: float) -> HealthReport | None:
        """
        Return a report, None if it is made in another event loop and does not come in time.

        Args:
            kind: Which checks are run.
            within: Seconds to wait.
        """


class ReadTasks(Protocol):
    """Reads the tasks of the event loop that is reported on."""

    async def __call__(self, show: Callable[[TaskTree], Document]) -> Document:
        """
        Return what is shown of the tasks.

        Args:
            show: Makes it from the tree; it may be called in a thread.
        """
        ...


def registry_of(monitor: object, health: object) -> HealthRegistry:
    """Return the checks; raise ``TypeError`` if these are not a monitor and what has checks."""
    way_out = "Pass a ResourceMonitor first, and a HealthRegistry or nothing second."
    if not isinstance(monitor, ResourceMonitor):
        msg = f"monitor={monitor!r} is not a ResourceMonitor. {way_out}"
        raise TypeError(msg)
    if health is None:
        return HealthRegistry()
    if not isinstance(health, HealthRegistry):
        msg = f"health={health!r} is not a HealthRegistry. {way_out}"
        raise TypeError(msg)
    return health


class Endpoints:
    """
    Answers requests.

    Args:
        monitor: Whose figures are shown.
        health: The checks.
        access: Who may see figures.
        report: Makes health reports, or has them made.
        answering: Returns whether the event loop has answered lately.
        read_tasks: Reads the tasks of the event loop.
        name: What the service is called; None for the monitor's name.

    Attributes:
        answers: How many there were, by path and status; ``"other"`` is what is no path here.
        wrong_tokens: The requests with a wrong token.
    """

    __slots__ = (
        "_access",
        "_answering",
        "_health",
        "_large",
        "_monitor",
        "_name",
        "_paths",
        "_read_tasks",
        "_report",
        "answers",
        "wrong_tokens",
    )

    def __init__(
        self,
        monitor: ResourceMonitor,
        health: HealthRegistry,
        *,
        access: Access,
        report: Report,
        answering: Callable[[], bool],
        read_tasks: ReadTasks,
        name: str | None,
    ) -> None:
        self._access: Final = access
        self._answering: Final = answering
        self._monitor: Final = monitor
        self._health: Final = health
        self._name: Final = checks.title("name", name)
        self._report: Final = report
        self._read_tasks: Final = read_tasks
        self._large: Final = ConcurrencyLimiter(_MOST_LARGE)
        self.wrong_tokens: Final = WrongTokens()
        self.answers: Final[dict[tuple[str, int], int]] = {}
        self._paths: Final[dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/livez": self._live,
            "/readyz": self._ready,
            "/startupz": self._started,
            "/metrics": self._metrics,
            "/stats": self._stats,
            "/tasks": self._tasks,
            "/": self._page,
        }

    async def respond(self, request: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        """
        Answer one request: await ``send`` with the answer, once.

        A checkpoint where there is something to wait for.

        Raises:
            ConnectionAbortedError: The answer has begun and does not end; close the connection.
        """

        async def send_counted(response: Response) -> None:
            key = request.path if request.path in self._paths else "other", response.status
            self.answers[key] = self.answers.get(key, 0) + 1
            await send(response)

        refused = await self._refused(request)
        if refused is not None:
            await send_counted(refused)
        elif request.path == "/tasks" or (request.path == "/stats" and _points(request.query)):
            await self._in_turn(request, send_counted)
        else:
            await send_counted(await self._answer(request))

    async def _in_turn(self, request: Request, send: Callable[[Response], Awaitable[None]]) -> None:
        """Answer a request for much; one too many is refused, to come again."""
        try:
            await self._large.acquire(timeout=_WAIT_LARGE)
        except MTAIOTimeoutError:
            await send(
                text(503, "other clients are reading history or tasks", ("retry-after", "1"))
            )
            return
        try:
            with anyio.move_on_after(_SEND_LARGE):
                await send(await self._answer(request))
                return
        finally:
            self._large.release()
        raise ConnectionAbortedError  # the client does not take it

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._paths[request.path](request)
        except Exception:  # noqa: BLE001 - logged, and the client gets to know
            logger.exception("cannot answer %s %s", request.method, request.path)
            return text(500, "internal error")

    async def _refused(self, request: Request) -> Response | None:
        if request.path not in self._paths:
            return text(404, "not found")
        if request.method not in {"GET", "HEAD"}:
            return text(405, "only GET and HEAD", ("allow", "GET, HEAD"))
        if request.path.endswith("z"):
            return None
        if request.authorization is not None:
            await self.wrong_tokens.pause()
        status = self._access.status(request)
        if status == 401 and request.authorization is not None:  # noqa: PLR2004 - a status
            self.wrong_tokens.add(request.client, request.path)
        if status == 401:  # noqa: PLR2004 - a status
            return text(
                401,
                "the token is missing or wrong",
                ("www-authenticate", 'Basic realm="mtaio", charset="UTF-8"'),
                ("www-authenticate", 'Bearer realm="mtaio"'),
            )
        if status == 403:  # noqa: PLR2004 - a status
            return text(403, "without a token this is for local clients only")
        return None

    async def _live(self, _: Request) -> Response:
        if not self._answering():
            return _probe(ok=False)
        report = self._health.latest
        if report is None or any(check.kind == "live" for check in report.checks):
            within = _WAIT_LIVE if self._monitor.answering(_STANDS_STILL) else 0
            report = await self._report("live", within=within) or report
        return _probe(ok=report is None or report.live)

    async def _ready(self, _: Request) -> Response:
        report = await self._report("ready", within=_WAIT_READY)
        return _probe(ok=report is not None and report.ready)

    async def _started(self, _: Request) -> Response:
        report = await self._report("startup", within=_WAIT_READY)
        return _probe(ok=report is not None and report.started)

    async def _metrics(self, _: Request) -> Response:
        body = to_prometheus(metrics(self._monitor.sources()))
        return _response(200, CONTENT_TYPE, body.encode())

    async def _stats(self, request: Request) -> Response:
        points = _points(request.query)
        if points is None:
            return text(400, "points is not a number from 0 to 9999999")
        report = await self._report(None, within=_WAIT_STATS) or self._health.latest
        figures = snapshot(self._monitor, report, name=self._name)
        if not points:
            return _response(200, _JSON, figures + b"}")
        rest = _logged(request, history(self._monitor, min(points, _MOST_POINTS)))
        return _response(200, _JSON, figures + b", ")._replace(rest=rest)

    async def _tasks(self, request: Request) -> Response:
        kind = _format(request)
        if kind is None:
            return text(400, "format is neither text nor json")
        shown = await self._read_tasks(self._document)
        pieces = json_pieces(shown) if kind == "json" else text_pieces(shown)
        content = _JSON if kind == "json" else _TEXT
        return _response(200, content, next(pieces))._replace(rest=_logged(request, pieces))

    def _document(self, tree: TaskTree) -> Document:
        name = self._monitor.name if self._name is None else self._name
        return document(tree, name=name, stall=self._monitor.current_stall())

    async def _page(self, _: Request) -> Response:
        policy = content_security_policy()
        return _response(
            200,
            _HTML,
            page(),
            ("content-security-policy", policy),
            ("referrer-policy", "no-referrer"),
        )


def text(status: int, message: str, *headers: tuple[str, str]) -> Response:
    """Return an answer of one line."""
    return _response(status, _TEXT, f"{message}\n".encode(), *headers)


def _probe(*, ok: bool) -> Response:
    return text(200, "ok") if ok else text(503, "unavailable")


def _response(status: int, kind: str, body: bytes, *headers: tuple[str, str]) -> Response:
    return Response(status, (("content-type", kind), *_COMMON, *headers), body)


def _logged(request: Request, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """
    Return the pieces of an answer that has begun, so that it can no longer become a 500.

    Raises:
        ConnectionAbortedError: One cannot be made, which is logged.
    """
    try:
        yield from pieces
    except Exception as error:
        logger.exception("cannot answer GET %s to its end", request.path)
        raise ConnectionAbortedError from error


def _points(query: str) -> int | None:
    """Return how many points of history a query requests; None if it is malformed."""
    given = _parameter(query, "points", "0")
    return int(given) if re.fullmatch(r"[0-9]{1,7}", given) else None


def _format(request: Request) -> str | None:
    """Return the format of the tasks that is requested; None if there is no such format."""
    otherwise = "json" if b"application/json" in request.accept.lower() else "text"
    given = _parameter(request.query, "format", otherwise)
    return given if given in {"json", "text"} else None


def _parameter(query: str, name: str, otherwise: str) -> str:
    """Return a parameter of a query; "" if it is malformed."""
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=10).get(name, [otherwise])
    except ValueError:  # too many fields
        return ""
    return given[0] if len(given) == 1 else ""


def _is_within(seconds: float, moment: float | None) -> bool:
    """Return whether that moment is so many seconds ago at most; not if it is of another loop."""
    return moment is not None and 0 <= clock.now() - moment < seconds


def is_forwarded(name: bytes) -> bool:
    """Return whether a header field of this name, in lower case, shows that a proxy sent it."""
    return name in {b"forwarded", b"via", b"x-real-ip"} or name.startswith(b"x-forwarded-")


def _names_loopback(host: str | None) -> bool:
    """Return whether a Host field names this machine, with or without a port."""
    if host is None:
        return False
    name, _, port = host.rpartition(":")
    if not name or host.endswith("]"):
        name, port = host, ""
    if port and not (port.isascii() and port.isdigit()):
        return False
    if name.startswith("[") and name.endswith("]"):
        return is_loopback(name[1:-1])
    return name.lower() == "localhost" or (":" not in name and is_loopback(name))


def _credentials(authorization: bytes | None) -> bytes | None:
    """Return the token in an Authorization field: a Bearer's, or the password of Basic."""
    scheme, _, value = (authorization or b"").partition(b" ")
    value = value.strip(b" ")
    if scheme.lower() == b"bearer":
        return value
    if scheme.lower() == b"basic":
        try:
            _, colon, password = b64decode(value, validate=True).partition(b":")
        except binascii.Error:
            return None
        return password if colon else None
    return None
