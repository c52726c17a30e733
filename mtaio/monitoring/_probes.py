"""
Probes that are answered whatever the event loop is doing.

Promise: while the event loop is blocked, `/livez` still answers, and `/readyz` says 503. No task
group is needed, nor a server of the application's; it ends with its event loop.
Cost: one daemon thread, idle between requests.

Why a thread, and why an event loop in it: docs/en/design/monitoring.md.
"""

from __future__ import annotations

import contextvars
import os
import socket
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, Self, final

import anyio
from anyio import to_thread

from mtaio._internal import checks, loops
from mtaio._internal.addresses import Address
from mtaio._internal.cancellation import Failure, classify
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.statistics import COUNTER, GAUGE, LIMIT, labels, snapshot
from mtaio.exceptions import ListenError
from mtaio.monitoring._delivery import logger
from mtaio.monitoring._endpoints import LIVE_AFTER, Access, Endpoints, registry_of
from mtaio.monitoring._health import HealthRegistry
from mtaio.monitoring._listener import Counts, Limits, Listener
from mtaio.monitoring._monitor import ResourceMonitor
from mtaio.monitoring._report import CheckKind, HealthReport
from mtaio.monitoring._task_reader import TaskReader

__all__ = ["Probes", "ProbesStatistics", "Reports", "listening_socket"]

_BACKLOG: Final = 128
_LIMITS: Final = Limits()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesStatistics:
    """What a `Probes` has done since it was started last."""

    connections: int = field(metadata=GAUGE)
    """Connections that are open."""
    max_connections: int = field(metadata=LIMIT)
    """The most connections at once; a further one closes the connection that has been quiet
    longest."""
    peak: int = field(metadata=GAUGE)
    """The most connections that were open at once."""
    requests: int = field(metadata=COUNTER)
    """Requests answered, with any status."""
    rejected: int = field(metadata=COUNTER)
    """Connections closed because the request was incorrect or too slow."""
    timed_out: int = field(metadata=COUNTER)
    """Request heads that did not arrive in time, and answers that were not taken in time."""
    dropped: int = field(metadata=COUNTER)
    """Connections closed to make room."""
    wrong_tokens: int = field(metadata=COUNTER)
    """Requests with a wrong token."""
    answers: Mapping[tuple[str, int], int] = field(metadata=COUNTER | labels("path", "status"))
    """Answers by path and status."""


