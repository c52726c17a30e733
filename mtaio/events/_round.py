"""
One event on its way through its listeners, tier by tier.

Promise: every listener of a tier has come to its end, well or not, before the next tier begins;
a failing one stops none of its tier. Cancelled, or hit by a ``BaseException``, it ends what it has
begun, waits for it, and logs the errors that nobody will be told any more.

A tier runs in the caller's task. Where several of its handlers are async, the first that really
suspends sets off the rest, each in a task of its own: see `Round._beside`, `mtaio.events._batch`.
"""

from __future__ import annotations

import math
from contextvars import copy_context
from inspect import isawaitable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

import anyio

from mtaio._internal.functions import name_of
from mtaio.events._batch import Batch
from mtaio.events._room import IGNORED, Room
from mtaio.events._watched import watched
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from mtaio.events._event import Event
    from mtaio.events._home import Home
    from mtaio.events._listener import Listener
    from mtaio.events._registry import Tier, Topic

__all__ = ["ErrorPolicy", "Round", "Rules"]

ErrorPolicy = Literal["raise", "continue", "log"]

Failure = tuple[tuple[int, int], object, Exception]
"""The rank of a listener, what the user knows it as, and what it raised."""

_LAST: Final = (2**63, 0)
"""The rank of an error that is no listener's."""

_BY_RANK: Final = itemgetter(0)


class Rules:
    """
    What an emitter was told at its construction, as its rounds need it.

    ``home`` is its ``async with`` block, while it is inside one.
    """

    __slots__ = ("concurrent", "errors", "home", "on_error", "waiting")

    def __init__(
        self,
        errors: ErrorPolicy,
        on_error: Callable[[Exception, Event[Any], Any], object] | None,
        *,
        concurrent: bool,
    ) -> None:
        self.errors: ErrorPolicy = errors
        self.on_error: Callable[[Exception, Event[Any], Any], object] | None = on_error
        self.concurrent: bool = concurrent
        self.home: Home | None = None
        self.waiting: int = 0


