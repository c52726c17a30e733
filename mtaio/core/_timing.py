"""
The timeout of one piece of work, and the count of those that ran out.

Promise: each `Timing.limit` is a `TimeoutManager` block, or next to nothing without one.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mtaio.exceptions import TimeoutError  # noqa: A004 - the refined one
from mtaio.resources import TimeoutManager

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from mtaio.core._statistics import Counters

_UNLIMITED: AbstractContextManager[None] = nullcontext()


class Timing:
    """How long a call may take, and where to count those that took longer."""

    __slots__ = ("_counters", "_timeouts", "timeout")

    def __init__(self, timeout: float | None, counters: Counters, name: str | None) -> None:
        self.timeout = timeout
        self._counters = counters
        self._timeouts = TimeoutManager(timeout, name=name)

    def limit(self) -> AbstractContextManager[Any]:
        """Return a context manager that limits its block."""
        if self.timeout is None:
            return _UNLIMITED
        return _Limit(self._timeouts(), self._counters)


class _Limit:
    __slots__ = ("_block", "_counters")

    def __init__(self, block: AbstractContextManager[Any], counters: Counters) -> None:
        self._block = block
        self._counters = counters

    def __enter__(self) -> None:
        self._block.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        try:
            return self._block.__exit__(exc_type, exc, tb)
        except TimeoutError:
            self._counters.timed_out += 1
            raise
