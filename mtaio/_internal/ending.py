"""
How long the interpreter's exit may take, where an application's shutdown has decided that.

Promise: what watches over the end of a process is one, it ends when the program goes on after all,
and what else waits at the exit knows how long it may.
Cost: nothing.
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_off", "expect", "patience"]


class _End:
    """The end that this process is expected to come to."""

    moment = math.inf
    """When it will be ended by force, in `monotonic`'s seconds; in the past if it was not."""
    dismiss: Callable[[], None] | None = None
    """Ends what would do so."""


_end: Final = _End()


def expect(seconds: float, dismiss: Callable[[], None]) -> None:
    """Note that the process will be ended by force in ``seconds``, unless ``dismiss`` is called."""
    call_off()
    _end.moment, _end.dismiss = monotonic() + seconds, dismiss


def call_off() -> None:
    """Let the process go on: it starts something again."""
    dismiss = _end.dismiss
    _end.moment, _end.dismiss = math.inf, None
    if dismiss is not None:
        dismiss()


def patience(seconds: float) -> float:
    """Return how long to wait for something at the exit that may want ``seconds``."""
    left = _end.moment - monotonic()
    return min(seconds, left / 2) if left > 0 else seconds  # some remains for what comes after it
