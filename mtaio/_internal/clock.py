"""
The one source of time.

Promise: `now` is monotonic seconds, costs one delegated call (``anyio.current_time`` looks up the
running loop first and costs six times as much), and follows the virtual clock while a simulation
runs, also under a name imported before it began.

Only differences of `now` mean anything; the loop's own clock may count from elsewhere. Compute in
`now`, and convert with `loop_deadline` at the moment of sleeping.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

read: Callable[[], float] = time.monotonic
"""What `now` delegates to, for calls in which that much counts: always as ``clock.read()``."""


def now() -> float:
    """Return the current time in seconds."""
    return read()


def loop_deadline(moment: float) -> float:
    """Return ``moment``, given in `now`'s seconds, on the running event loop's clock."""
    if moment == math.inf:
        return math.inf
    return anyio.current_time() + (moment - read())


def follow(source: Callable[[], float]) -> Callable[[], float]:
    """Let `now` answer with ``source()`` from here on; return what it answered with before."""
    global read  # noqa: PLW0603 - one clock for the process is the point
    before = read
    read = source
    return before


@contextmanager
def reading_from(source: Callable[[], float]) -> Generator[None]:
    """Let `now` answer with ``source()`` inside the block."""
    before = follow(source)
    try:
        yield
    finally:
        follow(before)
