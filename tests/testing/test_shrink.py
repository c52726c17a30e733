"""A failure made small: what is left is needed, and it still fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.testing import Schedule, run
from mtaio.testing._schedule import choices_of, played
from mtaio.testing.schedules import shrink

if TYPE_CHECKING:
    from collections.abc import Callable


async def lost_update() -> None:
    """Add up from four tasks, each of which reads, lets others run, and writes."""
    total = 0

    async def add() -> None:
        nonlocal total
        before = total
        await anyio.lowlevel.cancel_shielded_checkpoint()
        total = before + 1

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(add)
            await anyio.lowlevel.cancel_shielded_checkpoint()
            await anyio.lowlevel.cancel_shielded_checkpoint()
            await anyio.lowlevel.cancel_shielded_checkpoint()
    assert total == 4


def fails_on(backend: str, ran: list[Schedule]) -> Callable[[Schedule], bool]:
    """Return a function that returns whether the program fails, and keeps what it was asked."""

    def fails(schedule: Schedule) -> bool:
        ran.append(schedule)
        try:
            run(lost_update, backend=backend, schedule=schedule)
        except AssertionError:
            return True
        return False

    return fails


def test_shrunk_tape_is_minimal(backend: str) -> None:
    """The result fails, and does not if any one choice is left out or made older."""
    ran: list[Schedule] = []
    fails = fails_on(backend, ran)
    seeds = [Schedule(seed=seed) for seed in range(10)]
    failing = [schedule for schedule in seeds if fails(schedule)]
    assert failing
    for schedule in failing:
        small = shrink(fails, schedule)
        assert (small.seed, small.strict) == (None, True)
        assert fails(small)
        assert len(small.tape) <= len(played(schedule).tape)
        for at, choice in small.tape.items():
            fewer = {k: v for k, v in small.tape.items() if k != at}
            older = {**fewer, at: choice - 1}
            for tape in (fewer, older):
                trial = Schedule(tape=tape, eager=small.eager, strict=False)
                assert trial.tape == small.tape or not fails(trial)


def test_shrink_by_halves() -> None:
    """A tape of which two choices matter comes down to these in few runs, however long it is."""
    asked: list[dict[int, int]] = []

    def fails(schedule: Schedule) -> bool:
        asked.append(schedule.tape)
        choices_of(schedule).begin()
        for at in range(256):
            choices_of(schedule).pick(4 if at != 200 else 3)
        log = schedule.log
        return log[17][0] >= 1 and log[200][0] >= 1

    small = shrink(fails, Schedule(tape=dict.fromkeys(range(256), 2)))
    assert small.tape == {17: 1, 200: 1}
    assert len(asked) < 60


def test_budget_of_runs() -> None:
    """No more runs are made than allowed, and the best so far is returned."""
    asked: list[dict[int, int]] = []

    def fails(schedule: Schedule) -> bool:
        asked.append(schedule.tape)
        choices_of(schedule).begin()
        log = [choices_of(schedule).pick(9) for _ in range(8)]
        return log[7] >= 1

    tape = dict.fromkeys(range(8), 8)
    assert shrink(fails, Schedule(tape=tape), max_runs=1).tape == tape
    assert len(asked) == 3  # the schedule, the same as played, and one more
    assert shrink(fails, Schedule(tape=tape), max_runs=2).tape == {4: 8, 5: 8, 6: 8, 7: 8}
    assert shrink(fails, Schedule(tape=tape), max_runs=4).tape == {6: 8, 7: 8}
    assert shrink(fails, Schedule(tape=tape), max_runs=None).tape == {7: 1}
    assert shrink(fails, Schedule(tape=tape)).tape == {7: 1}


def test_failure_that_needs_no_choice() -> None:
    """What fails on the empty tape comes down to it."""

    def fails(schedule: Schedule) -> bool:
        choices_of(schedule).begin()
        for _ in range(5):
            choices_of(schedule).pick(2)
        return True

    assert shrink(fails, Schedule(seed=1, fair=True)).tape == {}


def test_options_are_kept() -> None:
    """The result is as fair and as eager as the schedule was."""
    seen: set[tuple[bool, bool]] = set()

    def fails(schedule: Schedule) -> bool:
        seen.add((schedule.fair, schedule.eager))
        choices_of(schedule).begin()
        choices_of(schedule).pick(2)
        return True

    small = shrink(fails, Schedule(seed=0, fair=True, eager=True))
    assert seen == {(True, True)} == {(small.fair, small.eager)}


@pytest.mark.parametrize("outcomes", [[False], [True, False]])
def test_nothing_to_shrink(outcomes: list[bool]) -> None:
    """A schedule that does not fail, or does so only once, is refused."""
    answers = iter(outcomes)
    with pytest.raises(
        ValueError,
        match=r"^Schedule\(seed=1\) does not fail, or does not do so twice: there is nothing to "
        r"shrink\. Let fails\(\) run the program with it and return True",
    ):
        shrink(lambda _: next(answers), Schedule(seed=1))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (None, Schedule()),
            {},
            TypeError,
            r"^fails=None is a NoneType, which is not callable\. P",
        ),
        (
            (bool, {4: 1}),
            {},
            TypeError,
            r"^schedule=\{4: 1\} is a dict, not a Schedule\. Pass Sche",
        ),
        ((bool, Schedule()), {"max_runs": 0}, ValueError, r"^max_runs=0 is less than 1\. Pass how"),
        ((bool, Schedule()), {"max_runs": "9"}, TypeError, r"^max_runs='9' is a str, not an int\."),
    ],
)
def test_arguments_that_are_refused(
    arguments: tuple[Any, ...], options: Any, error: type[Exception], message: str
) -> None:
    """Each bad argument is named, with the reason and the way out."""
    with pytest.raises(error, match=message):
        shrink(*arguments, **options)
