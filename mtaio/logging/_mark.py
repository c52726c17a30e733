"""
A place in the queue of a log, for those who wait until all that was put before it is written.

Promise: whoever waits goes on when the place is reached, or given up, or when his time is over.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import Final

__all__ = ["Mark"]


class Mark:
    """A place in the queue, reached when everything before it was written or given up."""

    __slots__ = ("_reached", "closes", "ended", "until", "written")

    def __init__(self, *, closes: bool = False) -> None:
        self._reached = threading.Event()
        self.closes: Final = closes
        self.written = True
        """Whether everything before it was written."""
        self.until = 0.0
        """When those who wait for it lose patience."""
        self.ended: threading.Thread | None = None
        """The thread that ended here."""

    def reach(self, *, written: bool, ended: threading.Thread | None = None) -> None:
        """Let those go on who wait."""
        self.written = self.written and written
        self.ended = ended
        self._reached.set()

    def is_reached(self) -> bool:
        """Tell whether it was reached."""
        return self._reached.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until it is reached, and tell whether it was."""
        self.until = monotonic() + seconds
        return self._reached.wait(seconds)

    def let_go(self) -> None:
        """Send those on who wait, though it was not reached."""
        self.written = False
        self._reached.set()
