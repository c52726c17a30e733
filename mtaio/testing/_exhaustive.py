"""
Schedules to try, one after another: all that depart from the oldest task a few times, or drawn.

Promise: `exhaustive` yields each schedule with at most so many departures exactly once, and says so
when the program does not let it; when it ends without a failure, there is none within the bound.

Source: delay-bounded search follows Emmi, Qadeer and Rakamaric, "Delay-bounded scheduling" (2011).
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from mtaio._internal import checks
from mtaio.testing._schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy


def exhaustive(max_delays: int = 2, *, fair: bool = False) -> Iterator[Schedule]:
    """
    Yield every schedule of a program with at most ``max_delays`` choices other than the oldest.

    Run the program with each before you take the next: the search follows what it did. When the
    iterator ends, every such schedule has been run once, which proves that none of them fails. Most
    bugs need no more than two.

    Args:
        max_delays: How often a schedule may pass over the oldest candidate.
        fair: As for `Schedule`.

    Raises:
        TypeError: ``max_delays`` is no int, or ``fair`` no bool.
        ValueError: ``max_delays`` is negative.
        RuntimeError: The program was not run, or did not do the same on the same choices.

    Example:
        ```python
        import anyio

        from mtaio.testing import exhaustive, run


        async def two_tasks() -> str:
            order: list[str] = []

            async def note(name: str) -> None:
                order.append(name)

            async with anyio.create_task_group() as group:
                group.start_soon(note, "a")
                group.start_soon(note, "b")
            return "".join(order)


        orders = {run(two_tasks, schedule=schedule) for schedule in exhaustive(1)}
        assert orders == {"ab", "ba"}
        ```
    """
    checks.count("max_delays", max_delays, least=0, way_out="Pass a whole number >= 0.")
    Schedule(fair=fair)  # for its checks
    return _exhaustive(max_delays, fair)


def _exhaustive(max_delays: int, fair: bool) -> Iterator[Schedule]:  # noqa: FBT001 - one caller
    prefix: list[tuple[int, int]] = []  # choices to repeat; the last one is new
    delays = 0  # how many of them are not 0
    while True:
        tape = {at: choice for at, (choice, _) in enumerate(prefix) if choice}
        schedule = Schedule(tape=tape, fair=fair, strict=False)
        yield schedule
        log = list(schedule.log)
        _check_followed(schedule, prefix)
        delays += sum(choice > 0 for choice, _ in log[len(prefix) :])
        while log:
            choice, candidates = log.pop()
            delays -= choice > 0
            if choice + 1 < candidates and delays < max_delays:
                log.append((choice + 1, candidates))
                delays += 1
                break
        else:
            return
        prefix = log


def _check_followed(schedule: Schedule, prefix: list[tuple[int, int]]) -> None:
    """Raise ``RuntimeError`` unless the schedule was run, and ``prefix`` came out as it was."""
    if not schedule.runs:
        msg = (
            f"exhaustive() cannot go on: {schedule!r} has not been run. Pass each schedule to "
            f"mtaio.testing.run() before you take the next."
        )
        raise RuntimeError(msg)
    for at, (then, now) in enumerate(zip_longest(prefix, schedule.log[: len(prefix)])):
        if then != now:
            msg = (
                f"exhaustive() cannot go on: after the same {at} choices the program had "
                f"{0 if now is None else now[1]} candidates, and {then[1]} the time before. Give "
                f"each run fresh objects, and no real time, random numbers or threads."
            )
            raise RuntimeError(msg)


def schedules(
    max_delays: int = 4, *, horizon: int = 64, candidates: int = 6
) -> SearchStrategy[Schedule]:
    """
    Return a Hypothesis strategy for tapes, which shrinks towards the oldest candidate.

    Draw the schedule before the event loop starts, and run the program in a synchronous test: one
    `run` for each example. The schedules are not ``strict``.

    Args:
        max_delays: How many choices other than the oldest a tape has at most.
        horizon: The number of the last choice that may be one of them.
        candidates: Among how many candidates they choose.

    Raises:
        TypeError: An argument is no int.
        ValueError: An argument is out of range.
        ImportError: Hypothesis is not installed.
    """
    way_out = "Pass a whole number in range."
    checks.count("max_delays", max_delays, least=0, way_out=way_out)
    checks.count("horizon", horizon, least=0, way_out=way_out)
    checks.count("candidates", candidates, least=2, way_out=way_out)
    try:
        from hypothesis import strategies as st  # noqa: PLC0415 - an option of the user's
    except ModuleNotFoundError as error:
        msg = "schedules() needs hypothesis. Install it with: pip install hypothesis"
        raise ImportError(msg, name=error.name) from error
    tapes = st.dictionaries(
        st.integers(0, horizon), st.integers(1, candidates - 1), max_size=max_delays
    )
    return tapes.map(lambda tape: Schedule(tape=tape, strict=False))
