"""
Serves HTTP with hypercorn, under its owner's deadlines.

Promise: after `Server.close` nothing more is accepted and what is in flight is answered in full;
after `Server.cancel`, `Server.serve` returns as soon as the handlers have ended, whatever their
clients do. It never waits for a client that is silent, does not read, or keeps its connection.
Cost: a request takes about as long as with hypercorn alone on asyncio and uvloop, and a fifth less
on trio. It pays for a cancel scope, on trio for one more with each message, and is spared a task
that hypercorn ends and starts for each; docs/en/design/application.md has the reasons.

Why not hypercorn's own grace period: from Python 3.12 on asyncio waits for every connection before
that period begins, and on trio what is being sent cannot be cancelled.
"""

from __future__ import annotations

import copy
import logging
import math
import socket
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import checks, clock, loops, spans
from mtaio._internal.access_log import Entry
from mtaio._internal.backend import is_asyncio
from mtaio._internal.backend import of as backend_of
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.routes import Routes
from mtaio._internal.statistics import COUNTER, GAUGE, snapshot
from mtaio.app._listening import Bind, Listening
from mtaio.app._request import Request, unwrapped
from mtaio.asgi import RequestMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskStatus
    from hypercorn.config import Config

    from mtaio._internal.asgi import ASGIApp, Message, Receive, Send
    from mtaio._internal.proxies import Proxies
    from mtaio.app._certificate import Certificate

__all__ = ["Server", "ServerStatistics"]

_LOOK: Final = 0.1
"""Seconds from one look at what is left to the next, once requests have been cancelled."""

_LAST_CALL: Final = 0.1
"""Seconds after a request in which its client may send the next on the same connection. It then
hears with the answer that it was the last; connections that are idle after that are closed."""

_HANDSHAKE: Final = 0.02
"""Seconds in which a client that has begun to connect is connected: a way there and back."""

_TAKE: Final = 1.0
"""Seconds at most for connections that the system has queued to be accepted. They have come in by
then, but for a process that can open no more files."""
_GLANCE: Final = 0.002

_TURNS: Final = 20
"""Turns of the event loop in which what has come in is taken: accepted, read and begun. It takes
about six, through the tasks that asyncio and hypercorn make for it."""

_FAREWELL: Final = 5
"""Looks for the last answers to reach the clients, after which connections are shut down. A process
that was stopped in between loses one of them, not all."""

_PATIENCE: Final = 5
"""Looks without a handler at work after which hypercorn is cancelled, and what it sends."""

_PROBES: Final = frozenset(
    f"{place}/{probe}" for place in ("", "/health") for probe in ("livez", "readyz", "startupz")
)
"""Where `mtaio.monitoring.asgi.health_app` answers probes: as the guide mounts it, and at the root.
No others: what a client may write into a path must not get it past the limit."""

_COME_AGAIN: Final = (b"retry-after", b"1")

