"""
A failure made small: the fewest departures from the oldest task with which it still fails.

Promise: what `shrink` returns fails, and leaving out any one of its choices, or making it an older
candidate, does not; unless the budget of runs was spent first.

Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal import checks
from mtaio.testing._schedule import Schedule, refuse_other

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def shrink(
    fails: Callable[[Schedule], bool], schedule: Schedule, *, max_runs: int = 500
) -> Schedule:
    """
    Return a schedule that fails like ``schedule``, with as few choices other than 0 as it takes.

    Takes halves away first, then ever smaller parts, then single choices (Zeller's ddmin), then
    tries older candidates. What it returns is a tape that fits.

    Args:
        fails: Runs the program with a schedule, and tells whether it failed in the way looked for.
        schedule: One with which it does.
        max_runs: How often to call ``fails`` at most.

    Raises:
        ValueError: The program does not fail with ``schedule``, or not with the same choices again;
            or ``max_runs`` is less than 1.
        TypeError: ``fails`` is not callable, ``schedule`` no `Schedule`, or ``max_runs`` no int.
    """
    checks.callable_("fails", fails, way_out="Pass a function that runs the program.")
    refuse_other("schedule", schedule)
    checks.count("max_runs", max_runs, way_out="Pass how many runs to spend, a number >= 1.")
    if not fails(schedule) or not fails(best := schedule.played()):
        msg = (
            f"{schedule!r} does not fail, or does not do so twice: there is nothing to shrink. Let "
            f"fails() run the program with it and return True, from fresh objects each time."
        )
        raise ValueError(msg)
    runs = 0
    trials = _simpler(best.tape, len(best.tape))
    while runs < max_runs and (trial := next(trials, None)) is not None:
        runs += 1
        tape, size = trial
        attempt = Schedule(tape=tape, fair=best.fair, eager=best.eager, strict=False)
        if fails(attempt):
            best = attempt.played()
            trials = _simpler(best.tape, size)
    return best


def _simpler(tape: dict[int, int], size: int) -> Iterator[tuple[dict[int, int], int]]:
    """Yield tapes with up to ``size`` choices fewer or one that is older; and how many fewer."""
    marks = list(tape)
    while size:
        for start in range(0, len(marks), size):
            gone = set(marks[start : start + size])
            yield {at: choice for at, choice in tape.items() if at not in gone}, size
        size //= 2
    for at, choice in tape.items():
        if choice > 1:
            yield {**tape, at: choice - 1}, 1
