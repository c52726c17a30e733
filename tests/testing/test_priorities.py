"""Schedules by priority: tasks are kept waiting for long, but not for ever."""

from __future__ import annotations

from itertools import chain, cycle
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.testing import Schedule, run
from mtaio.testing._priorities import PATIENCE, Priorities
from mtaio.testing._schedule import choices_of, played
from mtaio.testing._search import DEPTHS, at_random
from mtaio.testing.schedules import shrink

if TYPE_CHECKING:
    from collections.abc import Callable


def numbers(*drawn: float) -> Callable[[], float]:
    """Return a source of these random numbers, again and again."""
    return cycle(drawn).__next__


def test_highest_priority_runs() -> None:
    """Each task has the priority that was drawn when it could run first, and keeps it."""
    priorities = Priorities(numbers(0, 0.2, 0.5, 0.9), depth=1, horizon=8)
    assert priorities.pick(0, (1, 2)) == 1
    assert priorities.pick(1, (2, 1)) == 0
    assert priorities.pick(2, (1, 2, 3)) == 2
    assert priorities.pick(3, (3, 2, 1)) == 0
    assert priorities.pick(4, (1, 2)) == 1


def test_task_that_would_run_is_put_back() -> None:
    """At its moments the task that would run comes last; of two put back, by number."""
    # The end, two moments, which are the choices 1 (0.25 of 4) and 2, and three priorities.
    priorities = Priorities(numbers(0, 0.25, 0.5, 0.9, 0.6, 0.3), depth=3, horizon=4)
    assert priorities.pick(0, (1, 2, 3)) == 0
    assert priorities.pick(1, (1, 2, 3)) == 1  # 1 was put back to -1
    assert priorities.pick(2, (1, 2, 3)) == 2  # and 2 to -2
    assert priorities.pick(3, (1, 2)) == 0


@pytest.mark.parametrize(("drawn", "end"), [(0.0, 3), (0.34, 6), (0.67, 12), (0.999, 23)])
def test_choices_beyond_the_horizon_are_at_random(drawn: float, end: int) -> None:
    """Where a run goes on for longer than was thought, no task has the others starve."""
    assert PATIENCE == 8
    priorities = Priorities(chain([drawn], cycle([0.9, 0.1])).__next__, depth=1, horizon=3)
    assert {priorities.pick(at, (1, 2)) for at in range(end)} == {0}
    assert {priorities.pick(end + n, (1, 2)) for n in range(2)} == {0, 1}


# ---- in a run ------------------------------------------------------------------------------------


async def late() -> None:
    """Fail if one task takes sixteen steps while another, made before it, takes less than two."""
    seen: list[str] = []

    async def slow() -> None:
        await checkpoint()
        seen.append("slow")

    async def quick() -> None:
        for _ in range(16):
            await checkpoint()
        seen.append("quick")

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        group.start_soon(quick)
    assert seen == ["slow", "quick"]


def failing(backend: str, schedules: list[Schedule]) -> list[Schedule]:
    """Return the schedules with which ``late`` fails."""
    failed: list[Schedule] = []
    for schedule in schedules:
        try:
            run(late, backend=backend, schedule=schedule)
        except AssertionError:
            failed.append(schedule)
    return failed


def test_long_departures(backend: str) -> None:
    """What takes a task that waits for long is found at once; single choices do not get there."""
    assert not failing(backend, [Schedule(seed=seed) for seed in range(100)])
    found = failing(backend, [Schedule(seed=seed, depth=1, horizon=18) for seed in range(20)])
    assert len(found) > 5


def test_run_by_priorities_can_be_repeated(backend: str) -> None:
    """Seed, depth and horizon give one run; as a tape it fails too, and is made small."""
    schedules = [Schedule(seed=seed, depth=3, horizon=18) for seed in range(40)]
    found = failing(backend, schedules)
    before = [schedule.log for schedule in found]
    assert failing(backend, found) == found
    assert [schedule.log for schedule in found] == before
    again = Schedule(seed=found[0].seed, depth=3, horizon=18)
    assert failing(backend, [again]) == [again]
    assert again.log == before[0]
    tape = played(found[0])
    assert (tape.depth, tape.seed) == (None, None)
    assert failing(backend, [tape]) == [tape]
    small = shrink(lambda schedule: bool(failing(backend, [schedule])), found[0])
    assert len(small.tape) <= len(tape.tape)
    assert failing(backend, [small]) == [small]


def test_task_that_spins(backend: str) -> None:
    """A task that looks again and again whether another is through does not go on for ever."""

    async def scenario() -> None:
        done = False

        async def work() -> None:
            nonlocal done
            for _ in range(5):
                await checkpoint()
            done = True

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not done:
                await checkpoint()

    for seed in range(30):
        run(
            scenario,
            backend=backend,
            schedule=Schedule(seed=seed, depth=2, horizon=50),
            max_turns=1_000,
        )


def test_what_is_no_task_has_no_priority() -> None:
    """Things that are due together and are no tasks, as on a network, come in a random order."""
    schedule = Schedule(seed=1, depth=1)
    choices = choices_of(schedule)
    choices.begin()
    assert len({choices.pick(3) for _ in range(30)}) == 3
    choices.begin()
    assert len({choices.pick(3, (1, 2, 3)) for _ in range(30)}) == 1


def test_callbacks_have_a_priority() -> None:
    """On asyncio plain callbacks take part, as one that waits for the tasks or goes before them."""

    async def scenario() -> tuple[str, ...]:
        import asyncio  # noqa: PLC0415 - the subject

        seen: list[str] = []

        async def step(name: str) -> None:
            seen.append(name)

        tasks = [asyncio.create_task(step(name)) for name in "ab"]
        asyncio.get_running_loop().call_soon(seen.append, "callback")
        await asyncio.wait(tasks)
        return tuple(seen)

    seen = {run(scenario, schedule=Schedule(seed=seed, depth=1)) for seed in range(40)}
    assert {order.index("callback") for order in seen} == {0, 1, 2}


# ---- which of them a search has ------------------------------------------------------------------


def test_every_second_schedule_at_random_has_priorities() -> None:
    """A search has choices at random in one run, and priorities of some depth in the next."""
    schedules = [at_random(number, 12) for number in range(2 * len(DEPTHS) + 2)]
    assert [schedule.seed for schedule in schedules] == [*range(len(schedules))]
    assert [schedule.depth for schedule in schedules[::2]] == [None] * (len(DEPTHS) + 1)
    assert [schedule.depth for schedule in schedules[1::2]] == [*DEPTHS, DEPTHS[0]]
    assert {schedule.horizon for schedule in schedules[1::2]} == {12}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": 1, "depth": 0}, ValueError, r"^depth=0 is less than 1\. Pass a whole number >="),
        ({"seed": 1, "depth": 1.0}, TypeError, r"^depth=1\.0 is a float, not an int\."),
        ({"depth": 2}, TypeError, r"^depth=2 is for random priorities\. Pass a seed too\.$"),
        ({"tape": {}, "depth": 2}, TypeError, r"^depth=2 is for random priorities\. Pass a se"),
        ({"seed": 1, "horizon": 0}, ValueError, r"^horizon=0 is less than 1\. Pass a whole numb"),
        ({"seed": 1, "horizon": None}, TypeError, r"^horizon=None is a NoneType, not an int\."),
    ],
)
def test_arguments_that_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    """A depth without a seed and bad numbers are named, with the way out."""
    with pytest.raises(error, match=message):
        Schedule(**options)  # type: ignore[arg-type] # they are wrong