@final
class Probes:
    """
    Answers HTTP probes from a separate thread, so that a blocked event loop is noticed.

    ``/livez``, ``/readyz`` and ``/startupz`` answer 200 ``ok`` or 503 ``unavailable`` to anyone.
    ``/metrics`` (Prometheus), ``/stats`` (JSON), ``/tasks`` (what each task waits for) and ``/`` (a
    live page) require the token, as ``Authorization: Bearer TOKEN`` or as the password of Basic.
    Without a token, they are only for clients on this machine; set one behind a proxy on this
    machine, which may look like such a client.

    It can be created anywhere and used by one event loop after another. Use ``async with``, or call
    `start` and `stop`, in any task.

    - ``/livez`` is 200 if the event loop has answered the monitor within the last 30 seconds and no
      check of kind ``"live"`` fails. It waits at most 25 ms for those checks, and then uses their
      last result. - ``/readyz`` and ``/startupz`` show a health report from the event loop, or 503
      if there is none within 2 seconds.

    Args:
        monitor: The monitor whose figures are shown. Start it before the probes.
        health: The checks; None for the event loop alone.
        bind: The address: ``"127.0.0.1:9464"``, ``"[::1]:9464"``, ``"localhost:9464"`` (which is
            127.0.0.1), ``"0.0.0.0:9464"`` for all IPv4 addresses, or ``"[::]:9464"`` for all IPv4
            and IPv6 addresses. With port 0, a free port is chosen.
        token: What clients must send for figures and the page; None for local clients only. It is
            required if other machines can reach the address.
        name: The service's name, which is the heading of the page; None for the monitor's name.

    Raises:
        ValueError: ``bind`` is not an address and a port, or can be reached from other machines
            and there is no token; ``token`` is empty or cannot be sent.
        TypeError: An argument has the wrong type.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor

        monitor = ResourceMonitor()
        health = HealthRegistry()


        async def main() -> None:
            async with monitor, Probes(monitor, health, bind="127.0.0.1:0") as probes:
                print(f"http://{probes.address}/")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_access", "_address", "_health", "_monitor", "_name", "_run")

    def __init__(
        self,
        monitor: ResourceMonitor,
        health: HealthRegistry | None = None,
        *,
        bind: str = "127.0.0.1:9464",
        token: str | None = None,
        name: str | None = None,
    ) -> None:
        self._health: Final = registry_of(monitor, health)
        self._access: Final = Access(token)
        self._address: Final = Address.parse("bind", bind)
        if token is None and not self._address.is_local:
            msg = (
                f"bind={bind!r} can be reached from other machines, and there is no token. Pass "
                f"token=, which clients must then send to see figures and the page, or bind to "
                f"127.0.0.1."
            )
            raise ValueError(msg)
        self._monitor: Final = monitor
        self._name: Final = checks.title("name", name)
        self._run: _Run | None = None

    def __repr__(self) -> str:
        return f"<Probes at {self.address}, {'running' if self.running else 'not running'}>"

    @property
    def address(self) -> str:
        """The address and port; while it is running, with the actual port in place of 0."""
        run = self._run
        return str(run.address if run is not None and run.is_alive() else self._address)

    @property
    def running(self) -> bool:
        """Whether it answers probes: from `start` until `stop` or the end of the event loop."""
        return self._run is not None and self._run.is_alive()

    async def start(self) -> None:
        """
        Begin to answer probes, until `stop` or the end of the event loop.

        Health checks run in a copy of the context of this call. It does nothing if it is running in
        this event loop already.

        A checkpoint. If it is cancelled, nothing has started.

        Raises:
            OSError: The address is in use, or is not one of this machine.
            RuntimeError: It is running in another event loop, the monitor is not running, or no
                thread can be started.
        """
        await checkpoint()
        while (run := self._run) is not None and run.is_alive():
            if not (run.is_stopping() or loops.is_over(run.loop)):
                if loops.is_current(run.loop):
                    return
                raise loops.two_loops_error(self)
            await self.stop()
        if not self._monitor.running:
            msg = (
                f"cannot start {self!r}: {self._monitor!r} is not running, and nothing else "
                f"shows whether the event loop answers. Start it first."
            )
            raise RuntimeError(msg)
        self._run = _Run(self._address, self._monitor, self._health, self._access, self._name)

    async def stop(self) -> None:
        """
        Stop answering, and close all connections.

        It can be called in any task, and in another event loop. It does nothing if it is not
        running.

        A checkpoint. If it is cancelled, it still closes everything, which takes a few
        milliseconds.
        """
        run = self._run
        if run is not None:
            run.stop()
            with anyio.CancelScope(shield=True):
                await run.wait_ended()
            if self._run is run:
                self._run = None
        await checkpoint()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self.stop()

    def statistics(self) -> ProbesStatistics:
        """
        Return the counts so far.

        Not a checkpoint. It can be called from any thread.
        """
        run = self._run
        return snapshot(
            ProbesStatistics,
            Counts() if run is None else run.listener.counts,
            connections=0 if run is None else len(run.listener),
            max_connections=_LIMITS.connections,
            wrong_tokens=0 if run is None else run.endpoints.wrong_tokens.count,
            answers={} if run is None else run.endpoints.answers.copy(),
        )


class _Run:
    """
    One time from start to stop; made in the event loop that it belongs to.

    Args:
        address: Where to listen.
        monitor: Whose figures are shown.
        health: The checks.
        access: Who may see figures.
        name: What the service is called; None for the monitor's name.

    Raises:
        OSError: The address is in use, or is not one of this machine.
    """

    # Invariants, _lock held:
    # - _scope is set while the thread's loop may be ended, and _stopping once it is to be;
    # - whichever comes second, the scope or the wish to stop, cancels the scope.
    __slots__ = (
        "__weakref__",
        "_lock",
        "_reports",
        "_scope",
        "_served",
        "_stopping",
        "_thread",
        "_thread_loop",
        "address",
        "endpoints",
        "listener",
        "loop",
    )

    def __init__(
        self,
        address: Address,
        monitor: ResourceMonitor,
        health: HealthRegistry,
        access: Access,
        name: str | None,
    ) -> None:
        listening = listening_socket(address)
        self.address: Final = Address(address.host, listening.getsockname()[1])
        self.loop: Final = loops.current_loop()
        self._reports: Final = Reports(health.report, self.loop)
        self._lock = threading.Lock()
        self._scope: anyio.CancelScope | None = None
        self._stopping = False
        self._thread_loop: object = None
        self._served: Final = anyio.Event()
        self.endpoints: Final = Endpoints(
            monitor,
            health,
            access=access,
            report=self._reports.get,
            answering=partial(monitor.answering, LIVE_AFTER),
            read_tasks=TaskReader(self.loop).read,
            name=name,
        )
        self.listener: Final = Listener(listening, self.endpoints.respond, _LIMITS)
        self._thread: Final = threading.Thread(
            target=self._main, name=f"mtaio.monitoring.probes {self.address}", daemon=True
        )
        _runs.add(self)
        try:
            self._thread.start()
        except RuntimeError:  # there can be no more threads
            listening.close()
            raise
        context = contextvars.copy_context()
        loops.start_task(self.loop, self._reports.serve, context, self._ended)

    def is_alive(self) -> bool:
        """Return whether it answers."""
        return self._thread.is_alive()

    def is_stopping(self) -> bool:
        """Return whether the thread is to end."""
        return self._stopping

    def stop(self) -> None:
        """Have the thread end; from any thread."""
        with self._lock:
            self._stopping = True
            if self._scope is not None:
                loops.call_in(self._thread_loop, self._scope.cancel)

    def forget(self) -> None:
        """Close what a forked child has from its parent, whose thread it does not have."""
        self._lock = threading.Lock()
        self._scope = None
        self.listener.close()

    async def wait_ended(self) -> None:
        """Wait until the thread has ended, and the task where this is its loop."""
        await to_thread.run_sync(self._thread.join, limiter=anyio.CapacityLimiter(1))
        if loops.is_current(self.loop):
            await self._served.wait()

    def _ended(self) -> None:
        """Take note that no more reports are made: in the loop that made them."""
        self._served.set()
        self.stop()

    # ---- in the thread ---------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            anyio.run(self._serve)
        except Exception:  # noqa: BLE001 - a thread has nobody to raise it to
            logger.exception("probes at %s are no longer answered", self.address)
        finally:
            self.listener.close()
            loops.call_in(self.loop, self._reports.stop)

    async def _serve(self) -> None:
        with anyio.CancelScope() as scope:
            with self._lock:
                self._thread_loop, self._scope = loops.current_loop(), scope
                if self._stopping:
                    return
            try:
                await self.listener.serve()
            finally:
                with self._lock:
                    self._scope = None


class Reports:
    """
    The reports of one registry, made in one event loop and awaited in another.

    Waiting ends after the given time, even if the loop that makes the report is blocked or over. At
    most one request for each kind of report is pending, however many wait.
    Why not ``anyio.from_thread.run``: it waits for ever if that loop ends.

    Args:
        make: Makes a report on the checks of a kind; awaited in the loop that runs `serve`.
        loop: That loop, as `loops.current_loop` returned it.
    """

    # Invariants:
    # - _making and _scope belong to the loop that makes reports; _making has the scope of each
    #   report that is being made;
    # - _pending belongs to the loop that waits; a kind is in it from the request until its answer.
    # Each report has a task of the loop and none of a group's: when asyncio's loop ends, a group's
    # child that could not begin yet is said to be "never awaited".
    __slots__ = ("_context", "_loop", "_make", "_making", "_none_left", "_pending", "_scope")

    def __init__(
        self,
        make: Callable[[CheckKind | None], Awaitable[HealthReport]],
        loop: object,
    ) -> None:
        self._make: Final = make
        self._loop: Final = loop
        self._context: Final = contextvars.copy_context()
        self._scope: Final = anyio.CancelScope()
        self._making: set[anyio.CancelScope] = set()
        self._none_left: Final = anyio.Event()
        self._pending: dict[CheckKind | None, _PendingReport] = {}

    # ---- in the loop that makes them -------------------------------------------------------------

    async def serve(self) -> None:
        """Make the requested reports, until `stop` or the end of the loop."""
        try:
            with self._scope:
                await anyio.sleep_forever()
        finally:
            self._scope.cancel()  # also where it was the loop that ended this
            for scope in self._making:
                scope.cancel()
            if self._making:
                with anyio.CancelScope(shield=True):
                    await self._none_left.wait()

    def stop(self) -> None:
        """End `serve`; called in its loop."""
        self._scope.cancel()

    def _request(self, kind: CheckKind | None, waiting: object) -> None:
        answer = partial(self._answer, kind, waiting)
        loops.start_task(self._loop, answer, self._context.copy())

    async def _answer(self, kind: CheckKind | None, waiting: object) -> None:
        if self._scope.cancel_called:
            return
        report: HealthReport | None = None
        with anyio.CancelScope() as scope:
            self._making.add(scope)
            try:
                report = await self._make(kind)
            except BaseException as error:
                if not isinstance(classify(error), Failure):
                    raise  # also a native cancellation: asyncio ends with one of all tasks
                logger.exception("cannot make a health report")  # the next may succeed
            finally:
                self._making.remove(scope)
                if not self._making and self._scope.cancel_called:
                    self._none_left.set()
            loops.call_in(waiting, partial(self._arrived, kind, report))

    # ---- in the loop that waits for them ---------------------------------------------------------

    async def get(self, kind: CheckKind | None, *, within: float) -> HealthReport | None:
        """
        Return a report, None if it does not come in time.

        A checkpoint; cancelled, it leaves the request on its way, for the next caller.

        Args:
            kind: Which checks are run.
            within: Seconds to wait.
        """
        pending = self._pending.get(kind)
        if pending is None:
            pending = self._pending[kind] = _PendingReport()
            if not loops.call_in(self._loop, partial(self._request, kind, loops.current_loop())):
                self._arrived(kind, None)
        with anyio.move_on_after(within):
            await pending.answered.wait()
        return pending.report

    def _arrived(self, kind: CheckKind | None, report: HealthReport | None) -> None:
        pending = self._pending.pop(kind)
        pending.report = report
        pending.answered.set()


class _PendingReport:
    """A report that is on its way."""

    __slots__ = ("answered", "report")

    def __init__(self) -> None:
        self.answered: Final = anyio.Event()
        self.report: HealthReport | None = None


# The port is free as soon as it is closed; on Windows that needs no option, and SO_REUSEADDR would
# let two listen at once.
if sys.platform == "win32":  # pragma: no cover - Windows
    _ONE_LISTENER: Final = socket.SO_EXCLUSIVEADDRUSE
else:
    _ONE_LISTENER: Final = socket.SO_REUSEADDR


def listening_socket(address: Address) -> socket.socket:
    """Return a socket that listens there."""
    host, port = address
    try:
        (family, kind, protocol, _, where), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, _ONE_LISTENER, 1)
            if host == "::":
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.bind(where)
            listening.listen(_BACKLOG)
            listening.setblocking(False)  # noqa: FBT003 - its only argument
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        msg = (
            f"cannot listen at {address}: {error.strerror}. Choose an address of this machine and "
            f"a port that is free; port 0 takes any."
        )
        raise ListenError(error.errno, msg) from None
    return listening


_runs: Final[weakref.WeakSet[_Run]] = weakref.WeakSet()


def _in_child() -> None:
    for run in list(_runs):
        run.forget()


if sys.platform != "win32":  # pragma: no branch - coverage is measured where there are forks
    os.register_at_fork(after_in_child=_in_child)