_NEVER: Final = 1e8
"""Seconds for hypercorn's own deadlines, for which None and inf do not work on every loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """The state and counts of a `Server`. A websocket counts as a request."""

    in_flight: int = field(metadata=GAUGE)
    """Requests that are being answered."""
    peak: int = field(metadata=GAUGE)
    """The most requests that were in flight at once."""
    requests: int = field(metadata=COUNTER)
    """Requests received, including those in flight."""
    failed: int = field(metadata=COUNTER)
    """Requests whose handler raised."""
    cancelled: int = field(metadata=COUNTER)
    """Requests that were cancelled with `Server.cancel`."""
    rejected: int = field(metadata=COUNTER)
    """Requests that the server answered with 503, because ``max_in_flight`` was reached or it was
    stopping."""
    late: int = field(metadata=COUNTER)
    """Requests whose next piece of body did not arrive within ``body_timeout`` seconds."""


class Server:
    """
    Serves an ASGI application over HTTP, with hypercorn, on asyncio, uvloop or trio.

    It can be made anywhere, and used by one event loop after another. It leaves signals alone, and
    does not run the application's lifespan: `mtaio.app._lifespan.Lifespan` does.

    Args:
        asgi: The application.
        bind: Where to listen: ``"127.0.0.1:8000"`` (port 0 takes a free one), ``"[::]:8000"`` for
            all addresses, ``"unix:/run/app.sock"``, or ``"fd://3"`` for a socket that the process
            has inherited.
        config: hypercorn's configuration, for TLS, HTTP/2, timeouts and limits. It is copied when
            serving begins. Its ``bind`` and ``graceful_timeout`` are ignored. Logs
            that it would write to the console go to the loggers ``hypercorn.error`` and
            ``hypercorn.access``, without handlers of their own.
        name: Named in messages and errors.
        certificate: For TLS, in place of that of ``config``; None for that, or for none.
        proxies: Those whose word on client and scheme is believed.
        max_in_flight: How many requests are answered at once. Others get a 503 that says when to
            come again. Those to the probes' paths are neither counted nor refused.
        body_timeout: Seconds that a client may take for the next piece of a request's body while
            the application waits for it. After that it gets a 408, and the application is told that
            the client has gone.
        access_log: Whether each request has an id, and a line in the access log.
        on_error: Called with what a handler raised, and with the request's method and path; None
            to have hypercorn log it.

    Raises:
        ValueError: ``bind`` is not an address.
        TypeError: An argument has the wrong type.

    Attributes:
        requests: The metrics of its requests, those included that it refuses by itself.
    """

    __slots__ = (
        "_access_log",
        "_asgi",
        "_bind",
        "_body_timeout",
        "_certificate",
        "_config",
        "_counts",
        "_max_in_flight",
        "_name",
        "_on_error",
        "_proxies",
        "_routes",
        "_run",
        "requests",
    )

    def __init__(
        self,
        asgi: ASGIApp,
        bind: str,
        *,
        config: Config | None = None,
        name: str | None = None,
        certificate: Certificate | None = None,
        proxies: Proxies | None = None,
        max_in_flight: float = math.inf,
        body_timeout: float = math.inf,
        access_log: bool = False,
        on_error: Callable[[Exception, Mapping[str, object]], None] | None = None,
    ) -> None:
        checks.callable_("asgi", asgi, way_out="Pass an ASGI application.")
        self._asgi = asgi
        self._bind: Final = Bind.parse(bind)
        self._config = config
        self._name = name
        self._certificate = certificate
        self._proxies = proxies
        self._max_in_flight = max_in_flight
        self._body_timeout = body_timeout
        self._access_log = access_log
        self._routes: Final = Routes()
        self._on_error = on_error
        self._run: _Run | None = None
        self._counts: Final = _Counts()
        self.requests: Final = RequestMetrics(self._answer, name=name)

    def __repr__(self) -> str:
        name = "" if self._name is None else f"{self._name!r} "
        return f"<Server {name}at {self.address}>"

    @property
    def address(self) -> str:
        """Where it listens: while it serves, with the real port in place of 0."""
        return self._bind.text if self._run is None else self._run.listening.address

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return 0 if self._run is None else len(self._run.in_flight)

    async def serve(
        self,
        *,
        state: Mapping[str, Any] | None = None,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """
        Serve until `close` or `cancel` was called and everything in flight has ended.

        It returns by itself after hypercorn's ``max_requests``. ``task_status.started()`` is called
        once it listens.

        A checkpoint. Cancelled, it does what `cancel` does, and ends when the handlers have.

        Args:
            state: What each request gets a copy of, as ``scope["state"]``.
            task_status: For ``TaskGroup.start``.

        Raises:
            ListenError: It cannot listen there.
            OSError, ValueError: The certificate cannot be used.
            RuntimeError: It is serving already.
            ImportError: hypercorn is not installed.
        """
        if self._run is not None:
            msg = f"{self!r} is serving already. Make another Server for another address."
            raise RuntimeError(msg)
        config = _copy_of(self._config)
        if self._certificate is not None:
            self._certificate.check()
            config.certfile, config.keyfile, config.keyfile_password = self._certificate
        run = _Run(self._bind, config, self._counts, state)
        self._run = run
        try:
            await run.main(self.requests, task_status)
        finally:
            self._run = None

    def close(self) -> None:
        """
        Accept nothing more, and have `serve` return when everything in flight has ended.

        Clients whom the system has let in already are served; one that has not asked yet has 0.1
        seconds for that. Connections that wait for another request end at once, the others with
        their response. If requests have just come in, that begins 0.1 seconds later. From the
        loop's thread. Not a checkpoint. Does nothing if it does not serve.
        """
        if self._run is not None:
            self._run.closing.set()

    def cancel(self) -> int:
        """
        Cancel the requests in flight, and have `serve` return when their handlers have ended.

        A request that has not been answered yet gets a 503. Half a second later, connections that
        are still there are shut down, except those of handlers that go on shielded. From the loop's
        thread. Not a checkpoint. Does nothing if it does not serve.

        Returns:
            How many there were.
        """
        if self._run is None:
            return 0
        return self._run.cancel()

    def statistics(self) -> ServerStatistics:
        """Return the state and the counts. Not a checkpoint; from any thread."""
        return snapshot(ServerStatistics, self._counts, in_flight=self.in_flight)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request: the application that hypercorn is given."""
        run: Any = self._run  # there is one, or hypercorn would not call
        if scope["type"] == "lifespan":
            await run.lifespan(receive, send)
            return
        if run.may_be_eager():
            # It is begun before hypercorn can take an answer. Where tasks are eager, smoke runs it.
            await checkpoint()  # pragma: no cover
        if scope["type"] == "websocket":
            await _tell_of_refusal(send)
        if run.state is not None:
            scope["state"] = dict(run.state)
        entry = None
        if self._access_log or spans.hook is not None:
            entry = Entry(scope, self._routes, log=self._access_log)
        request = Request(
            scope,
            receive,
            send,
            closing=run.closing.is_set,
            whole=run.backend == "trio",
            bare=run.bare,
            body_timeout=self._body_timeout,
            entry=entry,
            new_scope=run.new_scope,
        )
        if self._proxies is not None:
            self._proxies.apply(scope)
        try:
            await self._respond(run, request, entry)
        except BaseException as error:
            if entry is not None:
                entry.leave(error)
            raise
        if entry is not None:
            entry.leave()

    async def _respond(self, run: _Run, request: Request, entry: Entry | None) -> None:
        """Answer a request, or refuse it."""
        scope = request.scope
        counts = self._counts
        counts.requests += 1
        if run.cancelling:
            counts.rejected += 1
            await request.refuse()
            return
        counted = scope["path"] not in _PROBES
        if counted and run.counted >= self._max_in_flight:
            counts.rejected += 1
            await request.refuse(_COME_AGAIN)
            return
        run.counted += counted
        run.in_flight.add(request)
        counts.peak = max(counts.peak, len(run.in_flight))
        try:
            await request.run(self._asgi, partial(self._failed, scope, entry))
        finally:
            run.in_flight.discard(request)
            run.counted -= counted
            counts.late += request.late
            run.latest = clock.now()

    def _failed(self, scope: Message, entry: Entry | None, error: Exception) -> bool:
        """Take note of what a handler raised, and return whether it was reported."""
        self._counts.failed += 1
        if entry is not None:
            entry.fail(error)
        if self._on_error is None:
            return False
        context = {
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope["path"],
            "server": self._name or self.address,
        }
        self._on_error(error, context)
        return True


