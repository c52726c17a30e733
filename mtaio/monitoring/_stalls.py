"""
Detects stalls: the sampler's thread calls the event loop, and times the answer.

Promise: each time the loop does not answer for longer than ``blocked_after`` is one `Stall`, with
the line at which the loop's thread stood, however often it is checked. It is noticed within
``blocked_after`` and one interval, if other threads can run.

An unanswered call shows nothing if the sampler itself could not run: C code that holds the
interpreter lock stops both, and so does a stopped or throttled process. So the sampler also
measures its own lateness; the processor time used during it distinguishes the two.
A loop that is not running, as between two calls of ``run_until_complete``, is not blocked.
Why not debug mode, a trace function or ``faulthandler``: docs/en/design/monitoring.md.
"""

from __future__ import annotations

import logging
import math
import sys
import time
import traceback
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock, loops
from mtaio._internal.frames import innermost_own
from mtaio.monitoring._delivery import log_aside
from mtaio.monitoring._stats import Cause, Stall

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import TypeAlias

    _Line: TypeAlias = tuple[FrameType, int]
    """A frame, and the line at which it stood."""

__all__ = ["WINDOW", "Delays", "LoopWatch", "Stalls"]

_MAX_FRAMES: Final = 100
"""Frames of a stack that are kept, the innermost."""

_TOGETHER: Final = 0.005
"""Seconds within which two clocks count as read at one moment."""

_RUNS: Final = 0.1
"""The share of a processor that a process has at least if it runs at all, on a busy machine."""

_NOTABLE: Final = 0.02
"""Seconds of lateness after which it is worth while to read where the loop's thread stands."""

_LEAST: Final = 0.001
"""The shortest rest in seconds."""

WINDOW: Final = 30.0
"""Seconds after which the older half is forgotten."""

_KEPT: Final = 20
"""Stalls that are kept, the last ones."""

_FINEST: Final = 1e-6
_PER_OCTAVE: Final = 4
_BUCKETS: Final = 128
"""From a microsecond, four for each doubling, to an hour."""


@dataclass(slots=True)
class _Open:
    """A stall in progress."""

    since: float
    timestamp: float
    place: str
    stack: str
    cause: Cause

    def at(self, now: float) -> Stall:
        return Stall(
            seconds=max(0.0, now - self.since),
            place=self.place,
            stack=self.stack,
            cause=self.cause,
            timestamp=self.timestamp,
        )


class Delays:
    """
    The delays of the last ``WINDOW`` seconds, and those of the ``WINDOW`` before.

    They are kept as a histogram: p50, p99 and the longest are at most a fifth above what was
    measured, from a fixed number of buckets however many delays are added.

    Args:
        now: The moment at which the first window opens.
    """

    __slots__ = ("_counts", "_longest", "_old", "_old_longest", "_opened")

    def __init__(self, now: float) -> None:
        self._counts = [0] * _BUCKETS
        self._longest = 0.0
        self._old = [0] * _BUCKETS
        self._old_longest = 0.0
        self._opened = now

    def add(self, seconds: float, now: float) -> None:
        """Add one delay."""
        if now - self._opened >= WINDOW:
            recent = now - self._opened < 2 * WINDOW
            self._old = self._counts if recent else [0] * _BUCKETS
            self._old_longest = self._longest if recent else 0.0
            self._counts = [0] * _BUCKETS
            self._longest = 0.0
            self._opened = now
        above = math.log2(seconds / _FINEST) * _PER_OCTAVE if seconds > _FINEST else 0.0
        self._counts[min(math.ceil(above), _BUCKETS - 1)] += 1
        self._longest = max(self._longest, seconds)

    def read(self) -> tuple[float, float, float]:
        """Return p50, p99 and the longest, in seconds; all 0.0 before the first delay."""
        counts = [new + old for new, old in zip(self._counts, self._old, strict=True)]
        total = sum(counts)
        longest = max(self._longest, self._old_longest)
        p50, p99 = (min(_quantile(counts, total * share), longest) for share in (0.5, 0.99))
        return p50, p99, longest


