"""
The block of an entered cache, in which its loads run and expired entries are removed.

Promise: nothing that was started in it outlives it; leaving it wakes all waiting callers, and an
error of its body passes through unchanged.
Cost: one task, which sleeps until something expires; one more for an async listener.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import anyio

from mtaio._internal import loops
from mtaio._internal.block import OwnedBlock
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.clock import loop_deadline
from mtaio.cache._listeners import AsyncNotifier
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from mtaio.cache._listeners import Notifier
    from mtaio.cache._load import Load
    from mtaio.cache._loads import Loads
    from mtaio.cache._lock import ChangeLock
    from mtaio.cache._store import Store

__all__ = ["Background"]

SLICE: Final = 256
"""How many entries the sweep looks at before it lets others run."""


class Background:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        owner: The cache.
        store: What it holds.
        loads: Its loads.
        lock: What is held to change either.
        notifier: Reports removals to the listener; None without one.
    """

    # Invariants:
    # - loads are those that run in the group and have not ended;
    # - once it is leaving, no load starts in it, and none that runs in it can be joined.
    __slots__ = (
        "_all_loads",
        "_earlier",
        "_lock",
        "_notifier",
        "_owner",
        "_store",
        "group",
        "leaving",
        "loads",
    )

    def __init__(
        self,
        owner: object,
        store: Store,
        loads: Loads,
        lock: ChangeLock,
        notifier: Notifier | None,
    ) -> None:
        self._owner = owner
        self._store = store
        self._all_loads = loads
        self._lock = lock
        self._notifier = notifier if isinstance(notifier, AsyncNotifier) else None
        self._earlier = anyio.Event()
        self.group: OwnedBlock = OwnedBlock(owner)
        self.loads: dict[Load, None] = {}
        self.leaving: bool = False

    def is_over(self) -> bool:
        """Return whether it can no longer be left: its loop is over, or this is a fork."""
        return self.group.is_over()

    def is_current(self) -> bool:
        """Return whether its event loop is running here."""
        return self.group.is_current()

    def check_task(self) -> None:
        """Raise ``RuntimeError`` if the running task is not the one that entered."""
        self.group.check_task()

    async def enter(self) -> None:
        """Start."""
        await self.group.enter()
        if self._notifier is not None:
            self._notifier.prepare()
            self.group.start(self._notifier.run, name="mtaio.cache on_removed")
            self._notifier.mute = False
        self.group.start(self._sweep, name="mtaio.cache sweep")

    async def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which ended with ``exc``; raise the error that it ends with, if any."""
        reason = exc
        if exc is None and self._notifier is not None:
            try:
                await self._notifier.wait_delivered()
            except BaseException as error:  # noqa: BLE001 - the task group has to see it first
                reason = error
        with self._lock:
            self._store.expiry.wake_at_due(None)
        self._close_loads()
        self.group.cancel()
        # An Exception does not concern the group, and would come back in a group of its own.
        seen = None if isinstance(reason, Exception) else reason
        end = await self.group.leave(seen)
        while self.loads:  # their tasks were cancelled natively before their first step
            self._all_loads.never_ran(self.loads.popitem()[0])
        escaped = [each for each in end.errors if each is not seen]
        try:
            if escaped:
                msg = f"loads of {self._owner!r} failed"
                raise escaped[0] if len(escaped) == 1 else BaseExceptionGroup(msg, escaped)
            if end.raised is not None and end.raised is not seen and not end.errors:
                raise end.raised
            if end.swallowed:
                raise self._stray_error() from seen
            if exc is None and reason is not None:
                raise reason
        finally:
            del end, escaped, exc, reason, seen  # they hold this frame

    def _stray_error(self) -> StrayCancellationError:
        """Return the error for a cancellation of the group that no scope asked for."""
        return StrayCancellationError(
            f"a task of {self._owner!r} was cancelled, but not through a cancel scope, and the "
            f"rest of its block with it. Look for code that cancels tasks it does not own."
        )

    def _close_loads(self) -> None:
        """End the loads for those who wait, before their tasks have cleaned up."""
        self.leaving = True
        for load in self.loads:
            self._all_loads.close(load)

    async def _sweep(self) -> None:
        """Remove what expires, in slices, whenever something does."""
        expiry = self._store.expiry
        try:
            while True:
                self._earlier = anyio.Event()
                with self._lock:
                    self._store.now()
                    due = expiry.wake_at_due(self._wake)
                moment = -math.inf
                with anyio.CancelScope(deadline=loop_deadline(due)) as scope:
                    await self._earlier.wait()
                if scope.cancelled_caught:
                    moment = due  # by rounding, our clock may be before it, and we would spin
                while self._expire_slice(moment):
                    await checkpoint()
        except anyio.get_cancelled_exc_class():
            # The group was cancelled, maybe for a task that was cancelled natively before its
            # first step. The block is about to end, but its body may take its time.
            self._close_loads()
            raise

    def _expire_slice(self, moment: float) -> bool:
        """Remove some of what has expired, and return whether there may be more."""
        with self._lock:
            moment = max(self._store.now(), moment)
            _gone = self._store.expire(moment, SLICE)  # dropped outside the lock
            more = self._store.expiry.due <= moment
        self._all_loads.deliver(_gone)
        return more

    def _wake(self) -> None:
        """Have `_sweep` look again; called from any thread."""
        if self.is_current():
            self._earlier.set()
        else:
            loops.call_in(self.group.loop, self._set_earlier)

    def _set_earlier(self) -> None:
        self._earlier.set()  # the event of the moment when this runs
