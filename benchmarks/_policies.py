"""
Searches: in which run each of them finds the planted bugs of docs/examples/breaking.

``python -m benchmarks._policies`` prints what docs/en/design/exploration.md has in one table, which
takes half an hour. Each bug that needs no cancellation is looked for from twenty starts, on both
backends: as it is planted, and in longer programs, in which each piece of work (``checkpoint()``)
takes several steps, or in which other tasks run that have nothing to do with it. A search by seeds
ends after 200 runs, as `explore` does; that of all schedules of few delays, which is the same from
each start, after 1,000.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing import Schedule, Victim, run
from mtaio.testing._search import at_random
from mtaio.testing.schedules import exhaustive
from tests.backends import BACKENDS
from tests.gallery.planted import BUGS, Bug

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

Program: TypeAlias = "Callable[[], Awaitable[None]]"

STARTS: Final = 20
MOST: Final = 200
MOST_DELAYED: Final = 1_000
APART: Final = 1_000_000
"""How far apart the starts of a search are."""

BYSTANDERS: Final = 4
THEIR_STEPS: Final = 20

PLANTED: Final = [bug for bug in BUGS if not bug.search.inject]


@dataclass(frozen=True)
class Setting:
    """In which form the bugs are looked for."""

    title: str
    work: int = 1
    company: bool = False


SETTINGS: Final = (
    Setting("as planted"),
    Setting("work takes 4 steps", work=4),
    Setting("work takes 8 steps", work=8),
    Setting("4 other tasks of 20 steps", company=True),
)


def program(bug: Bug, setting: Setting) -> Program:
    """Return the test of a bug in a setting."""

    async def work() -> None:
        for _ in range(setting.work):
            await checkpoint()

    async def beside() -> None:
        for _ in range(THEIR_STEPS):
            await checkpoint()

    module = inspect.unwrap(bug.explored).__globals__
    if "checkpoint" in module:
        module["checkpoint"] = work
    test = bug.once(bug.wrong, Victim())
    if not setting.company:
        return test

    async def in_company() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(BYSTANDERS):
                group.start_soon(beside)
            await test()

    return in_company


def found_in(program: Program, backend: str, schedules: Iterable[Schedule]) -> int | None:
    """Return the number of the first run that fails, None if none does."""
    for number, schedule in enumerate(schedules, 1):
        try:
            run(program, backend=backend, schedule=schedule, max_turns=10_000)
        except Exception:  # noqa: BLE001 - whatever it is, it is found
            return number
    return None


# ---- the searches ------------------------------------------------------------------------------


def delays(_start: int, _choices: int) -> Iterator[Schedule]:
    """All schedules of at most two delays."""
    return islice(exhaustive(2), MOST_DELAYED)


def random_choices(start: int, _choices: int) -> Iterator[Schedule]:
    """Each choice at random."""
    return (Schedule(seed=start + number) for number in range(MOST))


def of_depth(depth: int) -> Callable[[int, int], Iterator[Schedule]]:
    """Return a search by priorities alone."""

    def search(start: int, choices: int) -> Iterator[Schedule]:
        return (
            Schedule(seed=start + number, depth=depth, horizon=choices) for number in range(MOST)
        )

    return search


def as_explored(start: int, choices: int) -> Iterator[Schedule]:
    """What `explore` does: both in turn."""
    return (at_random(start + number, choices) for number in range(MOST))


SEARCHES: Final[dict[str, Callable[[int, int], Iterator[Schedule]]]] = {
    "delays": delays,
    "random choices": random_choices,
    **{f"depth {depth}": of_depth(depth) for depth in (2, 3, 4)},
    "in turn": as_explored,
}
ONCE: Final = "delays"


def results(test: Program, backend: str, starts: int) -> dict[str, list[int | None]] | None:
    """Return in which runs each search finds a bug; None if it needs no search."""
    plain = Schedule()
    if found_in(test, backend, [plain]) is not None:
        return None
    choices = max(1, len(plain.log))
    return {
        name: [
            found_in(test, backend, search(start * APART, choices))
            for start in range(1 if name == ONCE else starts)
        ]
        for name, search in SEARCHES.items()
    }


# ---- what is printed ---------------------------------------------------------------------------


def cell(found: list[int | None]) -> str:
    """Return the mean number of runs, an unsuccessful search counted in full; and how many were."""
    if len(found) == 1:
        return "–" if found[0] is None else str(found[0])  # noqa: RUF001 - typography
    mean = statistics.mean(MOST if number is None else number for number in found)
    missed = found.count(None)
    text = f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"  # noqa: PLR2004 - two digits
    return f"{text} ({missed / len(found):.0%} missed)" if missed else text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._policies", description=__doc__)
    parser.add_argument("--starts", type=int, default=STARTS, help="how many of each search")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="with commas")
    options = parser.parse_args()
    head = " | ".join(SEARCHES)
    for setting in SETTINGS:
        for backend in options.backends.split(","):
            print(f"\n{setting.title}, {backend}\n\n| bug | {head} |", flush=True)
            print("|---" * (1 + len(SEARCHES)) + "|")
            together: dict[str, list[int | None]] = {name: [] for name in SEARCHES}
            for bug in PLANTED:
                found = results(program(bug, setting), backend, options.starts)
                if found is None:
                    print(f"| {bug.name} | needs no search")
                    continue
                print(f"| {bug.name} | {' | '.join(map(cell, found.values()))} |", flush=True)
                for name, numbers in found.items():
                    together[name] += numbers
            hits = len(together[ONCE]) - together[ONCE].count(None)
            cells = [f"{hits} of {len(together[ONCE])}"]
            cells += [cell(numbers) for name, numbers in together.items() if name != ONCE]
            print(f"| all | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
