"""
Schedules: which task runs next, and which schedules to try.

Promise: one schedule and one program give one run, on every Python version; the schedule that
always takes the oldest task is the empty tape; a tape that does not fit the run is reported.
`exhaustive` yields each schedule with at most so many departures from the oldest task exactly once:
when it ends without a failure, there is none within the bound. What `shrink` returns fails, and
leaving out any one of its choices, or making it an older candidate, does not; unless the budget of
runs was spent first.
Why the candidates have one order: docs/en/design/exploration.md.
Sources: Emmi, Qadeer and Rakamaric, "Delay-bounded scheduling" (2011); Zeller and Hildebrandt,
"Simplifying and isolating failure-inducing input" (2002).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice, zip_longest
from typing import Any, Final, cast, final

from mtaio._internal import checks
from mtaio.testing._priorities import Priorities

_WAY_OUT = "Pass what a failure has printed, such as Schedule(tape={4: 1})."
_REPLAYED = "It was recorded with another program, backend or version: search again."


HORIZON: Final = 64
"""How many choices a run is thought to have, unless the user says otherwise."""


@final
class Schedule:
    """
    Decides which task takes the next step where more than one could.

    The choices of a run are numbered from 0. So are the candidates of each choice, beginning with
    the oldest: the task that was woken first, or, if several were woken together, the one created
    first. A *tape* lists the choices that are not candidate 0. A *seed* makes each choice at random
    or, with a *depth*, gives each task a random priority. Pass the schedule to `run`. It can be
    used for several runs, one after another. Its ``repr`` is what you need to repeat a run.

    Args:
        seed: The seed of the random choices; None for none.
        tape: A mapping from the number of a choice to the number of a candidate.
        fair: Whether each task that can run does so once before any runs twice, as trio guarantees.
            Otherwise, the choices may keep a task waiting for any number of steps, as a slow
            network would.
        eager: Whether plain callbacks of asyncio run right after the step before them, instead of
            when the schedule chooses. None for yes with a tape and no with a seed.
        depth: With a seed, use random priorities: the task with the highest priority runs, and
            ``depth - 1`` times the task that would run next gets the lowest one. This keeps tasks
            waiting for long stretches, as a slow peer would.
        horizon: With a depth, the expected number of choices in the run. After eight times as many
            at the latest, each choice is made at random, so that a task that spins does not keep
            the others from running.
        strict: Whether a tape that does not fit the run is an error at the end of the run.
            Otherwise, candidates are counted modulo their number, and choices that did not come up
            are ignored.

    Raises:
        TypeError: An argument has the wrong type, or there is a seed and a tape, or a depth
            without a seed.
        ValueError: The seed or a number on the tape is negative, or ``depth`` or ``horizon`` less
            than 1.

    Example:
        ```python
        from mtaio.testing import Schedule, run


        async def main() -> str:
            return "the same run each time"


        schedule = Schedule(seed=17)
        assert run(main, schedule=schedule) == run(main, schedule=schedule)
        ```
    """

    __slots__ = ("_choices", "_tape", "depth", "eager", "fair", "horizon", "strict")

    def __init__(
        self,
        *,
        seed: int | None = None,
        tape: Mapping[int, int] | None = None,
        depth: int | None = None,
        horizon: int = HORIZON,
        fair: bool = False,
        eager: bool | None = None,
        strict: bool = True,
    ) -> None:
        if seed is not None and tape is not None:
            msg = f"seed={seed!r} and tape={tape!r} exclude each other. Pass one of them."
            raise TypeError(msg)
        if seed is not None:
            checks.count("seed", seed, least=0, way_out="Pass a whole number >= 0.")
        if depth is not None:
            checks.count("depth", depth, way_out="Pass a whole number >= 1, or None.")
            if seed is None:
                msg = f"depth={depth!r} is for priorities at random. Pass a seed with it."
                raise TypeError(msg)
        checks.count("horizon", horizon, way_out="Pass a whole number >= 1.")
        self.depth: int | None = depth
        self.horizon: int = horizon
        self._tape: dict[int, int] = _checked({} if tape is None else tape)
        self._choices = Choices(seed, self._tape, depth, horizon)
        self.fair: bool = _flag("fair", fair)
        self.eager: bool = (seed is None) if eager is None else _flag("eager", eager)
        self.strict: bool = _flag("strict", strict)

    def __repr__(self) -> str:
        seed = self.seed
        parts = [f"tape={self._tape!r}" if seed is None else f"seed={seed!r}"]
        if self.depth is not None:
            parts.append(f"depth={self.depth!r}, horizon={self.horizon!r}")
        if self.fair:
            parts.append("fair=True")
        if self.eager != (seed is None):
            parts.append(f"eager={self.eager!r}")
        if not self.strict:
            parts.append("strict=False")
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def seed(self) -> int | None:
        """The start of the random choices; None on a tape."""
        return self._choices.seed

    @property
    def tape(self) -> dict[int, int]:
        """The choices other than 0 that were asked for; empty with a seed."""
        return dict(self._tape)

    @property
    def log(self) -> tuple[tuple[int, int], ...]:
        """Each choice of the latest run: the number of the candidate, and how many there were."""
        return tuple(self._choices.log)

    @property
    def runs(self) -> int:
        """How many runs it has scheduled so far."""
        return self._choices.runs


# ---- during a run ----------------------------------------------------------------------------


class Choices:
    """
    What a schedule chooses in the run that goes on, and what it chose in the latest.

    Args:
        seed: As for `Schedule`.
        tape: As for `Schedule`.
        depth: As for `Schedule`.
        horizon: As for `Schedule`.

    Invariants:
    - ``log`` holds each choice of the latest run: which candidate, out of how many;
    - ``trace`` holds what `mtaio.testing._diagnostics.Steps` noted of the latest run that is over;
    - `pick` never raises, since that would break the event loop; what does not fit is kept for
      `misfit`.
    """

    __slots__ = (
        "_depth",
        "_draw",
        "_horizon",
        "_misfit",
        "_priorities",
        "_tape",
        "log",
        "runs",
        "seed",
        "trace",
    )

    def __init__(
        self,
        seed: int | None,
        tape: dict[int, int],
        depth: int | None = None,
        horizon: int = HORIZON,
    ) -> None:
        self.seed: Final = seed
        self.log: list[tuple[int, int]] = []
        self.runs: int = 0
        self.trace: Collection[Any] = ()
        self._tape = tape
        self._depth = depth
        self._horizon = horizon
        self._priorities: Priorities | None = None
        self._misfit: str | None = None
        self._draw: Callable[[], float] | None = None

    def begin(self) -> None:
        """Forget the run before."""
        self.runs += 1
        self.log = []
        self._misfit = None
        self._draw = None if self.seed is None else _draws(self.seed)
        if self._depth is not None and self._draw is not None:
            self._priorities = Priorities(self._draw, self._depth, self._horizon)

    def pick(self, candidates: int, ages: Iterable[float] | None = None) -> int:
        """Return which of at least two candidates is next; if they are tasks, they have ages."""
        if self._priorities is not None and ages is not None:
            choice = self._priorities.pick(len(self.log), tuple(ages))
        elif self._draw is not None:
            choice = int(self._draw() * candidates)
        else:
            choice = self._tape.get(len(self.log), 0)
            if choice >= candidates:
                if self._misfit is None:
                    self._misfit = (
                        f"choice {len(self.log)} is {choice}, but there were {candidates} "
                        f"candidates"
                    )
                choice %= candidates
        self.log.append((choice, candidates))
        return choice

    def misfit(self) -> str | None:
        """Return in which way the tape does not fit the latest run, None if it does."""
        if self._misfit is None and self._tape and max(self._tape) >= len(self.log):
            return f"there were only {len(self.log)} choices"
        return self._misfit


def choices_of(schedule: Schedule) -> Choices:
    """Return what the event loop asks for a schedule's choices."""
    return schedule._choices  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module


