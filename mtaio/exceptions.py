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
    The base class of mtaio's own exceptions.

    Errors that your own functions raise are not wrapped in it.
    """


class TimeoutError(MTAIOError, builtins.TimeoutError):  # noqa: A001 - it refines the builtin
    """
    A time limit has passed.

    Args:
        message: What timed out, and after how long.
        timeout: The seconds that were allowed.
        deadline: When the time was over, in the event loop's clock (``anyio.current_time()``).
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
    A limit refused a call, which has not been started.

    It is the base class of the refusals of limiters, open breakers and full queues, and an
    ``anyio.WouldBlock``.

    Args:
        message: Which limit refused what, and why.
        retry_after: The seconds after which the same call may succeed; None if that is not known.
        name: The name of the limiter, breaker or executor.
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
    A limiter could not grant the request within the timeout.

    A rate limiter knows how long the wait would be, so it raises this error at once, also if a time
    limit around the call, such as the block of a `TimeoutManager`, would end first. The limited
    call has not been started.

    Args:
        message: Which limiter refused what, and why.
        retry_after: The seconds that the wait would have taken; None if unknown.
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
    The limiter was closed, before the call or while it waited.

    The limited call has not been started. ``retry_after`` is ``inf``, so a `Retry` makes no further
    attempt.

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
    A rate limiter does not have enough tokens, and the caller did not wait.

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
    """All slots are taken, and the caller did not wait or too many others wait already."""


class BreakerOpenError(LimitError):
    """
    A breaker refused the call, because too many calls have failed.

    It is not a ``ConnectionError``, so a policy that retries those does not retry it.

    Args:
        message: Which breaker, and why.
        retry_after: The seconds until it lets a call through again; 0 while its trial calls are
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
    """Too many events are pending, of ``emit_nowait`` or in a stream with ``overflow="raise"``."""


class LeaseLostError(MTAIOError):
    """
    A process lost a shared slot before it was released.

    Another process may have the slot now. The block that held the slot was cancelled, and raises
    this error at its end.

    Args:
        message: Which limiter, and why the lease was lost.
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
    """The task of an awaited handle was cancelled, so there is no result."""


class CacheClosedError(MTAIOError):
    """
    The block of a cache ended during a load, so there is no value.

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
    The server cannot be reached, did not answer in time, or refused a command.

    The command may have taken effect. It is also a builtin ``ConnectionError``.

    Args:
        message: Which server, and what happened.
        server: The server's URL, without a password.
        refused: Whether the server answered with an error.
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
    A server or the probes cannot listen at an address, for example because it is in use.

    It is also a builtin ``OSError``, with its ``errno``, and with what to do as its ``strerror``.
    """


class StrayCancellationError(MTAIOError, RuntimeError):
    """
    A function raised the backend's cancellation although it was not cancelled.

    This happens if a library calls ``Task.cancel()`` on its own task, or awaits something that
    another task has cancelled. It counts as a failure of that one call. If it were taken for a real
    cancellation, it would silently end the whole task group.
    """
