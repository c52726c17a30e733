"""
The one source of time.

Promise: `now` is seconds on the clock by which the running event loop wakes those who sleep, and
follows the virtual clock of `mtaio.testing`, also under a name imported before. What keeps moments
may be used by one event loop after another, whatever their clocks say: `catch_up` moves it along.
Cost: a call and a context variable on the loops that keep monotonic time, which are asyncio's,
uvloop's and trio's. Asking the loop, as ``anyio.current_time`` does, costs several times as much.
To find out that the clock has not changed costs one comparison.

A loop may keep another time: trio's MockClock, looptime, or a loop class of a user's own. `now`
looks at the loop once for each context; as soon as one keeps another time, every later call in the
process asks its loop. Where no loop runs, time is that of the loop at which `now` looked last in
the context, of which worker threads have a copy; otherwise it is monotonic.

Only differences of `now` mean anything; the loop's own clock may count from elsewhere. Compute in
`now`, and convert with `loop_deadline` at the moment of sleeping.

An object that keeps moments from one call to the next is `Timed`: it knows the clock that they are
of, and gets the current time from `catch_up`. The virtual clock of each run starts at 0, so moments
of an earlier run would mean nothing there. Why they are moved when they are next used, and not put
on a time line that all loops share: docs/en/design/virtual-clock.md.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakValueDictionary

import anyio

from mtaio._internal import backend

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

__all__ = [
    "REAL",
    "Clock",
    "Hasty",
    "Tells",
    "Timed",
    "catch_up",
    "follow",
    "hasten",
    "held",
    "here",
    "holding_by",
    "is_real",
    "loop_deadline",
    "now",
    "now_by",
    "read",
    "reader",
    "reading_from",
    "wall",
]

REAL: Final = time.monotonic
"""The clock of the loops that keep monotonic time, and of threads without a loop."""


_MILLENNIUM: Final = 946_684_800.0
"""2000-01-01 00:00 UTC, in seconds since 1970."""


class Clock:
    """
    A clock that does not keep monotonic time.

    Args:
        source: Returns what it says.
        loop: The loop that keeps it, or what stands for it, if nobody calls `follow` when that
            begins and ends. It lives for as long as an object has moments of its clock.
    """

    # Invariants:
    # - when the clock said met[0], monotonic time was met[1]: then somebody began to follow it;
    # - when it said seen[0], that was seen[1]: then somebody last began or ceased to follow it, or,
    #   with a loop, looked at it;
    # - these are the moments in which objects go over from one clock to another, so to say, even if
    #   they are used later.
    __slots__ = ("__weakref__", "_source", "loop", "met", "seen")

    def __init__(self, source: Callable[[], float], loop: object = None) -> None:
        self._source = source
        self.loop: object = loop
        self.meet()

    def meet(self) -> None:
        """Note that somebody begins, or ceases, to follow the clock."""
        self.met: tuple[float, float] = self._source(), REAL()
        self.seen: tuple[float, float] = self.met

    def stop(self) -> None:
        """Stand still: the loop is over, and what it has timed must not keep it alive."""
        self._source = partial(float, self.seen[0])

    def __call__(self) -> float:
        """Return what it says."""
        moment = self._source()
        if self.loop is not None:  # this may have been the last time that anything looks at it
            self.seen = moment, REAL()
        return moment


class Tells(Protocol):
    """What tells the time. As an attribute a type checker would take a Callable for a method."""

    def __call__(self) -> float:
        """Return the current time."""
        ...


class Timed(Protocol):
    """
    An object that keeps moments.

    Attributes:
        timed_by: The clock that they are of, at first `REAL`; set by `catch_up` alone.
    """

    timed_by: Tells

    def move(self, seconds: float, /) -> None:
        """Add ``seconds`` to each moment that is kept; infinite ones stay as they are."""


class Hasty(Timed, Protocol):
    """A `Timed` object with a path on which it compares no clocks, but believes `read`."""

    def unsettle(self) -> None:
        """
        Close that path, until `catch_up` has been called: another clock takes over.

        Called from any thread, without a lock.
        """


_hasty: Final[WeakValueDictionary[int, Hasty]] = WeakValueDictionary()
"""Those that there are, by id: unlike a WeakSet, it can be copied while other threads add to it."""

read: Callable[[], float] = REAL
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
"""`REAL`, once the loop that runs in this context is known to keep it."""

_kept: Final[ContextVar[Clock | None]] = ContextVar("mtaio.clock.kept", default=None)
"""The clock of the loop that runs in this context, if it was asked and is not `REAL`."""

_clocks: Final[WeakValueDictionary[int, Clock]] = WeakValueDictionary()
"""The clocks of loops, by the id of the loop, which the clock holds."""

reader: Callable[[], Callable[[], float]] = _reader.get
"""
Return the clock of this context; always called as ``clock.reader()``.