def mismatch(schedule: Schedule) -> str | None:
    """Return why the tape does not fit the latest run, None if it does or need not."""
    misfit = choices_of(schedule).misfit() if schedule.strict else None
    return misfit and f"{schedule!r} does not fit this run: {misfit}. {_REPLAYED}"


def played(schedule: Schedule) -> Schedule:
    """Return the choices of the latest run on a tape, for replay and for `shrink`."""
    tape = {at: choice for at, (choice, _) in enumerate(schedule.log) if choice}
    return Schedule(tape=tape, fair=schedule.fair, eager=schedule.eager)


def retaped(schedule: Schedule, tape: Mapping[int, int]) -> Schedule:
    """Return a schedule with another tape, which need not fit."""
    return Schedule(tape=tape, fair=schedule.fair, eager=schedule.eager, strict=False)


_DRAWN: Final = 32
"""How many random numbers of a seed are kept."""


@lru_cache(maxsize=512)
def _first_draws(seed: int) -> tuple[float, ...]:
    """Return the first random numbers of a seed; to seed a generator takes as long as ten steps."""
    draw = random.Random(seed).random  # noqa: S311 - to be repeated, not to be secret
    return tuple(draw() for _ in range(_DRAWN))


def _later_draws(seed: int) -> Iterator[float]:
    draw = random.Random(seed).random  # noqa: S311 - ditto
    yield from islice(iter(draw, None), _DRAWN, None)


