"""Every schedule with few delays, each once: held against enumerations by other means."""

from __future__ import annotations

import sys
from itertools import permutations, product
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings

import mtaio
from mtaio.testing import Schedule, run
from mtaio.testing._schedule import played
from mtaio.testing.schedules import exhaustive, schedules

if TYPE_CHECKING:
    from collections.abc import Iterator

Log = tuple[tuple[int, int], ...]


async def letters(names: str, times: int) -> str:
    """Let a task for each name write that name so often, a step each time."""
    written: list[str] = []

    async def write(name: str) -> None:
        for _ in range(times):
            written.append(name)
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(write, name)
    return "".join(written)


def by_hand(names: str, times: int, backend: str, max_delays: int) -> Iterator[Log]:
    """Yield the log of each schedule with so few delays, found by growing tapes one by one."""
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        tape = waiting.pop()
        schedule = Schedule(tape=dict(enumerate(tape)))
        run(letters, names, times, backend=backend, schedule=schedule)
        yield schedule.log
        if sum(map(bool, tape)) < max_delays:
            for at in range(len(tape), len(schedule.log)):
                older = (*tape, *(0,) * (at - len(tape)))
                waiting.extend((*older, choice) for choice in range(1, schedule.log[at][1]))


@pytest.mark.parametrize("max_delays", range(3))
def test_each_schedule_once(backend: str, max_delays: int) -> None:
    """Up to the bound, exhaustive() has the schedules that growing tapes by hand finds, once."""
    found: list[Log] = []
    for schedule in exhaustive(max_delays):
        run(letters, "abc", 2, backend=backend, schedule=schedule)
        found.append(schedule.log)
    wanted = list(by_hand("abc", 2, backend, max_delays))
    assert len(wanted) == len(set(wanted))
    assert sorted(found) == sorted(wanted)
    assert max(sum(choice > 0 for choice, _ in log) for log in found) == max_delays


@pytest.mark.parametrize("fair", [False, True])
def test_every_interleaving(backend: str, *, fair: bool) -> None:
    """Without a bound that matters, every way comes up, and no other; fair ones round by round."""
    seen = {
        run(letters, "ab", 3, backend=backend, schedule=schedule)
        for schedule in exhaustive(20, fair=fair)
    }
    rounds = product(("ab", "ba"), repeat=3)
    assert seen == {"".join(way) for way in (rounds if fair else permutations("aaabbb"))}


def test_program_with_nothing_to_choose(backend: str) -> None:
    """A program of one task has one schedule, whatever the bound."""
    runs = 0
    for schedule in exhaustive(5):
        run(anyio.sleep, 1, backend=backend, schedule=schedule)
        runs += 1
    assert runs == 1


def test_schedule_that_was_not_run() -> None:
    """To go on without a run is a slip that is named."""
    search = exhaustive(1)
    next(search)
    with pytest.raises(
        RuntimeError,
        match=r"^exhaustive\(\) cannot continue: Schedule\(tape=\{\}, strict=False\) has not been "
        r"run\. Pass each schedule to mtaio\.testing\.run\(\) before you take the next\.$",
    ):
        next(search)


def run_all(search: Iterator[Schedule], sizes: Iterator[int], backend: str) -> None:
    """Run a program that has another number of tasks each time."""
    for schedule in search:
        run(letters, "abcd"[: next(sizes)], 1, backend=backend, schedule=schedule)


@pytest.mark.parametrize(("sizes", "candidates"), [([4, 3], r"\d"), ([3, 0], "0")])
def test_program_that_changes(backend: str, sizes: list[int], candidates: str) -> None:
    """A program that does not do the same on the same choices, or ends early, is refused."""
    with pytest.raises(
        RuntimeError,
        match=r"^exhaustive\(\) cannot continue: after the same \d+ choices the program had "
        rf"{candidates} candidates, and \d the time before\. Give each run fresh objects, and no ",
    ):
        run_all(exhaustive(2), iter(sizes), backend)


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (
            lambda: exhaustive(-1),
            ValueError,
            r"^max_delays=-1 is less than 0\. Pass a whole number",
        ),
        (lambda: exhaustive(1.0), TypeError, r"^max_delays=1"),  # type: ignore[arg-type] # the slip
        (lambda: exhaustive(1, fair=0), TypeError, r"^fair=0"),  # type: ignore[arg-type] # the slip
        (lambda: schedules(-1), ValueError, r"^max_delays=-1 is less than 0\. Pass a whole number"),
        (lambda: schedules(horizon=-1), ValueError, r"^horizon=-1 is less than 0\. Pass a whole"),
        (lambda: schedules(candidates=1), ValueError, r"^candidates=1 is less than 2\. Pass a"),
        (lambda: schedules("4"), TypeError, r"^max_delays='4"),  # type: ignore[arg-type] # the slip
    ],
)
def test_arguments_that_are_refused(give: Any, error: type[Exception], message: str) -> None:
    """Bad arguments are refused at once, not when the first schedule is taken."""
    with pytest.raises(error, match=message):
        give()


# ---- Hypothesis ----------------------------------------------------------------------------------


@settings(max_examples=50, database=None)
@given(schedule=schedules(3, horizon=10, candidates=4))
def test_drawn_schedules_fit(backend: str, schedule: Schedule) -> None:
    """Hypothesis draws tapes within the bounds, which run whatever the program."""
    assert len(schedule.tape) <= 3
    assert all(0 <= at <= 10 and 1 <= choice <= 3 for at, choice in schedule.tape.items())
    assert sorted(run(letters, "abc", 1, backend=backend, schedule=schedule)) == list("abc")


def test_drawn_schedules_shrink_towards_the_oldest(backend: str) -> None:
    """Hypothesis finds a schedule that fails, and ends with the simplest tape that does."""
    failed: list[dict[int, int]] = []

    @settings(max_examples=300, database=None, derandomize=True)
    @given(schedule=schedules(horizon=5))
    def search(schedule: Schedule) -> None:
        written = run(letters, "abc", 1, backend=backend, schedule=schedule)
        if written[0] == "c":
            failed.append(played(schedule).tape)
            raise LookupError

    with pytest.raises(LookupError):
        search()
    assert failed[-1] == {0: 2}


def test_without_hypothesis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Hypothesis is not installed, importing its strategy says how to install it."""
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "mtaio.testing._strategies")
    monkeypatch.delattr("mtaio.testing.schedules.schedules")
    with pytest.raises(ImportError, match=r"^schedules\(\) needs hypothesis\. Install it"):
        _ = mtaio.testing.schedules.schedules
