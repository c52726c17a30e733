"""
One event for one task that waits for it.

Promise: it listens from the first step of the wait to its end, whichever way that ends; an event
that came is returned even if the timeout ran out in the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.callables import is_async
from mtaio.events._listener import Listener, check_call, check_priority
from mtaio.events._match import check_pattern
from mtaio.events._room import IGNORED
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import Event
    from mtaio.events._registry import Registry

__all__ = ["Waiters"]


class Waiters:
    """
    The tasks that wait for one event of an emitter.

    Args:
        registry: Where they register.
        name: The emitter's name, for errors.
    """

    __slots__ = ("_name", "_registry", "waiting")

    def __init__(self, registry: Registry, name: str | None) -> None:
        self._registry = registry
        self._name = name
        self.waiting: int = 0

    async def wait_for(
        self,
        name: object,
        predicate: Callable[[Event[Any]], object] | None,
        *,
        timeout: float | None,
        priority: int,
    ) -> Event[Any]:
        """Wait for one event, as `EventEmitter.wait_for` says."""
        pattern = check_pattern(name)
        if predicate is not None:
            way_out = "Pass a plain function of one argument, the event."
            check_call("predicate", predicate, way_out=way_out)
            if is_async(predicate):
                msg = f"predicate={predicate!r} is async, and nobody would await it. {way_out}"
                raise TypeError(msg)
        checks.timeout("timeout", timeout)
        check_priority(priority)
        waiter = Waiter(predicate)
        listener = Listener(self._registry, (pattern,), waiter, priority=priority, call=waiter.take)
        began = clock.now()
        self._registry.add(listener)
        self.waiting += 1
        try:
            event = await waiter.wait(timeout)
        finally:
            self._registry.remove(listener)
            self.waiting -= 1
        if event is None:
            msg = f"no event {pattern!r} within {timeout} s"
            deadline = clock.loop_deadline(began + cast("float", timeout))
            raise MTAIOTimeoutError(msg, timeout=timeout, deadline=deadline, name=self._name)
        return event


class Waiter:
    """
    What one of them registers.

    Invariant: ``_turn`` is set when ``found`` or ``error`` is there, and not before.
    """

    __slots__ = ("_loop", "_predicate", "_turn", "error", "found")

    def __init__(self, predicate: Callable[[Event[Any]], object] | None) -> None:
        self.found: Event[Any] | None = None
        self.error: Exception | None = None
        self._predicate = predicate
        self._loop = loops.current_loop()
        self._turn = anyio.Event()

    def take(self, event: Event[Any]) -> object:
        """Look at an event (the emitter calls this)."""
        if self._turn.is_set():
            return IGNORED
        if not loops.is_current(self._loop):
            if loops.is_over(self._loop):
                return IGNORED
            msg = (
                f"a task of another event loop waits for {event.name!r}. One loop at a time may "
                f"use an emitter: emit there, with anyio.from_thread.run()."
            )
            raise RuntimeError(msg)
        try:
            if self._predicate is not None and not self._predicate(event):
                return IGNORED
        except Exception as error:  # noqa: BLE001 - raised where the task waits: it is its own
            self.error = error
            self._turn.set()
            return IGNORED
        self.found = event
        self._turn.set()
        return None

    async def wait(self, timeout: float | None) -> Event[Any] | None:
        """Wait for the event; None if it did not come in time."""
        with anyio.move_on_after(timeout):
            await self._turn.wait()
        if self.error is not None:
            raise self.error
        return self.found
