"""
Events, from the code that emits them to the code that listens.

Promise: `EventEmitter.emit` returns when every handler has ended, and not before; errors and
cancellation reach the caller; nothing outlives the call, or the block of an entered emitter.
Cost: no task and no scope where handlers do not suspend; one handler costs little more than
awaiting it.

Why the first handler that suspends makes the rest start: docs/en/design/events.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast, final, overload

import mtaio
from mtaio._internal import checks, clock
from mtaio._internal.block import Blocks
from mtaio._internal.cancellation import in_cancelled_task
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio._internal.durations import recorded
from mtaio._internal.signature import check_takes
from mtaio.events._background import Background
from mtaio.events._dispatch import Dispatch, ErrorPolicy, Policy
from mtaio.events._event import Event, EventKey, EventPriority, name_of, pattern_of
from mtaio.events._patterns import is_pattern
from mtaio.events._registry import Listener, Registry, check_handler, check_priority
from mtaio.events._stream import EventStream, Overflow
from mtaio.events._wait import wait_for
from mtaio.exceptions import EventOverflowError

if TYPE_CHECKING:
    import mtaio.statistics
    from mtaio.events._registry import Topic

__all__ = ["EventEmitter", "Register"]

T = TypeVar("T")
T2 = TypeVar("T2")
R = TypeVar("R")
H = TypeVar("H", bound="Callable[[Event[Any]], object]")

_new_event: Final[Callable[..., Any]] = Event.__new__


class Register(Protocol[T]):
    """A decorator that registers a handler for events with data of one type, and returns it."""

    def __call__(self, handler: Callable[[Event[T]], R], /) -> Callable[[Event[T]], R]:
        """Register ``handler``."""
        ...


@final
class EventEmitter:
    """
    Delivers events to handlers, plain and async, and to streams.

    It can be created at module level and used by one event loop after another, on either backend,
    but not by two at once and not from other threads.

    Handlers run in tiers, by priority. A tier ends before the next one starts, and its handlers
    start in the order of registration. They run in the caller's task until one of several async
    handlers suspends. Then the rest of the tier runs concurrently, each handler in a task of its
    own, started in any order. `emit` waits for all of them.

    You need to enter the emitter (``async with emitter:``) only for `emit_nowait`. At the end of
    the block, pending events of `emit_nowait` are delivered; after an error or a cancellation, they
    are dropped and counted. Enter and leave it in the same task.

    Args:
        errors: What happens to errors of handlers. ``"raise"`` finishes the tier, skips the lower
            tiers and raises an ``ExceptionGroup``, also for a single error. ``"continue"`` runs all
            tiers first. ``"log"`` logs the errors to ``mtaio.events``.
        on_error: A function, plain or async, that gets the error, the event and the handler
            instead. If it fails, both errors are treated as ``errors`` says.
        concurrent: Whether the async handlers of a tier run concurrently instead of one after
            another.
        max_listeners: Warn if a name or pattern gets more handlers than this, which suggests that
            handlers are registered again and again; None for no warning.
        max_pending: Maximum number of events of `emit_nowait` that wait to be delivered; None for
            no limit.
        max_names: Maximum number of names for which statistics are kept. Names emitted longest ago
            are then counted together as ``other``. None for no limit.
        name: Name shown in messages and metrics.

    Raises:
        TypeError: ``on_error`` cannot be called with its three arguments or is a generator
            function, or a limit is not an int.
        ValueError: ``errors`` is unknown, or a limit is less than 1.

    Example:
        ```python
        import anyio

        from mtaio import EventEmitter
        from mtaio.events import Event

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
    # - after _unyielding more emits, one is a checkpoint before anything happens.
    __slots__ = (
        "__weakref__",
        "_blocks",
        "_max_listeners",
        "_max_pending",
        "_name",
        "_policy",
        "_ready",
        "_registry",
        "_rejected",
        "_unyielding",
    )

    def __init__(
        self,
        *,
        errors: ErrorPolicy = "raise",
        on_error: Callable[[Exception, Event[Any], Any], object] | None = None,
        concurrent: bool = True,
        max_listeners: int | None = 100,
        max_pending: int | None = 1000,
        max_names: int | None = 1000,
        name: str | None = None,
    ) -> None:
        self._policy = Policy(errors, on_error, concurrent=concurrent)
        if max_listeners is not None:
            way_out = "Pass how many may be there without a warning, or None for any number."
            checks.count("max_listeners", max_listeners, way_out=way_out)
        self._max_listeners = max_listeners
        if max_pending is not None:
            way_out = "Pass how many events may wait, at least 1, or None for no limit."
            checks.count("max_pending", max_pending, way_out=way_out)
        self._max_pending = max_pending
        if max_names is not None:
            way_out = "Pass how many names to count one by one, at least 1, or None for all."
            checks.count("max_names", max_names, way_out=way_out)
        self._registry = Registry(max_names)
        self._ready: dict[Any, Topic] = cast("dict[Any, Topic]", self._registry.ready)
        self._blocks: Blocks[Background] = Blocks()
        self._rejected = 0
        self._name = name
        self._unyielding = FAST_CALLS

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<EventEmitter{name}: {self._registry.handlers()} handlers>"

    @property
    def name(self) -> str | None:
        """The name given to the emitter."""
        return self._name

    # ---- handlers --------------------------------------------------------------------------------

    @overload
    def on(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def on(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
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
    def on(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
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

        An emit in progress does not call the new handler. A handler registered twice is called
        twice. Not a checkpoint.

        Args:
            name: A name; ``"ns.*"`` for every name below ``ns``; ``"*"`` for every name; or an
                `EventKey`.
            handler: A function, async or plain, that is called with the `Event`. If a plain
                function returns an awaitable, it is awaited, and later handlers may have to wait
                for it.
            priority: Higher ones run first: an `EventPriority`, or any int.
            weak: Whether to hold only a weak reference to the handler, or to the object of a bound
                method, so that it is removed when nothing else refers to it. Do not use it with a
                lambda, to which nothing else refers.

        Returns:
            The handler, or a decorator that returns it.

        Raises:
            TypeError: ``name`` is not a name, ``handler`` cannot be called with one argument, is a
                generator function, or cannot be referred to weakly, or ``priority`` is not an int.
            ValueError: ``name`` is empty, or has a ``*`` where it matches nothing.
        """
        return self._on(name, handler, priority=priority, weak=weak, once=False)

    @overload
    def once(
        self, name: EventKey[T], handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Register[T]: ...
    @overload
    def once(
        self, name: str, handler: None = ..., *, priority: int = ..., weak: bool = ...
    ) -> Callable[[H], H]: ...
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
    def once(self, name: str, handler: H, *, priority: int = ..., weak: bool = ...) -> H: ...
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

        The handler is removed before it is called, so it is called only once even if several tasks
        emit, or if it emits the same event itself. `off` removes it before that.
        """
        return self._on(name, handler, priority=priority, weak=weak, once=True)

    def off(self, name: str | EventKey[Any], handler: Callable[..., object]) -> bool:
        """
        Remove a handler, or the latest of several registrations.

        An emit in progress that has not called the handler yet does not call it. The handlers of
        that name are compared one by one, so this takes longer the more there are. Not a
        checkpoint.

        Args:
            name: The name, pattern or key under which it was registered.
            handler: The registered handler, or an equal one, such as a bound method of the same
                object.

        Returns:
            False if it is not registered there.

        Raises:
            TypeError, ValueError: ``name`` could not have been registered.
        """
        registry = self._registry
        registered = registry.under(pattern_of(name))
        found = next((each for each in reversed(registered) if each.subject is handler), None)
        if found is None:  # of several that are equal, the one that was passed comes first
            latest_first = [*registered][::-1]  # comparing may run code that registers
            found = next((each for each in latest_first if each.subject == handler), None)
        if found is None:
            return False
        registry.remove(found)
        return True

    def remove_all_listeners(self, name: str | EventKey[Any] | None = None) -> int:
        """
        Remove the handlers of a name, or of all.

        An emit in progress does not call them any more. Streams and calls of `wait_for` stay,
        because they belong to the tasks that use them. Not a checkpoint.

        Args:
            name: The name, pattern or key under which they were registered; None for all handlers.
                ``"*"`` removes only those that were registered for ``"*"``.

        Returns:
            The number of handlers removed.

        Raises:
            TypeError, ValueError: ``name`` could not have been registered.
        """
        registry = self._registry
        patterns = registry.patterns() if name is None else [pattern_of(name)]
        listeners = [each for pattern in patterns for each in registry.under(pattern)]
        for listener in listeners:
            registry.remove(listener)
        return len(listeners)

    def event_names(self) -> tuple[str, ...]:
        """
        Return the names and patterns that have handlers.

        Each is listed once, in the order in which they got their first handler. A key is listed by
        its name. Not a checkpoint.
        """
        return tuple(self._registry.patterns())

    def listeners(self, name: str | EventKey[Any]) -> tuple[Callable[[Event[Any]], object], ...]:
        """
        Return the handlers that would run for a name, in their order.

        Not a checkpoint.

        Args:
            name: A name. For a pattern, only the handlers registered under exactly this pattern.

        Raises:
            TypeError, ValueError: ``name`` is not a name.
        """
        return tuple(self._handlers(name))

    def listener_count(self, name: str | EventKey[Any] | None = None) -> int:
        """
        Return how many handlers would run for a name.

        Not a checkpoint.

        Args:
            name: As for `listeners`; None for the number of all registrations.

        Raises:
            TypeError, ValueError: ``name`` is not a name.
        """
        return self._registry.handlers() if name is None else len(self._handlers(name))

    def _on(self, name: object, handler: Any, *, priority: int, weak: bool, once: bool) -> Any:
        pattern = pattern_of(name)
        check_priority(priority)
        register = partial(self._register, pattern, priority=priority, weak=weak, once=once)
        return register if handler is None else register(handler, level=4)

    def _register(
        self, pattern: str, handler: H, *, priority: int, weak: bool, once: bool, level: int = 2
    ) -> H:
        way_out = "Pass a function of one argument, the event; async or not."
        check_handler("handler", handler, way_out=way_out)
        check_takes("handler", handler, "event", way_out=way_out)
        registry = self._registry
        listener = Listener(registry, (pattern,), handler, priority=priority, weak=weak, once=once)
        most = self._max_listeners
        if most is not None and len(registry.under(pattern)) == most:
            msg = (
                f"{most + 1} handlers of {pattern!r} are registered, more than "
                f"max_listeners={most}. If that is intended, raise it; otherwise look for an on() "
                f"without its off()."
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=level)
        registry.add(listener)
        return handler

    def _handlers(self, name: object) -> list[Any]:
        pattern = pattern_of(name)
        registry = self._registry
        if is_pattern(pattern):
            listeners = [*registry.under(pattern)]
        else:
            listeners = [each for each in registry.matching(pattern) if each.kind == "handler"]
        subjects = [each.subject for each in listeners]  # one referred to weakly may be gone
        return [subject for subject in subjects if subject is not None]

    # ---- emitting --------------------------------------------------------------------------------

    @overload
    async def emit(
        self, name: EventKey[None], data: None = ..., *, metadata: Mapping[str, Any] | None = ...
    ) -> Event[None]: ...
    @overload
    async def emit(
        self, name: EventKey[T], data: T, *, metadata: Mapping[str, Any] | None = ...
    ) -> Event[T]: ...
    @overload
    async def emit(
        self, name: str, data: None = ..., *, metadata: Mapping[str, Any] | None = ...
    ) -> Event[None]: ...
    @overload
    async def emit(
        self, name: str, data: T, *, metadata: Mapping[str, Any] | None = ...
    ) -> Event[T]: ...
    async def emit(
        self,
        name: str | EventKey[Any],
        data: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """
        Deliver an event to all listeners of ``name``, and wait for them.

        It calls the handlers that are registered when it starts, except those removed meanwhile. It
        returns at once if no handler suspends, but one call in 64 on an emitter begins with a
        checkpoint, and the end of a tier of several async handlers is one too. If it is cancelled,
        it cancels the running handlers, waits for them, and calls no more. Errors that handlers
        have raised before are logged to ``mtaio.events``.

        Args:
            name: The full name, or an `EventKey`, which lets type checkers check ``data``.
            data: The value that handlers get as ``event.data``.
            metadata: The mapping that handlers get as ``event.metadata``; None for an empty dict.

        Returns:
            The event, as the handlers left it.

        Raises:
            ExceptionGroup: Handlers failed, unless ``errors`` is ``"log"``.
            BaseException: A handler raised something that is no ``Exception``. It is raised
                unchanged, after the other handlers of the tier were cancelled and have ended.
            TypeError: ``name`` is not a name.
            ValueError: ``name`` is empty, or a pattern.
        """
        self._unyielding = unyielding = self._unyielding - 1
        if not unyielding:
            self._unyielding = FAST_CALLS
            await checkpoint()
        moment = clock.read()  # first, since another clock is noticed by it, and empties the table
        try:
            topic = self._ready[name]
        except (KeyError, TypeError):  # not up to date; or unhashable, hence not a name
            topic = self._look_up(name)
            moment = clock.read()  # it finds out which clock the loop keeps
        event = _new_event(Event)  # Event() would be a tenth of the cost of an emit
        event.name = topic.name
        event.data = data
        event.metadata = {} if metadata is None else metadata
        event.time = topic.used = moment
        event.stopped = False
        topic.tally.emitted += 1
        tiers = topic.tiers  # before a handler changes them
        handle = topic.only_async
        if handle is not None:
            try:
                await handle(event)
            except BaseException as error:  # noqa: BLE001 - the policy decides, or raises it again
                await Dispatch(self._policy, topic, event).resume(tiers, None, error)
                return event
            topic.tally.handled += 1
            return event
        take = topic.only_plain
        if take is not None:
            try:
                result = take(event)
            except BaseException as error:  # noqa: BLE001 - the policy decides, or raises it again
                await Dispatch(self._policy, topic, event).resume(tiers, None, error)
                return event
            if result is None:
                topic.tally.handled += 1
            else:
                await Dispatch(self._policy, topic, event).resume(tiers, result, None)
            return event
        if tiers:
            await Dispatch(self._policy, topic, event).run(tiers)
        return event

    @overload
    def emit_nowait(
        self, name: EventKey[None], data: None = ..., *, metadata: Mapping[str, Any] | None = ...
    ) -> None: ...
    @overload
    def emit_nowait(
        self, name: EventKey[T], data: T, *, metadata: Mapping[str, Any] | None = ...
    ) -> None: ...
    @overload
    def emit_nowait(
        self, name: str, data: object = ..., *, metadata: Mapping[str, Any] | None = ...
    ) -> None: ...
    def emit_nowait(
        self,
        name: str | EventKey[Any],
        data: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Queue an event, to be delivered by the emitter's block.

        Events are delivered one after another, in the order of these calls. With ``errors="raise"``
        or ``"continue"``, an error of a handler ends the block and is raised by it. If the emitter
        no longer delivers and the calling task is being cancelled, the event is dropped and
        counted. Not a checkpoint.

        Args:
            name: As for `emit`.
            data: As for `emit`.
            metadata: As for `emit`.

        Raises:
            EventOverflowError: ``max_pending`` events are waiting. Also an ``anyio.WouldBlock``.
            RuntimeError: The emitter was not entered, was entered in another event loop, or is
                closing and delivers no more events.
            TypeError, ValueError: As for `emit`.
        """
        checked = name_of(name)
        background = self._blocks.current
        if (background is None or background.is_closed()) and in_cancelled_task():
            # It cannot raise the cancellation, which comes at the next checkpoint.
            self._registry.tally(checked).dropped += 1
            return
        background = self._blocks.entered(self, "emit_nowait()")
        try:
            background.put(Event(checked, data, metadata=metadata, time=clock.now()))
        except EventOverflowError:
            self._rejected += 1
            raise

    def _look_up(self, name: object) -> Topic:
        clock.catch_up(self._registry)  # emit only reads the clock
        try:
            return self._registry.topic(
                name, concurrent=self._policy.concurrent, durations=self._policy.durations
            )
        except (TypeError, ValueError) as error:
            raise error from None  # without the KeyError of the dict

    async def _deliver(self, event: Event[Any]) -> None:
        """Emit an event that `emit_nowait` has taken."""
        topic = self._look_up(event.name)
        topic.used = clock.now()
        topic.tally.emitted += 1
        await Dispatch(self._policy, topic, event).run(topic.tiers)

    # ---- streams, and waiting for one event ------------------------------------------------------

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
        Wait for one event.

        It listens from the moment of the call until it returns or is cancelled. It misses events
        between two calls; use `stream` to get all of them. A checkpoint.

        Args:
            name: A name, pattern or key, as for `on`.
            predicate: A plain function of the event; the first event for which it is true is
                returned. Its errors are raised here, not by the emit.
            timeout: Maximum seconds to wait; None for no limit.
            priority: The tier in which the event is looked at.

        Raises:
            TimeoutError: (`mtaio.exceptions.TimeoutError`) No such event came in time.
            TypeError: ``predicate`` cannot be called, or is async or a generator function;
                ``timeout`` or ``priority`` is not a number, or ``name`` not a name.
            ValueError: ``name`` matches nothing, or ``timeout`` is negative or NaN.
        """
        return await wait_for(
            self._registry,
            pattern_of(name),
            predicate,
            timeout=timeout,
            priority=priority,
            emitter=self._name,
        )

    @overload
    def stream(
        self,
        name: EventKey[T],
        /,
        *names: EventKey[T],
        max_pending: int | None = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[T]: ...
    @overload
    def stream(
        self,
        name: EventKey[T],
        other: EventKey[T2],
        /,
        *,
        max_pending: int | None = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[T | T2]: ...
    @overload
    def stream(
        self,
        name: str | EventKey[Any],
        /,
        *names: str | EventKey[Any],
        max_pending: int | None = ...,
        overflow: Overflow = ...,
        priority: int = ...,
    ) -> EventStream[Any]: ...
    def stream(
        self,
        *names: str | EventKey[Any],
        max_pending: int | None = 100,
        overflow: Overflow = "block",
        priority: int = EventPriority.NORMAL,
    ) -> EventStream[Any]:
        """
        Return an async iterator over events, to be entered with ``async with``.

        An event that matches several of the names comes only once. Not a checkpoint.

        Args:
            names: Names, patterns and keys, as for `on`.
            max_pending: Maximum number of events that are buffered for the consumer; None for no
                limit.
            overflow: What happens if the buffer is full. With ``"block"`` the emit waits for space.
                ``"drop_oldest"`` drops the oldest event, and ``"drop_newest"`` the new one.
                ``"raise"`` drops the new event and raises `mtaio.exceptions.EventOverflowError`,
                like a handler that fails.
            priority: The tier in which the stream takes the event.

        Raises:
            TypeError: A name is not a name, or ``max_pending`` or ``priority`` not an int.
            ValueError: There is no name, one matches nothing, ``max_pending`` is less than 1, or
                ``overflow`` is unknown.
        """
        return EventStream(
            self._registry,
            names,
            max_pending=max_pending,
            overflow=overflow,
            priority=priority,
            emitter=self._name,
        )

    # ---- the block -------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """
        Enter the emitter.

        Not a checkpoint.
        """
        before = self._blocks.vacate(self)
        if before is not None:
            self._drop_undelivered(before)
        background = Background(self, self._name, self._deliver, self._max_pending)
        await background.enter()
        self._blocks.current = background
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """
        Leave the emitter: deliver the events of `emit_nowait`, or drop them.

        A checkpoint.

        Raises:
            RuntimeError: It was entered in another task.
        """
        background = self._blocks.leaving(exc)
        if background is None:
            return
        try:
            if not background.is_over():
                await background.leave(exc)
        finally:
            self._blocks.current = None
            self._drop_undelivered(background)

    def _drop_undelivered(self, background: Background) -> None:
        for event in background.undelivered():
            self._registry.tally(event.name).dropped += 1

    def record_durations(self) -> None:
        """
        Begin to keep a histogram of how long handlers run.

        It is ``handler_duration`` in the statistics, and counts each call of a handler that begins
        after this, however it ends, but not streams and `wait_for`. A monitor calls it for what it
        watches; repeated calls have no effect. Call it in the event loop in which events are
        emitted, or before any is emitted. Not a checkpoint.
        """
        from mtaio._internal.histogram import Histogram  # noqa: PLC0415 - not all programs ask

        if self._policy.durations is None:
            self._policy.durations = Histogram()
            self._registry.unsettle()  # what is ready calls the handlers themselves

    def statistics(self) -> mtaio.statistics.EmitterStatistics:
        """
        Return the state and the counts so far.

        It can be called from any thread. Not a checkpoint.
        """
        from mtaio.events._statistics import EmitterStatistics  # noqa: PLC0415 - takes 2 ms to make

        registry = self._registry
        background = self._blocks.current
        names, other = registry.snapshot()
        all_names = [*names.values(), other]
        return EmitterStatistics(
            listeners=registry.handlers(),
            streams=registry.count["stream"],
            wait_fors=registry.count["wait_for"],
            waiting=self._policy.waiting,
            pending=0 if background is None else background.pending,
            max_pending=self._max_pending,
            max_names=registry.max_names,
            emitted=sum(each.emitted for each in all_names),
            handled=sum(each.handled for each in all_names),
            failed=sum(each.failed for each in all_names),
            dropped=sum(each.dropped for each in all_names),
            rejected=self._rejected,
            handler_duration=recorded(self._policy.durations),
            names=names,
            other=other,
        )
