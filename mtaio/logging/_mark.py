"""
A place in the queue of a log, for those who wait until all that was put before it is written.

Promise: whoever waits goes on when the place is reached, or given up, or when his time is over.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Mark"]


class Mark:
    """A place in the queue, reached when everything before it was written or given up."""

    __slots__ = ("_reached", "_ring", "began", "closes", "ended", "written")

    def __init__(self, *, closes: bool = False) -> None:
        self._reached = threading.Event()
        self._ring: Callable[[], object] | None = None
        self.closes: Final = closes
        self.written = True
        """Whether everything before it was written."""
        self.began: Final = monotonic()
        """When it was made."""
        self.ended: threading.Thread | None = None
        """The thread that ended here."""

    def reach(self, *, written: bool, ended: threading.Thread | None = None) -> None:
        """Let those go on who wait."""
        self.written = self.written and written
        self.ended = ended
        self._go_on()

    def is_reached(self) -> bool:
        """Tell whether it was reached."""
        return self._reached.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is reached, and tell whether it was."""
        return self._reached.wait(min(seconds, threading.TIMEOUT_MAX))

    def let_go(self) -> None:
        """Send those on who wait, though it was not reached."""
        self.written = False
        self._go_on()

    def tell(self, ring: Callable[[], object]) -> None:
        """Have ``ring`` called when it is reached or let go, in whatever thread; now if it was."""
        self._ring = ring
        if self._reached.is_set():
            ring()

    def _go_on(self) -> None:
        self._reached.set()
        ring = self._ring
        if ring is not None:
            ring()
