"""
Waiting for one event.

Promise: it listens from its first step until it ends, however it ends; an event that came is
returned even if the timeout ran out at the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import anyio

from mtaio._internal import checks, clock, loops
from mtaio._internal.callables import is_async
from mtaio.events._registry import IGNORED, Listener, check_handler, check_priority
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.events._event import Event
    from mtaio.events._registry import Registry

__all__ = ["wait_for"]


async def wait_for(
    registry: Registry,
    pattern: str,
    predicate: Callable[[Event[Any]], object] | None,
    *,
    timeout: float | None,
    priority: int,
    emitter: str | None,
) -> Event[Any]:
    """
    Wait for one event, as `EventEmitter.wait_for` says.

    Args:
        registry: Where to listen.
        pattern: What to listen to.
        predicate: As for `EventEmitter.wait_for`.
        timeout: As for `EventEmitter.wait_for`.
        priority: As for `EventEmitter.wait_for`.
        emitter: The name of the emitter, for the error.
    """
    if predicate is not None:
        way_out = "Pass a plain function of one argument, the event."
        check_handler("predicate", predicate, way_out=way_out)
        if is_async(predicate):
            msg = f"predicate={predicate!r} is async, and would not be awaited. {way_out}"
            raise TypeError(msg)
    checks.timeout("timeout", timeout)
    check_priority(priority)
    waiter = Waiter(predicate)
    listener = Listener(
        registry, (pattern,), waiter, priority=priority, kind="wait_for", call=waiter.take
    )
    started = clock.now()
    registry.add(listener)
    try:
        event = await waiter.wait(timeout)
    finally:
        registry.remove(listener)
    if event is None:
        msg = f"no event {pattern!r} within {timeout} s"
        deadline = clock.loop_deadline(started + cast("float", timeout))
        raise MTAIOTimeoutError(msg, timeout=timeout, deadline=deadline, name=emitter)
    return event


class Waiter:
    """
    The listener of one call.

    Invariant: ``_done`` is set once ``_found`` or ``_error`` is there, and not before.
    """

    __slots__ = ("_done", "_error", "_found", "_loop", "_predicate")

    def __init__(self, predicate: Callable[[Event[Any]], object] | None) -> None:
        self._found: Event[Any] | None = None
        self._error: Exception | None = None
        self._predicate = predicate
        self._loop = loops.current_loop()
        self._done = anyio.Event()

    def take(self, event: Event[Any]) -> object:
        """Look at an event (the emitter calls this)."""
        if self._done.is_set():
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
        except Exception as error:  # noqa: BLE001 - raised in the task that waits
            self._error = error
            self._done.set()
            return IGNORED
        self._found = event
        self._done.set()
        return None

    async def wait(self, timeout: float | None) -> Event[Any] | None:
        """Wait for the event; None if it did not come in time."""
        with anyio.move_on_after(timeout):
            await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._found
