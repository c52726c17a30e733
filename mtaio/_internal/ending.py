"""
How long the interpreter's exit may take, where somebody has decided that.

Promise: what an application's shutdown leaves of its time is known to what else waits at the exit,
so that several parts do not each take their own.
Cost: nothing.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import Final

__all__ = ["allow", "patience"]


class _Process:
    """What this process knows of its end."""

    until = math.inf
    """When it will be ended by force, in `monotonic`'s seconds; in the past if it was not."""


_process: Final = _Process()


def allow(seconds: float) -> None:
    """Note that the process will be ended by force in ``seconds``."""
    _process.until = monotonic() + seconds


def patience(seconds: float) -> float:
    """Return how long to wait for something at the exit that may want ``seconds``."""
    left = _process.until - monotonic()
    return min(seconds, left / 2) if left > 0 else seconds  # some remains for what comes after it
