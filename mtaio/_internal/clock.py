"""
The one source of time.

Promise: `now` is seconds on the clock by which the running event loop wakes those who sleep, and
follows the virtual clock of `mtaio.testing`, also under a name imported before.
Cost: a call and a context variable on the loops that keep monotonic time, which are asyncio's,
uvloop's and trio's. Asking the loop, as ``anyio.current_time`` does, costs several times as much.

A loop may keep another time: trio's MockClock, looptime, or a loop class of a user's own. `now`
looks at the loop once for each context; as soon as one keeps another time, every later call in the
process asks its loop. Where no loop runs, time is that of the loop at which `now` looked last in
the context, of which worker threads have a copy; otherwise it is monotonic.

Only differences of `now` mean anything; the loop's own clock may count from elsewhere. Compute in
`now`, and convert with `loop_deadline` at the moment of sleeping.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

__all__ = [
    "follow",
    "held",
    "holding_by",
    "is_real",
    "loop_deadline",
    "now",
    "read",
    "reader",
    "reading_from",
]

_monotonic: Final = time.monotonic

read: Callable[[], float] = _monotonic
"""
What `now` reads, without a look at the running loop; always called as ``clock.read()``.

Right wherever `now` has been called in the same context before, and a twentieth of a microsecond
cheaper: for comparing with a moment that `now` gave.
"""

held: Callable[[], AbstractContextManager[object]] = nullcontext
"""
A block in which real work is awaited that a virtual clock must not overtake, where nothing shows
that it is real: a worker process. Always called as ``clock.held()``, in the event loop.
"""


def _look_and_read() -> float:
    """Return the current time in a context that has not looked at its loop, and look."""
    _look()
    return read()


_reader: Final[ContextVar[Callable[[], float]]] = ContextVar(
    "mtaio.clock.reader", default=_look_and_read
)
"""Monotonic time, once the loop that runs in this context is known to keep it."""

_source: Final[ContextVar[Callable[[], float] | None]] = ContextVar(
    "mtaio.clock.source", default=None
)
"""The clock of the loop that runs in this context, if it was asked and is not monotonic time."""

reader: Callable[[], Callable[[], float]] = _reader.get
"""
Return what tells the time in this context; always called as ``clock.reader()``.

For the hottest paths: ``clock.reader()()`` is `now` without the call of `now`.
"""


def now() -> float:
    """Return the current time in seconds."""
    return reader()()


def is_real() -> bool:
    """Return whether time is the machine's in the event loop that runs here."""
    now()
    return read is _monotonic or (read is _of_loop and _of_running_loop()[1] is _monotonic)


def loop_deadline(moment: float) -> float:
    """Return ``moment``, given in `now`'s seconds, on the running event loop's clock."""
    if moment == math.inf:
        return math.inf
    return anyio.current_time() + (moment - now())


def follow(source: Callable[[], float]) -> Callable[[], float]:
    """Let `now` answer with ``source()`` from here on; return what it answered with before."""
    global read, reader  # noqa: PLW0603 - one clock for the process is the point
    before = read
    read = source
    reader = _reader.get if source is _monotonic else lambda: source
    return before


@contextmanager
def reading_from(source: Callable[[], float]) -> Generator[None]:
    """Let `now` answer with ``source()`` inside the block."""
    before = follow(source)
    try:
        yield
    finally:
        follow(before)


@contextmanager
def holding_by(source: Callable[[], AbstractContextManager[object]]) -> Generator[None]:
    """Let `held` be ``source`` inside the block."""
    global held  # noqa: PLW0603 - as above
    before = held
    held = source
    try:
        yield
    finally:
        held = before


def _look() -> None:
    """Find out whether the running loop keeps monotonic time; if not, ask the loop each time."""
    loop, source = _of_running_loop()
    if source is not _monotonic:
        _source.set(source)
        follow(_of_loop)
    elif loop is not None:
        _reader.set(_monotonic)


def _of_loop() -> float:
    """Return the time of the running loop; where none runs, that of the loop behind this thread."""
    loop, source = _of_running_loop()
    if loop is None:
        return (_source.get() or _monotonic)()
    _source.set(source)
    return source()


def _of_running_loop() -> tuple[object, Callable[[], float]]:
    """Return the running loop, or what stands for it, and its clock."""
    asyncio: Any = sys.modules.get("asyncio")
    # Without that name it is being imported by another thread, and no loop of asyncio's runs yet.
    running: Any = getattr(asyncio, "_get_running_loop", None)
    loop: Any = None if running is None else running()
    if loop is not None:
        return loop, _monotonic if _is_monotonic(asyncio, loop) else loop.time
    trio: Any = sys.modules.get("trio")
    try:
        clock = trio.lowlevel.current_clock()
    except (AttributeError, RuntimeError):  # trio is not there, is being imported, or does not run
        return None, _monotonic
    kept = type(clock).__module__.startswith("trio._core.")  # SystemClock, which trio keeps private
    return clock, _monotonic if kept else clock.current_time


def _is_monotonic(asyncio: Any, loop: Any) -> bool:
    method = getattr(loop.time, "__func__", None)  # None for a loop that is compiled, as uvloop is
    return method is asyncio.BaseEventLoop.time or type(loop).__module__.startswith("uvloop")
