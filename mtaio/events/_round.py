"""
One event on its way through its listeners, tier by tier.

Promise: every listener of a tier has come to its end, well or not, before the next tier begins;
a failing one stops none of its tier. Cancelled, or hit by a ``BaseException``, it ends what it has
begun, waits for it, and logs the errors that nobody will be told any more.

A tier runs in the caller's task. Where several of its handlers are async, the first that really
suspends sets off the rest, each in a task of its own: see `mtaio.events._beside`.
"""

from __future__ import annotations

from contextvars import copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.events._begin import begin
from mtaio.events._beside import Beside
from mtaio.events._failures import Failures, error_of
from mtaio.events._room import IGNORED, Room

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtaio.events._event import Event
    from mtaio.events._listener import Listener
    from mtaio.events._registry import Tier, Topic
    from mtaio.events._rules import Rules

__all__ = ["Round"]


class Round:
    """
    The state of one emit.

    Invariants:
    - ``_failures`` is there once a listener has failed;
    - ``_rooms`` are the places of this tier in the lines of full streams.
    """

    __slots__ = ("_event", "_failures", "_rooms", "_rules", "_topic")

    def __init__(self, rules: Rules, topic: Topic, event: Event[Any]) -> None:
        self._rules = rules
        self._topic = topic
        self._event = event
        self._failures: Failures | None = None
        self._rooms: tuple[Room, ...] = ()

    async def run(self, tiers: tuple[Tier, ...]) -> None:
        """Take the event through ``tiers``, and raise what the error policy wants raised."""
        event = self._event
        rules = self._rules
        try:
            for several, tier in tiers:
                listeners = iter(tier)
                if not several:
                    await self._walk(listeners)
                elif (home := rules.home) is not None and home.takes_batches():
                    # Taken before a handler runs: one that has suspended may be inside a context
                    # variable, or a deadline, of its own.
                    context = copy_context()
                    deadline = anyio.current_effective_deadline()
                    first = begin(self._walk(listeners))
                    if first is not None:
                        beside = Beside(self._walk, event.name)
                        self._cut_short(
                            await beside.in_block(
                                home, first, listeners, context=context, deadline=deadline
                            )
                        )
                else:
                    self._cut_short(await Beside(self._walk, event.name).in_group(listeners))
                if self._rooms:
                    await self._wait_for_room()
                if event.stopped or (self._failures and self._failures.ends_the_emit):
                    break
        except BaseException:
            self._abandon()
            raise
        if self._failures is not None:
            self._failures.conclude()

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
        if self._failures is not None:
            self._failures.conclude()

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
                await self._fail(listener, error, apart=apart)
            except BaseException as error:
                if not (apart and await self._fail_apart(listener, error)):
                    raise
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

    async def _fail(self, listener: Listener, error: Exception, *, apart: bool = False) -> None:
        self._topic.tally.failed += 1
        await self._failed().take(listener, error, apart=apart)

    async def _fail_apart(self, listener: Listener, end: BaseException) -> bool:
        """Note the failure of a listener that has ended a task of its own so, if it is one."""
        failure = error_of(listener.subject, end)
        if failure is None:
            return False
        await self._fail(listener, failure, apart=True)
        return True

    def _cut_short(self, reason: Exception | None) -> None:
        if reason is not None:
            self._failed().add(reason)

    def _failed(self) -> Failures:
        if self._failures is None:
            self._failures = Failures(self._rules, self._event)
        return self._failures

    def _abandon(self) -> None:
        """Leave nothing behind, because the emit ends in a cancellation or worse."""
        self._leave_rooms()
        if self._failures is not None:
            self._failures.log()
