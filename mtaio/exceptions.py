"""
The errors that mtaio raises for conditions met at run time.

Promise: each derives from `MTAIOError`, from the builtin it refines where there is one, and
survives pickling with its attributes and notes, so that it can cross a process boundary.
Misuse is not here: a wrong argument raises ``ValueError`` or ``TypeError``, a call at the wrong
moment ``RuntimeError``, each naming the value, the reason and the way out.
"""

from __future__ import annotations

import builtins
import math

from anyio import WouldBlock

__all__ = [
    "BreakerOpenError",
    "CacheClosedError",
    "ConcurrencyLimitError",
    "EventOverflowError",
    "LeaseLostError",
    "LimitClosedError",
    "LimitError",
    "LimitTimeoutError",
    "ListenError",
    "MTAIOError",
    "RateLimitError",
    "StoreError",
    "StrayCancellationError",
    "TaskCancelledError",
    "TimeoutError",
]


class MTAIOError(Exception):
    """
    The base class: ``except MTAIOError`` catches every error that mtaio itself raises.

    Errors that your own functions raise are never wrapped in it.
    """


class TimeoutError(MTAIOError, builtins.TimeoutError):  # noqa: A001 - it refines the builtin
    """
    The time allowed for a piece of work ran out.

    Args:
        message: What timed out, after how long.
        timeout: The seconds that were allowed.
        deadline: When the time was up, in the event loop's clock (``anyio.current_time()``).
        name: The name of the `TimeoutManager`, limiter or executor that set the limit.
    """

    timeout: float | None
    deadline: float
    name: str | None

    def __init__(
        self,
        message: str = "timed out",
        *,
        timeout: float | None = None,
        deadline: float = math.inf,
        name: str | None = None,
    ) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.deadline = deadline
        self.name = name


class LimitError(MTAIOError, WouldBlock):
    """
    A limit was reached and the caller did not want to wait, or could not; nothing was started.

    ``except LimitError`` catches every refusal of mtaio: of a limiter, an open breaker, a full
    queue. Also an ``anyio.WouldBlock``.

    Args:
        message: Which limit refused what, and why.
        retry_after: The seconds after which the same call may succeed; None if that is not known.
        name: The name of what refused.
    """

    retry_after: float | None
    name: str | None

    def __init__(
        self,
        message: str = "limit reached",
        *,
        retry_after: float | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.name = name


class LimitTimeoutError(LimitError, TimeoutError):
    """
    What a limiter was asked for could not be had within the timeout given to ``acquire``.

    A rate limiter, which knows how long a wait takes, raises it at once and not when the time is
    up; also if it is a limit around the call, such as a `TimeoutManager`'s block, that would end
    first. The call that was to be limited has not begun.

    Args:
        message: Which limiter refused what, and why.
        retry_after: The seconds that the wait would have taken; None if that is not known.
        timeout: The seconds that were allowed.
        deadline: When the timeout would have ended, in the event loop's clock.
        name: The limiter's name.
    """

    def __init__(
        self,
        message: str = "limit reached",
        *,
        retry_after: float | None = None,
        timeout: float | None = None,
        deadline: float = math.inf,
        name: str | None = None,
    ) -> None:
        LimitError.__init__(self, message, retry_after=retry_after, name=name)
        self.timeout = timeout
        self.deadline = deadline


class LimitClosedError(LimitError):
    """
    The limiter was closed: while the caller waited, or before it asked.

    What was to be limited has not begun. ``retry_after`` is ``inf``: no later call succeeds, and a
    `Retry` makes none.

    Args:
        message: Which limiter.
        retry_after: Always ``inf``.
        name: The limiter's name.
    """

    retry_after: float  # pyright: ignore[reportIncompatibleVariableOverride] # here it is known

    def __init__(
        self,
        message: str = "limiter closed",
        *,
        retry_after: float = math.inf,
        name: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, name=name)


class RateLimitError(LimitError):
    """
    A rate limiter does not have enough tokens now.

    Args:
        message: Which limiter refused how many tokens.
        retry_after: The seconds after which the same call would succeed if no other task asked;
            ``inf`` while the limiter is paused.
        name: The limiter's name.
    """

    retry_after: float  # pyright: ignore[reportIncompatibleVariableOverride] # here it is known

    def __init__(
        self,
        message: str = "rate limit reached",
        *,
        retry_after: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, name=name)


class ConcurrencyLimitError(LimitError):
    """Every slot is taken, and the caller did not want to wait or the queue of waiters is full."""


class BreakerOpenError(LimitError):
    """
    A breaker refused the call, because too many calls have failed.

    It is no ``ConnectionError``, so that a policy that retries those does not retry this.

    Args:
        message: Which breaker, and why.
        retry_after: The seconds until it lets a call through again; 0 while its probe calls are
            running, ``inf`` if it was opened by hand.
        name: The breaker's name.
    """

    retry_after: float  # pyright: ignore[reportIncompatibleVariableOverride] # here it is known

    def __init__(
        self,
        message: str = "breaker open",
        *,
        retry_after: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after, name=name)


class EventOverflowError(LimitError):
    """Too many events are pending: those of `emit_nowait`, or in an ``overflow="raise"`` stream."""


class LeaseLostError(MTAIOError):
    """
    A process lost a shared slot before its holder had given it back.

    Another process may hold the slot by now. The holder's block was cancelled, and raises this
    where it ends.

    Args:
        message: Which limiter, and why the lease is lost.
        token: The fencing token of the slot.
        name: The limiter's name.
    """

    token: int
    name: str | None

    def __init__(
        self, message: str = "lease lost", *, token: int = 0, name: str | None = None
    ) -> None:
        super().__init__(message)
        self.token = token
        self.name = name


class TaskCancelledError(MTAIOError):
    """The task behind an awaited handle was cancelled, so there is no result to return."""


class CacheClosedError(MTAIOError):
    """
    The ``async with`` block of a cache ended while a load was in progress, so there is no value.

    Args:
        message: Which cache, and which key.
        name: The cache's name.
    """

    name: str | None

    def __init__(self, message: str = "cache closed", *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


class StoreError(MTAIOError, builtins.ConnectionError):
    """
    The shared server cannot be reached, did not answer in time, or refused a command.

    Whether the command took effect is not known. Also a builtin ``ConnectionError``.

    Args:
        message: Which server, and what happened.
        server: The server's URL, without a password.
        refused: Whether the server answered, with an error.
    """

    server: str | None
    refused: bool

    def __init__(
        self, message: str = "no answer", *, server: str | None = None, refused: bool = False
    ) -> None:
        super().__init__(message)
        self.server = server
        self.refused = refused


class ListenError(MTAIOError, OSError):
    """
    A server or the probes cannot listen at their address: it is taken, say, or not permitted.

    Also a builtin ``OSError``, with its ``errno`` and, as ``strerror``, what to do.
    """


class StrayCancellationError(MTAIOError, RuntimeError):
    """
    A function raised the backend's cancellation although it was not cancelled.

    This happens when a library calls ``Task.cancel()`` on its own task, or awaits something that
    another task cancelled. It counts as a failure of that one call: taken for a real cancellation,
    it would silently end the whole group.
    """
