"""
How long work may take: one policy, applied to blocks, calls and functions.

Promise: the body runs in the caller's task, no task is spawned, nothing is swallowed but the
cancellation that this limit itself sent, and a result already obtained is never discarded.
Cost: less than ``anyio.fail_after``: one cancel scope, and no generator around it.

Why the limit is also kept outside the cancel scope: see `mtaio._internal.deadline`.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeVar, TypeVarTuple

import anyio

from mtaio._internal import checks, deadline
from mtaio._internal.clock import now
from mtaio._internal.unset import UNSET, Unset
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

__all__ = ["TimeoutManager", "TimeoutScope", "TimeoutStatistics"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutStatistics:
    """What a `TimeoutManager` has done so far."""

    default_timeout: float | None
    """Seconds allowed where none are given; None for no limit."""
    entered: int
    """Blocks entered, calls run and bounded clean-ups included."""
    timed_out: int
    """Those of them that ended in `mtaio.exceptions.TimeoutError`."""


class Policy:
    """What the scopes of one `TimeoutManager` share."""

    __slots__ = ("default", "entered", "name", "timed_out")

    def __init__(self, default: float | None, name: str | None) -> None:
        self.default = default
        self.name = name
        self.entered = 0
        self.timed_out = 0

    def seconds(self, timeout: float | Unset | None) -> float | None:
        """Return how long to allow when ``timeout`` was asked for."""
        if timeout is UNSET:
            return self.default
        return checks.timeout("timeout", timeout)


def _grace(name: str, value: float | None) -> float:
    way_out = "Clean-up must end: pass finite seconds >= 0."
    seconds = checks.at_least(name, value, 0, way_out=way_out)
    if seconds == math.inf:
        msg = f"{name}={value!r} has no end. {way_out}"
        raise ValueError(msg)
    return seconds


def _check_awaitable(func: object, args: tuple[object, ...]) -> None:
    if not inspect.isawaitable(func):
        what = "can be neither called nor awaited"
    elif args:
        what = f"is already a call, and takes no arguments, such as {args[0]!r}"
    else:
        return
    msg = f"func={func!r} {what}. Pass an async function and its arguments."
    raise TypeError(msg)


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

    _limit: deadline.Deadline

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
        if self._expired is None:
            return self._scope is not None and not self._cancelled and now() >= self._limit.moment
        return self._expired

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
        if timeout is not UNSET:
            self._timeout = checks.timeout("timeout", timeout)
        if self._scope is None:
            state = "its block has not been entered"
        elif self._expired is not None:
            state = "its block is over"
        elif self._cancelled:
            state = "it was cancelled"
        elif self.expired:
            state = "its deadline has passed"
        else:
            seconds = math.inf if self._timeout is None else self._timeout
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
        self._limit = deadline.enter(
            math.inf if timeout is None else moment + timeout, alone=self._shield
        )
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
        self._expired = now() >= limit.moment and not self._cancelled
        deadline.leave(limit)
        # On trio a scope answers True also when there was nothing to catch.
        if not scope.__exit__(exc_type, exc, traceback) or exc_type is None:
            return False
        if self._cancelled:
            return True
        # A scope catches its own cancellation alone, and nobody but cancel() and the deadline
        # can have sent it.
        self._expired = True
        policy = self._policy
        policy.timed_out += 1
        who = "" if policy.name is None else f"{policy.name}: "
        msg = f"{who}{self._kind}timed out after {self._timeout} s"
        raise MTAIOTimeoutError(
            msg, timeout=self._timeout, deadline=scope.deadline, name=policy.name
        ) from exc

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self.__exit__(exc_type, exc, traceback)


class _Shielded(TimeoutScope):
    """A block that cancellation from outside cannot reach until its time is up."""

    __slots__ = ()

    _shield = True
    _kind = "shielded block "

    def reschedule(self, timeout: float | Unset | None = UNSET) -> None:
        """Count anew from this moment, as in `TimeoutScope.reschedule`, but never without end."""
        super().reschedule(timeout if timeout is UNSET else _grace("timeout", timeout))

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
        return super().__exit__(exc_type, exc, traceback)


class TimeoutManager:
    """
    A policy that limits how long work may take; reusable, by any number of tasks at once.

    Made anywhere, used in any event loop. A limit applies to the block, call or function it
    stands around, and starts when that is entered. Nested limits: the nearest deadline counts,
    and of equal ones the outermost. What raises `mtaio.exceptions.TimeoutError` is the deadline
    of this very limit and nothing else: a ``TimeoutError`` of the body, an error in its clean-up
    and a cancellation from outside pass as they are.

    Example:
        ```python
        import anyio

        from mtaio.exceptions import TimeoutError
        from mtaio.resources import TimeoutManager

        timeouts = TimeoutManager(30.0, name="inventory")


        @timeouts.limit(5.0)
        async def look_up(item: str) -> str:
            await anyio.sleep(0.01)
            return f"{item}: 3 left, {timeouts.remaining():.0f} s to go"


        async def main() -> None:
            print(await look_up("lamp"))
            try:
                with timeouts(0.05):
                    await anyio.sleep_forever()
            except TimeoutError as error:
                print(error)


        anyio.run(main)
        ```

    Args:
        default_timeout: Seconds allowed where none are given; None for no limit.
        name: Named in errors.

    Raises:
        ValueError: ``default_timeout`` is negative or NaN.
    """

    __slots__ = ("__weakref__", "_policy")

    def __init__(self, default_timeout: float | None = 30.0, *, name: str | None = None) -> None:
        self._policy = Policy(checks.timeout("default_timeout", default_timeout), name)

    def __repr__(self) -> str:
        policy = self._policy
        name = "" if policy.name is None else f" {policy.name!r}"
        return f"<TimeoutManager{name} of {policy.default} s>"

    @property
    def name(self) -> str | None:
        """The name given in errors."""
        return self._policy.name

    @property
    def default_timeout(self) -> float | None:
        """Seconds allowed where none are given; None for no limit."""
        return self._policy.default

    def __call__(self, timeout: float | Unset | None = UNSET) -> TimeoutScope:
        """
        Limit a block: ``with timeouts(5.0):``.

        Neither entering nor leaving is a checkpoint. The limit starts on entering.

        Args:
            timeout: Seconds; 0 cancels at the block's first checkpoint; None for no limit of its
                own (an outer one still applies); omitted for the default.

        Returns:
            A scope for one ``with`` or ``async with``; entering it raises ``RuntimeError`` where
            no task of an event loop runs.

        Raises:
            TimeoutError: (on leaving) The block's deadline interrupted it.
            ValueError: ``timeout`` is negative or NaN.
            TypeError: ``timeout`` is not a number.
        """
        return TimeoutScope(self._policy, self._policy.seconds(timeout))

    def timeout(self, timeout: float | Unset | None = UNSET) -> TimeoutScope:
        """Limit a block, as calling the manager does, for those who expect ``async with``."""
        return TimeoutScope(self._policy, self._policy.seconds(timeout))

    def shielded(self, *, grace: float = 5.0) -> TimeoutScope:
        """
        Give clean-up a bounded time inside a scope that is, or may become, cancelled.

        For ``grace`` seconds cancellation from outside does not reach the block, and `remaining`
        counts those seconds alone. When they are up the block is interrupted: by the cancellation
        from outside if there is one, which goes on outwards, else by
        `mtaio.exceptions.TimeoutError`. asyncio's own ``Task.cancel()`` goes through every shield.

        Args:
            grace: Seconds, finite.

        Returns:
            A scope for one ``with`` or ``async with``.

        Raises:
            TimeoutError: (on leaving) The time was up, and nothing outside was cancelled.
            ValueError: ``grace`` is negative, NaN or without end.
            TypeError: ``grace`` is not a number.
        """
        return _Shielded(self._policy, _grace("grace", grace))

    def remaining(self) -> float:
        """
        Return the seconds left to the running code; ``inf`` if nothing limits it.

        Counts every limit around it, of any manager or executor and of anyio's cancel scopes; 0
        when one has passed or was cancelled. The limits of mtaio are seen through shields and in
        worker threads too, those of anyio's scopes, by their nature, are not. Not a checkpoint.
        """
        return deadline.remaining()

    async def run(
        self,
        func: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
    ) -> T:
        """
        Limit one call, and return its result.

        A checkpoint if the call is one. Cancelled, it leaves what the call leaves.

        Args:
            func: What to call and await; or, with no arguments, an awaitable.
            *args: Its arguments.
            timeout: Seconds; None for no limit; omitted for the default.

        Returns:
            The result, also when it came after the deadline for want of a checkpoint.

        Raises:
            TimeoutError: The deadline interrupted the call.
            ValueError: ``timeout`` is negative or NaN. The awaitable is closed unstarted.
            TypeError: There is nothing to await; a sync function is found out only by calling it.
        """
        try:
            seconds = self._policy.seconds(timeout)
            if not callable(func):
                _check_awaitable(func, args)
        except BaseException:
            if inspect.iscoroutine(func):
                func.close()
            raise
        with TimeoutScope(self._policy, seconds):
            awaitable = func(*args) if callable(func) else func
            if not inspect.isawaitable(awaitable):
                msg = (
                    f"{func!r} returned {awaitable!r}, which cannot be awaited: a sync function "
                    f"cannot be interrupted. Pass an async function, or hand the sync one to a "
                    f"thread: run(anyio.to_thread.run_sync, func)."
                )
                raise TypeError(msg)
            return await awaitable
