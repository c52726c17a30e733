"""
One block of limited work: a cancel scope, and the limit as `mtaio._internal.deadline` knows it.

Promise: an error leaves the block only if the block's own deadline interrupted it; whatever else
leaves it goes on as it is.
Cost: one cancel scope, no generator around it, one small object.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, ClassVar

import anyio

from mtaio._internal import checks
from mtaio._internal.clock import now
from mtaio._internal.deadlines import Deadline, current
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Policy", "ShieldedScope", "TimeoutScope", "finite"]


class Policy:
    """What the scopes of one `TimeoutManager` share."""

    __slots__ = ("default", "entered", "name", "timed_out")

    def __init__(self, default: float | None, name: str | None) -> None:
        self.default: float | None = default
        self.name: str | None = name
        self.entered: int = 0
        self.timed_out: int = 0

    def seconds(self, timeout: float | Unset | None) -> float | None:
        """Return how long to allow when ``timeout`` was asked for."""
        if timeout is UNSET:
            return self.default
        if type(timeout) is float and timeout >= 0:  # the usual case, a tenth of a block's cost
            return timeout
        return checks.timeout("timeout", timeout)


def finite(name: str, value: float | None) -> float:
    way_out = "Clean-up must end: pass finite seconds >= 0."
    seconds = checks.at_least(name, value, 0, way_out=way_out)
    if seconds == math.inf:
        msg = f"{name}={value!r} has no end. {way_out}"
        raise ValueError(msg)
    return seconds


class TimeoutScope:
    """
    One limited block: what ``with timeouts(...)`` yields. It serves one block, once.

    Made by a `TimeoutManager`. Neither entering nor leaving it is a checkpoint, under
    ``async with`` either, which does the same as ``with``.
    """

    # Invariants:
    # - _scope is None until the block is entered; _expired is None until it is left;
    # - _cancelled says that cancel() came before the deadline had passed: from then on the
    #   deadline means nothing.
    __slots__ = ("_cancelled", "_expired", "_limit", "_policy", "_scope", "_timeout")

    _shield: ClassVar[bool] = False
    _kind: ClassVar[str] = ""

    _limit: Deadline

    def __init__(self, policy: Policy, timeout: float | None) -> None:
        self._policy = policy
        self._timeout = timeout
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._expired: bool | None = None

    def __repr__(self) -> str:
        state = "left" if self._expired is not None else "active" if self._scope else "new"
        return f"<{type(self).__name__} of {self._timeout} s, {state}>"

    @property
    def timeout(self) -> float | None:
        """The seconds allowed from entering, or from the last `reschedule`; None for no limit."""
        return self._timeout

    @property
    def deadline(self) -> float:
        """
        When the block falls due, in the event loop's clock (``anyio.current_time()``).

        ``inf`` for no limit, and before the block is entered: the timer starts on entering.
        """
        return math.inf if self._scope is None else self._scope.deadline

    @property
    def expired(self) -> bool:
        """
        Whether the deadline passed before the block was left, and before any `cancel`.

        True does not mean that the block was interrupted: a body that met no checkpoint after
        its deadline keeps its result.
        """
        if self._expired is not None:
            return self._expired
        if self._scope is None or self._cancelled:
            return False
        # Two clocks need not agree to the last tick: what the event loop's has fired has expired.
        return now() >= self._limit.moment or self._scope.cancel_called

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called before the deadline had passed."""
        return self._cancelled

    def cancel(self) -> None:
        """
        Leave the block at its next checkpoint, without an error.

        Not a timeout, however long the clean-up takes. Does nothing to a block that is over.

        Raises:
            RuntimeError: The block has not been entered.
        """
        if self._scope is None:
            msg = f"cannot cancel {self!r}: its block has not been entered."
            raise RuntimeError(msg)
        if self._expired is None:
            if not self.expired:
                self._cancelled = True
            self._scope.cancel()

    def reschedule(self, timeout: float | Unset | None = UNSET) -> None:
        """
        Count anew from this moment. Any task of the same event loop may do it.

        Args:
            timeout: Seconds from now; None for no limit; omitted for as many as before.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: The block has not been entered, is over, was cancelled, or its deadline
                has passed: what was cancelled cannot be taken back.
        """
        if timeout is UNSET:
            timeout = self._timeout
        else:
            checks.timeout("timeout", timeout)
        if self._scope is None:
            state = "its block has not been entered"
        elif self._expired is not None:
            state = "its block is over"
        elif self._cancelled:
            state = "it was cancelled"
        elif self.expired:
            state = "its deadline has passed"
        else:
            self._timeout = timeout
            seconds = math.inf if timeout is None else timeout
            self._limit.moment = now() + seconds
            self._scope.deadline = anyio.current_time() + seconds
            return
        msg = f"cannot reschedule {self!r}: {state}. Look at `expired` and `cancelled` first."
        raise RuntimeError(msg)

    def __enter__(self) -> Self:
        if self._scope is not None:
            msg = (
                f"{self!r} was entered before: it serves one block, once. Ask its manager for a "
                f"new one: with timeouts(...)."
            )
            raise RuntimeError(msg)
        timeout = self._timeout
        moment = now()
        try:
            scope = anyio.move_on_after(timeout, self._shield)
            scope.__enter__()
        except (anyio.NoEventLoopError, TypeError) as error:
            # TypeError is what anyio makes of a callback of asyncio's loop, where no task runs.
            msg = (
                "a timeout can only limit code that runs in a task of an event loop, and none is "
                "running here. Enter it in an async function."
            )
            raise RuntimeError(msg) from error
        # What deadlines.enter and leave do, without the calls: this is what a block costs.
        limit = Deadline(math.inf if timeout is None else moment + timeout, current.get())
        limit.alone = self._shield
        current.set(limit)
        self._limit = limit
        self._scope = scope
        self._policy.entered += 1
        return self

    async def __aenter__(self) -> Self:
        return self.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        scope = self._scope
        if scope is None or self._expired is not None:
            msg = f"cannot leave {self!r}: its block is not active."
            raise RuntimeError(msg)
        limit = self._limit
        self._expired = not self._cancelled and (
            now() >= limit.moment or (exc_type is not None and scope.cancel_called)
        )
        limit.moment = math.inf
        current.set(limit.outer)
        # On trio a scope answers True also when there was nothing to catch.
        if not scope.__exit__(exc_type, exc, traceback) or exc_type is None:
            return False
        if self._cancelled:
            return True
        # A scope catches its own cancellation alone, and nobody but cancel() and the deadline
        # can have sent it.
        raise self._error() from exc

    def _error(self) -> BaseException:
        """Return what to raise from a block that its deadline has interrupted."""
        policy = self._policy
        policy.timed_out += 1
        who = "" if policy.name is None else f"{policy.name}: "
        msg = f"{who}{self._kind}timed out after {self._timeout} s"
        return MTAIOTimeoutError(
            msg, timeout=self._timeout, deadline=self.deadline, name=policy.name
        )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self.__exit__(exc_type, exc, traceback)


