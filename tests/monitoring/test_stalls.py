"""Which times are stalls, how long they were, and what caused them: at exact moments."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mtaio._internal import clock
from mtaio.monitoring import ResourceMonitor, Stall
from mtaio.monitoring._stalls import LoopWatch, _frames, _where

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class World:
    """A machine, an event loop on it, and a `LoopWatch` that calls that loop."""

    def __init__(self, interval: float = 0.1, blocked_after: float = 1.0) -> None:
        self.now = 100.0
        self.cpu = 0.0
        self.running = True
        self.closed = False
        self.calls: list[Callable[[], object]] = []
        self.interval = interval
        self.noticed: list[Stall] = []
        self.ended: list[Stall] = []
        self.blocked_after = blocked_after
        self.watch: LoopWatch
        self.rest = 0.0

    def start(self) -> None:
        """Make the watch, and the first call."""
        self.watch = LoopWatch(
            self,
            threading.get_ident(),
            interval=self.interval,
            blocked_after=self.blocked_after,
        )
        self.look()

    # What a loop of asyncio has

    def is_closed(self) -> bool:
        """Return whether the loop is closed."""
        return self.closed

    def is_running(self) -> bool:
        """Return whether the loop runs."""
        return self.running

    def call_soon_threadsafe(self, fn: Callable[[], object]) -> None:
        """Have a function called."""
        if self.closed:
            raise RuntimeError
        self.calls.append(fn)

    # What happens

    def answer(self) -> None:
        """Let the loop do what it was called for."""
        while self.calls:
            self.calls.pop()()

    def idle(self, seconds: float) -> None:
        """Let the loop answer at once for so long."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.answer()
            self.now += self.rest
            self.look()

    def block(self, seconds: float, *, cpu: float = 0.0) -> None:
        """Let the loop not answer, while this thread runs."""
        end = self.now + seconds
        while self.now + self.rest <= end + 1e-9:
            self.now += self.rest
            self.cpu += self.rest * cpu
            self.look()
        self.now = end

    def freeze(self, seconds: float, *, cpu: float = 0.0) -> None:
        """Let neither run, from the beginning of a rest."""
        self.now += seconds
        self.cpu += seconds * cpu
        self.look()

    def look(self, work: Callable[[], object] | None = None) -> None:
        """Look, and call again."""
        self.take(*self.watch.look())
        self.watch.call(work)
        self.rest = self.watch.due - self.now

    def take(self, noticed: Stall | None, ended: Stall | None) -> None:
        """Keep what was told."""
        self.noticed += [noticed] if noticed else []
        self.ended += [ended] if ended else []

    def told(self) -> list[tuple[float, str]]:
        """Return the lengths and causes of the stalls, each of which was noticed and has ended."""
        assert len(self.noticed) == len(self.ended)
        return [(round(each.seconds, 6), each.cause) for each in self.ended]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Generator[World]:
    """Return a machine whose clocks stand still."""
    world = World()
    monkeypatch.setattr(time, "process_time", lambda: world.cpu)
    with clock.reading_from(lambda: world.now):
        world.start()
        yield world


def test_busy_loop_that_answers_is_not_blocked(world: World) -> None:
    """A loop that answers just in time is slow, and does not stand still."""
    for _ in range(20):
        world.block(0.95)
        world.answer()
        world.look()
    assert world.told() == []
    assert world.watch.delays.read()[2] == pytest.approx(0.95)


@pytest.mark.parametrize("cpu", [0.0, 1.0])
def test_blocked_thread(world: World, cpu: float) -> None:
    """A loop whose thread sleeps or computes is noticed on time, once, and then timed."""
    world.idle(1.0)
    world.answer()
    began = world.now
    world.block(0.999)
    assert world.watch.current() is None
    world.look()
    world.block(2.0, cpu=cpu)
    (noticed,) = world.noticed
    assert noticed.seconds == pytest.approx(1.0, abs=0.01)
    current = world.watch.current()
    assert current is not None
    assert current.seconds == pytest.approx(world.now - began, abs=0.11)
    assert world.watch.unanswered() == current.seconds
    world.answer()
    world.look()
    (stall,) = world.ended
    assert (stall.cause, stall.place, stall.stack) == ("loop", noticed.place, noticed.stack)
    assert stall.seconds == pytest.approx(2.999, abs=0.11)
    assert world.watch.current() is None
    assert world.watch.unanswered() == 0.0
    world.idle(5.0)
    assert len(world.told()) == 1


def test_noticed_at_its_moment(world: World) -> None:
    """The last rest before ``blocked_after`` is shorter, so that no stall slips through."""
    world.idle(0.3)
    since = world.now
    world.block(1.003)
    assert [each.seconds for each in world.noticed] == [pytest.approx(1.0, abs=0.003)]
    assert world.now == pytest.approx(since + 1.0, abs=0.004)


def test_nothing_is_a_stall(world: World) -> None:
    """With ``blocked_after=inf`` a loop may be blocked for as long as it likes."""
    assert repr(ResourceMonitor(blocked_after=math.inf))
    world.blocked_after = math.inf
    world.start()
    world.block(1000.0)
    world.idle(1.0)
    assert world.told() == []


