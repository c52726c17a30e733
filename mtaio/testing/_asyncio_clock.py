"""
When asyncio sleeps and in which order it wakes: a selector that asks, and timers in order.

Promise: the loop never sleeps but in `JumpingSelector.select`, and there only for as long as the
loop's engine wants; timers due at one moment fire in the order in which they were set.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from typing import TYPE_CHECKING, Any, Protocol

from mtaio.testing._world import NAPS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context


class Sleeper(Protocol):
    """What the selector asks of its loop."""

    def active(self) -> None:
        """Note that something real has come."""
        ...

    def turned(self) -> None:
        """Note that the loop has turned and something ran."""
        ...

    def idle(self) -> float | None:
        """Return the real seconds to wait for something real, None if something is ready now."""
        ...

    def blocked(self, patience: float) -> None:
        """Note that nothing real has come within ``patience``."""
        ...


class Timer(asyncio.TimerHandle):
    """A timer that is ordered by its moment, and at one moment by when it was set."""

    __slots__ = ("_key",)

    _scheduled: bool

    def __init__(
        self,
        key: tuple[float, int],
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(key[0], callback, args, loop, context)
        self._key = key
        self._scheduled = True  # it will be, and cancel() must tell the loop

    def __lt__(self, other: object) -> bool:
        return self._key < other._key if isinstance(other, Timer) else NotImplemented


class JumpingSelector(selectors.DefaultSelector):
    """Asks the loop what to do whenever the loop is about to sleep."""

    loop: Sleeper

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events:
            self.loop.active()
            return events
        if timeout is not None and timeout <= 0:
            self.loop.turned()
            return events
        patience = self.loop.idle()
        if patience is None:
            return events
        if patience == math.inf:
            return super().select(None)
        for _ in range(NAPS if patience else 0):
            events = super().select(patience / NAPS)
            if events:
                return events
        self.loop.blocked(patience)
        return events
