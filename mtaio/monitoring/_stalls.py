"""
Whether the event loop answers: it is called from the sampler's thread, and the answer is timed.

Promise: a time during which the loop answers nothing for longer than ``blocked_after`` is one
`Stall`, with the line at which the loop's thread stood, however often it is looked at. It is
noticed within ``blocked_after`` and two intervals, while other threads can run.

A call that is not answered tells nothing when the sampler itself could not run: C code that holds
the interpreter lock stops both, and so does a stopped or throttled process. So the sampler also
looks at its own lateness, and the processor time used meanwhile tells the two apart.
Why not debug mode, a trace function or ``faulthandler``: docs/en/design/monitoring.md.
"""

from __future__ import annotations

import sys
import sysconfig
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock, loops
from mtaio.monitoring._delays import Delays
from mtaio.monitoring._stats import Stall

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["LoopWatch"]

_MAX_FRAMES: Final = 100
"""Frames of a stack that are kept, the innermost."""

_TOGETHER: Final = 0.005
"""Seconds within which two clocks count as read at one moment."""


@dataclass(slots=True)
class _Open:
    """A stall in progress."""

    since: float
    timestamp: float
    place: str
    stack: str
    cause: str

    def at(self, now: float) -> Stall:
        return Stall(
            seconds=max(0.0, now - self.since),
            place=self.place,
            stack=self.stack,
            cause=self.cause,
            timestamp=self.timestamp,
        )


class LoopWatch:
    """
    The calls into one event loop.

    Args:
        loop: The event loop, as `loops.current_loop` returned it.
        thread: The identity of the thread in which it runs.
        interval: Seconds from one call to the next.
        blocked_after: Seconds without an answer that are a stall.

    Attributes:
        delays: How long the answers took.
        answered: When the loop answered last.
        over: Whether the loop has ended, so that it will never answer.

    Invariants:
    - `beat` is called in one thread, ``_answer`` in the loop's;
    - a call is in the loop while ``_posted`` is set; only `beat` sets it, only ``_answer`` clears
      it, after it has set ``answered``.
    """

    __slots__ = (
        "_blocked_after",
        "_cpu",
        "_interval",
        "_loop",
        "_moment",
        "_open",
        "_posted",
        "_sent",
        "_thread",
        "_work",
        "answered",
        "delays",
        "over",
    )

    def __init__(self, loop: object, thread: int, *, interval: float, blocked_after: float) -> None:
        self._loop = loop
        self._thread = thread
        self._interval = interval
        self._blocked_after = blocked_after
        self._moment, self._cpu = _clocks()
        self._posted: float | None = None
        self._sent: float | None = None
        """When the call was made whose answer has not been added to ``delays``."""
        self._open: _Open | None = None
        self._work: Callable[[], object] | None = None
        self.answered: float = self._moment
        self.delays: Delays = Delays(self._moment)
        self.over: bool = False

    def beat(self, work: Callable[[], object] | None = None) -> tuple[Stall | None, Stall | None]:
        """
        Look at the last call, and make the next one if it was answered.

        Args:
            work: What the loop shall call as well, if this beat calls it.

        Returns:
            The stall noticed now, which is in progress, and the one that has ended.
        """
        now, cpu = _clocks()
        late = now - self._moment - self._interval
        used = cpu - self._cpu
        noticed = self._notice(now, late, used)
        ended = self._settle()
        if self._posted is None:
            self._work = work
            self._call(clock.read())
        elif now - self._posted > self._interval:
            self.over = loops.is_over(self._loop)
        self._moment, self._cpu = _clocks()
        return noticed, ended

    def current(self) -> Stall | None:
        """Return the stall in progress, as long as it has lasted; from any thread."""
        stall = self._open
        return None if stall is None else stall.at(clock.read())

    def unanswered(self) -> float:
        """Return for how many seconds the last call has waited; 0.0 if it was answered."""
        posted = self._posted
        return 0.0 if posted is None else clock.read() - posted

    def _call(self, posted: float) -> None:
        self._posted = self._sent = posted
        self.over = not loops.call_in(self._loop, self._answer)

    def _answer(self) -> None:
        """Answer a call: in the loop's thread."""
        work, self._work = self._work, None
        self.answered = clock.read()
        self._posted = None
        if work is not None:
            work()

    def _notice(self, now: float, late: float, used: float) -> Stall | None:
        """Open a stall if there is one and none is open."""
        posted = self._posted
        if self._open is not None:
            return None
        waited = 0.0 if posted is None else now - posted
        if max(waited, late) <= self._blocked_after or not loops.is_running(self._loop):
            return None
        cause = "loop" if late <= waited / 2 else "gil" if used > late / 2 else "not_running"
        if posted is None:  # it began while this thread slept
            posted = now - late
            self._call(posted)
        place, stack = _where(self._thread)
        self._open = _Open(posted, time.time(), place, stack, cause)
        return self._open.at(now)

    def _settle(self) -> Stall | None:
        """Take note of an answer; return the stall that it ended."""
        if self._posted is not None or self._sent is None:
            return None
        answered = self.answered
        self.delays.add(answered - self._sent, answered)
        self._sent = None
        if self._open is None:
            return None
        stall, self._open = self._open.at(answered), None
        return stall


def _clocks() -> tuple[float, float]:
    """Return monotonic time and the processor time of this process, of one moment."""
    before = clock.read()
    cpu = time.process_time()
    apart = clock.read() - before
    # Another thread may have run in between, for as long as C code holds the interpreter lock.
    return before, cpu - (apart if apart > _TOGETHER else 0.0)


def _where(thread: int) -> tuple[str, str]:
    """Return the place at which a thread stands, and its stack."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - public in all but its name
    if frame is None:
        return "a thread that has ended", ""
    stack = "".join(traceback.format_stack(frame, _MAX_FRAMES))
    place = _place(frame)
    return f"{place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_name}", stack


_STANDARD: Final = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")
)
_INSTALLED: Final = ("site-packages", "dist-packages")


def _place(innermost: FrameType) -> FrameType:
    """Return the innermost frame of the user's own code, else of a library's, else of any."""
    library: FrameType | None = None
    frame: FrameType | None = innermost
    while frame is not None:
        file = frame.f_code.co_filename
        installed = any(name in file for name in _INSTALLED)
        if not installed and not file.startswith((*_STANDARD, "<frozen ")):
            return frame
        if installed and library is None:
            library = frame
        frame = frame.f_back
    return library or innermost
