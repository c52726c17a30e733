"""
Events from whoever emits them to whoever listens.

Promise: `EventEmitter.emit` returns when every handler has come to its end, and not before; errors
and cancellation reach the caller; nothing outlives the call, or the block of an entered emitter.
Cost: no task and no scope where handlers do not suspend; one handler costs little more than
awaiting it.

Why the first handler that suspends sets off the rest: docs/en/design/events.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from mtaio._internal import checks, clock, loops
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio.events._event import Event, name_in
from mtaio.events._home import Home
from mtaio.events._listening import Listening
from mtaio.events._match import check_name
from mtaio.events._registry import Registry
from mtaio.events._round import Round
from mtaio.events._rules import ErrorPolicy, Rules
from mtaio.events._statistics import EmitterStatistics

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from mtaio.events._event import EventKey
    from mtaio.events._registry import Topic

__all__ = ["EventEmitter"]

T = TypeVar("T")

_new_event: Final[Callable[[type[Event[Any]]], Event[Any]]] = Event.__new__


class EventEmitter(Listening):
    """
    Hands events to handlers, sync and async, and to streams.

    May be made anywhere, also at module level, and used by one event loop after another, on either
    backend; by one at a time, and not from other threads.

    Handlers run in tiers, by priority. A tier ends before the next begins; within it handlers begin
    in the order of registration. Plain functions and the first async ones run in the caller's task;
    when one of several async handlers really suspends, the rest of the tier goes on beside it, each
    in a task of its own, begun in any order. `emit` waits for all of them.

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
        TypeError: ``on_error`` is not callable, or a generator function, or a limit is no int.
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
    # - after so many more emits as _unyielding says, one is a checkpoint before anything happens.
    __slots__ = ("__weakref__", "_max_pending", "_ready", "_rules", "_unyielding")

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
        way_out = "Pass for how many names to keep statistics, at least 1."
        registry = Registry(checks.count("max_names", max_names, way_out=way_out))
        super().__init__(registry, max_listeners, name)
        way_out = "Pass how many events may wait, at least 1."
        self._max_pending = checks.count("max_pending", max_pending, way_out=way_out)
        self._rules = Rules(errors, on_error, concurrent=concurrent)
        self._ready: dict[Any, Topic] = cast("dict[Any, Topic]", registry.ready)
        self._unyielding = FAST_CALLS

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<EventEmitter{name}: {len(self._registry)} handlers>"

    @property
    def name(self) -> str | None:
        """The name given to the emitter."""
        return self._name

    # ---- emitting --------------------------------------------------------------------------------

    @overload
    async def emit(
        self, name: EventKey[None], /, data: None = ..., **metadata: object
    ) -> Event[None]: ...
    @overload
    async def emit(self, name: EventKey[T], /, data: T, **metadata: object) -> Event[T]: ...
    @overload
    async def emit(self, name: str, /, data: None = ..., **metadata: object) -> Event[None]: ...
    @overload
    async def emit(self, name: str, /, data: T, **metadata: object) -> Event[T]: ...
    async def emit(self, name: str | EventKey[Any], /, data: Any = None, **metadata: object) -> Any:
        """
        Hand an event to everybody who listens to ``name``, and wait until all have come to an end.

        Returns at once if no handler suspends, but one call in 64 on an emitter is a checkpoint,
        before anything has happened, and a tier of several async handlers lets other tasks run at
        its end if the emitter was not entered. Those who listen are those registered when it
        begins; who is removed meanwhile is skipped. Cancelled, it cancels the handlers that run,
        waits for them, and calls no others; errors that handlers had raised by then are logged to
        ``mtaio.events``.

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
        self._unyielding = unyielding = self._unyielding - 1
        if not unyielding:
            self._unyielding = FAST_CALLS
            await checkpoint()
        try:
            topic = self._ready[name]
        except (KeyError, TypeError):  # not up to date; or unhashable, hence no name
            topic = self._look_up(name)
        event: Any = _new_event(Event)  # what Event() does; its call would be a tenth of all this
        event.name = topic.name
        event.data = data
        event.metadata = metadata
        event.time = topic.used = clock.read()
        event.stopped = False
        topic.tally.emitted += 1
        tiers = topic.tiers  # as they are now: the topic's may be others when a handler has ended
        handle = topic.only_async
        if handle is not None:
            try:
                await handle(event)
            except Exception as error:  # noqa: BLE001 - the policy decides
                await Round(self._rules, topic, event).resume(tiers, None, error)
                return event
            topic.tally.handled += 1
            return event
        take = topic.only_plain
        if take is not None:
            try:
                result = take(event)
            except Exception as error:  # noqa: BLE001 - the policy decides
                await Round(self._rules, topic, event).resume(tiers, None, error)
                return event
            if result is None:
                topic.tally.handled += 1
            else:
                await Round(self._rules, topic, event).resume(tiers, result, None)
            return event
        if tiers:
            await Round(self._rules, topic, event).run(tiers)
        return event

    @overload
    def emit_soon(self, name: EventKey[None], /, data: None = ..., **metadata: object) -> None: ...
    @overload
    def emit_soon(self, name: EventKey[T], /, data: T, **metadata: object) -> None: ...
    @overload
    def emit_soon(self, name: str, /, data: object = ..., **metadata: object) -> None: ...
    def emit_soon(self, name: str | EventKey[Any], /, data: Any = None, **metadata: object) -> None:
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
            RuntimeError: The emitter was not entered, or is being left and delivers nothing more,
                or was entered in another event loop.
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

    # ---- the block ------------------------------------------------------------------------------

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
    ) -> None:
        """
        Leave the emitter: deliver what `emit_soon` has taken, or drop it. A checkpoint.

        Emits of other tasks that run handlers inside the block are waited for; if it is left by an
        error or a cancellation, those handlers are cancelled, and that is an error of those emits.
        """
        home = self._rules.home
        if home is None:
            msg = f"{self!r} was not entered. Write: async with emitter: ..."
            raise RuntimeError(msg)
        home.check_task()
        try:
            await home.leave(exc)
        finally:
            self._rules.home = None
            for event in home.undelivered():
                self._registry.tally(event.name).dropped += 1

    def statistics(self) -> EmitterStatistics:
        """Return the state and what was done so far. Not a checkpoint."""
        registry = self._registry
        total = registry.total()
        home = self._rules.home
        return EmitterStatistics(
            listeners=len(registry),
            streams=self._streams.open,
            waiters=self._waiters.waiting,
            waiting=self._rules.waiting,
            pending=0 if home is None else home.pending,
            emitted=total.emitted,
            handled=total.handled,
            failed=total.failed,
            dropped=total.dropped,
            names=registry.names(),
            other=registry.other(),
        )

    def _look_up(self, name: object) -> Topic:
        try:
            return self._registry.topic(name, several=self._rules.concurrent)
        except (TypeError, ValueError) as error:
            raise error from None  # that it was looked for in a dict tells nobody anything

    async def _deliver(self, event: Event[Any]) -> None:
        """Emit an event that `emit_soon` has taken."""
        topic = self._registry.topic(event.name, several=self._rules.concurrent)
        topic.used = clock.now()
        topic.tally.emitted += 1
        await Round(self._rules, topic, event).run(topic.tiers)