def _draws(seed: int) -> Callable[[], float]:
    """Return the random numbers of a seed; searches use the same few seeds again and again."""
    return chain(_first_draws(seed), _later_draws(seed)).__next__


def refuse_other(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a schedule."""
    if not isinstance(value, Schedule):
        msg = (
            f"{name}={value!r} is {checks.type_of(value)}, not a Schedule. Pass Schedule(seed=1), "
            f"Schedule(tape={{4: 1}}), or one after another from exhaustive()."
        )
        raise TypeError(msg)


def _flag(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        msg = f"{name}={value!r} is {checks.type_of(value)}, not a bool. Pass True or False."
        raise TypeError(msg)
    return value


def _checked(tape: object) -> dict[int, int]:
    """Return a tape as a dict of its own, without the zeros, if it is one."""
    if not isinstance(tape, Mapping):
        msg = f"tape={tape!r} is {checks.type_of(tape)}, not a mapping. {_WAY_OUT}"
        raise TypeError(msg)
    choices = cast("Mapping[int, int]", tape)
    for at, choice in choices.items():
        checks.count("number of a choice on the tape", at, least=0, way_out=_WAY_OUT)
        checks.count(f"choice {at} on the tape", choice, least=0, way_out=_WAY_OUT)
    return {at: choices[at] for at in sorted(choices) if choices[at]}


# ---- schedules to try, one after another -----------------------------------------------------


def exhaustive(max_delays: int = 2, *, fair: bool = False) -> Iterator[Schedule]:
    """
    Yield all schedules that pass over the oldest candidate at most ``max_delays`` times.

    Run the program with each schedule before you take the next, because the search depends on what
    the program did. When the iterator ends, each such schedule has been run once. Most bugs need no
    more than two delays.

    Args:
        max_delays: How many times a schedule may pass over the oldest candidate.
        fair: As for `Schedule`.

    Raises:
        TypeError: ``max_delays`` is not an int, or ``fair`` not a bool.
        ValueError: ``max_delays`` is negative.
        RuntimeError: The program was not run, or behaved differently for the same choices.

    Example:
        ```python
        import anyio

        from mtaio.testing import run
        from mtaio.testing.schedules import exhaustive


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


# ---- a failure made small --------------------------------------------------------------------


def shrink(
    fails: Callable[[Schedule], bool], schedule: Schedule, *, max_runs: int | None = 500
) -> Schedule:
    """
    Return a schedule that fails like ``schedule``, with as few choices as possible.

    It removes halves of the tape first, then smaller parts and single choices (Zeller's ddmin), and
    then tries older candidates. The result has a tape that fits the run.

    Args:
        fails: Runs the program with a schedule, and returns whether it failed in the same way.
        schedule: A schedule with which the program fails.
        max_runs: Maximum number of calls of ``fails``; None for no limit.

    Raises:
        ValueError: The program does not fail with ``schedule``, or not with the same choices again;
            or ``max_runs`` is less than 1.
        TypeError: ``fails`` is not callable, ``schedule`` is not a `Schedule`, or ``max_runs`` is
            not an int.
    """
    checks.callable_("fails", fails, way_out="Pass a function that runs the program.")
    refuse_other("schedule", schedule)
    if max_runs is not None:
        way_out = "Pass how many runs to spend, a number >= 1, or None for no limit."
        checks.count("max_runs", max_runs, way_out=way_out)
    most = math.inf if max_runs is None else max_runs
    if not fails(schedule) or not fails(best := played(schedule)):
        msg = (
            f"{schedule!r} does not fail, or does not do so twice: there is nothing to shrink. Let "
            f"fails() run the program with it and return True, from fresh objects each time."
        )
        raise ValueError(msg)
    runs = 0
    trials = _simpler(best.tape, len(best.tape))
    while runs < most and (trial := next(trials, None)) is not None:
        runs += 1
        tape, size = trial
        attempt = retaped(best, tape)
        if fails(attempt):
            best = played(attempt)
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