class LoopWatch:
    """
    The calls into one event loop: `look`, `call`, a rest until ``due``, and so on; then `end`.

    Args:
        loop: The event loop, as `loops.current_loop` returned it.
        thread: The identity of the thread in which it runs.
        interval: Seconds from one call to the next.
        blocked_after: Seconds without an answer that are a stall.

    Attributes:
        delays: How long the answers took.
        answered: When the loop answered last.
        due: When to `look`.
        over: Whether the loop has ended, so that it will never answer.

    Invariants:
    - ``_answer`` is called in the loop's thread, `look`, `call` and `end` in one other;
    - ``due`` follows from the moment of the last look, so that no time is left out, whatever comes
      between it and the rest;
    - one call at most is in the loop: while ``_waiting`` is set. `call` alone sets it, ``_answer``
      alone clears it, after it has set ``answered``;
    - ``_since`` is when that call was made, or when the loop was last seen not to run.
    """

    __slots__ = (
        "_blocked_after",
        "_cpu",
        "_interval",
        "_late",
        "_loop",
        "_moment",
        "_open",
        "_rest",
        "_since",
        "_thread",
        "_timed",
        "_used",
        "_waiting",
        "_work",
        "answered",
        "delays",
        "due",
        "over",
    )

    def __init__(self, loop: object, thread: int, *, interval: float, blocked_after: float) -> None:
        self._loop = loop
        self._thread = thread
        self._interval = interval
        self._blocked_after = blocked_after
        self._moment, self._cpu = _clocks()
        """When the last look was, and the processor time of the process at that moment."""
        self._rest = 0.0
        self._waiting = False
        self._since = self._moment
        self._timed = False
        """Whether the next answer shows a delay that has not been added to ``delays``."""
        self._late = 0.0
        """Seconds by which `look` was called late since the call was made."""
        self._used = 0.0
        """Processor time used in those seconds."""
        self._open: _Open | None = None
        self._work: Callable[[], object] | None = None
        self.answered: float = self._since
        self.delays: Delays = Delays(self._since)
        self.due: float = self._moment
        self.over: bool = False

    def call(self, work: Callable[[], object] | None = None) -> None:
        """
        Call the loop, unless it has not answered the last call.

        Args:
            work: What the loop shall call as well, if it is called now.
        """
        if not self._waiting:
            self._work = work
            self._call(clock.read())
        rest = self._interval
        if self._open is None:
            rest = min(rest, max(_LEAST, self._since + self._blocked_after - self._moment))
        self._rest, self.due = rest, self._moment + rest

    def look(self) -> tuple[Stall | None, Stall | None]:
        """
        See whether the last call was answered.

        Returns:
            The stall noticed now, which is in progress, and the one that has ended.
        """
        # A thread that was stopped goes on as soon as it can: its lines are read before all else.
        frames = _frames(self._thread) if clock.read() - self.due > _NOTABLE else []
        now, cpu = _clocks()
        late, used = max(0.0, now - self.due), max(0.0, cpu - self._cpu - self._rest)
        self._moment, self._cpu = now, cpu
        waiting = self._waiting
        if waiting and now - self._since > self._interval and not loops.is_running(self._loop):
            return None, self._pause(now)
        self._late += late
        self._used += used
        noticed = None
        if self._open is None:
            since = now - late  # if it began after the answer, while this thread was to rest
            if waiting and self._since <= since:
                late, used = self._late, self._used
                since = self._since
            noticed = self._notice(now, since, late, used, frames)
        return noticed, self._settle()

    def end(self) -> tuple[Stall | None, Stall | None]:
        """Look once more; a stall in progress ends here, as far as anyone will know."""
        self._work = None
        noticed, ended = self.look()
        return noticed, ended or self._close(clock.read())

    def current(self) -> Stall | None:
        """Return the stall in progress, as long as it has lasted; from any thread."""
        stall = self._open
        return None if stall is None else stall.at(clock.read())

    def unanswered(self) -> float:
        """Return for how many seconds the last call has waited; 0.0 if it was answered."""
        return max(0.0, clock.read() - self._since) if self._waiting else 0.0

    def _call(self, since: float) -> None:
        self._since = since
        self._late = self._used = 0.0
        self._timed = self._waiting = True
        self.over = not loops.call_in(self._loop, self._answer)

    def _answer(self) -> None:
        """Answer a call: in the loop's thread."""
        work, self._work = self._work, None
        self.answered = clock.read()
        self._waiting = False
        if work is not None:
            work()

    def _notice(
        self, now: float, since: float, late: float, used: float, frames: list[_Line]
    ) -> Stall | None:
        """Open a stall if the loop has not answered for long enough."""
        waited = now - since
        if waited < self._blocked_after or not loops.is_running(self._loop):
            return None
        place, stack = _where(frames or _frames(self._thread))
        cause: Cause = (
            "loop" if late <= waited / 2 else "gil" if used > late * _RUNS else "not_running"
        )
        if not self._waiting:  # a call shows when it is over
            self._call(since)
        self._open = _Open(since, time.time(), place, stack, cause)
        return self._open.at(now)

    def _settle(self) -> Stall | None:
        """Take note of an answer; return the stall that it ended."""
        if self._waiting:
            return None
        answered = self.answered
        if self._timed:
            self.delays.add(max(0.0, answered - self._since), answered)
            self._timed = False
        return self._close(answered)

    def _pause(self, now: float) -> Stall | None:
        """Take note that the loop does not run, so that nobody waits for its answer."""
        self.over = loops.is_over(self._loop)
        self._since = now
        self._late = self._used = 0.0
        self._timed = False
        return self._close(now)

    def _close(self, now: float) -> Stall | None:
        """Return the stall that was in progress, if there was one."""
        stall, self._open = self._open, None
        return None if stall is None else stall.at(now)