@pytest.mark.parametrize(("cpu", "cause"), [(1.0, "gil"), (0.3, "gil"), (0.0, "not_running")])
@pytest.mark.parametrize("answered", [True, False])
def test_process_that_does_not_run(world: World, cpu: float, cause: str, answered: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """When this thread could not run either, the time on the processor tells why."""
    world.idle(1.0)
    if answered:
        world.answer()
    world.freeze(3.0, cpu=cpu)
    world.answer()
    world.look()
    ((seconds, told),) = world.told()
    assert told == cause
    assert seconds == pytest.approx(3.0, abs=0.11)
    assert world.watch.delays.read()[2] == pytest.approx(3.0, abs=0.11)


def test_answered_before_this_thread_could_look(world: World) -> None:
    """A stall after whose end the loop was faster than this thread is told all the same."""
    world.idle(1.0)
    world.now += 3.0
    world.cpu += 3.0
    world.answer()
    world.look()
    world.answer()
    world.look()
    ((seconds, cause),) = world.told()
    assert cause == "gil"
    assert seconds == pytest.approx(3.0, abs=0.11)


def test_many_calls_that_hold_the_lock(world: World) -> None:
    """Several calls of C code in a row are one stall, and its cause is that code."""
    world.idle(1.0)
    for _ in range(6):
        world.freeze(0.5, cpu=1.0)
    world.answer()
    world.look()
    ((seconds, cause),) = world.told()
    assert cause == "gil"
    assert seconds == pytest.approx(3.0, abs=0.11)


def test_stall_with_two_causes(world: World) -> None:
    """A stall is one, with the cause for which it was noticed."""
    world.idle(1.0)
    world.block(1.5)
    world.freeze(1.5, cpu=1.0)
    world.answer()
    world.look()
    ((seconds, cause),) = world.told()
    assert cause == "loop"
    assert seconds == pytest.approx(3.0, abs=0.11)


def test_loop_between_two_runs(world: World) -> None:
    """A loop that does not run, as in a notebook between two cells, does not stand still."""
    world.idle(1.0)
    for _ in range(3):
        world.running = False
        world.block(10.0)
        assert world.watch.unanswered() < 0.2
        world.running = True
        world.block(0.5)
        assert world.watch.current() is None
        world.answer()
        world.idle(1.0)
    assert world.told() == []
    assert world.watch.delays.read()[2] < 0.01
    world.running = False
    world.freeze(10.0)
    world.running = True
    world.answer()
    world.idle(1.0)
    assert world.told() == []


def test_loop_that_stops_after_a_stall(world: World) -> None:
    """A stall ends when the loop no longer runs, although nobody answers."""
    world.idle(1.0)
    world.block(2.0)
    world.running = False
    world.block(0.1)
    ((seconds, cause),) = world.told()
    assert (round(seconds), cause) == (2, "loop")
    assert world.watch.current() is None
    assert not world.watch.over
    world.closed = True
    world.block(0.2)
    assert world.watch.over


def test_loop_that_is_closed_takes_no_call(world: World) -> None:
    """A loop that has ended is known by the next call."""
    world.answer()
    world.closed = True
    world.running = False
    world.look()
    assert world.watch.over
    world.take(*world.watch.end())
    assert world.told() == []


@pytest.mark.parametrize("noticed", [True, False])
def test_end_in_a_stall(world: World, noticed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A stall in progress is told when the watch ends, and nothing is called after that."""
    called: list[object] = []
    world.idle(1.0)
    world.answer()
    world.look(lambda: called.append(1))
    if noticed:
        world.block(1.5)
        assert len(world.noticed) == 1
    else:
        world.now += 1.5
        world.cpu += 1.5
    world.take(*world.watch.end())
    world.answer()
    assert world.told() == [(1.5, "loop" if noticed else "gil")]
    assert called == []


def test_work_is_called_with_the_answer(world: World) -> None:
    """What the loop shall call is called once."""
    called: list[object] = []
    world.answer()
    world.look(lambda: called.append(1))
    world.answer()
    world.look()
    world.answer()
    assert called == [1]


def test_clocks_read_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """C code that holds the lock between two readings of the clocks is not overlooked."""
    world.idle(1.0)
    world.answer()

    def interrupted() -> float:
        monkeypatch.setattr(time, "process_time", lambda: world.cpu)
        world.now += 3.0
        world.cpu += 3.0
        return world.cpu

    monkeypatch.setattr(time, "process_time", interrupted)
    world.look()
    world.now += 0.2
    world.look()
    world.answer()
    world.look()
    assert [cause for _, cause in world.told()] == ["gil"]


def test_repr_is_one_line() -> None:
    """A stall that is printed is short: its stack is left out."""
    stall = Stall(
        seconds=1.5, place="shop.py:3 in pay", stack="File ...", cause="loop", timestamp=7.0
    )
    assert repr(stall) == (
        "Stall(seconds=1.5, place='shop.py:3 in pay', cause='loop', timestamp=7.0)"
    )


def test_place_is_in_the_users_code() -> None:
    """Frames of the standard library and of installed packages are passed over."""
    ready = threading.Event()
    go = threading.Event()

    def waits() -> None:
        ready.set()
        go.wait()

    thread = threading.Thread(target=waits)
    thread.start()
    assert ready.wait(20)
    ident = thread.ident
    assert ident is not None
    place, stack = _where(_frames(ident))
    go.set()
    thread.join()
    assert place.startswith(f"{__file__}:")
    assert place.endswith(" in waits")
    assert "go.wait()" in stack
    assert _where(_frames(ident)) == ("a thread that has ended", "")
