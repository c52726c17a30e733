"""
The block of an entered cache, in which its loads run and expired entries are removed.

Promise: nothing that was started in it outlives it; leaving it wakes all waiting callers, and an
error of its body passes through unchanged. A loader is called once for each load, and how that ends
is noted once, whatever happens.
Cost: one task, which sleeps until something expires, one more for an async listener, and one for
each load.
"""

from __future__ import annotations

import math
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio._internal import deadlines, loops, spans
from mtaio._internal.block import OwnedBlock
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.checkpoints import checkpoint
from mtaio._internal.clock import loop_deadline
from mtaio.cache._config import check_awaitable
from mtaio.cache._cycles import LOADING
from mtaio.cache._listeners import AsyncNotifier
from mtaio.cache._load import ABORTED, CLOSED, Load
from mtaio.exceptions import StrayCancellationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mtaio.cache._loads import Loads

__all__ = ["Background"]

SLICE: Final = 256
"""How many entries the sweep looks at before it lets others run."""

_COROUTINE: type = CoroutineType
_NO_DEADLINE: Final = deadlines.Deadline(math.inf, None)
"""In place of the first caller's, which does not limit the other callers."""


class Background:
    """
    One block, from entering to leaving; made in its event loop.

    Args:
        loads: Those of the cache, and with them the rest of it.
    """

    # Invariants:
    # - running are the loads that run in the group and have not ended;
    # - once it is leaving, no load starts in it, and none that runs in it can be joined.
    __slots__ = (
        "_earlier",
        "_loads",
        "_notifier",
        "group",
        "leaving",
        "running",
    )

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        notifier = loads.notifier
        self._notifier = notifier if isinstance(notifier, AsyncNotifier) else None
        self._earlier = anyio.Event()
        self.group: OwnedBlock = OwnedBlock(loads.owner)
        self.running: dict[Load, None] = {}
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
        self.group.start(self._sweep, name="mtaio.cache sweep")

    async def leave(self, exc: BaseException | None) -> None:
        """Leave the block, which ended with ``exc``; raise the error that it ends with, if any."""
        reason = exc
        if exc is None and self._notifier is not None:
            try:
                await self._notifier.wait_delivered()
            except BaseException as error:  # noqa: BLE001 - the task group has to see it first
                reason = error
        with self._loads.lock:
            self._loads.store.expiry.wake_at_due(None)
        self._close_loads()
        self.group.cancel()
        # An Exception does not concern the group, and would come back in a group of its own.
        seen = None if isinstance(reason, Exception) else reason
        end = await self.group.leave(seen)
        while self.running:  # their tasks were cancelled natively before their first step
            self._loads.never_ran(self.running.popitem()[0])
        escaped = [each for each in end.errors if each is not seen]
        try:
            if escaped:
                msg = f"loads of {self._loads.owner!r} failed"
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
            f"a task of {self._loads.owner!r} was cancelled, but not through a cancel scope, "
            f"and the rest of its block with it. Look for code that cancels tasks it does not own."
        )

    def _close_loads(self) -> None:
        """End the loads for those who wait, before their tasks have cleaned up."""
        self.leaving = True
        for load in self.running:
            self._loads.close(load)

    def start_load(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """
        Start the task of a load.

        The loader is called here and now: it may be a lambda whose variables have other values
        when that task runs, and by then nobody may be in the call that gave it.
        """
        token = LOADING.set(load)
        try:
            load.loader = loader
            load.call = loader(*args, **kwargs)
            if type(load.call) is not _COROUTINE:
                check_awaitable(loader, load.call, several=bool(load.siblings))
        except BaseException as error:
            if not isinstance(error, Exception):
                self._loads.cancel(load, ABORTED)
                raise
            self._loads.fail(load, error)
        else:
            load.coroutine = self._run(load)
            for each in load.siblings:
                each.call, each.coroutine = load.call, load.coroutine
            self.group.start(_itself, load.coroutine, name="mtaio.cache load")
        finally:
            for each in load.siblings or (load,):  # its caller is about to wait, or has a value
                each.waiters -= each.waiters > 0
            LOADING.reset(token)
            del load, token  # as in `Fetcher`

    async def _run(self, load: Load) -> None:
        """Load, in a task of the block."""
        LOADING.set(load)
        deadlines.current.set(_NO_DEADLINE)
        call = load.call
        assert call is not None  # noqa: S101 - for the type checkers: it has started
        try:
            with load.scope:
                if not load.scope.cancel_called:
                    try:
                        if spans.hook is None:
                            value = await call
                        else:
                            value = await spans.wait("load", load.loader, call)
                    except GeneratorExit:  # here: the scope will raise something else for it
                        self._loads.abandon(load)
                        raise
                    except BaseException as error:
                        raise_failure(error, load.loader, own_task=True)
                        raise
                    if load.siblings:
                        self._loads.succeed_many(load, value)
                    else:
                        self._loads.succeed(load, value)
                    return
                close_unstarted(call)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._loads.fail(load, error)
            del load, call  # as in `Fetcher`
            return
        except BaseException:
            self._loads.cancel(load, CLOSED)
            raise
        self._loads.cancel(load, ABORTED)

    async def _sweep(self) -> None:
        """Remove what expires, in slices, whenever something does."""
        expiry = self._loads.store.expiry
        try:
            while True:
                self._earlier = anyio.Event()
                with self._loads.lock:
                    self._loads.store.now()
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
        with self._loads.lock:
            moment = max(self._loads.store.now(), moment)
            _gone = self._loads.store.expire(moment, SLICE)  # dropped outside the lock
            more = self._loads.store.expiry.due <= moment
        self._loads.deliver(_gone)
        return more

    def _wake(self) -> None:
        """Have `_sweep` look again; called from any thread."""
        if self.is_current():
            self._earlier.set()
        else:
            loops.call_in(self.group.loop, self._set_earlier)

    def _set_earlier(self) -> None:
        self._earlier.set()  # the event of the moment when this runs


def _itself(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return coroutine