class _Counts:
    """What a server has done so far."""

    __slots__ = ("cancelled", "failed", "late", "peak", "rejected", "requests")

    def __init__(self) -> None:
        self.requests = self.peak = self.failed = self.cancelled = self.rejected = self.late = 0


class _Run:
    """
    One time of serving; made in the event loop that it belongs to.

    Args:
        bind: Where to listen.
        config: hypercorn's configuration, to be changed.
        counts: Where it counts.
        state: What each request gets a copy of; None for nothing.

    Attributes:
        listening: The socket.
        backend: ``"asyncio"`` or ``"trio"``.
        bare: Whether no cancel scope of AnyIO's is entered where hypercorn sends. On asyncio it has
            none, but a logger of the user's, which it awaits at the end of a response, may.
        may_be_eager: Returns whether a request may be begun before hypercorn is ready for it.
        new_scope: Makes a cancel scope of this loop.
        closing: Set when nothing more is accepted.
        cancelling: Whether requests are refused.
        in_flight: The requests that are being answered.
        counted: How many of them count towards the limit.
        latest: When the latest answer ended.
    """

    __slots__ = (
        "_accepted",
        "_config",
        "_counts",
        "_ended",
        "_error",
        "_lifespan",
        "_over",
        "_scope",
        "_serve",
        "_up",
        "backend",
        "bare",
        "cancelling",
        "closing",
        "counted",
        "in_flight",
        "latest",
        "listening",
        "may_be_eager",
        "new_scope",
        "state",
    )

    def __init__(
        self, bind: Bind, config: Config, counts: _Counts, state: Mapping[str, Any] | None
    ) -> None:
        loop = loops.current_loop()
        self.backend: Final = "asyncio" if is_asyncio(loop) else "trio"
        kind: type[object] = config.logger_class
        self.bare: Final = self.backend == "asyncio" and kind.__module__.startswith("hypercorn.")
        self.may_be_eager: Final = partial(backend_of(loop).may_be_eager, loop)
        self.new_scope: Final = backend_of(loop).scopes(loop).new
        # Before it listens: importing takes a while, in which clients would connect and wait.
        self._serve: Final = _serving(self.backend)
        owner = None
        if config.user is not None and config.group is not None:
            owner = config.user, config.group
        self.listening: Final = Listening(
            bind, backlog=config.backlog, umask=config.umask, owner=owner
        )
        self._config = config
        self._counts = counts
        self.state: Final = state
        self.closing: Final = anyio.Event()
        self.cancelling = False
        self.in_flight: Final[set[Request]] = set()
        self.counted = 0
        self.latest = -math.inf
        clock.now()  # in this context, of which requests have copies: it is quick for them
        self._scope = anyio.CancelScope(shield=True)
        self._lifespan = anyio.CancelScope()
        self._accepted: Final = anyio.Event()  # it accepts no more
        self._up: Final = anyio.Event()  # it accepts connections, or never will
        self._over: Final = anyio.Event()  # there is no more to wait for than the end
        self._ended: Final = anyio.Event()
        self._error: Exception | None = None

    async def main(self, app: ASGIApp, task_status: TaskStatus[None]) -> None:
        """Serve until there is nothing more in flight."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._hypercorn, app)
            if self._config.ssl_enabled:
                group.start_soon(self._end_tls)
            try:
                await self._up.wait()
                if not self._ended.is_set():
                    task_status.started()
                await self._over.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    self.cancel()
                    await self._wait_ended()
        if self._error is not None:
            raise self._error

    async def _end_tls(self) -> None:
        """
        Have the clients seen as gone that keep a connection half open or half closed.

        With TLS it has two more stages, which a silent client makes last: a minute at its begin,
        and half a minute at its end, for which asyncio waits, and with it the last piece of an
        answer. What is sent is sent to the end, and who begins has a second for it.
        """
        await self._accepted.wait()
        while not self._over.is_set():
            with anyio.move_on_after(_TAKE):
                await self._over.wait()
            clients = {each.client for each in self.in_flight if not each.finished}
            self.listening.disconnect(keep=clients, how=socket.SHUT_RD)

    def cancel(self) -> int:
        """Cancel the requests in flight, and refuse others; return how many there were."""
        if self.cancelling:
            return 0
        self.cancelling = True
        for request in self.in_flight:
            request.cancel()
        self._counts.cancelled += len(self.in_flight)
        self.closing.set()
        self._over.set()
        return len(self.in_flight)

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Tell hypercorn what it wants to hear of a lifespan, which is not its matter."""
        with self._lifespan:
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return

    async def _hypercorn(self, app: ASGIApp) -> None:
        """Have hypercorn serve until it ends, or is cancelled as the last resort."""
        try:
            with self._scope:
                self._hand_over()
                await self._serve(app, self._config, shutdown_trigger=self._accepting, mode="asgi")
        except Exception as error:  # noqa: BLE001 - raised by main(), outside of the task group
            # Once cancelled, hypercorn raises nothing of use.
            self._error = None if self._scope.cancel_called else unwrapped(error)
        finally:
            self._lifespan.cancel()
            self.listening.close()
            self._ended.set()
            self._accepted.set()
            self._up.set()
            self._over.set()

    def _hand_over(self) -> None:
        """Give the socket to hypercorn, with those that it makes by itself for TLS."""
        config = self._config
        config.bind = []
        sockets = config.create_sockets()
        own = sockets.secure_sockets if config.ssl_enabled else sockets.insecure_sockets
        own.insert(0, self.listening.socket)
        vars(config)["create_sockets"] = lambda: sockets

    async def _accepting(self) -> None:
        """Return when hypercorn is to close; it calls this when it accepts connections."""
        self._up.set()
        try:
            await self.closing.wait()
            with anyio.CancelScope(deadline=clock.loop_deadline(self.latest + _LAST_CALL)):
                await self._over.wait()
            # From here on nobody connects, and hypercorn accepts those who have: for so long that
            # also a client whose connection was half made is among them.
            self.listening.refuse()
            await anyio.sleep(_HANDSHAKE)
            with anyio.move_on_after(_TAKE):
                while self.listening.has_queue():  # noqa: ASYNC110 - nobody tells that it is empty
                    await anyio.sleep(_GLANCE)
            self._stop_accepting()
            for _ in range(_TURNS):  # asyncio cannot begin with a connection once it has closed
                await checkpoint()
        finally:  # cancelled after hypercorn's max_requests
            self._accepted.set()

    def _stop_accepting(self) -> None:
        """Leave new connections to the other processes that accept from the same socket."""
        # asyncio begins with a connection a turn after it was accepted, and drops it if the server
        # has closed in between. uvloop and trio begin with it at once.
        if self.backend == "asyncio" and self.listening.inherited:
            loop: Any = loops.current_loop()
            loop.remove_reader(self.listening.socket)

    async def _wait_ended(self) -> None:
        """Wait until hypercorn has ended, and help it."""
        for _ in range(_FAREWELL):
            with anyio.move_on_after(_LOOK):
                await self._ended.wait()
        waited: set[Request] = set()
        looks = 0
        while not self._ended.is_set():
            # A handler that happens to be sending right now is not waiting for its client.
            waiting = {each for each in self.in_flight if each.sending}
            working = {each.client for each in self.in_flight - (waiting & waited)}
            waited = waiting
            self.listening.disconnect(keep=working)
            looks = 0 if working else looks + 1
            if looks > _PATIENCE:
                for request in self.in_flight:
                    request.abandon()
                self._scope.cancel()
            with anyio.move_on_after(_LOOK):
                await self._ended.wait()