class ShieldedScope(TimeoutScope):
    """A block that cancellation from outside cannot reach until its time is up."""

    # Invariant: while the block is active, _pending is the cancellation that was being handled when
    # it was entered.
    __slots__ = ("_pending",)

    _shield = True
    _kind = "shielded block "

    def __init__(self, policy: Policy, timeout: float | None) -> None:
        super().__init__(policy, timeout)
        self._pending: BaseException | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        # asyncio's own Task.cancel() leaves no cancelled scope behind: all there is to see of it
        # is the exception for which the clean-up is done.
        error = sys.exception()
        if isinstance(error, anyio.get_cancelled_exc_class()):
            self._pending = error
        return self

    def reschedule(self, timeout: float | Unset | None = UNSET) -> None:
        """Count anew from this moment, as in `TimeoutScope.reschedule`, but never without end."""
        super().reschedule(timeout if timeout is UNSET else finite("timeout", timeout))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # Cut short inside a cancelled scope, the clean-up must not be followed by code that takes
        # it for done, nor may the cancellation turn into an error. With the shield down the scope
        # lets the cancellation go on outwards, if there is one; if there is none, it is a timeout.
        if exc_type is not None and self._scope is not None:
            self._scope.shield = False
        try:
            return super().__exit__(exc_type, exc, traceback)
        finally:
            self._pending = None

    def _error(self) -> BaseException:
        return super()._error() if self._pending is None else self._pending
