"""
The application: makes the parts of a service from its settings, runs them, and closes them.

Promise: what it opens it closes, last in, first out, whatever happens; from the first signal to the
exit it takes no longer than ``MTAIO_SHUTDOWN_TIMEOUT`` says. It can be made anywhere, at module
level too, reads the environment when a setting is first needed, and can be started again after it
has stopped, even in another event loop.

`Run` is one life, with what is open in it, and `Guard` handles signals.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Literal,
    NoReturn,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    final,
    overload,
)

import anyio

from mtaio._internal import checks, loops
from mtaio._internal.asgi import ASGIApp
from mtaio._internal.backend import in_event_loop
from mtaio._internal.callables import is_async, is_async_generator, is_generator, name_of
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.statistics import COUNTER, GAUGE
from mtaio._internal.task_document import document
from mtaio._internal.task_text import text_pieces
from mtaio._internal.task_tree import read_from_anywhere
from mtaio.app._error_handler import AsyncErrorHandler, ErrorHandler, ErrorReporter
from mtaio.app._load import is_loading
from mtaio.app._resource import Opening, Resource, bind_app
from mtaio.app._server_options import ServerOptions, ServerOptionValues
from mtaio.app._systemd import Notifier
from mtaio.app._usage import Backend, CommandError, require_backend
from mtaio.app._worker import Worker
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import Retry, TaskExecutor
from mtaio.events import EventEmitter
from mtaio.monitoring import HealthRegistry, Probes, ResourceMonitor
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

if TYPE_CHECKING:
    from hypercorn.config import Config

    from mtaio._internal.leaders import Leader
    from mtaio._internal.periodic import Overlap
    from mtaio.app._certificate import Certificate
    from mtaio.app._guard import Guard
    from mtaio.app._periodic import PeriodicService
    from mtaio.app._run import Body, Run
    from mtaio.app._server import Server
    from mtaio.core import Cron
    from mtaio.logging import LoggingContext
else:
    Config = object  # an extra, which need not be there

__all__ = ["Application", "ApplicationState", "ApplicationStatistics", "PartInfo"]

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")
S = TypeVar("S", bound="Callable[..., Coroutine[Any, Any, Any]]")

FAILED: Final = 1
USAGE: Final = 2
NOT_STARTED: Final = 3
INCOMPLETE: Final = 75
"""The exit code if a job is not complete, and is to be run again (EX_TEMPFAIL)."""

_WATCHDOG: Final = 0.5
"""The share of systemd's watchdog interval after which it is notified again."""

_PATIENCE: Final = 0.1
"""Seconds that the event loop has to read its tasks, before that is done from outside."""

logger: Final = logging.getLogger("mtaio.app")

Report: TypeAlias = Callable[[Exception, Mapping[str, object]], None]
"""What an error is handed to, with what it is about."""

