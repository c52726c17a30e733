"""
One life of an application: starting, running, draining, closing.

Promise: what was started is closed, last in, first out, whatever happens in between; every wait has
an absolute deadline, counted from the moment at which the application was told to stop. The order
and its reasons: docs/en/design/application.md.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, wraps
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from anyio import to_thread

from mtaio._internal import clock, loops, unfinished
from mtaio._internal.cancellation import failure_in
from mtaio._internal.filters import errors_in
from mtaio._internal.sentinel import UNSET
from mtaio.app._error_handler import AsyncErrorHandler, ErrorReporter
from mtaio.app._lifespan import Lifespan
from mtaio.core import TaskExecutor
from mtaio.logging import flush_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

    from mtaio.app._application import Application, ApplicationState, PartInfo
    from mtaio.app._guard import Guard
    from mtaio.app._server import Server
    from mtaio.app._systemd import Notifier
    from mtaio.config import ShutdownBudget
    from mtaio.logging import LoggingContext

__all__ = ["Body", "Run"]

_FOR_LOGS: Final = 0.2
"""The part of the time for teardown that is kept for the logs."""

_LEAST_FOR_LOGS: Final = 0.05

_STDERR: Final = 2

_CANCELLED: Final = 0.1
"""Seconds that a context manager that was cancelled has to end, before the next is released."""

_MOST_KEPT: Final = 1000
"""How many errors of submitted tasks are kept for the end, of which the executor keeps as many."""

_FOR_LAST_WORDS: Final = 5.0
"""Seconds that systemd is asked to wait beyond the time to stop, for what the guard has to say."""

logger: Final = logging.getLogger("mtaio.app")


class Run:
    """
    One life; made in its event loop.

    Args:
        app: Whose life it is.
        budget: The seconds for each part of the end.
        notifier: Tells systemd.
        guard: What handles signals; None where something else does.
        logs: The logging that was set up for it, which it closes; None for none.
    """

    # Invariants:
    # - only code in the loop's thread changes anything here;
    # - _stopped_at is set once: when the application was told to stop;
    # - _held are in the order in which they were entered;
    # - _servers have the event that is set when they have ended.
    def __init__(
        self,
        app: Application,
        budget: ShutdownBudget,
        notifier: Notifier,
        *,
        guard: Guard | None = None,
        logs: LoggingContext | None = None,
    ) -> None:
        self.loop: Final = loops.current_loop()
        self.state: ApplicationState = "starting"
        self.settled: Final = anyio.Event()
        """Set when it runs, or has ended before that."""
        self.draining: Final = anyio.Event()
        """Set when nothing new is accepted any more."""
        self.closed: Final = anyio.Event()
        """Set when all is over."""
        self.body: Body | None = None
        """What runs in the ``async with`` block around it."""
        self.error: BaseException | None = None
        """What ended it, if that was an error."""
        self.never_ran = True
        """Whether it ended before it ran."""
        self.started_at: Final = clock.now()
        self.by_signal = False
        """Whether it was a signal that ended it."""
        self.by_jobs = False
        """Whether it was the end of its jobs that ended it."""
        self.is_awaited = False
        """Whether somebody waits, or has waited, for its end."""
        self.cancelled = 0
        """What was cancelled because its time had run out."""
        self._app: Final = app
        self._registered: Final = app._registered  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self._budget: Final = budget
        self._notifier: Final = notifier
        self._guard = guard
        self._logs: Final = logs
        self._group: TaskGroup
        self._stopped_at: float | None = None
        self._stop: Final = anyio.Event()
        self._body: Final = anyio.CancelScope()
        self._held: Final[list[Held]] = []
        self._starting = ""  # for the message, if it fails
        self._servers: Final[dict[Server, anyio.Event]] = {}
        self._services: Final[list[Service]] = []
        self._executor: Held | None = None
        self._lost: Final[dict[int, BaseException]] = {}  # reported, and raised at its end
        self._dropped = False  # whether submitted tasks were cancelled, perhaps those of a job
        self._overdue = False  # whether the time to drain was over before all had ended
        if guard is not None:
            guard.attach(self._signalled, self.announce_stop)

    # ---- what ends it ----------------------------------------------------------------------------

    def stop(self, reason: str, moment: float | None = None) -> None:
        """Have it stop; the time that it may take counts from ``moment``, by default from now."""
        if self._stopped_at is not None:
            return
        self._stopped_at = clock.now() if moment is None else moment
        if self._guard is not None:
            self._guard.begin(self._stopped_at)
        logger.info("stopping: %s", reason)
        self.announce_stop()
        self._stop.set()
        if self.state == "starting":
            self._body.cancel()

    @property
    def is_told_to_stop(self) -> bool:
        """Whether it was told to stop, and has to end or has ended."""
        return self._stopped_at is not None

    @property
    def is_hosted(self) -> bool:
        """Whether somebody else handles SIGTERM too: a server around it, which ends the program."""
        if self._guard is not None:
            return self._guard.shares_sigterm()
        return callable(signal.getsignal(signal.SIGTERM))

    async def await_signal(self) -> None:
        """Wait until it was told of a signal that has come, of which only the guard may know."""
        if self._guard is not None and self._guard.signalled:
            await self._stop.wait()

    def announce_stop(self) -> None:
        """Tell systemd that it stops, and how long that may take; from any thread."""
        notifier = self._notifier
        if notifier.enabled:
            notifier.stopping()
            notifier.extend(self._budget.total + _FOR_LAST_WORDS)

    def abort(self, reason: str) -> None:
        """Have it stop without a word to what is in flight, which is cancelled."""
        self.stop(reason)
        self._body.cancel()

    def release_guard(self, *, unless_signalled: bool = False) -> None:
        """Let signals be what they were before."""
        guard = self._guard
        if guard is not None and not (unless_signalled and guard.signalled):
            self._guard = None
            guard.release()

    def _hand_on_signal(self) -> None:
        if self._guard is not None:
            self._guard.hand_on()

    def _signalled(self, number: int, moment: float) -> None:
        self.by_signal = not self.is_told_to_stop
        self.stop(signal.Signals(number).name, moment)

    def _fail(self, what: str, error: BaseException, **more: str) -> None:
        """End it because of an error, or because the program is to exit."""
        exits, rest = exit_in(error)
        new = None if rest is None else self._not_reported(rest)
        if new is not None:
            self._report(what, new, **more)
        elif rest is not None:
            logger.error("%s ends with errors of submitted tasks, which are logged above", what)
        if self.error is None:
            self.error = exits or error
        if exits is None:
            self.stop(f"{what} failed: {type(error).__name__}")
        else:
            self.stop(f"{more.get('of', what)} raised {exits!r}")

    def _report(self, what: str, error: BaseException, **more: str) -> None:
        if isinstance(error, Exception):
            self.report(error, {"what": what, **more})
        else:
            logger.critical("%s failed", what, exc_info=error)

    def _report_lost(self, name: str, error: Exception) -> None:
        """Report at once what would only come at the end of the executor's block."""
        # Each by itself: a group may come back as another, with the same errors.
        for each in islice(errors_in(error), _MOST_KEPT - len(self._lost)):
            self._lost[id(each)] = each
        self._report(f"the submitted task {name!r}", error)

    def _not_reported(self, error: BaseException) -> BaseException | None:
        """Return what of an error has not been reported when it occurred."""
        if id(error) in self._lost:
            return None
        if not isinstance(error, BaseExceptionGroup):
            return error
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(lambda each: id(each) in self._lost)[1]

    def report(self, error: Exception, context: Mapping[str, object]) -> None:
        """Hand an error to the application's error handler."""
        handler = self._app.error_handler
        if not isinstance(handler, ErrorReporter):  # it has what the guide's has
            self._group.start_soon(self._handle, handler, error, context)
            return
        try:
            handler.report(error, context)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - logged with the error that it was to handle
            _handler_failed(failure, error, context)

    async def _handle(
        self, handler: AsyncErrorHandler, error: Exception, context: Mapping[str, object]
    ) -> None:
        try:
            with anyio.move_on_after(self._budget.teardown, shield=True):  # an error is not lost
                await handler.handle_error(error, dict(context))
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - as above
            _handler_failed(failure, error, context)

    def _service_failed(self, info: PartInfo, error: BaseException) -> None:
        what = f"the {'job' if info.job else 'service'} {info.name!r}"
        if info.critical:
            self._fail(what, error)
        else:
            self._report(what, error)

    # ---- the life --------------------------------------------------------------------------------

    async def live(self) -> None:
        """
        Live from beginning to end.

        Raises nothing but a cancellation from outside, after which it does not drain: what went
        wrong is in `error`.
        """
        try:
            try:
                async with anyio.create_task_group() as self._group:
                    try:
                        with self._body:
                            await self._up_and_down()
                    finally:
                        with anyio.CancelScope(shield=True):
                            await self._close()
            except BaseException as error:
                failure = failure_in(error, repr(self._app))
                if failure is None:
                    raise
                logger.critical("the application failed", exc_info=failure)
                self.error = self.error or failure
        finally:
            self.state = "stopped"
            if self.error is None and (left := self.incomplete()):
                logger.warning("not completed, to be run again: %s", ", ".join(left))
            logger.info("stopped")
            try:
                if self._logs is not None:
                    await self._end_logs(self._logs)
            finally:
                self.settled.set()
                self.closed.set()

    async def _up_and_down(self) -> None:
        try:
            await self._start()
        except BaseException as error:
            failure = failure_in(error, self._starting)
            if failure is None:
                raise
            self._fail("start-up", failure, of=self._starting)
            return
        if self._stopped_at is not None:  # while its last part was opened: too late to cancel it
            return
        self._start_services()
        self.state, self.never_ran = "running", False
        self._notifier.ready()
        logger.info("started in %.3g s", clock.now() - self.started_at)
        self.settled.set()
        await self._stop.wait()
        await self._drain()

    async def _start(self) -> None:
        app = self._app
        await self._hold("the monitor", app.monitor)
        if app.probes is not None:
            await self._hold("the health endpoint (MTAIO_HEALTH_BIND)", app.probes)
        await self._hold("the emitter", app.emitter)
        await self._hold("the cache", app.cache)
        executor: Any = app.executor
        executor._on_lost = self._report_lost  # noqa: SLF001 - for the block that begins here
        try:
            self._executor = await self._hold("the executor", executor)
        finally:
            executor._on_lost = None  # noqa: SLF001 - as above
        for resource in self._registered.resources:
            self._starting = f"the resource {resource.name!r}"
            held = await self._hold(self._starting, resource.open(app))
            resource.value = held.value
        for spec in self._registered.servers:
            lifespan = Lifespan(spec.asgi)
            token = starting_lifespan.set(app)
            try:
                await self._hold(f"the lifespan of {spec.info.name}", lifespan)
            finally:
                starting_lifespan.reset(token)
            self._starting = f"the server {spec.info.name}"
            server = spec.server(app.settings, self.report)
            ended = anyio.Event()
            await self._group.start(self._serve, server, lifespan.state, ended)
            self._servers[server] = ended
            label = self._label(spec.info, server)
            app.monitor.watch(server, name=label)
            # Not without a name, as a middleware around the application may have none.
            app.monitor.watch(server.requests, name=label or "server")

    def _start_services(self) -> None:
        for service in self._registered.running():
            fn = service.bound(self._app, self.report)
            running = Service(service.info, fn, self._service_failed)
            self._services.append(running)
            self._group.start_soon(self._run_service, running, name=service.info.name)

    async def _run_service(self, service: Service) -> None:
        await service.run()
        if service.info.job and not any(each.info.job for each in self._unended()):
            self.by_jobs = not self.is_told_to_stop
            self.stop("all jobs have ended")

    def _label(self, info: PartInfo, server: Server) -> str | None:
        """Return what the metrics of a server are called; None for those of the only one."""
        if info.name != info.bind:
            return info.name
        return server.address if len(self._registered.servers) > 1 else None

    async def _hold(self, what: str, manager: AbstractAsyncContextManager[Any]) -> Held:
        self._starting = what
        held = Held(what, manager, self._fail)
        self._held.append(held)  # first: it may be cancelled while it enters
        await held.enter(self._group)
        return held

    async def _serve(
        self,
        server: Server,
        state: Mapping[str, Any],
        ended: anyio.Event,
        *,
        task_status: TaskStatus[None],
    ) -> None:
        try:
            await server.serve(state=state, task_status=task_status)
            self.stop("a server has ended")  # by itself, as with hypercorn's max_requests
        except BaseException as error:
            failure = failure_in(error, repr(server))
            if failure is None or server not in self._servers:
                raise
            self._fail(
                f"the server {server.address}", failure
            )  # pragma: no cover - hypercorn's own
        finally:
            ended.set()

    # ---- the end ---------------------------------------------------------------------------------

    def _until(self, *parts: str) -> float:
        """Return when those parts of the time to stop are over."""
        began = clock.now() if self._stopped_at is None else self._stopped_at
        return began + float(sum(getattr(self._budget, part) for part in parts))

    async def _drain(self) -> None:
        """Say "not ready", then accept nothing new and wait for what is in flight."""
        self.state = "draining"
        self._app.health.set_ready(False)
        await anyio.sleep_until(clock.loop_deadline(self._until("drain_delay")))
        self.draining.set()
        self._hand_on_signal()
        for server in self._servers:
            server.close()
        for service in self._services:
            if not service.info.drains:
                service.cancel()
        end = clock.loop_deadline(self._until("drain_delay", "drain"))
        with anyio.CancelScope(deadline=end) as time:
            await self._all_ended()
            logger.info("drained in %.3g s", clock.now() - self._until())
        self._overdue = time.cancelled_caught

    async def _all_ended(self) -> None:
        """Wait until requests, services and the body have ended, and what they have submitted."""
        for ended in [*self._servers.values(), *(service.ended for service in self._services)]:
            await ended.wait()
        if self.body is not None and not self.never_ran:
            if not self.body.drains:
                self._cancel_body()
            await self.body.ended.wait()
        if self._executor is not None and self._executor.is_open:
            executor = self._app.executor
            if executor.statistics().submitted:
                await executor.drain()

    def _cancel_body(self) -> bool:
        """Cancel the body, unless it is a server's, which leaves it when requests have ended."""
        return self.body is not None and not self.is_hosted and self.body.cancel()

    async def _close(self) -> None:
        """Cancel what is left, and close what is open."""
        if self._stopped_at is None:
            self.stop("cancelled")
        self.state = "stopping"
        self.draining.set()
        self._hand_on_signal()
        await self._cancel_rest()
        end = min(
            self._until("drain_delay", "drain", "cancel", "teardown"),
            clock.now() + self._budget.teardown,
        )
        end -= self._budget.teardown * _FOR_LOGS
        for held in reversed(self._held):
            # One that hangs gets half of the time left, so that some remains for the others.
            now = clock.now()
            await held.release(now + max(0.0, end - now) / 2)
        for server in self._servers:
            self._app.monitor.unwatch(server)
            self._app.monitor.unwatch(server.requests)
        for resource in self._registered.resources:
            resource.value = UNSET

    async def _cancel_rest(self) -> None:
        executor = self._app.executor
        tasks = executor.statistics().submitted
        self._dropped = tasks > 0
        services = self._unended()
        requests = sum(server.cancel() for server in self._servers)
        for service in services:
            service.cancel()
        executor.cancel()
        body = self._cancel_body()
        if not self.never_ran and (requests or services or tasks or body):
            self.cancelled = requests + len(services) + tasks
            logger.warning(
                "cancelled %s the time was up: requests: %d, submitted tasks: %d, services: %s%s",
                "because" if self._overdue else "before",
                requests,
                tasks,
                ", ".join(service.info.name for service in services) or "none",
                "; and the body of its async with block" if body else "",
            )
        end = min(self._until("drain_delay", "drain", "cancel"), clock.now() + self._budget.cancel)
        with anyio.CancelScope(deadline=clock.loop_deadline(end)):
            await self._all_ended()

    async def _end_logs(self, logs: LoggingContext) -> None:
        close = partial(self._close_logs, logs)
        with anyio.CancelScope(shield=True):
            try:
                await to_thread.run_sync(close, limiter=anyio.CapacityLimiter(1))
            except RuntimeError:  # there can be no more threads
                close()

    def _close_logs(self, logs: LoggingContext) -> None:
        """Write and close the logs; in a thread."""
        rest = self._until("drain_delay", "drain", "cancel", "teardown") - clock.now()
        half = max(_LEAST_FOR_LOGS, min(rest, self._budget.teardown) / 2)
        complete = flush_all(half)
        logs.close(half)
        if not complete:
            with suppress(RuntimeError):  # there can be no more threads
                # In a daemon thread: what nobody reads may be the standard error itself.
                speaker = Thread(target=_say_incomplete, daemon=True)
                speaker.start()
                speaker.join(_LEAST_FOR_LOGS)

    def describe(self) -> str:
        """Return what it waits for, in words; from any thread."""
        requests = sum(server.in_flight for server in [*self._servers])
        left = self._unended()
        services = [service.info.name for service in left if not service.info.job]
        jobs = [service.info.name for service in left if service.info.job]
        if self.state == "stopped":
            return (
                "though the application has stopped: the event loop is still running. Leave it "
                "when app.wait_closed() returns; a worker thread or an async generator may keep it "
                "running"
            )
        return (
            f"with the application {self.state}; requests in flight: {requests}, services: "
            f"{', '.join(services) or 'none'}{', jobs: ' if jobs else ''}{', '.join(jobs)}"
        )

    def addresses(self) -> tuple[str, ...]:
        """Return where the servers listen."""
        return tuple(server.address for server in [*self._servers] if self.state != "stopped")

    def service_starts(self) -> list[int]:
        """Return how often each service was started."""
        return [service.starts for service in self._services]

    def services_running(self) -> int:
        """Return how many services have not ended."""
        return sum(not service.info.job for service in self._unended())

    def incomplete(self) -> list[str]:
        """Return the names of the jobs that are not complete; from any thread."""
        complete = {service.info.name for service in [*self._services] if service.is_complete}
        return [job.name for job in self._app.jobs if self._dropped or job.name not in complete]

    def _unended(self) -> list[Service]:
        return [service for service in [*self._services] if not service.ended.is_set()]