For the hottest paths: ``clock.reader()()`` is `now` without the call of `now`, and the clock is the
one that a `Timed` object is compared with, unless nothing has looked at the loop yet.
"""


def now() -> float:
    """Return the current time in seconds."""
    return reader()()


def wall() -> float:
    """
    Return the time of day in seconds since 1970; always called as ``clock.wall()``.

    The machine's, which may be set; on a loop that keeps a time of its own it is 2000-01-01 00:00
    UTC where `now` is 0, so that what happens at some time of day is the same in each run.
    """
    return time.time() if is_real() else _MILLENNIUM + now()


def catch_up(owner: Timed) -> float:
    """
    Return the current time, for an object whose moments are then on the same clock.

    Where several threads use the object, it is called under the object's lock.
    """
    clock = reader()
    if clock is not owner.timed_by:
        clock = here()
        if clock is not owner.timed_by:
            owner.move(_between(owner.timed_by, clock, first=False))
            owner.timed_by = clock
    return clock()


def hasten(owner: Hasty) -> None:
    """Have ``owner`` told when another clock takes over, for as long as it lives."""
    _hasty[id(owner)] = owner


def now_by(known: Callable[[], float]) -> float:
    """Return the current time by a clock that is not that of this context, or not any more."""
    clock = here()
    return clock() if clock is known else clock() - _between(known, clock, first=True)


def here() -> Callable[[], float]:
    """Return the clock of this context, also if nothing has looked at the loop before."""
    clock = reader()
    if clock is _look_and_read:
        _look()
        clock = reader()
    return REAL if clock is _look_and_read else clock  # no loop runs here


def _between(before: Callable[[], float], after: Callable[[], float], *, first: bool) -> float:
    """
    Return what to add to moments of one clock for them to be of another.

    Args:
        before: The one.
        after: The other.
        first: Whether they met when ``after`` was met first, not when it was last seen.
    """
    if not isinstance(after, Clock):
        assert isinstance(before, Clock)  # noqa: S101 - else they would be the same
        return before.seen[1] - before.seen[0]
    own, real = after.met if first else after.seen
    return own - (before.seen[0] if isinstance(before, Clock) else real)


def is_real() -> bool:
    """Return whether time is the machine's in the event loop that runs here."""
    return here() is REAL


def loop_deadline(moment: float) -> float:
    """Return ``moment``, given in `now`'s seconds, on the running event loop's clock."""
    if moment == math.inf:
        return math.inf
    return anyio.current_time() + (moment - now())


def follow(clock: Callable[[], float]) -> Callable[[], float]:
    """
    Let `now` answer with ``clock()`` from here on; return what it answered with before.

    Args:
        clock: A `Clock`, or what this function has returned.
    """
    global read, reader  # noqa: PLW0603 - one clock for the process is the point
    before = read
    for each in (before, clock):
        if isinstance(each, Clock):
            each.meet()
    read = clock
    known = {REAL: _reader.get, _read_of_loop: _of_loop}
    reader = known.get(clock) or (lambda: clock)
    _unsettle()
    return before


@contextmanager
def reading_from(source: Callable[[], float]) -> Generator[None]:
    """Let `now` answer with ``source()`` inside the block."""
    before = follow(Clock(source))
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


def _unsettle() -> None:
    for owner in [owner for each in _hasty.valuerefs() if (owner := each()) is not None]:
        owner.unsettle()


def _look() -> None:
    """Find out whether the running loop keeps monotonic time; if not, ask the loop each time."""
    loop, source = backend.running_clock()
    if source is not REAL:
        follow(_read_of_loop)
    elif loop is not None:
        _reader.set(REAL)


def _read_of_loop() -> float:
    """Return the time of the running loop; where none runs, that of the loop behind this thread."""
    return _of_loop()()


def _of_loop() -> Callable[[], float]:
    """Return the clock of the running loop; where none runs, of the loop behind this thread."""
    loop, source = backend.running_clock()
    known = _kept.get()
    if loop is None:
        return known or REAL
    if known is not None and known.loop is loop:
        return known
    clock = None
    if source is not REAL:
        clock = _clocks.get(id(loop))
        if clock is None:
            clock = _clocks[id(loop)] = Clock(source, loop)
            _unsettle()
    _kept.set(clock)
    return clock or REAL
