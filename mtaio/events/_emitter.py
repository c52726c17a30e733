"""
Events from whoever emits them to whoever listens.

Promise: `EventEmitter.emit` returns when every handler has come to its end, and not before; errors
and cancellation reach the caller; nothing outlives the call, or the block of an entered emitter.
Cost: no task and no scope where handlers do not suspend; one handler costs little more than
awaiting it.

Why the first handler that suspends sets off the rest: docs/en/design/events.md.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, get_args, overload

from mtaio._internal import checks, clock, loops
from mtaio._internal.coop import FAST_CALLS, checkpoint
from mtaio._internal.functions import is_async
from mtaio.events._event import Event, EventPriority, name_in
from mtaio.events._home import Home
from mtaio.events._listener import Listener, check_handler
from mtaio.events._match import check_name, check_pattern, is_wild
from mtaio.events._registry import Registry
from mtaio.events._round import ErrorPolicy, Round, Rules
from mtaio.events._statistics import EmitterStatistics
from mtaio.events._stream import EventStream, Overflow, Streams
from mtaio.events._waiter import Waiter
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from mtaio.events._event import EventKey
    from mtaio.events._registry import Topic

__all__ = ["EventEmitter", "Register"]

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H", bound="Callable[[Event[Any]], object]")


class Register(Protocol[T]):
    """A decorator that registers a handler of events with data of one type, and returns it."""

    def __call__(self, handler: Callable[[Event[T]], R], /) -> Callable[[Event[T]], R]:
        """Register ``handler``."""
        ...


class EventEmitter:
    """
    Hands events to handlers, sync and async, and to streams.

    May be made anywhere, also at module level, and used by one event loop after another, on either
    backend; by one at a time, and not from other threads.

    Handlers run in tiers, by priority. A tier ends before the next begins; within it handlers begin
    in the order of registration. Plain functions and the first async ones run in the caller's task;
    when one of several async handlers really suspends, the rest of the tier goes on beside it, each
    in a task of its own. `emit` waits for all of them.

    Entering the emitter (``async with emitter:``) is optional. Inside the block `emit_soon` works,
    and a tier of several async handlers that do not suspend costs less than half. Leaving it
    delivers what `emit_soon` has taken; left by an error or a cancellation, it drops and counts
    that.

    Args:
        errors: What becomes of errors that handlers raise: ``"raise"`` ends the tier, skips those
            below and raises an ``ExceptionGroup``, also of a single error; ``"continue"`` runs
            every tier first; ``"log"`` logs them to ``mtaio.events``.
        on_error: Called with the error, the event and the handler, instead; async or not. If it
            fails, both errors go the way of ``errors``; they are never handed to it again.
        concurrent: Whether several async handlers of a tier run beside each other; if not, one
            after another.
        max_listeners: Above how many handlers of one name or pattern to warn, once for each, lest
            somebody register without end; None for never.
        max_pending: How many events of `emit_soon` may wait to be delivered.
        max_names: For how many names matches and statistics are kept; beyond it those emitted
            longest ago are forgotten, and counted together.
        name: For messages and the monitor.

    Raises:
        TypeError: ``on_error`` is not callable, or a limit is no int.
        ValueError: ``errors`` is unknown, or a limit is less than 1.

    Example:
        ```python
        import anyio

        from mtaio.events import Event, EventEmitter

        emitter = EventEmitter()


        @emitter.on("user.login")
        async def greet(event: Event[str]) -> None:
            print(f"hello {event.data}")


        async def main() -> None:
            await emitter.emit("user.login", "ada")


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    # Invariants:
    # - _ready is the registry's own dict: names whose listeners are up to date;
    # - _calls numbers the emits; number _yield_at is a checkpoint, before anything has happened.
    __slots__ = (
        "__weakref__",
        "_calls",
        "_max_listeners",
        "_max_pending",
        "_name",
        "_ready",
        "_registry",
        "_rules",
        "_streams",
        "_waiters",
        "_warned",
        "_yield_at",
    )

    def __init__(
        self,
        *,
        errors: ErrorPolicy = "raise",
        on_error: Callable[[Exception, Event[Any], Any], object] | None = None,
        concurrent: bool = True,
        max_listeners: int | None = 100,
        max_pending: int = 1000,
        max_names: int = 1000,
        name: str | None = None,
    ) -> None:
        if errors not in get_args(ErrorPolicy):
            msg = (
                f'errors={errors!r} is unknown. Pass "raise" (stop after the tier, and raise), '
                f'"continue" (run all tiers, then raise) or "log".'
            )
            raise ValueError(msg)
        if on_error is not None:
            way_out = "Pass a function of three arguments: error, event, handler."
            checks.callable_("on_error", on_error, way_out=way_out)
        if max_listeners is not None:
            way_out = "Pass above how many to warn, or None for never."
            checks.count("max_listeners", max_listeners, way_out=way_out)
        way_out = "Pass how many events may wait, at least 1."
        self._max_pending = checks.count("max_pending", max_pending, way_out=way_out)
        way_out = "Pass for how many names to keep statistics, at least 1."
        self._registry = Registry(checks.count("max_names", max_names, way_out=way_out))
        self._ready: dict[Any, Topic] = cast("dict[Any, Topic]", self._registry.ready)
        self._rules = Rules(errors, on_error, concurrent=concurrent)
        self._streams = Streams(self._registry, name)
        self._max_listeners = max_listeners
        self._name = name
        self._calls = 0
        self._yield_at = FAST_CALLS
        self._waiters = 0
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<EventEmitter{name}: {len(self._registry)} handlers>"

    @property
    def name(self) -> str | None:
        """The name given to the emitter."""
        return self._name

    # ---- registration ----------------------------------------------------------------------------

    @overload
    def on(
        self,
        name: EventKey[T],
        handler: Callable[[Event[T]], R],
        *,
        priority: int = ...,
        weak: bool = ...,
    ) -> Callable[[Event[T]], R]: ...
    @overload
    def on(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def on(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
    @overload
    def on(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
    def on(
        self,
        name: str | EventKey[Any],
        handler: Any = None,
        *,
        priority: int = EventPriority.NORMAL,
        weak: bool = False,
    ) -> Any:
        """
        Register a handler: ``@emitter.on("user.login")`` or ``emitter.on("user.login", handler)``.

        An emit that is under way does not call it. A handler registered twice is called twice. Not
        a checkpoint.

        Args:
            name: A name; ``"ns.*"`` for every name below ``ns``; ``"*"`` for every name; or an
                `EventKey`.
            handler: Called with the `Event`. An async function, or a plain one; what a plain one
                returns is awaited if it can be, before the next handler begins.
            priority: Higher ones run first: an `EventPriority`, or any int.
            weak: Whether to hold the handler, or the object whose method it is, weakly, so that it
                goes when nobody else holds it. Mind that nobody else holds a lambda.

        Returns:
            The handler itself, or a decorator that does.

        Raises:
            TypeError: ``name`` is no name, ``handler`` cannot be called, is a generator function,
                or cannot be held weakly, or ``priority`` is no int.
            ValueError: ``name`` is empty, or has a ``*`` where none matches.
        """
        return self._registering(name, handler, priority=priority, weak=weak, once=False)

    @overload
    def once(
        self,
        name: EventKey[T],
        handler: Callable[[Event[T]], R],
        *,
        priority: int = ...,
        weak: bool = ...,
    ) -> Callable[[Event[T]], R]: ...
    @overload
    def once(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def once(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
    @overload
    def once(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
    def once(
        self,
        name: str | EventKey[Any],
        handler: Any = None,
        *,
        priority: int = EventPriority.NORMAL,
        weak: bool = False,
    ) -> Any:
        """
        Register a handler for one event. The arguments are those of `on`.

        It is unregistered before it is called, so it is called once however many tasks emit, also
        if it emits the same event itself. Until then `off` removes it.
        """
        return self._registering(name, handler, priority=priority, weak=weak, once=True)

    def off(self, name: str | EventKey[Any], handler: Callable[..., object]) -> bool:
        """
        Remove a handler; of several registrations the latest. Not a checkpoint.

        An emit that is under way and has not called it yet does not call it any more.

        Args:
            name: The name, pattern or key under which it was registered.
            handler: What was registered.

        Returns:
            False if it is not registered there.

        Raises:
            TypeError, ValueError: ``name`` could not have been registered.
        """
        for listener in reversed(self._registry.under(check_pattern(name_in(name)))):
            if listener.subject == handler:
                self._registry.remove(listener)
                return True
        return False

    def listeners(self, name: str | EventKey[Any]) -> tuple[Callable[[Event[Any]], object], ...]:
        """
        Return the handlers that would run for a name, in their order. Not a checkpoint.

        Args:
            name: A name; for a pattern, the handlers registered under exactly that.

        Raises:
            TypeError, ValueError: ``name`` is none.
        """
        return tuple(each.subject for each in self._handlers(name))

    def listener_count(self, name: str | EventKey[Any] | None = None) -> int:
        """
        Return how many handlers would run for a name. Not a checkpoint.

        Args:
            name: As for `listeners`; None for the number of all registrations.

        Raises:
            TypeError, ValueError: ``name`` is none.
        """
        return len(self._registry) if name is None else len(self._handlers(name))

    # ---- emitting --------------------------------------------------------------------------------

    @overload
    async def emit(
        self, name: EventKey[None], data: None = ..., **metadata: object
    ) -> Event[None]: ...
    @overload
    async def emit(self, name: EventKey[T], data: T, **metadata: object) -> Event[T]: ...
    @overload
    async def emit(self, name: str, data: None = ..., **metadata: object) -> Event[None]: ...
    @overload
    async def emit(self, name: str, data: T, **metadata: object) -> Event[T]: ...
    async def emit(
        self, name: str | EventKey[Any], data: Any = None, **metadata: object
    ) -> Event[Any]:
        """
        Hand an event to everybody who listens to ``name``, and wait until all have come to an end.

        Returns at once if no handler suspends, but one call in 64 on an emitter is a checkpoint,
        before anything has happened. Those who listen are those registered when it begins; who is
        removed meanwhile is skipped. Cancelled, it cancels the handlers that run, waits for them,
        and calls no others; errors that handlers had raised by then are logged to ``mtaio.events``.

        Args:
            name: The full name, or an `EventKey`, by which ``data`` is checked.
            data: What the handlers get as ``event.data``.
            metadata: What they get as ``event.metadata``.

        Returns:
            The event, as the handlers left it.

        Raises:
            ExceptionGroup: Handlers failed, and ``errors`` is not ``"log"``.
            BaseException: What is no ``Exception`` comes as it is, when the handlers beside are
                through.
            TypeError: ``name`` is no name.
            ValueError: ``name`` is empty, or a pattern.
        """
        self._calls = calls = self._calls + 1
        if calls >= self._yield_at:
            self._yield_at = calls + FAST_CALLS
            await checkpoint()
        try:
            topic = self._ready[name]
        except (KeyError, TypeError):  # not up to date; or unhashable, hence no name
            topic = self._registry.topic(name, several=self._rules.concurrent)
        event = Event(topic.name, data, metadata, clock.read())
        topic.used = calls
        topic.tally.emitted += 1
        handle = topic.only_async
        if handle is not None:
            try:
                await handle(event)
            except Exception as error:  # noqa: BLE001 - the policy decides
                await Round(self._rules, topic, event).resume(topic.tiers, None, error)
                return event
            topic.tally.handled += 1
            return event
        take = topic.only_plain
        if take is not None:
            try:
                result = take(event)
            except Exception as error:  # noqa: BLE001 - the policy decides
                await Round(self._rules, topic, event).resume(topic.tiers, None, error)
                return event
            if result is None:
                topic.tally.handled += 1
            else:
                await Round(self._rules, topic, event).resume(topic.tiers, result, None)
            return event
        if topic.tiers:
            await Round(self._rules, topic, event).run(topic.tiers)
        return event

    @overload
    def emit_soon(self, name: EventKey[None], data: None = ..., **metadata: object) -> None: ...
    @overload
    def emit_soon(self, name: EventKey[T], data: T, **metadata: object) -> None: ...
    @overload
    def emit_soon(self, name: str, data: object = ..., **metadata: object) -> None: ...
    def emit_soon(self, name: str | EventKey[Any], data: Any = None, **metadata: object) -> None:
        """
        Have an event emitted inside the emitter's block, without waiting. Not a checkpoint.

        Events are delivered one after another, in the order of these calls. With ``errors="raise"``
        or ``"continue"`` an error has no caller to go to: it ends the block, and is raised by it.

        Args:
            name: As for `emit`.
            data: As for `emit`.
            metadata: As for `emit`.

        Raises:
            EventOverflowError: ``max_pending`` events wait already. An ``anyio.WouldBlock`` too.
            RuntimeError: The emitter was not entered, or is being left, or was entered in another
                event loop.
            TypeError, ValueError: ``name`` is none, or a pattern.
        """
        checked = check_name(name_in(name))
        home = self._rules.home
        if home is None:
            msg = (
                f"emit_soon({checked!r}) needs an emitter that was entered, in which to deliver it."
                f" Write: async with emitter: ... or await emitter.emit()."
            )
            raise RuntimeError(msg)
        home.put(Event(checked, data, metadata, clock.now()))

    # ---- waiting and streaming -------------------------------------------------------------------

    @overload
    async def wait_for(
        self,
        name: EventKey[T],
        predicate: Callable[[Event[T]], object] | None = ...,
        *,
        timeout: float | None = ...,
        priority: int = ...,
    ) -> Event[T]: ...
    @overload
    async def wait_for(
        self,
        name: str,
        predicate: Callable[[Event[Any]], object] | None = ...,
        *,
        timeout: float | None = ...,
        priority: int = ...,
    ) -> Event[Any]: ...
    async def wait_for(
        self,
        name: str | EventKey[Any],
        predicate: Callable[[Event[Any]], object] | None = None,
        *,
        timeout: float | None = None,
        priority: int = EventPriority.NORMAL,
    ) -> Event[Any]:
        """
        Wait for one event. A checkpoint.

        It listens from its first step, before anything else can run, until it returns or is
        cancelled. Events that come between two calls are missed: to miss none use `stream`.

        Args:
            name: A name, pattern or key, as for `on`.
            predicate: Called with each such event; the first for which it is true is returned. A
                plain function. What it raises is raised here, not by the emit.
            timeout: The most seconds to wait; None for no limit.
            priority: The tier in which the event is looked at.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) None came in time.
            TypeError: ``predicate`` is not callable, or async; ``timeout`` or ``priority`` is no
                number, or ``name`` none.
            ValueError: ``name`` matches nothing, or ``timeout`` is negative or NaN.
        """
        pattern = check_pattern(name_in(name))
        if predicate is not None:
            way_out = "Pass a plain function of one argument, the event."
            checks.callable_("predicate", predicate, way_out=way_out)
            if is_async(predicate):
                msg = f"predicate={predicate!r} is async, and nobody would await it. {way_out}"
                raise TypeError(msg)
        checks.timeout("timeout", timeout)
        _check_priority(priority)
        waiter = Waiter(predicate)
        listener = Listener(self._registry, (pattern,), waiter, priority=priority, call=waiter.take)
        began = clock.now()
        self._registry.add(listener)
        self._waiters += 1
        try:
            event = await waiter.wait(timeout)
        finally:
            self._registry.remove(listener)
            self._waiters -= 1
        if event is None:
            msg = f"no event {pattern!r} within {timeout} s"
            deadline = clock.loop_deadline(began + cast("float", timeout))
            raise MTAIOTimeoutError(msg, timeout=timeout, deadline=deadline, name=self._name)
        return event

    @overload
    def stream(
        self,
        *names: EventKey[T],
        max_buffer: int = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[T]: ...
    @overload
    def stream(
        self,
        *names: str | EventKey[Any],
        max_buffer: int = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[Any]: ...
    def stream(
        self,
        *names: str | EventKey[Any],
        max_buffer: int = 100,
        overflow: Overflow = "block",
        priority: int = EventPriority.NORMAL,
    ) -> EventStream[Any]:
        """
        Return the events of these names as an async iterator, to be entered with ``async with``.

        An event that several of the names match comes once. Not a checkpoint.

        Args:
            names: Names, patterns and keys, as for `on`.
            max_buffer: How many events to keep for the consumer.
            overflow: What to do with an event when so many are kept: ``"block"`` makes its emit
                wait for room; ``"drop_oldest"`` makes room; ``"drop_newest"`` drops it; ``"raise"``
                drops it and fails as a handler does, with `mtaio.exceptions.EventOverflowError`.
            priority: The tier in which the event is taken in.

        Raises:
            TypeError: A name is none, or ``max_buffer`` or ``priority`` no int.
            ValueError: There is no name, one matches nothing, ``max_buffer`` is less than 1, or
                ``overflow`` unknown.
        """
        _check_priority(priority)
        return EventStream(
            self._streams, names, max_buffer=max_buffer, overflow=overflow, priority=priority
        )

    # ---- the block -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Enter the emitter. A checkpoint."""
        home = self._rules.home
        if home is not None and not loops.is_over(home.loop):
            msg = (
                f"{self!r} was entered before and not left. Enter it once, around everything that "
                f"calls emit_soon()."
            )
            raise RuntimeError(msg)
        home = Home(self, self._deliver, self._max_pending)
        self._rules.home = home
        try:
            await home.enter()
        except BaseException:
            self._rules.home = None
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        """
        Leave the emitter: deliver what `emit_soon` has taken, or drop it. A checkpoint.

        Emits of other tasks that run handlers inside the block are waited for; if it is left by an
        error or a cancellation, those handlers are cancelled, and that is an error of those emits.
        """
        home = cast("Home", self._rules.home)
        try:
            return await home.leave(exc)
        finally:
            self._rules.home = None
            for event in home.take_undelivered():
                self._registry.tally(event.name).dropped += 1

    def statistics(self) -> EmitterStatistics:
        """Return the state and what was done so far. Not a checkpoint."""
        registry = self._registry
        total = registry.total()
        home = self._rules.home
        return EmitterStatistics(
            listeners=len(registry),
            streams=self._streams.open,
            waiters=self._waiters,
            waiting=self._rules.waiting,
            pending=0 if home is None else home.pending,
            emitted=total.emitted,
            handled=total.handled,
            failed=total.failed,
            dropped=total.dropped,
            names=registry.names(),
            other=registry.other(),
        )

    # ---- parts -----------------------------------------------------------------------------------

    def _registering(
        self, name: object, handler: Any, *, priority: int, weak: bool, once: bool
    ) -> Any:
        pattern = check_pattern(name_in(name))
        _check_priority(priority)
        register = partial(self._register, pattern, priority=priority, weak=weak, once=once)
        return register if handler is None else register(handler, level=4)

    def _register(
        self, pattern: str, handler: H, *, priority: int, weak: bool, once: bool, level: int = 2
    ) -> H:
        check_handler(handler)
        registry = self._registry
        listener = Listener(registry, (pattern,), handler, priority=priority, weak=weak, once=once)
        most = self._max_listeners
        if most is not None and pattern not in self._warned:
            count = len(registry.under(pattern)) + 1
            if count > most:
                self._warned.add(pattern)
                msg = (
                    f"{count} handlers of {pattern!r} are registered, more than "
                    f"max_listeners={most}. If that is meant, raise it; else look for an on() "
                    f"without its off()."
                )
                warnings.warn(msg, RuntimeWarning, stacklevel=level)
        registry.add(listener)
        return handler

    def _handlers(self, name: object) -> list[Listener]:
        pattern = check_pattern(name_in(name))
        registry = self._registry
        listeners = registry.under(pattern) if is_wild(pattern) else registry.matching(pattern)
        return [each for each in listeners if each.is_handler and each.subject is not None]

    async def _deliver(self, event: Event[Any]) -> None:
        """Emit an event that `emit_soon` has taken."""
        topic = self._registry.topic(event.name, several=self._rules.concurrent)
        topic.used = self._calls
        topic.tally.emitted += 1
        await Round(self._rules, topic, event).run(topic.tiers)


def _check_priority(priority: object) -> None:
    if isinstance(priority, bool) or not isinstance(priority, int):
        msg = (
            f"priority={priority!r} is a {type(priority).__name__}, not an int. Pass an "
            f"EventPriority, or any int: higher ones run first."
        )
        raise TypeError(msg)