ApplicationState: TypeAlias = Literal[
    "new", "starting", "running", "draining", "stopping", "stopped"
]
"""
The phase of an application: not started, opening resources, up, finishing work in flight, closing
resources, or closed.
"""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """A resource, a service, a job or a server of an application, as it was registered."""

    name: str
    """What it is called: by default the function's name, or where a server listens."""
    bind: str | None = None
    """Where a server listens; None for other parts."""
    restart: int | Retry | None = None
    """How a service or a job is restarted after an error; None if it is not restarted."""
    critical: bool = True
    """Whether the application stops when this part has failed for good."""
    drains: bool = False
    """Whether it keeps running while requests in flight are answered."""
    job: bool = False
    """Whether it is a job: the application stops when all of them have ended."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStatistics:
    """The state of an application, and its counts since it was last started."""

    up: bool = field(metadata=GAUGE)
    """Whether it has started, and has not been told to stop."""
    draining: bool = field(metadata=GAUGE)
    """Whether it is draining: it accepts no new work."""
    services: int = field(metadata=GAUGE)
    """Services that have not ended."""
    jobs: int = field(metadata=GAUGE)
    """
    Jobs that have not ended, have failed, or were cut short.

    If there are any when the application has stopped, run the program again.
    """
    restarts: int = field(metadata=COUNTER)
    """How often a service was restarted after an error."""
    cancelled: int = field(metadata=COUNTER)
    """Requests, submitted tasks and services cancelled because time ran out."""


@dataclass(frozen=True, slots=True)
class _Served:
    """An ASGI application that is to be served."""

    asgi: ASGIApp
    info: PartInfo
    bind: str
    config: Config | None
    options: ServerOptions

    def listening(self) -> dict[str, Any]:
        """Return where it is to listen, for a supervisor."""
        config = self.config
        owner = None
        if config is not None and config.user is not None and config.group is not None:
            owner = [config.user, config.group]
        umask = None if config is None else config.umask
        return {"bind": self.bind, "umask": umask, "owner": owner}

    def certificate(self, settings: Settings) -> Certificate | None:
        """Return the certificate that it is served with."""
        return self.options.certificate(self.config, settings)

    def server(
        self, settings: Settings, failed: Callable[[Exception, Mapping[str, object]], None]
    ) -> Server:
        """Return a server for one life."""
        from mtaio.app._server import Server  # noqa: PLC0415 - not before something is served

        return Server(
            self.asgi,
            self.bind,
            config=self.config,
            name=self.info.name,
            certificate=self.certificate(settings),
            proxies=self.options.proxies(settings),
            max_in_flight=self.options.most(settings),
            body_timeout=self.options.seconds(settings),
            access_log=self.options.logs(settings),
            on_error=failed,
        )


@dataclass(frozen=True, slots=True)
class _Serviced:
    """A function that is to run as a service or as a job."""

    fn: Callable[..., Any]
    info: PartInfo

    def bound(self, app: Application, _report: Report) -> Callable[[], Coroutine[Any, Any, object]]:
        """Return the function as one of no arguments."""
        return bind_app(self.fn, app)


@dataclass(slots=True)
class Registered:
    """What was registered with an application, in its order."""

    resources: list[Opening[Any]] = field(default_factory=list[Opening[Any]])
    servers: list[_Served] = field(default_factory=list[_Served])
    services: list[_Serviced] = field(default_factory=list[_Serviced])
    periodic: list[PeriodicService] = field(default_factory=list["PeriodicService"])

    def running(self) -> list[_Serviced | PeriodicService]:
        """Return what runs while the application is up."""
        return [*self.services, *self.periodic]


@final
class Application:
    """
    A whole service: creates its parts from the settings, starts them, and stops them in order.

    Call ``app.run()`` in a program of its own; in an event loop that is already running, use
    ``async with app:`` or ``await app.start()``. On SIGTERM or SIGINT the application reports "not
    ready", waits ``drain_delay`` seconds, accepts no new work, lets work in flight finish, cancels
    what takes too long, closes the resources in reverse order, and writes the logs. If all this and
    the exit of a program started with `run` take longer than ``shutdown_timeout`` seconds, the
    process is ended by force.

    If you pass a part, the application uses it instead of creating one. It also enters and monitors
    it, so do not enter it yourself.

    Args:
        settings: The operator's settings; None to read the environment when they are first needed.
        name: Name shown in messages and metrics.
        executor: Runs work; by default one with the setting ``max_workers``.
        cache: Keeps values; by default one with ``cache_size`` and ``cache_ttl``.
        rate_limiter: Limits how often work starts; by default one with ``rate_limit`` and
            ``burst_limit``.
        concurrency_limiter: Limits how much work runs at once; by default one with
            ``concurrency_limit``.
        timeout_manager: Limits how long work takes; by default one with ``default_timeout``.
        emitter: Delivers the monitor's alerts and your own events.
        monitor: Samples the process; by default one with the thresholds of the settings.
        health: The health checks.
        error_handler: Reports what fails: an `ErrorHandler`, or an object with a method
            ``report(error, context)`` or ``async handle_error(error, context)``.
        logging: Whether to set up logging from the settings; None to do so unless the root logger
            has handlers.
        probes: Whether to answer probes and metrics at ``health_bind``.
        signals: Whether to handle SIGTERM and SIGINT, which is possible in the main thread only.
            Unless the program handles SIGUSR1 itself, that signal then writes what each task waits
            for to standard error.

    Example:
        ```python
        from collections.abc import AsyncIterator

        import anyio

        from mtaio import Application, Settings

        app = Application(Settings(health_bind="127.0.0.1:0"))


        @app.resource
        async def numbers() -> AsyncIterator[list[int]]:
            yield [1, 2, 3]


        @app.service
        async def add() -> None:
            print(sum(numbers.get()))
            app.stop_nowait("all is added")


        async def main() -> None:
            async with app:
                await app.wait_closed()


        if __name__ == "__main__":
            anyio.run(main)  # a service on its own: app.run()
        ```
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        name: str | None = None,
        executor: TaskExecutor | None = None,
        cache: TTLCache[Any] | None = None,
        rate_limiter: RateLimiter | None = None,
        concurrency_limiter: ConcurrencyLimiter | None = None,
        timeout_manager: TimeoutManager | None = None,
        emitter: EventEmitter | None = None,
        monitor: ResourceMonitor | None = None,
        health: HealthRegistry | None = None,
        error_handler: ErrorReporter | AsyncErrorHandler | None = None,
        logging: bool | None = None,
        probes: bool = True,
        signals: bool = True,
    ) -> None:
        given = {
            "settings": settings,
            "executor": executor,
            "cache": cache,
            "rate_limiter": rate_limiter,
            "concurrency_limiter": concurrency_limiter,
            "timeout_manager": timeout_manager,
            "emitter": emitter,
            "monitor": monitor,
            "health": health,
            "error_handler": error_handler,
        }
        _check_parts(given)
        for part, value in given.items():
            if value is not None:
                self.__dict__[part] = value  # where the cached property would keep what it makes
        self._name = name
        self._configures = logging
        self._has_probes = probes
        self._handles_signals = signals
        self._wired = False
        self._run: Run | None = None
        self._registered: Final = Registered()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<Application{name} {self.state}>"

    @property
    def name(self) -> str | None:
        """The name given at construction, for messages and metrics."""
        return self._name

    # ---- its parts -------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings:
        """The operator's settings; read from the environment when first asked for."""
        return Settings.from_env()

    @cached_property
    def executor(self) -> TaskExecutor:
        """
        Runs work, ``max_workers`` items at once; drained before resources are closed.

        If a submitted task fails and its handle is gone, nobody can look at the error before the
        end, and the error handler gets it at once.
        """
        return TaskExecutor(self.settings.max_workers)

    @cached_property
    def cache(self) -> TTLCache[object]:
        """Keeps ``cache_size`` values for ``cache_ttl`` seconds."""
        settings = self.settings
        return TTLCache(max_size=settings.cache_size, default_ttl=settings.cache_ttl)

    @cached_property
    def rate_limiter(self) -> RateLimiter:
        """``rate_limit`` tokens a second, ``burst_limit`` at once."""
        return RateLimiter(rate=self.settings.rate_limit, burst=self.settings.burst_limit)

    @cached_property
    def concurrency_limiter(self) -> ConcurrencyLimiter:
        """``concurrency_limit`` slots."""
        return ConcurrencyLimiter(limit=self.settings.concurrency_limit)

    @cached_property
    def timeout_manager(self) -> TimeoutManager:
        """Limits of ``default_timeout`` seconds."""
        return TimeoutManager(default_timeout=self.settings.default_timeout)

    @cached_property
    def emitter(self) -> EventEmitter:
        """Delivers ``monitor.threshold_exceeded``, and the monitor's other events."""
        return EventEmitter()

    @cached_property
    def monitor(self) -> ResourceMonitor:
        """Samples the process and every part; alerts at ``cpu_threshold``, ``memory_threshold``."""
        monitor = ResourceMonitor()
        settings = self.settings
        for metric, limit in (
            ("cpu_usage", settings.cpu_threshold),
            ("memory_usage", settings.memory_threshold),
        ):
            if limit < _NO_ALERT:
                monitor.set_threshold(metric, limit)
        return monitor

    @cached_property
    def health(self) -> HealthRegistry:
        """The health checks."""
        return HealthRegistry()

    @cached_property
    def error_handler(self) -> ErrorReporter | AsyncErrorHandler:
        """Reports what fails: services, requests, resources, submitted tasks."""
        return ErrorHandler()

    @cached_property
    def probes(self) -> Probes | None:
        """Answers probes and metrics at ``health_bind``; None if that is switched off."""
        if not self._has_probes:
            return None
        settings = self.settings
        return Probes(
            self.monitor,
            self.health,
            # A worker's are for its supervisor, which answers at the address of the settings.
            bind=settings.health_bind if Worker.current is None else "127.0.0.1:0",
            token=settings.health_token,
            name=self._name,
        )

    @cached_property
    def _notifier(self) -> Notifier:
        """Notifies systemd, where systemd has started the process; of a worker, the supervisor."""
        return Notifier(send=None if Worker.current is None else Worker.current.notify)

    # ---- what is registered ----------------------------------------------------------------------

    @overload
    def resource(self, fn: Callable[[], AsyncIterator[T]], /) -> Resource[T]: ...
    @overload
    def resource(self, fn: Callable[[Application], AsyncIterator[T]], /) -> Resource[T]: ...
    @overload
    def resource(self, fn: Callable[[], AbstractAsyncContextManager[T]], /) -> Resource[T]: ...
    @overload
    def resource(
        self, fn: Callable[[Application], AbstractAsyncContextManager[T]], /
    ) -> Resource[T]: ...
    def resource(self, fn: Callable[..., Any], /) -> Resource[Any]:
        """
        Register a resource, which is open while services and servers run.

        Resources are opened in the order in which they were registered, each in a task of its own,
        before services and servers start. They are closed in reverse order after those have ended.
        If a resource fails while it is open, the application stops.

        Args:
            fn: An async function that yields the value once, or a function that returns an async
                context manager. It takes the application, or no argument.

        Returns:
            A `Resource`, whose ``get()`` returns the value while the application is up.

        Raises:
            TypeError: ``fn`` cannot be called that way, or is an async function without
                ``yield``, or a generator that is not async.
            RuntimeError: The application has started.
        """
        self._check_new("resource")
        checks.callable_("fn", fn, way_out="Pass the function itself, without calling it.")
        bind_app(fn, self)
        opening: Opening[Any] = Opening(fn)
        self._registered.resources.append(opening)
        return Resource(opening)

    @overload
    def service(self, fn: S, /) -> S: ...
    @overload
    def service(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        restart: int | Retry | None = None,
        critical: bool = True,
        drains: bool = False,
    ) -> Callable[[S], S]: ...
    def service(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        restart: int | Retry | None = None,
        critical: bool = True,
        drains: bool = False,
    ) -> Callable[..., Any]:
        """
        Run an async function for as long as the application is up.

        The function may return early. If it raises, it is restarted as ``restart`` allows. When no
        attempt is left, the application stops with exit code 1 if the service is critical.

        Args:
            fn: The function; it takes the application, or nothing.
            name: Name shown in messages and metrics; None for the function's.
            restart: The number of attempts, or a `Retry`, whose count starts over after a run
                longer than its ``wait_max``; None for no restart.
            critical: Whether the application stops when the service has failed for good.
            drains: Whether the service may finish its work when the application drains. It must
                then return when ``app.draining`` is true, and is cancelled when time runs out.
                Otherwise it is cancelled when draining begins.

        Returns:
            The function, or a decorator that returns it.

        Raises:
            TypeError: ``fn`` is not an async function, or cannot be called that way.
            ValueError: There is a service of that name.
            RuntimeError: The application has started.
        """
        add = partial(
            self._add_service, name=name, restart=restart, critical=critical, drains=drains
        )
        return add if fn is None else add(fn)

    @overload
    def job(self, fn: S, /) -> S: ...
    @overload
    def job(
        self, fn: None = None, /, *, name: str | None = None, restart: int | Retry | None = None
    ) -> Callable[[S], S]: ...
    def job(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        restart: int | Retry | None = None,
    ) -> Callable[..., Any]:
        """
        Run an async function to its end, and stop the application when all jobs have ended.

        Jobs start together with the services. If a job raises, it is restarted as ``restart``
        allows. When no attempt is left, the application stops with exit code 1.

        When the application is told to stop, a job goes on until it returns or time runs out. Pass
        ``until=app.wait_draining`` to its calls so that they take no new items meanwhile. If a job
        was cancelled, one of its calls was cut short by ``until``, or a submitted task was
        cancelled, the work is not complete and the exit code of `run` is 75 (``EX_TEMPFAIL``): run
        the program again. A job that leaves work undone in another way calls ``sys.exit(75)``.
        Await the tasks that a job submits: after all jobs have returned, they have only the time to
        drain.

        Args:
            fn: The function; it takes the application, or nothing.
            name: Name shown in messages and metrics; None for the function's.
            restart: As for `service`.

        Returns:
            The function, or a decorator that returns it.

        Raises:
            TypeError: ``fn`` is not an async function, or cannot be called that way.
            ValueError: There is a job or a service of that name.
            RuntimeError: The application has started.
        """
        add = partial(
            self._add_service, name=name, restart=restart, critical=True, drains=True, job=True
        )
        return add if fn is None else add(fn)

    def _add_service(
        self,
        fn: S,
        *,
        name: str | None,
        restart: int | Retry | None,
        critical: bool,
        drains: bool,
        job: bool = False,
    ) -> S:
        kind = "job" if job else "service"
        self._check_new(kind)
        checks.callable_("fn", fn, way_out="Pass the function itself, without calling it.")
        if is_async_generator(fn):
            msg = (
                f"fn={fn!r} is an async generator function: it has a yield. A {kind} has none; "
                f"what is opened and closed is a resource (@app.resource)."
            )
            raise TypeError(msg)
        if not is_async(fn):
            msg = f"fn={fn!r} is not an async function: a {kind} must be async to be cancellable."
            raise TypeError(msg)
        bind_app(fn, self)
        _check_attempts("restart", restart)
        info = PartInfo(
            name=name_of(fn) if name is None else name,
            restart=restart,
            critical=critical,
            drains=drains,
            job=job,
        )
        self._check_name(info.name)
        self._registered.services.append(_Serviced(fn, info))
        return fn

    def every(
        self,
        period: float | Cron,
        /,
        *,
        first: Literal["now", "later"] | None = None,
        jitter: float = 0.0,
        overlap: Overlap = "skip",
        timeout: float | Unset | None = UNSET,
        retry: int | Retry | None = None,
        name: str | None = None,
        leader: Leader | None = None,
        critical: bool = False,
    ) -> Callable[[F], F]:
        """
        Run the decorated function again and again while the application is up.

        This is `TaskExecutor.every` with the application's executor, from the end of start-up until
        the application drains. A run in progress then has as much time as requests in flight. If a
        run fails, its error goes to the error handler.

        A health check of the same name and of kind ``"ready"`` fails after three missed or failed
        runs in a row, once the next is due. With ``leader``, it can fail only in the process that
        leads. The monitor reports the statistics.

        Args:
            period: Seconds, or a `mtaio.core.Cron`.
            first: As for `TaskExecutor.every`.
            jitter: As for `TaskExecutor.every`.
            overlap: As for `TaskExecutor.every`.
            timeout: As for `TaskExecutor.every`.
            retry: As for `TaskExecutor.every`.
            name: Name shown in messages and metrics, and of the health check; None for the
                function's. With ``leader``, it has to be the same in all processes.
            leader: As for `TaskExecutor.every`. Enter it in a resource.
            critical: Whether the application is not ready when the check fails, or only degraded.

        Returns:
            A decorator that returns the function. The function takes the application, or no
            argument; a plain function runs in a worker thread.

        Raises:
            ValueError, TypeError: As for `TaskExecutor.every`; or the function cannot be called
                that way, or there is a service of that name.
            RuntimeError: The application has started.
        """
        from mtaio._internal.periodic import Schedule  # noqa: PLC0415 - few applications do so
        from mtaio.app._periodic import PeriodicService  # noqa: PLC0415 - likewise

        schedule = Schedule(period, first, jitter, overlap, leader)
        if timeout is not UNSET:
            checks.timeout("timeout", timeout)
        _check_attempts("retry", retry)
        checks.title("name", name)
        checks.flag("critical", critical)

        def add(fn: F) -> F:
            self._check_new("every")
            checks.callable_("fn", fn, way_out="Write @app.every(60) above a function.")
            if is_generator(fn) or is_async_generator(fn):
                msg = (
                    f"fn={fn!r} is a generator function: calling it runs nothing. Write a function "
                    f"without yield."
                )
                raise TypeError(msg)
            bind_app(fn, self)
            info = PartInfo(name=name_of(fn) if name is None else name, drains=True)
            self._check_name(info.name)
            options = {"timeout": timeout, "retry": retry}
            service = PeriodicService(fn, info, schedule, options, critical=critical)
            self._registered.periodic.append(service)
            return fn

        return add

    def _check_name(self, name: str) -> None:
        """Refuse the name of another service."""
        if any(name == each.info.name for each in self._registered.running()):
            msg = (
                f"there is a service, job or periodic function named {name!r}. Give this one "
                f"another: name=..."
            )
            raise ValueError(msg)

    def serve(
        self,
        asgi: ASGIApp,
        *,
        bind: str = "127.0.0.1:8000",
        config: Config | None = None,
        name: str | None = None,
        **options: Unpack[ServerOptionValues],
    ) -> None:
        """
        Serve an ASGI application with hypercorn (extra ``app``).

        The lifespan of the ASGI application begins after the resources are open and ends before
        they are closed. When this application stops, it accepts no new connections, lets requests
        in flight finish, and cancels those that take too long. A handler that streams should await
        `wait_draining` and then end.

        Args:
            asgi: The ASGI application: Starlette, FastAPI, or a function.
            bind: Where to listen: ``host:port``, ``unix:/path`` or ``fd://number``.
            config: A ``hypercorn.config.Config`` for everything else.
            name: Name shown in messages and metrics; None for ``bind``.
            **options: See below.

        Keyword Args:
            certfile (str | PathLike | None): The TLS certificate with its chain, in PEM; None for
                that of the settings, ``""`` for none.
            keyfile (str | PathLike | None): Its private key, in PEM; None if ``certfile`` has it
                too. Both files are read when the application starts.
            trusted_proxies (str | None): The proxies whose ``X-Forwarded-For`` and
                ``X-Forwarded-Proto`` are trusted, as in `Settings`; None for those of the settings,
                ``""`` for none.
            max_in_flight (float | None): Maximum number of requests that are handled at once.
                Further clients get 503 with ``Retry-After``. None for that of the settings, ``inf``
                for no limit.
            body_timeout (float | None): Seconds that a client may take to send the next piece of a
                request's body while the application waits for it. After that, the client gets 408
                and the application gets ``http.disconnect``. None for that of the settings, ``inf``
                for no limit.
            access_log (bool | None): Whether each request gets an id and a line in the log, as with
                `mtaio.asgi.AccessLog`; None for that of the settings.

        Raises:
            TypeError: ``asgi`` cannot be called, or an argument has the wrong type.
            ValueError: ``bind`` is not an address to listen at, another argument makes no sense, or
                there is a server of that name.
            RuntimeError: The application has started.
        """
        self._check_new("serve")
        checks.callable_("asgi", asgi, way_out="Pass an ASGI application.")
        _check_bind(bind)
        if name is not None and any(name == each.info.name for each in self._registered.servers):
            msg = f"there is a server named {name!r}. Give this one another: name=..."
            raise ValueError(msg)
        given = ServerOptions(**options)
        info = PartInfo(name=bind if name is None else name, bind=bind)
        self._registered.servers.append(_Served(asgi, info, bind, config, given))

    def health_check(
        self,
        name: str | None = None,
        *,
        kind: Literal["live", "ready", "startup"] = "ready",
        timeout: float = 0.5,
        ttl: float = 1.0,
        critical: bool = True,
        failure_threshold: int = 3,
    ) -> Callable[[F], F]:
        """
        Add the decorated function to the health checks, like `HealthRegistry.check`.

        Args:
            name: The check's name; None for the function's.
            kind: ``"live"``, ``"ready"`` or ``"startup"``.
            timeout: Seconds that a run may take.
            ttl: Seconds for which a result is reused.
            critical: Whether the service is not ready when the check fails, or only degraded.
            failure_threshold: Failures in a row after which a check that has passed is failing.

        Returns:
            A decorator that returns the function.

        Raises:
            ValueError, TypeError: As for `HealthRegistry.add`.
        """
        return self.health.check(
            name,
            kind=kind,
            timeout=timeout,
            ttl=ttl,
            critical=critical,
            failure_threshold=failure_threshold,
        )

    @property
    def resources(self) -> tuple[PartInfo, ...]:
        """The resources, in the order in which they are opened."""
        return tuple(PartInfo(name=each.name) for each in self._registered.resources)

    @property
    def services(self) -> tuple[PartInfo, ...]:
        """The services."""
        return tuple(each.info for each in self._registered.services if not each.info.job)

    @property
    def jobs(self) -> tuple[PartInfo, ...]:
        """The jobs."""
        return tuple(each.info for each in self._registered.services if each.info.job)

    @property
    def servers(self) -> tuple[PartInfo, ...]:
        """The servers."""
        return tuple(each.info for each in self._registered.servers)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the servers listen, with the actual ports; empty unless it is up."""
        return () if self._run is None else self._run.addresses()

    # ---- its life --------------------------------------------------------------------------------

    def run(
        self,
        backend: Backend = "asyncio",
        *,
        bind: Sequence[str] = (),
        **options: Unpack[ServerOptionValues],
    ) -> None:
        """
        Run until a signal arrives, `stop_nowait` is called or all jobs are done, and then stop.

        This returns when the application has stopped as requested. Otherwise it raises
        ``SystemExit``: with 1 after an error, 2 if the settings are invalid, 3 if it could not
        start, 75 if a `job` is not complete, or with what the program passed to ``sys.exit``. If
        the process has not ended ``shutdown_timeout`` seconds after it was told to stop, it exits
        with 70. This holds after `run` has returned too: always after SIGTERM, otherwise once the
        program begins to exit. A second signal during the shutdown ends the process at once, with
        128 plus the signal's number.

        Args:
            backend: ``"asyncio"``, ``"uvloop"`` or ``"trio"``.
            bind: Where the servers listen, one address for each, in place of those in the program.
            **options: The options of `serve`, for all servers, in place of those in the program.

        Raises:
            SystemExit: See above.
            KeyboardInterrupt: The program raised it.
            RuntimeError: The application is running, an event loop runs in this thread, or
                ``mtaio run`` or ``mtaio check`` is importing the program.
        """
        self._check_not_running()
        _check_may_run()
        try:
            loop_options = _loop_options(backend)
            self._rebind(bind)
            self._override(ServerOptions(**options))
            self._check_certificates()
            self._take_sockets()
        except (CommandError, ValueError, TypeError, OSError) as error:
            _complain(error, error.exit_code if isinstance(error, CommandError) else USAGE)
        before, guard, logs = self._run, None, None
        try:
            guard = self._new_guard()  # before what takes a while: no signal is lost
            logs = self._prepare_with_logs()
            anyio.run(self._live, guard, logs, **loop_options)
        except OSError as error:
            if self._run is not before:
                raise
            _complain(error, NOT_STARTED)  # there are no more threads or descriptors
        finally:
            if logs is not None:
                logs.close()
            if guard is not None:
                guard.release(lingers=True)
        life = cast("Run", self._run)
        if isinstance(life.error, SystemExit | KeyboardInterrupt):
            raise life.error
        if life.error is not None:
            raise SystemExit(NOT_STARTED if life.never_ran else FAILED)
        if life.incomplete():
            raise SystemExit(INCOMPLETE)

    def _prepare_with_logs(self) -> LoggingContext | None:
        try:
            self._prepare()
            return self._configure_logging()
        except (ValueError, TypeError, OSError) as error:
            _complain(error, USAGE)

    async def _live(self, guard: Guard | None, logs: LoggingContext | None) -> None:
        self._run = self._new_run(guard, logs)
        await self._run.live()

    async def start(self) -> None:
        """
        Start in the running event loop, and return when the application is up.

        Use it instead of `run` where the event loop is not the application's own. `stop` or a
        signal stops the application, after which `wait_closed` returns. On asyncio, if a signal
        stops it and no task waits in `wait_closed`, the event loop is ended as by ``sys.exit``.

        A checkpoint. If it is cancelled, it closes what it has opened.

        Raises:
            RuntimeError: It is running.
            SystemExit: A signal stopped it while it was starting. The exit code is 0.
            BaseException: What failed while it was starting.
        """
        await self._start(None)

    async def _start(self, body: Body | None) -> None:
        """Start, and return when the application is up, or raise."""
        await checkpoint()
        self._check_not_running()
        guard = self._new_guard()  # before what takes a while: no signal is lost
        try:
            self._prepare()
            logs = self._configure_logging()
        except BaseException:
            if guard is not None:
                guard.release()
            raise
        run = self._run = self._new_run(guard, logs)
        run.body = body
        loops.start_task(
            run.loop, partial(self._live_in_loop, run), copy_context(), partial(self._ended, run)
        )
        try:
            await run.settled.wait()
            await run.await_signal()
        except BaseException:
            run.abort("the start was cancelled")
            with anyio.CancelScope(shield=True):
                await self._until_closed(run)
            raise
        # A server that handles SIGTERM too has been handed the signal, and leaves the block; every
        # other program would go on in it with an application that is closed, and nothing but an
        # exception keeps it out. Where the jobs ended at once, the block is as if they had later.
        exits = run.is_told_to_stop and (body is not None or run.by_signal) and not run.by_jobs
        exits = exits and not (run.by_signal and run.is_hosted)
        if run.never_ran or exits:
            if body is not None:
                body.ended.set()  # it does not begin
            await self._until_closed(run)
            if run.error is not None:
                raise run.error
            if exits:
                raise SystemExit(INCOMPLETE if run.incomplete() else 0)

    async def stop(self, reason: str = "stop() was called") -> None:
        """
        Stop as a signal would, and wait until everything is closed.

        It does nothing if the application is not running. In a request or a service, call
        `stop_nowait` instead, because a task that waits for its own end is cancelled when time runs
        out.

        A checkpoint. If it is cancelled, the application goes on stopping.

        Args:
            reason: For the log.

        Raises:
            RuntimeError: The application runs in another event loop. Use `stop_nowait`.
        """
        await checkpoint()
        run = self._run
        if run is not None and not loops.is_over(run.loop):
            self._check_loop(run)
            run.stop(reason)
            await self._until_closed(run)

    def stop_nowait(self, reason: str = "stop_nowait() was called") -> None:
        """
        Stop as a signal would, without waiting.

        It does nothing if the application is not running. Not a checkpoint. It can be called from
        any thread.

        Args:
            reason: For the log.
        """
        run = self._run
        if run is not None:
            loops.call_in(run.loop, partial(run.stop, reason))

    async def wait_closed(self) -> None:
        """
        Wait until the application has stopped.

        A checkpoint. Cancelling it does not affect the application.

        Raises:
            RuntimeError: It was never started, or runs in another event loop.
            BaseException: The error that stopped it.
        """
        run = self._run
        if run is None:
            msg = f"{self!r} was never started. Call await app.start(), or app.run()."
            raise RuntimeError(msg)
        self._check_loop(run)
        await self._until_closed(run)
        if run.error is not None:
            raise run.error

    async def __aenter__(self) -> Self:
        """
        Start, as `start` does.

        Resources are open until the body of the block ends. After a signal or `stop_nowait`, the
        body is cancelled when requests and services have ended, and the program goes on after the
        block. A body that has read `draining` may use the whole time to drain, and one that awaits
        `wait_closed` goes on when everything is closed. If a server that handles SIGTERM too
        entered the block, the body is left to that server.

        Raises:
            SystemExit: It was told to stop while it was starting. The exit code is 0.
            BaseException: As for `start`.
        """
        from mtaio.app._run import Body  # noqa: PLC0415 - not before it starts

        body = Body()
        await self._start(body)
        body.begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """
        Stop, and wait until everything is closed. After an error, do not wait for work in flight.

        Raises:
            BaseException: The error that stopped the application, if the block ended without one.
        """
        run = self._run
        if run is None or run.body is None or run.body.left:  # it is not entered
            return None
        was_cancelled = run.body.leave(exc_type, exc, traceback)
        if exc is None or was_cancelled:
            run.stop("its block was left")
        else:
            run.abort(f"its block ended with {exc_type.__name__ if exc_type else exc}")
        try:
            await self._until_closed(run)
        except BaseException:
            run.abort("its block was cancelled")
            with anyio.CancelScope(shield=True):
                await self._until_closed(run)
            raise
        if (exc is None or was_cancelled) and run.error is not None:
            raise run.error
        return was_cancelled

    @asynccontextmanager
    async def lifespan(self, _: object = None, /) -> AsyncGenerator[None]:
        """
        Return the lifespan for an ASGI application, as in ``FastAPI(lifespan=service.lifespan)``.

        With uvicorn and other servers, the application is entered when the server starts and left
        when it ends, as with ``async with``. ``mtaio run main:app`` finds the application behind
        the lifespan, runs it and has it serve ``app``; then this does nothing. It yields None, so
        requests get no state from it.

        Args:
            _: The ASGI application, which frameworks pass; ignored.
        """
        if self.state == "starting":  # `mtaio run` has begun with it
            yield
            return
        async with self:
            yield

    @property
    def state(self) -> ApplicationState:
        """Which phase the application is in. It can be read from any thread."""
        return "new" if self._run is None else self._run.state

    @property
    def draining(self) -> bool:
        """
        Whether the application accepts no new work, so that streams should end.

        It is True from the drain on, and stays so after the application has stopped, until it is
        started again. If the body of ``async with`` reads it or awaits `wait_draining`, it is
        expected to end by itself and is not cancelled before time runs out. It can be read from any
        thread.
        """
        run = self._run
        if run is None:
            return False
        self._note_body(run)
        return run.draining.is_set()

    async def wait_draining(self) -> None:
        """
        Wait until the application drains, which is when `draining` becomes True.

        A checkpoint. Cancelling it does not affect the application.

        Raises:
            RuntimeError: It was never started, or runs in another event loop.
        """
        run = self._run
        if run is None:
            msg = f"{self!r} was never started. Await app.wait_draining() while it is up."
            raise RuntimeError(msg)
        self._check_loop(run)
        self._note_body(run)
        await self._wait(run, run.draining)

    def statistics(self) -> ApplicationStatistics:
        """
        Return the state and the counts.

        Not a checkpoint. It can be called from any thread.
        """
        run = self._run
        starts = [] if run is None else run.service_starts()
        return ApplicationStatistics(
            up=self.state == "running",
            draining=run is not None and run.draining.is_set(),
            services=0 if run is None else run.services_running(),
            jobs=0 if run is None else len(run.incomplete()),
            restarts=sum(max(0, each - 1) for each in starts),
            cancelled=0 if run is None else run.cancelled,
        )

    # ---- details of its life ---------------------------------------------------------------------

    def _check_new(self, method: str) -> None:
        if self.state not in ("new", "stopped"):
            msg = (
                f"{self!r} has started: it is too late for {method}(). Register everything before."
            )
            raise RuntimeError(msg)

    def _check_not_running(self) -> None:
        run = self._run
        if run is not None and run.state != "stopped" and loops.is_running(run.loop):
            msg = (
                f"{self!r} is already running. Stop it first, or make another. In the lifespan of "
                f"what it serves, enter app.lifespan(...) and not app itself."
            )
            raise RuntimeError(msg)
        from mtaio.app._run import starting_lifespan  # noqa: PLC0415 - not before it starts

        outer = starting_lifespan.get()
        if outer is not None and outer.state == "starting":
            msg = (
                f"{self!r} cannot start in the lifespan of what another application serves, as "
                f"with `mtaio run module:app`. Have this one serve it, service.serve(app), and "
                f"start `mtaio run module:service`."
            )
            raise RuntimeError(msg)

    def _check_loop(self, run: Run) -> None:
        """Raise in a task of another loop, which hears none of the events, unless all is over."""
        loop = loops.current_loop()
        if loop is not run.loop and not (run.closed.is_set() or loops.is_over(run.loop)):
            raise loops.two_loops_error(self)

    def _prepare(self) -> None:
        """Make every part, and wire them, the first time; have readiness wait for the start."""
        if self._wired:
            self.health.set_ready(True)
            self.health.remove("application")
        else:
            self._wire()
        self.health.add("application", self._is_up, kind="startup", ttl=0.0)

    def _wire(self) -> None:
        watched = (
            self.executor,
            self.cache,
            self.rate_limiter,
            self.concurrency_limiter,
            self.timeout_manager,
            self.emitter,
            self.health,
        )
        monitor = self.monitor
        for part in watched:
            monitor.watch(part)
        if self.probes is not None:
            monitor.watch(self.probes)
        handler: Any = self.error_handler
        if callable(getattr(handler, "statistics", None)):
            monitor.watch(handler, mappings=True)  # by level
        monitor.watch(self)
        monitor.forward_to(self.emitter)
        self._wired = True

    def _is_up(self) -> str | None:
        return None if self.state in ("running", "draining") else f"the application is {self.state}"

    def _configure_logging(self) -> LoggingContext | None:
        wanted = self._configures
        if wanted is None:
            wanted = not logging.getLogger().handlers
        if not wanted:
            return None
        from mtaio.logging import configure  # noqa: PLC0415 - not before it starts

        try:
            return configure(self.settings, fields=Worker.fields())
        except OSError as error:
            msg = (
                f"cannot open the log file {str(self.settings.log_file)!r}: {error.strerror}. Set "
                f"MTAIO_LOG_FILE to a writable file in an existing folder."
            )
            raise OSError(error.errno, msg) from None

    def _rebind(self, bind: Sequence[str]) -> None:
        if not bind:
            return
        servers = self._registered.servers
        if len(bind) != len(servers):
            msg = (
                f"bind={list(bind)!r} has {len(bind)} addresses, and the application has "
                f"{len(servers)} servers. Give one for each, in the order of app.serve()."
            )
            raise ValueError(msg)
        for address in bind:
            _check_bind(address)
        for place, (served, address) in enumerate(zip(servers, bind, strict=True)):
            name = address if served.info.name == served.bind else served.info.name
            info = PartInfo(name=name, bind=address)
            servers[place] = replace(served, info=info, bind=address)

    def _override(self, options: ServerOptions) -> None:
        servers = self._registered.servers
        if options and not servers:
            msg = f"{self!r} has no server that takes options. Add one: app.serve()."
            raise ValueError(msg)
        servers[:] = [replace(each, options=options.over(each.options)) for each in servers]

    def _take_sockets(self) -> None:
        """Have the servers of a worker listen at the sockets of its supervisor."""
        if Worker.current is not None:
            servers = self._registered.servers
            taken = Worker.current.listen(self, beats=self._handles_signals)
            servers[:] = [replace(each, bind=at) for each, at in zip(servers, taken, strict=True)]

    def _check_certificates(self) -> None:
        """Raise what is wrong with the settings, or with a certificate."""
        settings = self.settings
        for each in self._registered.servers:
            certificate = each.certificate(settings)
            if certificate is not None:
                certificate.check()

    def _new_guard(self) -> Guard | None:
        from mtaio.app._guard import Beat, Guard, can_guard  # noqa: PLC0415 - not before it starts

        if not (self._handles_signals and can_guard()):
            return None
        every = self._notifier.watchdog_seconds
        beat = None if every is None else Beat(every * _WATCHDOG, self._beat)
        return Guard(
            self.settings.shutdown.total,
            describe=self._describe,
            beat=beat,
            tasks=self._tasks,
        )

    def _new_run(self, guard: Guard | None, logs: LoggingContext | None) -> Run:
        from mtaio.app._run import Run  # noqa: PLC0415 - not before it starts

        return Run(self, self.settings.shutdown, self._notifier, guard=guard, logs=logs)

    def _beat(self) -> None:
        """Tell systemd that it is alive, if the event loop is."""
        every = self._notifier.watchdog_seconds
        if every is not None and self.monitor.answering(every * _WATCHDOG):
            self._notifier.watchdog()

    def _describe(self) -> str:
        return "before it could start" if self._run is None else self._run.describe()

    def _tasks(self) -> Iterator[bytes]:
        """Return what its tasks wait for, as text in pieces; called from a thread."""
        run = self._run
        if run is None or not loops.is_running(run.loop):
            yield b"there is no event loop whose tasks could be shown\n"
            return
        tree = read_from_anywhere(run.loop, _PATIENCE)
        shown = document(tree, name=self._name, stall=self.monitor.current_stall())
        yield from text_pieces(shown, stacks=True)

    async def _live_in_loop(self, run: Run) -> None:
        await run.live()
        if run.by_signal and not (run.body is not None or run.is_awaited or run.is_hosted):
            code = INCOMPLETE if run.incomplete() else 0
            loops.exit_from(run.loop, code if run.error is None else FAILED)

    def _ended(self, run: Run) -> None:
        """Note that the task of `start` has ended, perhaps with its event loop."""
        run.state = "stopped"
        run.settled.set()
        run.closed.set()
        run.release_guard(unless_signalled=True)

    async def _until_closed(self, run: Run) -> None:
        run.is_awaited = True
        if loops.is_current(run.loop) and run.body is not None and run.body.is_around():
            run.body.ended.set()
        await self._wait(run, run.closed)
        run.release_guard()

    async def _wait(self, run: Run, event: anyio.Event) -> None:
        if loops.is_current(run.loop):
            await event.wait()
        else:  # its loop is over, and its events may be of another kind than this one's
            await checkpoint()

    def _note_body(self, run: Run) -> None:
        """Let the body of ``async with`` end by itself, if this is it."""
        if run.body is not None and run.body.is_around():
            run.body.drains = True


_NO_ALERT: Final = 100
"""Percent, at which a threshold is never exceeded."""

_PARTS: Final[dict[str, type]] = {
    "settings": Settings,
    "executor": TaskExecutor,
    "cache": TTLCache,
    "rate_limiter": RateLimiter,
    "concurrency_limiter": ConcurrencyLimiter,
    "timeout_manager": TimeoutManager,
    "emitter": EventEmitter,
    "monitor": ResourceMonitor,
    "health": HealthRegistry,
}


def _check_may_run() -> None:
    if is_loading():
        msg = (
            "app.run() was called while the program was being imported by the mtaio command. "
            'Put it under if __name__ == "__main__".'
        )
        raise RuntimeError(msg)
    if in_event_loop():
        msg = (
            "app.run() starts an event loop, and one is already running in this thread. Use "
            "the application there: async with app, or await app.start()."
        )
        raise RuntimeError(msg)


def _complain(error: Exception, code: int) -> NoReturn:
    """Exit with a line on the standard error, as there is no log yet."""
    with suppress(OSError, ValueError):  # nobody reads it, or it is closed
        print(f"mtaio: {error}", file=sys.stderr)  # noqa: T201 - see above
    raise SystemExit(code) from None


def _check_bind(bind: object) -> None:
    """Raise ``TypeError`` or ``ValueError`` if nothing can listen at ``bind``, on any machine."""
    from mtaio.app._listening import Bind  # noqa: PLC0415 - not before something is served

    Bind.parse(bind)


def _check_attempts(name: str, value: object) -> None:
    if value is not None and not isinstance(value, Retry):
        checks.count(name, value, way_out="Pass the number of attempts, or a Retry.")


def _check_parts(given: Mapping[str, object]) -> None:
    for name, kind in _PARTS.items():
        value = given[name]
        if value is not None and not isinstance(value, kind):
            wanted = checks.with_article(kind.__name__)
            msg = f"{name}={value!r} is {checks.type_of(value)}. Pass {wanted}, or None."
            raise TypeError(msg)
    handler: Any = given["error_handler"]
    if is_async(getattr(handler, "report", handler)):
        msg = (
            f"error_handler={handler!r} has an async report(), which nobody would "
            f"await. Call it handle_error()."
        )
        raise TypeError(msg)


def _loop_options(backend: Backend) -> dict[str, Any]:
    """Return what `anyio.run` wants to know."""
    checks.one_of("backend", backend, ("asyncio", "uvloop", "trio"))
    require_backend(backend)
    if backend == "uvloop":
        return {"backend": "asyncio", "backend_options": {"use_uvloop": True}}
    return {"backend": backend}