def _copy_of(given: Config | None) -> Config:
    """Return a configuration for hypercorn, with its logs where the program's are."""
    try:
        from hypercorn.config import Config  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        msg = "mtaio.app needs hypercorn to serve HTTP. Install it with: pip install 'mtaio[app]'"
        raise ImportError(msg, name=error.name) from error
    config = Config() if given is None else copy.copy(given)
    for log in ("errorlog", "accesslog"):
        if getattr(config, log) == "-":
            setattr(config, log, logging.getLogger(f"hypercorn.{log.removesuffix('log')}"))
    config.graceful_timeout = _NEVER
    return config


class _LeavingError(Exception):
    """A request has come in on a connection that is being closed as idle: it is not begun."""


@cache
def _serving(backend: str) -> Any:
    """
    Return hypercorn's function ``serve``, with `_connections` as its class of connections.

    Hypercorn looks that class up in its module, and takes no other. So these are copies of its
    functions, with names of their own, and hypercorn itself stays what it is.
    """
    library: Any = import_module(f"hypercorn.{backend}")
    run: Any = import_module(f"hypercorn.{backend}.run")
    events = import_module("hypercorn.events")
    connections = _connections(run.TCPServer, events.RawData, events.Updated, events.Closed)
    worker_serve = _with_names(run.worker_serve, TCPServer=connections)
    return _with_names(library.serve, worker_serve=worker_serve)


