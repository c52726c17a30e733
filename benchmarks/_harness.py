"""
Contests: ours beside rivals, in one run, as ratios.

Machines are noisy and differ, so no figure stands alone: contenders take turns, round after round,
and what counts is the median over the rounds of ours divided by the rival's in the same round. It
may be 5 % above its target: so much the same code differs from run to run.

A rival that is not installed, as not every Python has a wheel of each, is imported with `maybe`;
its contenders are left out, and `ABSENT` has its name.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}

OURS = "mtaio"

MARGIN = 1.05
"""How far a ratio may be above its target."""

ABSENT: set[str] = set()
"""The modules that a contender needed and that are not installed."""


class AbsentError(ImportError):
    """A contender needs a module that is not installed."""


class Absent:
    """A stand-in for a module that is not installed: whoever uses it finds that out."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        ABSENT.add(self._name)
        msg = f"{self._name} is not installed"
        raise AbsentError(msg, name=self._name)


def maybe(name: str) -> Any:
    """Return a module; if it is not installed, a stand-in which leaves out whoever uses it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return Absent(name)


def expect(held: bool, promise: str) -> None:  # noqa: FBT001 - reads as a statement
    """Raise if a contender was fast because it did something else."""
    if not held:
        msg = f"the contender should have {promise}"
        raise RuntimeError(msg)


Target: TypeAlias = "float | dict[str, float]"
"""A ratio, or one for each event loop that has one."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """
    Contenders that do the same work; each returns microseconds (or what ``unit`` says).

    One that makes event loops itself is a plain function.
    """

    title: str
    contenders: dict[str, Callable[[], Awaitable[float] | float]]
    targets: dict[str, Target] = field(default_factory=dict)
    """At most this ratio of ours to the named rival, and the margin."""
    unit: str = "µs"
    loops: tuple[str, ...] = ("asyncio", "uvloop", "trio")
    asyncio_only: frozenset[str] = frozenset()
    """Contenders that know nothing of trio."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measurement that has to lie between two bounds."""

    title: str
    measure: Callable[[], Awaitable[float] | float]
    unit: str
    least: float = float("-inf")
    most: float = float("inf")
    isolated: bool = False
    """In a new process each time: memory that earlier contests left behind would hide growth."""
    loops: tuple[str, ...] = ("asyncio", "uvloop", "trio")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the report."""

    title: str
    loop: str
    text: str
    ok: bool | None


def run_on(loop: str, measure: Callable[[], Awaitable[float] | float]) -> float:
    """Run one measurement in a fresh event loop, with the garbage of the last one gone."""
    gc.collect()
    if not iscoroutinefunction(measure):
        return cast("Callable[[], float]", measure)()
    measure_async = cast("Callable[[], Awaitable[float]]", measure)

    async def main() -> float:
        return await measure_async()

    return anyio.run(main, **LOOPS[loop])


def turns(contest: Contest, loop: str, rounds: int) -> dict[str, list[float]]:
    """
    Let the contenders take turns; return the times of each, round by round.

    One that is not installed is left out: it raises in its first turn.
    """
    taking_part = {
        name: measure
        for name, measure in contest.contenders.items()
        if loop != "trio" or name not in contest.asyncio_only
    }
    times: dict[str, list[float]] = {name: [] for name in taking_part}
    order = list(taking_part)
    for number in range(rounds):
        shift = number % len(order)
        for name in order[shift:] + order[:shift]:
            try:
                times[name].append(run_on(loop, taking_part[name]))
            except AbsentError:
                del times[name]
                order.remove(name)
    return times


def hold(contest: Contest, loop: str, rounds: int) -> list[Row]:
    """Let the contenders take turns; return a row with times and one for each rival."""
    times = turns(contest, loop, rounds)
    rows = []
    ours = times[OURS]
    rows.append(
        Row(
            title=contest.title,
            loop=loop,
            text=f"{statistics.median(ours):.3g} {contest.unit}",
            ok=None,
        )
    )
    for name, theirs in times.items():
        if name == OURS:
            continue
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        goal = contest.targets.get(name)
        target = goal.get(loop) if isinstance(goal, dict) else goal
        bound = "" if target is None else f" (at most {target:g})"
        rows.append(
            Row(
                title=f"  beside {name}: {statistics.median(theirs):.3g} {contest.unit}",
                loop=loop,
                text=f"{ratio:.3f} x{bound}",
                ok=None if target is None else ratio <= target * MARGIN,
            )
        )
    return rows


def run_alone(loop: str, measure: Callable[[], Awaitable[float] | float]) -> float:
    """Run one measurement, a function of a module, in a new process."""
    where = [measure.__module__, measure.__name__]
    command = [sys.executable, "-m", "benchmarks._isolated", *where, loop]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - own code
    return float(answer.stdout)


def take(figure: Figure, loop: str, rounds: int) -> list[Row]:
    """Take a figure several times; the median has to lie within its bounds. Or leave it out."""
    run = run_alone if figure.isolated else run_on
    try:
        value = statistics.median([run(loop, figure.measure) for _ in range(rounds)])
    except AbsentError:
        return []
    bounds = []
    if figure.least != float("-inf"):
        bounds.append(f"at least {figure.least:g}")
    if figure.most != float("inf"):
        bounds.append(f"at most {figure.most:g}")
    text = f"{value:.4g} {figure.unit}" + (f" ({', '.join(bounds)})" if bounds else "")
    ok = figure.least <= value <= figure.most if bounds else None
    return [Row(title=figure.title, loop=loop, text=text, ok=ok)]