class Round:
    """
    The state of one emit.

    Invariants:
    - ``failures`` are errors that nobody was told yet, each with the rank of its listener;
    - ``rooms`` are the places of this tier in the lines of full streams;
    - ``fatal`` are the ``BaseException``s, cancellation apart, of handlers in tasks of their own.
    """

    __slots__ = (
        "_batch",
        "_cancel_tier",
        "_context",
        "_deadline",
        "_event",
        "_failures",
        "_fatal",
        "_home",
        "_rest",
        "_rooms",
        "_rules",
        "_topic",
    )

    def __init__(self, rules: Rules, topic: Topic, event: Event[Any]) -> None:
        self._rules = rules
        self._topic = topic
        self._event = event
        self._failures: tuple[Failure, ...] = ()
        self._rooms: tuple[Room, ...] = ()
        self._fatal: tuple[BaseException, ...] = ()
        self._batch: Batch | None = None
        self._cancel_tier: Callable[[], None]
        # Of the tier that is run beside itself, in the emitter's block:
        self._home: Home
        self._rest: Iterator[Listener]
        self._context: Context
        self._deadline: float

    async def run(self, tiers: tuple[Tier, ...]) -> None:
        """Take the event through ``tiers``, and raise what the error policy wants raised."""
        stops_at_failure = self._rules.errors == "raise"
        try:
            for several, tier in tiers:
                if several:
                    await self._beside(iter(tier))
                else:
                    await self._walk(iter(tier))
                if self._rooms:
                    await self._wait_for_room()
                if self._event.stopped or (stops_at_failure and self._failures):
                    break
        except BaseException:
            self._abandon()
            if self._fatal:
                self._raise_fatal()
            raise
        if self._failures:
            self._conclude()

    async def resume(self, tiers: tuple[Tier, ...], result: Any, error: Exception | None) -> None:
        """
        Go on where the emitter itself has called the one listener there is.

        Args:
            tiers: The listener's tier alone.
            result: What it returned.
            error: What it raised instead.
        """
        listener = tiers[0][1][0]
        try:
            if error is None:
                try:
                    handled = await self._settle(result)
                except Exception as raised:  # noqa: BLE001 - the policy decides
                    await self._fail(listener, raised)
                else:
                    self._topic.tally.handled += handled
            else:
                await self._fail(listener, error)
            if self._rooms:
                await self._wait_for_room()
        except BaseException:
            self._abandon()
            raise
        finally:
            del error  # it holds this frame
        if self._failures:
            self._conclude()

    async def _walk(self, listeners: Iterator[Listener], *, apart: bool = False) -> None:
        """
        Call one listener after another; stop early if somebody else has taken the rest.

        Args:
            listeners: What is left of a tier.
            apart: Whether this is a task that nobody but us can cancel.
        """
        event = self._event
        topic = self._topic
        for listener in listeners:
            call = listener.call
            if call is None:
                call = listener.claim()
                if call is None:
                    continue
            try:
                result = call(event)
                if listener.is_async:
                    await result
                elif result is not None and not await self._settle(result):
                    continue
            except Exception as error:  # noqa: BLE001 - the policy decides
                await self._fail(listener, error)
            except BaseException as error:
                if not apart or not _is_stray(error):
                    raise
                await self._fail(listener, _stray(listener, error))  # else lost, and the rest too
            else:
                topic.tally.handled += 1

    async def _settle(self, result: Any) -> bool:
        """Do what the result of a plain call asks for; tell whether the event was handled."""
        if isinstance(result, Room):
            self._rooms += (result,)
            return False
        if result is IGNORED:
            return False
        if isawaitable(result):
            await result
        return True

    # ---- several async handlers ------------------------------------------------------------------

    async def _beside(self, listeners: Iterator[Listener]) -> None:
        """Run the listeners of a tier beside each other, as soon as one of them suspends."""
        home = self._rules.home
        if home is None or not home.takes_batches():
            await self._in_group(listeners)
        else:
            await self._in_block(listeners, home)
        if self._fatal:
            self._raise_fatal()

    async def _in_block(self, listeners: Iterator[Listener], home: Home) -> None:
        """Hand what is left over to tasks of the emitter's block."""
        self._home = home
        self._rest = listeners
        # Both are taken before a handler runs: one that has suspended may be inside a deadline, or
        # a context variable, of its own.
        self._context = copy_context()
        self._deadline = anyio.current_effective_deadline()
        try:
            await watched(self._walk(listeners), self._hand_over)
            batch = self._batch
            if batch is None:
                return
            cut_short = await batch.wait()
        except GeneratorExit:
            raise
        except BaseException:
            if self._batch is not None:
                await self._batch.end()
            raise
        self._batch = None
        if cut_short is not None:
            self._record(_LAST, self._event.name, cut_short)

    def _hand_over(self) -> None:
        parts = list(_parts(self._rest))
        if parts:
            self._batch = Batch(
                self._home, parts, self._run_apart, context=self._context, deadline=self._deadline
            )
            self._cancel_tier = self._batch.cancel

    async def _in_group(self, listeners: Iterator[Listener]) -> None:
        """Walk on inside a task group that is opened for it, hence before any handler has begun."""
        context = copy_context()  # before a handler changes it
        async with anyio.create_task_group() as group:

            def start_rest() -> None:
                for part in _parts(listeners):
                    context.run(group.start_soon, self._run_apart, part)

            self._cancel_tier = group.cancel_scope.cancel
            try:
                await watched(self._walk(listeners), start_rest)
            except (anyio.get_cancelled_exc_class(), GeneratorExit):
                raise
            except BaseException as error:  # noqa: BLE001 - raised by run, bare
                self._end_by(error)

    async def _run_apart(self, part: Iterator[Listener]) -> None:
        """Walk through a part of the rest, in a task of its own."""
        try:
            await self._walk(part, apart=True)
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised by run, bare
            self._end_by(error)

    def _end_by(self, error: BaseException) -> None:
        self._fatal += (error,)
        self._cancel_tier()

    def _raise_fatal(self) -> NoReturn:
        if len(self._fatal) == 1:
            raise self._fatal[0] from None
        msg = f"handlers of {self._event.name!r} ended for good"
        raise BaseExceptionGroup(msg, self._fatal) from None

    # ---- full streams ----------------------------------------------------------------------------

    async def _wait_for_room(self) -> None:
        self._rules.waiting += 1
        try:
            for room in self._rooms:
                await room.wait()
        finally:
            self._rules.waiting -= 1
        self._leave_rooms()

    def _leave_rooms(self) -> None:
        for room in self._rooms:
            if room.taken:
                self._topic.tally.handled += 1
            else:
                room.withdraw()
        self._rooms = ()

    # ---- errors ----------------------------------------------------------------------------------

    async def _fail(self, listener: Listener, error: Exception) -> None:
        """Hand an error to ``on_error``, or else keep it for the policy."""
        self._topic.tally.failed += 1
        subject = listener.subject
        on_error = self._rules.on_error
        if on_error is None:
            self._record(listener.rank, subject, error)
            return
        try:
            result = on_error(error, self._event, subject)
            if isawaitable(result):
                await result
        except Exception as own:  # noqa: BLE001 - the policy decides; never emitted, never handed back
            self._record(listener.rank, subject, error)
            self._record(listener.rank, on_error, own)
        except BaseException:
            self._record(listener.rank, subject, error)
            raise

    def _record(self, rank: tuple[int, int], subject: object, error: Exception) -> None:
        if self._rules.errors == "log":
            self._log(subject, error)
        else:
            self._failures += ((rank, subject, error),)

    def _conclude(self) -> None:
        """Raise what has failed, in the order of the listeners."""
        errors = [error for _, _, error in sorted(self._failures, key=_BY_RANK)]
        self._failures = ()
        try:
            msg = f"handlers of {self._event.name!r} failed"
            raise ExceptionGroup(msg, errors)
        finally:
            del errors  # the error holds this frame: else they keep each other alive

    def _abandon(self) -> None:
        """Leave nothing behind, because the emit ends in a cancellation or worse."""
        self._leave_rooms()
        for _, subject, error in sorted(self._failures, key=_BY_RANK):
            self._log(subject, error)
        self._failures = ()

    def _log(self, subject: object, error: Exception) -> None:
        from logging import getLogger  # noqa: PLC0415 - most programs never come here

        getLogger("mtaio.events").error(
            "%s failed on event %r", name_of(subject), self._event.name, exc_info=error
        )


def _parts(listeners: Iterator[Listener]) -> Iterator[Iterator[Listener]]:
    """Cut what is left of a tier into what gets a task: no plain handler waits for an async one."""
    part: list[Listener] = []
    for listener in listeners:
        part.append(listener)
        if listener.is_async:
            yield iter(part)
            part = []
    if part:
        yield iter(part)


def _is_stray(error: BaseException) -> bool:
    """Tell whether ``error`` is a cancellation, in a task that was not cancelled."""
    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    return anyio.current_effective_deadline() != -math.inf


def _stray(listener: Listener, error: BaseException) -> StrayCancellationError:
    stray = StrayCancellationError(
        f"{name_of(listener.subject)} raised {type(error).__name__} although nothing here was "
        f"cancelled. Look for a task that cancels itself, or an await on a task that somebody else "
        f"cancelled."
    )
    stray.__cause__ = error
    return stray