def exit_in(
    error: BaseException,
) -> tuple[SystemExit | KeyboardInterrupt | None, BaseException | None]:
    """Return the wish to exit with which something ended, if there is one, and the other errors."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    group = cast("BaseExceptionGroup[BaseException]", error)
    exits, rest = group.split((SystemExit, KeyboardInterrupt))
    return None if exits is None else exit_in(exits.exceptions[0])[0], rest


def _say_incomplete() -> None:
    # Not through sys.stderr: the exit asks for its lock, which a thread that waits would hold.
    with suppress(OSError), open(_STDERR, "w", encoding="utf-8", closefd=False) as stderr:
        print("mtaio: not all of the log could be written", file=stderr)


def _handler_failed(
    failure: BaseException, error: Exception, context: Mapping[str, object]
) -> None:
    """Log what an error handler raised, and the error that it was to handle."""
    logger.error("the error handler failed", exc_info=failure)
    logger.critical("%s: %s (%s)", type(error).__name__, error, context, exc_info=error)


# ---- what it holds -------------------------------------------------------------------------------


class Service:
    """
    One run of a service: an async function that runs as long as the application does; or of a job.

    It is restarted as its policy allows, and its final failure is reported once. It is only
    cancelled by `cancel`, or together with the application.

    Args:
        info: How it was registered.
        fn: The function, with its argument bound.
        failed: Called with what it failed with in the end.
    """

    def __init__(
        self,
        info: PartInfo,
        fn: Callable[[], Coroutine[Any, Any, object]],
        failed: Callable[[PartInfo, BaseException], None],
    ) -> None:
        self.info: Final = info
        self.ended: Final = anyio.Event()
        self._record: unfinished.Record | None = None
        self.starts = 0
        """How often it was started."""
        self._fn = fn
        self._failed = failed
        self._scope: Final = anyio.CancelScope()

    @property
    def is_complete(self) -> bool:
        """Whether it has returned without having been cancelled, and no call was cut short."""
        return self._record is not None and not (self._record.noted or self._scope.cancel_called)

    def cancel(self) -> None:
        """Cancel it; `ended` is set when it has ended."""
        self._scope.cancel()

    async def run(self) -> None:
        """Run it, restarts included. A checkpoint."""
        try:
            with self._scope:
                if self.info.restart is None:
                    self.starts = 1
                    await self._attempt()
                else:
                    async with TaskExecutor(name=self.info.name) as executor:
                        await (
                            await executor.start(self._again(), restart=self.info.restart)
                        ).wait()
        except BaseException as error:
            failure = failure_in(error, f"the service {self.info.name}")
            if failure is None:
                raise
            self._failed(self.info, failure)
        finally:
            self.ended.set()

    async def _attempt(self) -> object:
        with unfinished.recording() as record:
            result = await self._fn()
        self._record = record
        return result

    def _again(self) -> Callable[..., Coroutine[Any, Any, object]]:
        """Return the function as the executor starts services, under its own name."""

        @wraps(self._fn)
        async def again(*, task_status: Any) -> object:
            self.starts += 1
            task_status.started()
            return await self._attempt()

        again.__qualname__ = self.info.name
        return again


class Held:
    """
    An async context manager that is entered and left in a task of its own.

    It stays entered from `enter` to `release`, even while everything around it is being cancelled,
    and is closed in the task that opened it: it may hold a task group or a cancel scope. A release
    has a time limit, after which it is cancelled.

    Args:
        what: What it is called in messages, such as ``resource 'database'``.
        manager: The context manager, not entered yet.
        failed: Called if it fails while it is held, with what it raised.
    """

    def __init__(
        self,
        what: str,
        manager: AbstractAsyncContextManager[Any],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.what: Final = what
        self.value: Any = None
        self._manager = manager
        self._failed = failed
        self._scope: Final = anyio.CancelScope(shield=True)
        self._entered: Final = anyio.Event()
        self._released: Final = anyio.Event()
        self._ended: Final = anyio.Event()
        self._error: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is entered, and has not been left."""
        return self._entered.is_set() and not self._ended.is_set()

    async def enter(self, group: TaskGroup) -> None:
        """
        Enter the context manager in a task of the group.

        A checkpoint; cancelled, it cancels the entering, which `release` waits for.

        Raises:
            BaseException: What entering raised.
        """
        group.start_soon(self._hold, name=self.what)
        try:
            await self._entered.wait()
        except BaseException:
            self._scope.cancel()
            raise
        if self._error is not None:
            raise self._error

    async def release(self, until: float) -> None:
        """
        Leave the context manager, and wait until that is done; after ``until`` it is cancelled.

        What does not end when it is cancelled is left behind, with a line in the log.
        """
        self._released.set()
        self._scope.deadline = clock.loop_deadline(until)
        with anyio.CancelScope(deadline=clock.loop_deadline(until + _CANCELLED)):
            await self._ended.wait()
        if not self._ended.is_set():
            logger.error("%s does not close, though it was cancelled: it is left open", self.what)

    async def _hold(self) -> None:
        try:
            with self._scope:
                async with self._manager as self.value:
                    self._entered.set()
                    await self._released.wait()
            if not (self._released.is_set() or self._scope.cancel_called):
                self._failed(self.what, _closed_itself(self.what))
            if self._scope.cancelled_caught and anyio.current_time() >= self._scope.deadline:
                logger.error("%s took too long to close: it was cancelled", self.what)
        except BaseException as error:  # noqa: BLE001 - kept, and told
            self._error = failure_in(error, self.what) or error
            if self._entered.is_set():
                self._failed(self.what, self._error)
        finally:
            self._entered.set()
            self._ended.set()


