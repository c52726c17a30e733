"""ConcurrencyLimiter in random weather: against an exact model, and against its invariants."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaio import exceptions
from mtaio.resources import ConcurrencyLimiter
from mtaio.testing import run
from tests.backends import BACKENDS

many_runs = settings(max_examples=200)

Fate: TypeAlias = Literal["served", "late", "cancelled", "refused"]
Outcomes: TypeAlias = dict[int, tuple[Fate, float]]


@dataclass(frozen=True)
class Task:
    """A task that wants a slot: how long it will keep it, and how long it waits for it."""

    hold: int
    patience: int | None
    gives_up: Literal["late", "cancelled"]


@dataclass(frozen=True)
class Capacity:
    """A change of the limit."""

    slots: int


Script: TypeAlias = list[Task | Capacity]

tasks = st.builds(
    Task,
    hold=st.integers(0, 9),
    patience=st.none() | st.integers(0, 6),
    gives_up=st.sampled_from(["late", "cancelled"]),
)
scripts = st.builds(
    lambda script, slots: [*script, Capacity(slots)],
    st.lists(tasks | st.builds(Capacity, slots=st.integers(0, 4)), max_size=16),
    st.integers(1, 3),  # at the end the limiter is open, lest a task wait for ever
)


def span(whole: int, number: int, kind: Literal["hold", "patience"]) -> float:
    """
    Return a duration that differs from all others by a bit of its own.

    Step ``k`` of a script happens at the whole second ``k``, and whatever follows from it at a sum
    of such durations. No two events fall together; hence what must happen is determined.
    """
    return whole + 2.0 ** -(2 * number + (1 if kind == "hold" else 2))


# --- Exactly ----------------------------------------------------------------------------------


class Model:
    """The same limiter without tasks, event loop or cleverness, run to its end."""

    def __init__(self, script: Script, limit: int, max_waiting: int | None) -> None:
        self.script = script
        self.limit = limit
        self.max_waiting = max_waiting
        self.in_use = 0
        self.queue: list[tuple[int, Task, float]] = []
        self.waits: list[float] = []
        self.outcomes: Outcomes = {}
        self.events: list[tuple[float, str, int]] = []
        for number in range(len(script)):
            heapq.heappush(self.events, (number, "step", number))
        while self.events:
            now, kind, number = heapq.heappop(self.events)
            if kind == "step":
                self.step(now, number, script[number])
            elif kind == "hold":
                self.in_use -= 1
            elif kind == "patience":
                self.tire(now, number)
            while self.queue and self.in_use < self.limit:
                number, task, asked = self.queue.pop(0)
                self.waits.append(now - asked)
                self.serve(now, number, task)

    def step(self, now: float, number: int, step: Task | Capacity) -> None:
        """Do what the script says."""
        if isinstance(step, Capacity):
            self.limit = step.slots
        elif self.in_use < self.limit:
            self.serve(now, number, step)
        elif self.max_waiting is not None and len(self.queue) >= self.max_waiting:
            self.outcomes[number] = ("refused", now)
        else:
            self.queue.append((number, step, now))
            if step.patience is not None:
                due = now + span(step.patience, number, "patience")
                heapq.heappush(self.events, (due, "patience", number))

    def serve(self, now: float, number: int, task: Task) -> None:
        """Give a slot for as long as the task keeps it."""
        self.in_use += 1
        self.outcomes[number] = ("served", now)
        heapq.heappush(self.events, (now + span(task.hold, number, "hold"), "hold", number))

    def tire(self, now: float, number: int) -> None:
        """Let a task go that still waits."""
        for waiter in self.queue:
            if waiter[0] == number:
                self.queue.remove(waiter)
                self.outcomes[number] = (waiter[1].gives_up, now)
                break


async def play(script: Script, limiter: ConcurrencyLimiter) -> Outcomes:
    """Let real tasks do what the script says, and return what became of them."""
    outcomes: Outcomes = {}

    async def work(number: int, task: Task) -> None:
        patience = None if task.patience is None else span(task.patience, number, "patience")
        fate: Fate = "cancelled"
        with anyio.move_on_after(patience if task.gives_up == "cancelled" else None):
            try:
                await limiter.acquire(timeout=patience if task.gives_up == "late" else None)
            except exceptions.TimeoutError:
                fate = "late"
            except exceptions.ConcurrencyLimitError:
                fate = "refused"
            else:
                fate = "served"
        outcomes[number] = (fate, anyio.current_time())
        if fate == "served":
            await anyio.sleep(span(task.hold, number, "hold"))
            limiter.release()

    async with anyio.create_task_group() as group:
        for number, step in enumerate(script):
            await anyio.sleep_until(number)
            if isinstance(step, Capacity):
                limiter.limit = step.slots
            else:
                group.start_soon(work, number, step)
    return outcomes


@pytest.mark.parametrize("backend", BACKENDS)
@many_runs
@given(script=scripts, limit=st.integers(1, 3), max_waiting=st.none() | st.integers(0, 3))
def test_does_exactly_what_a_plain_model_does(
    backend: str, script: Script, limit: int, max_waiting: int | None
) -> None:
    """Which task gets a slot, gives up or is refused, and when, is what a plain model says."""
    limiter = ConcurrencyLimiter(limit, max_waiting=max_waiting)
    outcomes = run(play, script, limiter, backend=backend)
    model = Model(script, limit, max_waiting)
    assert outcomes == model.outcomes
    fates = [fate for fate, _ in outcomes.values()]
    statistics = limiter.statistics()
    assert (statistics.in_use, statistics.waiting) == (0, 0)
    assert statistics.acquired == fates.count("served")
    assert statistics.timed_out == fates.count("late")
    assert statistics.cancelled == fates.count("cancelled")
    assert statistics.rejected == fates.count("refused")
    assert statistics.wait_seconds == pytest.approx(sum(model.waits))
    assert statistics.max_wait_seconds == max(model.waits, default=0.0)


# --- With everything at once ------------------------------------------------------------------


class Watched:
    """A limiter whose promise is checked whenever something happens."""

    def __init__(self, limit: int) -> None:
        self.limiter = ConcurrencyLimiter(limit)
        self.holders = 0
        self.allowed = limit
        self.asked: list[int] = []
        self.served: list[tuple[float, int]] = []

    def check(self) -> None:
        """Compare what the limiter says with what is known here."""
        statistics = self.limiter.statistics()
        # Handed over and not picked up yet is in use, too; lowered, it may be more than the limit.
        assert self.holders <= statistics.in_use <= self.allowed
        if statistics.in_use <= statistics.limit:
            self.allowed = statistics.limit
        # No wake-up is ever lost: with a slot free no task waits.
        assert not (statistics.waiting and statistics.in_use < statistics.limit)

    def set_limit(self, slots: int) -> None:
        """Change the limit; what is in use may stay above it, but must not grow."""
        self.limiter.limit = slots
        self.allowed = max(slots, self.limiter.statistics().in_use)
        self.check()

    async def work(self, number: int, task: Task) -> None:
        """Take a slot, if it comes early enough, and hold it."""
        patient = task.patience is None or task.gives_up == "cancelled"
        self.asked.append(number)
        try:
            await self.limiter.acquire(timeout=None if patient else task.patience)
        except exceptions.TimeoutError:
            self.check()
            return
        self.holders += 1
        self.served.append((anyio.current_time(), number))
        self.check()
        try:
            for _ in range(task.hold % 4):
                await checkpoint()
            if task.hold >= 4:
                await anyio.sleep(task.hold // 4)
        finally:
            self.holders -= 1
            self.limiter.release()
            self.check()


def check_end(watched: Watched) -> None:
    """Make sure that nothing is left, and that the order was that of asking."""
    statistics = watched.limiter.statistics()
    assert (statistics.in_use, statistics.waiting, watched.holders) == (0, 0, 0)
    assert statistics.acquired == len(watched.served)
    place = {number: place for place, number in enumerate(watched.asked)}
    moments = [moment for moment, _ in sorted(watched.served, key=lambda entry: place[entry[1]])]
    # Those who were handed a slot in one moment may resume in any order, which trio shuffles.
    assert moments == sorted(moments)


async def storm(script: Script, watched: Watched) -> None:
    """Play a script in which two steps share each second, and cancellations share them too."""
    async with anyio.create_task_group() as group:

        async def work(number: int, task: Task) -> None:
            with anyio.move_on_after(task.patience if task.gives_up == "cancelled" else None):
                await watched.work(number, task)

        for number, step in enumerate(script):
            await anyio.sleep_until(number // 2)
            if isinstance(step, Capacity):
                watched.set_limit(step.slots)
            else:
                group.start_soon(work, number, step)
    check_end(watched)


async def native_storm(script: Script, watched: Watched) -> None:
    """Play the same with asyncio's own tasks, and Task.cancel() instead of scopes."""
    loop = asyncio.get_running_loop()
    running: list[asyncio.Task[None]] = []
    for number, step in enumerate(script):
        await anyio.sleep_until(number // 2)
        if isinstance(step, Capacity):
            watched.set_limit(step.slots)
        else:
            running.append(loop.create_task(watched.work(number, step)))
            if step.patience is not None and step.gives_up == "cancelled":
                loop.call_later(step.patience, running[-1].cancel)
    for result in await asyncio.gather(*running, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError)
    check_end(watched)


@pytest.mark.parametrize("backend", BACKENDS)
@many_runs
@given(script=scripts, limit=st.integers(1, 3))
def test_keeps_its_promise_whatever_falls_together(
    backend: str, script: Script, limit: int
) -> None:
    """With everything at the same moments: never too many, in order, nothing lost or leaked."""
    run(storm, script, Watched(limit), backend=backend)


@many_runs
@given(script=scripts, limit=st.integers(1, 3))
def test_keeps_its_promise_under_native_cancellation(script: Script, limit: int) -> None:
    """The same with Task.cancel(), also in the tick of a grant."""
    run(native_storm, script, Watched(limit), backend="asyncio")