def _with_names(fn: Any, **names: Any) -> Any:
    """Return a copy of a function for which some names of its module are something else."""
    copied = FunctionType(fn.__code__, {**fn.__globals__, **names})
    copied.__kwdefaults__ = fn.__kwdefaults__
    return copied


async def _nothing() -> None:
    """Send nothing."""


async def _tell_of_refusal(send: Any) -> None:
    """
    Have the application of a websocket hear of its end where hypercorn has refused its client.

    Hypercorn answers a client with 400 that sends before it was let in, and the application is told
    nothing any more: it would wait for a message for ever, long after the client has left.
    """
    stream: Any = send.__self__
    handle = stream.handle
    end = {"type": "websocket.disconnect", "code": 1006}

    async def handle_and_tell(event: Any) -> None:
        refused = stream.closed
        await handle(event)
        if refused and event.__class__.__name__ == "StreamClosed":
            await stream.app_put(end)

    if stream.closed:  # before this began
        await stream.app_put(end)
    else:
        stream.handle = handle_and_tell


def _connections(tcp_server: Any, raw: Any, updated: Any, closed: Any) -> Any:  # noqa: C901 - that of a class
    """
    Return a subclass of hypercorn's class of connections, which differs in this.

    - What goes wrong with one connection ends that one alone. On trio hypercorn ends as a whole
      when its code raises, for which a client need only ask for h2c with settings that are none; on
      asyncio it no longer waits for the others then.
    - One that its client has closed ends. Hypercorn keeps it, and a descriptor with it, for
      ``keep_alive_timeout``.
    - One is closed as idle, or a request on it is begun: not both. Hypercorn may handle a request
      on a connection that it closes, and the answer is lost.
    - One on which nothing was asked yet is not closed as idle before it is a tenth of a second old,
      nor one whose request has come in: those that were queued as the server closes have just been
      accepted.
    - One that was closed is not read any further. Hypercorn waits for ever there if a request came
      in behind its last answer.
    - Nothing is sent where there is nothing to send. Hypercorn sends no bytes after the last ones
      of a response whose length is known, with a lock, and on trio a cancel scope and two turns.
    """

    # How a connection ends, step by step:
    #
    # 1. hypercorn reads in _read_data and closes in _initiate_server_close, in two tasks. Its own
    #    word for "a request has begun" is the event Updated(idle=False), sent by protocol_send.
    # 2. The client closes: _read_data returns at the end of what it sends. The protocol is told,
    #    and the task of step 3 cancelled, which hypercorn leaves running.
    # 3. The server closes, or the connection was idle for too long: _idle_timeout waits for that,
    #    in one task for as long as the connection is there. A request only notes that it has begun
    #    or ended; when the time since the last is over, the task looks at what was noted.
    # 4. _initiate_server_close waits until the connection is old enough, lets what has come in
    #    meanwhile be read, and looks at at_work once more. Between that look and leaving there is
    #    no checkpoint, so a request that begins is either before it, and the connection stays, or
    #    after it, and protocol_send raises in the task that reads.
    # 5. Either way Closed is sent in the end, or the socket closed, which ends the reading.
    class Connection(tcp_server):  # type: ignore[misc] # hypercorn has one for each backend
        at_work = False  # a request has begun, and its answer has not ended
        leaving = False  # it is being closed as idle: no request may begin any more

        def __init__(self, *args: Any) -> None:
            tcp_server.__init__(self, *args)
            self.reading = anyio.CancelScope()
            self.rested = anyio.Event()  # set by the next answer that ends
            self.idle_since = clock.now()
            # Until then it is not closed as idle, unless a request comes before.
            self.first_call = anyio.current_time() + _LAST_CALL

        async def run(self) -> None:
            try:
                await tcp_server.run(self)
            except Exception as error:
                if not isinstance(unwrapped(error), _LeavingError):
                    logger = logging.getLogger("hypercorn.error")
                    logger.warning("A connection was ended by an error.", exc_info=True)

        def protocol_send(self, event: Any) -> Any:
            # Of each request. Bytes go to hypercorn without a frame of ours in between. Its events
            # are ABCs: asking isinstance() takes ten times as long, and nobody derives from them.
            kind = event.__class__
            if kind is raw:
                return tcp_server.protocol_send(self, event) if event.data else _nothing()
            if kind is not updated:
                return self.protocol_end(event)  # it is Closed
            # Without hypercorn, which would end a task and start another for each request.
            self.at_work = not (event.idle or self.leaving)
            if event.idle:
                self.idle_since = clock.now()
                self.rested.set()
            elif self.leaving:
                raise _LeavingError
            else:
                self.first_call = -math.inf
            return _nothing()

        async def protocol_end(self, event: Any) -> None:
            await tcp_server.protocol_send(self, event)
            self.reading.cancel()

        async def _read_data(self) -> None:
            with self.reading:
                await tcp_server._read_data(self)  # noqa: SLF001 - its subclass
            # The client has closed, or Closed was sent: hypercorn itself would go on waiting.
            await self.protocol.handle(closed())
            await self.idle_task.stop()

        async def _idle_timeout(self) -> None:
            while not self.leaving:
                if self.at_work:
                    self.rested = anyio.Event()
                    await self.rested.wait()
                since = self.idle_since
                end = clock.loop_deadline(since + self.config.keep_alive_timeout)
                with anyio.CancelScope(deadline=end):
                    await self.context.terminated.wait()
                if not self.at_work and self.idle_since == since:
                    await self._initiate_server_close()

        async def _initiate_server_close(self) -> None:
            await anyio.sleep_until(self.first_call)
            # What the client sent before it was closed is read in these turns.
            for _ in range(_TURNS):
                await checkpoint()
            if not self.at_work:
                self.leaving = True
                with anyio.CancelScope(shield=True):
                    await tcp_server._initiate_server_close(self)  # noqa: SLF001 - its subclass

    return Connection