def _closed_itself(what: str) -> RuntimeError:
    return RuntimeError(
        f"{what} has closed by itself, without an error. Look for a cancel scope or a timeout "
        f"around what it yields: it must stay open until it is closed."
    )


class Body:
    """
    The body of ``async with app``; made in the task that enters the block.

    Once requests and services have ended, a body that waits for something that never comes is
    cancelled, and the program goes on behind the block. One that ends by itself is left the time to
    drain: one that looks at ``app.draining``, or waits for that or for the application's end.

    Attributes:
        ended: Set when it was left, or waits for the end of its application.
        drains: Whether it has looked at ``app.draining``, or waits for it.
        left: Whether it was left.
    """

    # Invariants:
    # - _inside holds the bodies around the running code, and around the tasks they have started;
    # - _scope is left by the task that has entered it, or not at all.
    def __init__(self) -> None:
        self.ended: Final = anyio.Event()
        self.drains = False
        self.left = False
        self._scope: Final = anyio.CancelScope()
        self._task: Final = anyio.get_current_task().id

    def is_around(self) -> bool:
        """Return whether the running code is in it."""
        # A fixture's body is the test, which has the fixture's task, but not always its context.
        return self in _inside.get() or self._is_in_its_task()

    def begin(self) -> None:
        """Begin it."""
        _inside.set((*_inside.get(), self))
        self._scope.__enter__()

    def leave(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Leave it, and return whether what it ended with was `cancel` and nothing else."""
        self.left = True
        self.ended.set()
        _inside.set(tuple(each for each in _inside.get() if each is not self))
        if not self._is_in_its_task():  # a fixture's: the task that entered is over
            return False
        return bool(self._scope.__exit__(exc_type, exc, traceback))

    def _is_in_its_task(self) -> bool:
        try:
            return anyio.get_current_task().id == self._task
        except anyio.NoEventLoopError:  # another thread
            return False

    def cancel(self) -> bool:
        """Cancel it, unless it has ended; return whether it was there to be cancelled."""
        # On asyncio a scope whose task is over would be cancelled again and again, for ever.
        if self.ended.is_set() or all(each.id != self._task for each in anyio.get_running_tasks()):
            return False
        self._scope.cancel()
        return True


starting_lifespan: Final[ContextVar[Application | None]] = ContextVar(
    "starting_lifespan", default=None
)
"""Which application has begun the lifespan that is running; for refusing a second one in it."""

_inside: Final[ContextVar[tuple[Body, ...]]] = ContextVar("_inside", default=())
