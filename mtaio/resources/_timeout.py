"""
How long work may take: one policy, applied to blocks, calls and functions.

Promise: the body runs in the caller's task, no task is spawned, only the cancellation that this
limit itself sent is swallowed, and a result already obtained is never discarded. An error leaves a
block only if the block's own deadline interrupted it.
Cost: four fifths of ``anyio.fail_after``: a cancel scope, no generator around it, a small object.

Why the limit is also kept outside the cancel scope: see `mtaio._internal.deadlines`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    ParamSpec,
    Self,
    TypeVar,
    TypeVarTuple,
    final,
    overload,
)

import anyio

from mtaio._internal import backend, checks, clock, loops
from mtaio._internal.block import entered_before_error
from mtaio._internal.callables import close_unstarted
from mtaio._internal.deadlines import Alarms, Deadline, current, remaining
from mtaio._internal.decorators import (
    AsyncFunction,
    Decorator,
    Descriptor,
    call,
    check_call,
    decorate,
)
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.statistics import snapshot
from mtaio._internal.timeout_statistics import TimeoutStatistics
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError

if TYPE_CHECKING:
    from mtaio.resources._each import LimitedItems

__all__ = ["TimeoutManager", "TimeoutScope", "time_left"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def time_left(most: float = math.inf) -> float:
    """
    Return the seconds left to the running code, at most ``most``.

    This is the time until the nearest deadline around it, be it that of a `TimeoutManager`, a
    `Timeout` of a pipeline, an executor's ``timeout=`` or an anyio cancel scope; 0 once one has
    expired or was cancelled. Use it for clients with a timeout of their own: ``client.get(url,
    timeout=time_left(10))``.

    mtaio's deadlines are seen through shields and in worker threads; those of anyio's scopes cannot
    be. Not a checkpoint. It can be called without a running event loop.

    Args:
        most: What to return if there is no deadline, or more time is left.

    Raises:
        ValueError: ``most`` is negative or NaN.
        TypeError: ``most`` is not a number.
    """
    checks.at_least("most", most, 0, way_out="Pass the seconds that the call may take, 0 or more.")
    return min(most, remaining())


class _Policy:
    """What the scopes of one `TimeoutManager` share."""

    __slots__ = ("alarms", "default_timeout", "entered", "name", "scopes", "timed_out")

    def __init__(self, default: float | None, name: str | None) -> None:
        self.default_timeout: float | None = default
        self.name: str | None = name
        self.scopes: backend.Scopes | None = None
        self.alarms: Alarms = Alarms()
        self.entered: int = 0
        self.timed_out: int = 0

    def seconds(self, timeout: float | Unset | None) -> float | None:
        """Return how long to allow when ``timeout`` was asked for."""
        if timeout is UNSET:
            return self.default_timeout
        return checks.timeout("timeout", timeout)

    def late(self, text: str, seconds: float, moment: float) -> MTAIOTimeoutError:
        """Return the error for what did not come in time, and count it."""
        self.timed_out += 1
        who = "" if self.name is None else f"{self.name}: "
        due = clock.loop_deadline(moment)
        msg = f"{who}{text} did not arrive within {seconds:g} s"
        return MTAIOTimeoutError(msg, timeout=seconds, deadline=due, name=self.name)


@final
class TimeoutManager:
    """
    A reusable time limit for blocks, calls and functions, for any number of tasks at once.

    It can be created at module level and used in any event loop. Each block, call or function has a
    limit of its own, which starts when it is entered. Of nested limits, the earliest deadline
    counts, and of equal ones the outermost. Only the limit's own deadline raises its
    `mtaio.exceptions.TimeoutError`: a ``TimeoutError`` of the body, an error in its clean-up, and a
    cancellation from outside pass through unchanged.

    Args:
        default_timeout: Seconds allowed if none are given; None for no limit.
        name: Name shown in messages and metrics.

    Raises:
        ValueError: ``default_timeout`` is negative or NaN.

    Example:
        ```python
        import anyio

        from mtaio import TimeoutManager
        from mtaio.exceptions import TimeoutError

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


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """

    __slots__ = ("__weakref__", "_policy")

    def __init__(self, default_timeout: float | None = 30.0, *, name: str | None = None) -> None:
        self._policy = _Policy(checks.timeout("default_timeout", default_timeout), name)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<TimeoutManager{name} of {self.default_timeout} s>"

    @property
    def name(self) -> str | None:
        """Name shown in messages and metrics."""
        return self._policy.name

    @property
    def default_timeout(self) -> float | None:
        """Seconds allowed if none are given; None for no limit."""
        return self._policy.default_timeout

    def __call__(self, timeout: float | Unset | None = UNSET) -> TimeoutScope:
        """
        Limit the time of a block: ``with timeouts(5.0):``.

        The limit starts when the block is entered. Neither entering nor leaving it is a checkpoint.

        Args:
            timeout: Seconds for the block; 0 cancels it at its first checkpoint; None for no limit
                of its own (an outer one still applies); if omitted, the manager's default.

        Returns:
            A scope for one ``with`` or ``async with``. Entering it raises ``RuntimeError`` outside
            a task of an event loop.

        Raises:
            TimeoutError: (when the block is left) The block's deadline interrupted it.
            ValueError: ``timeout`` is negative or NaN.
            TypeError: ``timeout`` is not a number.
        """
        policy = self._policy
        if type(timeout) is not float or not timeout >= 0:  # a call less in the usual case
            timeout = policy.seconds(timeout)
        return TimeoutScope(policy, timeout)

    def shielded(self, *, grace: float = 5.0) -> TimeoutScope:
        """
        Return a block for clean-up that is shielded from cancellation for a limited time.

        For ``grace`` seconds, cancellation from outside does not reach the block, and `remaining`
        counts only those seconds. After that, the block is interrupted: by the cancellation from
        outside if there is one, which then propagates, otherwise by a
        `mtaio.exceptions.TimeoutError`. asyncio's own ``Task.cancel()`` goes through every shield;
        one that came before the block, and caused the clean-up, propagates when the time is up.

        Args:
            grace: Seconds for the clean-up; ``math.inf`` for no limit.

        Returns:
            A scope for one ``with`` or ``async with``.

        Raises:
            TimeoutError: (when the block is left) The time was up, and nothing outside was
                cancelled.
            ValueError: ``grace`` is negative or NaN.
            TypeError: ``grace`` is not a number.
        """
        way_out = "Pass the seconds that clean-up may take, 0 or more."
        return _ShieldedScope(self._policy, checks.at_least("grace", grace, 0, way_out=way_out))

    def each(
        self,
        source: AsyncIterable[T],
        /,
        *,
        first: float | None = None,
        between: float | None = None,
        timeout: float | Unset | None = UNSET,
    ) -> LimitedItems[T]:
        """
        Limit the wait for each item: ``async with timeouts.each(tokens(), between=0.5) as items:``.

        Use it instead of a timeout block around a loop that yields. Only the wait for items is
        limited. What the consumer does between two items is not interrupted and counts only towards
        ``timeout``; if that is used up, the next item is not waited for. An item that has arrived
        is not lost. A source that is interrupted while it produces an item may be finished, as an
        async generator is.

        Args:
            source: Any async iterable. An async generator is closed when the block ends; anything
                else is left to its owner.
            first: Seconds to wait for the first item; None for no limit of its own.
            between: Seconds to wait for each further item; None for no limit of its own.
            timeout: Seconds for all items together, counted from entering the block; None for no
                limit; if omitted, the manager's default.

        Returns:
            An async iterator that must first be entered with ``async with``, once.

        Raises:
            TimeoutError: (during iteration) The time was up.
            ValueError: A number of seconds is negative or NaN.
            TypeError: ``source`` is not an async iterable, or the seconds are not a number.
        """
        from mtaio.resources._each import LimitedItems, check_source  # noqa: PLC0415 - few use it

        policy = self._policy
        seconds = (
            checks.timeout("first", first),
            checks.timeout("between", between),
            policy.seconds(timeout),
        )
        check_source(source)
        policy.entered += 1
        return LimitedItems(source, seconds, policy.alarms, policy.late)

    def remaining(self) -> float:
        """
        Return the seconds left to the running code; ``inf`` if nothing limits it.

        Like `time_left`, it counts every deadline around it, also those of other managers. Not a
        checkpoint.
        """
        return remaining()

    async def run(
        self,
        fn: Callable[[*Ts], Awaitable[T]] | Awaitable[T],
        /,
        *args: *Ts,
        timeout: float | Unset | None = UNSET,
    ) -> T:
        """
        Call ``fn(*args)`` under a time limit and return its result.

        A checkpoint if the call is one. If it is cancelled, it leaves behind only what the call
        leaves behind.

        Args:
            fn: An async function; or, without arguments, an awaitable.
            *args: Positional arguments for ``fn``. For keyword arguments, use `functools.partial`.
            timeout: Seconds for the call; None for no limit; if omitted, the manager's default.

        Returns:
            The result of the call, even if it came after the deadline because the call had no
            checkpoint before it returned.

        Raises:
            TimeoutError: The deadline interrupted the call.
            ValueError: ``timeout`` is negative or NaN. A coroutine is closed without being started.
            TypeError: ``fn`` did not return an awaitable.
        """
        try:
            seconds = self._policy.seconds(timeout)
            check_call(fn, args)
            with TimeoutScope(self._policy, seconds):
                return await call(fn, args)
        finally:
            close_unstarted(fn)

    @overload
    def limit(self, fn: Descriptor, /) -> Descriptor: ...

    @overload
    def limit(self, fn: AsyncFunction[P, R], /) -> AsyncFunction[P, R]: ...

    @overload
    def limit(self, timeout: float | None = ...) -> Decorator: ...

    def limit(self, timeout: Any = UNSET) -> Any:
        """
        Limit every call of an async function: ``@timeouts.limit`` or ``@timeouts.limit(5.0)``.

        The function keeps its signature; methods may be decorated too. The limit of each call
        starts when it is awaited.

        Args:
            timeout: Seconds for each call; None for no limit; if omitted, the manager's default.

        Returns:
            The decorated function, or a decorator.

        Raises:
            TimeoutError: (when the function is called) The deadline interrupted the call.
            ValueError: ``timeout`` is negative or NaN.
            TypeError: What is decorated is not an async function.
        """
        fn: Any = None
        if timeout is not None and timeout is not UNSET and not isinstance(timeout, int | float):
            fn, timeout = timeout, UNSET
        seconds = self._policy.seconds(timeout)

        def around(fn: AsyncFunction[P, R]) -> AsyncFunction[P, R]:
            async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
                with TimeoutScope(self._policy, seconds):
                    return await fn(*args, **kwargs)

            return limited

        decorator = decorate(around, name="TimeoutManager.limit")
        return decorator if fn is None else decorator(fn)

    def statistics(self) -> TimeoutStatistics:
        """
        Return the counts so far.

        If event loops of several threads share a manager, its counts may be slightly low.

        Not a checkpoint. It can be called from any thread.
        """
        return snapshot(TimeoutStatistics, self._policy)


@final
class TimeoutScope:
    """
    The time limit of one block: what ``with timeouts(...)`` yields. It can be entered only once.

    ``with`` and ``async with`` do the same, and neither is a checkpoint.
    """

    # Invariants:
    # - _scope is None until the block is entered; _expired is None until it is left;
    # - _cancelled says that cancel() came before the deadline had passed: from then on the
    #   deadline means nothing.
    __slots__ = ("_cancelled", "_expired", "_limit", "_policy", "_scope", "_timeout")

    _shield: ClassVar[bool] = False
    _kind: ClassVar[str] = ""

    _limit: Deadline

    def __init__(self, policy: _Policy, timeout: float | None) -> None:
        self._policy = policy
        self._timeout = timeout
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._expired: bool | None = None

    def __repr__(self) -> str:
        state = "left" if self._expired is not None else "active" if self._scope else "new"
        return f"<TimeoutScope of {self._timeout} s, {state}>"

    @property
    def timeout(self) -> float | None:
        """Seconds allowed from entering, or from the last `reschedule`; None for no limit."""
        return self._timeout

    @property
    def deadline(self) -> float:
        """
        When the time is up, by the event loop's clock (``anyio.current_time()``).

        ``inf`` if there is no limit, and before the block is entered, which starts the timer.
        """
        return math.inf if self._scope is None else self._scope.deadline

    @property
    def expired(self) -> bool:
        """
        Whether the deadline passed before the block was left and before any call of `cancel`.

        The block need not have been interrupted: one that had no checkpoint after its deadline
        keeps its result.
        """
        if self._expired is not None:
            return self._expired
        if self._scope is None or self._cancelled:
            return False
        # Clocks may differ by a tick: a deadline that the event loop has fired has expired.
        return clock.now() >= self._limit.moment or self._scope.cancel_called

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called before the deadline passed."""
        return self._cancelled

    def cancel(self) -> None:
        """
        Leave the block at its next checkpoint, without an error.

        This is not a timeout, however long the clean-up takes. It has no effect on a block that has
        been left.

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
        Restart the timer from now. Any task of the same event loop may call it.

        Args:
            timeout: Seconds from now; None for no limit; if omitted, as many as before.

        Raises:
            ValueError: ``timeout`` is negative or NaN.
            RuntimeError: The block has not been entered, has been left or cancelled, or its
                deadline has passed, since a cancellation cannot be undone.
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
            self._limit.moment = clock.now() + seconds
            self._scope.deadline = anyio.current_time() + seconds
            return
        msg = f"cannot reschedule {self!r}: {state}. Look at `expired` and `cancelled` first."
        raise RuntimeError(msg)

    def __enter__(self) -> Self:
        if self._scope is not None:
            raise entered_before_error(self, "Ask its manager for a new one: with timeouts(...).")
        policy, timeout = self._policy, self._timeout
        moment = clock.reader()()
        seconds = math.inf if timeout is None else timeout
        scopes = policy.scopes
        try:
            if scopes is None or not scopes.is_here():
                scopes = policy.scopes = loops.scopes()
            scope = scopes.new(deadline=scopes.time() + seconds, shield=self._shield)
            scope.__enter__()
        except (anyio.NoEventLoopError, TypeError) as error:
            # TypeError is what anyio makes of a callback of asyncio's loop, where no task runs.
            msg = (
                "a timeout can only limit code that runs in a task of an event loop, and none is "
                "running here. Enter it in an async function."
            )
            raise RuntimeError(msg) from error
        # What deadlines.enter and leave do, without the calls: this is what a block costs.
        limit = Deadline(moment + seconds, current.get())
        current.set(limit)
        self._limit = limit
        self._scope = scope
        policy.entered += 1
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
            clock.read() >= limit.moment or (exc_type is not None and scope.cancel_called)
        )
        limit.moment = math.inf
        current.set(limit.outer)
        # On trio a scope answers True also when there was nothing to catch.
        try:
            caught = scope.__exit__(exc_type, exc, traceback)
        except RuntimeError as error:  # not one of the body's, which is not raised again here
            raise _yield_error(self) from error
        if not caught or exc_type is None:
            return False
        if self._cancelled:
            return True
        # A scope catches its own cancellation alone, and only cancel() and the deadline can have
        # sent it.
        raise self._error() from exc

    def _error(self) -> BaseException:
        """Return what to raise from a block that its deadline has interrupted."""
        self._policy.timed_out += 1
        name = self._policy.name
        who = "" if name is None else f"{name}: "
        msg = f"{who}{self._kind}timed out after {self._timeout} s"
        return MTAIOTimeoutError(msg, timeout=self._timeout, deadline=self.deadline, name=name)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self.__exit__(exc_type, exc, traceback)


class _ShieldedScope(TimeoutScope):  # type: ignore[misc] # final for users
    """A block that cancellation from outside cannot reach until its time is up."""

    # Invariant: while the block is active, _pending is the cancellation that was being handled when
    # it was entered.
    __slots__ = ("_pending",)

    _shield = True
    _kind = "shielded block "

    def __init__(self, policy: _Policy, timeout: float | None) -> None:
        super().__init__(policy, timeout)
        self._pending: BaseException | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self._limit.alone = True
        # asyncio's own Task.cancel() leaves no cancelled scope behind: all there is to see of it
        # is the exception for which the clean-up is done.
        error = sys.exception()
        if isinstance(error, anyio.get_cancelled_exc_class()):
            self._pending = error
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        # Cut short inside a cancelled scope, the clean-up must not be followed by code that relies
        # on it, nor may the cancellation turn into an error. With the shield down the scope lets
        # the cancellation go on outwards, if there is one; if there is none, it is a timeout.
        if exc_type is not None and self._scope is not None:
            self._scope.shield = False
        try:
            return super().__exit__(exc_type, exc, traceback)
        finally:
            self._pending = None

    def _error(self) -> BaseException:
        return super()._error() if self._pending is None else self._pending


def _yield_error(scope: TimeoutScope) -> RuntimeError:
    return RuntimeError(
        f"{scope!r} was left in another task than it was entered in, or before a block that was "
        f"entered after it. An async generator that yields inside of 'with timeouts(...)' does "
        f"that: the limit then also applies to its consumer. Limit the wait for each item: 'async "
        f"with timeouts.each(source, between=...) as items:'."
    )