def _quantile(counts: list[int], rank: float) -> float:
    """Return the upper end of the bucket in which the delay of this rank lies."""
    seen = 0
    index = 0
    while (seen := seen + counts[index]) < rank:
        index += 1
    return float(_FINEST * 2 ** (index / _PER_OCTAVE))


class Stalls:
    """
    The stalls of a monitor's event loops: counted, logged, and the last of them kept.

    `note` is called in the sampler's thread; what it leaves behind may be read from any thread.

    Attributes:
        blocked: How many there were, the one in progress included.
        blocked_seconds: How long those that have ended lasted, added up.
        last: The last that have ended, the newest last; replaced whole.
    """

    __slots__ = ("blocked", "blocked_seconds", "last")

    def __init__(self) -> None:
        self.blocked: int = 0
        self.blocked_seconds: float = 0.0
        self.last: tuple[Stall, ...] = ()

    def note(self, noticed: Stall | None, ended: Stall | None) -> None:
        """Take note of a stall that has just been noticed, and of one that has ended."""
        if noticed is not None:
            self.blocked += 1
            log_aside(
                logging.WARNING,
                "the event loop has not answered for %.2f s (%s): %s\n%s",
                *(noticed.seconds, noticed.cause, noticed.place, noticed.stack),
            )
        if ended is not None:
            self.blocked_seconds += ended.seconds
            self.last = (*self.last, ended)[-_KEPT:]
            log_aside(
                logging.WARNING,
                "the event loop was blocked for %.2f s (%s): %s",
                *(ended.seconds, ended.cause, ended.place),
            )


def _clocks() -> tuple[float, float]:
    """Return monotonic time and the processor time of this process, of one moment."""
    before = clock.read()
    cpu = time.process_time()
    apart = clock.read() - before
    # Another thread may have run in between, for as long as C code holds the interpreter lock.
    return before, cpu - (apart if apart > _TOGETHER else 0.0)


def _frames(thread: int) -> list[_Line]:
    """Return where a thread stands, the innermost frame first."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - public in all but its name
    return list(islice(traceback.walk_stack(frame), _MAX_FRAMES)) if frame else []


def _where(frames: list[_Line]) -> tuple[str, str]:
    """Return the place at which a thread stands, and its stack."""
    if not frames:
        return "a thread that has ended", ""
    frame, line = frames[innermost_own(frame.f_code.co_filename for frame, _ in frames)]
    stack = traceback.StackSummary.extract(iter(frames))
    stack.reverse()
    return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}", "".join(stack.format())
