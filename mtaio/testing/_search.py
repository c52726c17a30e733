"""
A search for a failure of one test: run after run, until one fails or the plans are used up.

Promise: a failure is shrunk as far as it goes, raised unchanged, and carries the command that
reproduces it and the first step in which it differs from a run that passes; none is lost, even if
it does not come twice. The runs are the same each time, on every machine. `Plan` is one of these
runs, as an object and as a word for a command line.
"""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from mtaio._internal import callables
from mtaio.testing._diagnostics import Parting, add_note, is_failure, kind_of, parting
from mtaio.testing._inject import MODES, Mode, Victim, injections
from mtaio.testing._schedule import Schedule, choices_of, played, retaped, shrink
from mtaio.testing._schedule import exhaustive as schedules_of
from mtaio.testing._simulation import current_simulation, run, virtual_backend
from mtaio.testing._threads import replaced
from mtaio.testing._world import StepsHiddenError

Test: TypeAlias = Callable[..., Coroutine[Any, Any, object]]
Call: TypeAlias = Callable[[Victim | None], Coroutine[Any, Any, object]]

BACKENDS: Final = ("asyncio", "trio")
"""The backends that have virtual time."""

GIVEN: Final = ("sim", "victim")
"""The parameters of a test that the search itself fills in."""


SEEDS_A_STRIKE: Final = 200
"""For so many seeds, each moment is struck under one more schedule at random."""

TRIALS: Final = 500
"""How many runs may be spent on a failure: to make it small, and to find one that passes."""


class ExplorationWarning(UserWarning):
    """A search did less than it was asked to do. The message says why."""

    __module__ = "mtaio.testing"  # as users import it


class Search:
    """
    What `explore` does with one test.

    The arguments are those of `explore`.
    """

    __slots__ = (
        "backends",
        "exhaustive",
        "inject",
        "max_runs",
        "max_turns",
        "name",
        "replay",
        "runs",
        "seeds",
        "test",
        "where",
    )

    def __init__(
        self,
        test: Test,
        *,
        seeds: int,
        exhaustive: int | None,
        inject: tuple[Mode, ...],
        backends: tuple[str, ...] | None,
        max_runs: int,
        max_turns: int | None,
    ) -> None:
        self.test: Test = test
        self.name: str = callables.name_of(test)
        self.seeds: int = seeds
        self.exhaustive: int | None = exhaustive
        self.inject: tuple[Mode, ...] = inject
        self.backends: tuple[str, ...] | None = backends
        self.max_runs: int = max_runs
        self.max_turns: int | None = max_turns
        self.replay: str | None = None
        self.where: str | None = None
        self.runs: int = 0

    def signature(self) -> inspect.Signature:
        """Return the parameters for which the caller has to give a value."""
        whole = inspect.signature(self.test)
        return whole.replace(
            parameters=[each for each in whole.parameters.values() if each.name not in GIVEN],
            return_annotation=None,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the test with ``args`` under every plan; stop at the first failure."""
        __tracebackhide__ = True
        self.runs = 0
        call = self._call(self.signature().bind(*args, **kwargs).arguments)
        if self.replay is not None:
            self._repeat(Plan.parse(self.replay), call)
            return
        for backend in self.backends or installed():
            virtual_backend(backend)  # for its checks
            with replaced(backend):
                self._search(backend, call)

    def _search(self, backend: str, call: Call) -> None:
        """Run the test under every plan on one backend."""
        __tracebackhide__ = True
        plain = Schedule()
        try:
            self._try(Plan(backend, plain), call)
        except StepsHiddenError as error:
            warnings.warn(f"{self.name} is not explored: {error}", ExplorationWarning, 4)
            with suppress(StepsHiddenError):  # it looks at steps itself: left out, as was said
                self._try(Plan(backend, None), call)
            return
        most = self.max_turns or FARTHEST
        for plan in self._plans(backend, max(1, min(len(plain.log), most // SHARE))):
            self._attempt(plan, call)

    @contextmanager
    def told(
        self,
        *,
        seeds: int | None = None,
        delays: int | None = None,
        max_runs: int | None = None,
        replay: str | None = None,
        where: str | None = None,
    ) -> Generator[None]:
        """
        Search otherwise inside the block, as far as an argument is not None.

        Args:
            seeds: In place of the test's own number.
            delays: In place of its ``exhaustive``.
            max_runs: In place of its own; 0 for no limit.
            replay: The text of the one plan to run.
            where: What pytest calls the test.
        """
        before = self.seeds, self.exhaustive, self.max_runs
        self.seeds = self.seeds if seeds is None else seeds
        self.exhaustive = self.exhaustive if delays is None else delays
        self.max_runs = self.max_runs if max_runs is None else max_runs or sys.maxsize
        self.replay = replay
        self.where = where
        try:
            yield
        finally:
            self.seeds, self.exhaustive, self.max_runs = before
            self.replay = self.where = None

    def _call(self, arguments: dict[str, Any]) -> Call:
        """Return the test as a function of its victim alone."""
        whole = inspect.signature(self.test)
        wanted = [name for name in GIVEN if name in whole.parameters]
        bound = whole.bind_partial()

        bound.arguments = arguments
        args, kwargs = bound.args, bound.kwargs

        async def call(victim: Victim | None) -> object:
            __tracebackhide__ = True
            if not wanted:
                return await self.test(*args, **kwargs)
            give = {"victim": lambda: victim or Victim(), "sim": current_simulation}
            bound.arguments = {**arguments, **{name: give[name]() for name in wanted}}
            return await self.test(*bound.args, **bound.kwargs)

        call.__name__ = call.__qualname__ = self.name
        call.__module__ = getattr(self.test, "__module__", __name__)
        return call

    # ---- which runs ------------------------------------------------------------------------------

    def _plans(self, backend: str, choices: int) -> Iterator[Plan]:
        """Yield what to run; a run has about so many choices."""
        if self.exhaustive is not None:
            yield from self._exhaustive(backend, self.exhaustive)
        for seed in range(self.seeds):
            yield Plan(backend, at_random(seed, choices))
        for mode in self.inject:
            if mode == "native" and backend != "asyncio":
                continue
            for seed in (None, *range(max(1, self.seeds // SEEDS_A_STRIKE))):
                for victim in injections(mode):
                    yield Plan(backend, Schedule(seed=seed), victim)

    def _exhaustive(self, backend: str, max_delays: int) -> Iterator[Plan]:
        for number, schedule in enumerate(schedules_of(max_delays)):
            if number >= self.max_runs:
                warnings.warn(
                    f"{self.name} is not explored in full: exhaustive={max_delays} was stopped on "
                    f"{backend} after {self.max_runs:,} schedules. Raise max_runs, lower "
                    f"exhaustive, or let the test do less.",
                    ExplorationWarning,
                    stacklevel=6,
                )
                return
            yield Plan(backend, schedule)

    # ---- one run ---------------------------------------------------------------------------------

    def _try(self, plan: Plan, call: Call, beside: str | None = None) -> None:
        """Run the test under one plan; a failure says what is beside it and how to see it again."""
        __tracebackhide__ = True
        self.runs += 1
        try:
            run(
                call,
                plan.victim,
                backend=plan.backend,
                schedule=plan.schedule,
                max_turns=self.max_turns,
            )
        except BaseException as error:
            if is_failure(error):
                if beside is not None:
                    add_note(error, "it passes ", beside)
                where = "" if self.where is None else f" {shlex.quote(self.where)}"
                add_note(error, "to see it again: ", f"pytest --mtaio-replay {plan}{where}")
            raise

    def _repeat(self, plan: Plan, call: Call) -> None:
        """Run the test under a plan that was written down."""
        __tracebackhide__ = True
        victim = plan.victim
        if victim is not None and "victim" not in inspect.signature(self.test).parameters:
            msg = (
                f"{plan} cannot be replayed with {self.name}, which has no parameter 'victim'. "
                f"Select the test that has printed it."
            )
            raise ValueError(msg)
        self._try(plan, call)
        if victim is not None and not victim.fired:
            msg = (
                f"{plan} does not fit this run of {self.name}: there were only {victim.moments} "
                f"moments to cancel at. It was recorded with another program, backend or version: "
                f"search again."
            )
            raise ValueError(msg)

    # ---- a failure -------------------------------------------------------------------------------

    def _attempt(self, plan: Plan, call: Call) -> None:
        """Run the test under one plan; if it fails, raise the simplest failure of that kind."""
        __tracebackhide__ = True
        failure = self._failure(plan, call)
        if failure is None:
            return
        found = self.runs
        try:
            smaller = self._smaller(plan, call, kind_of(failure))
            if smaller is not None:
                raise smaller
            add_note(
                failure,
                "seen in run ",
                f"{found:,} of the search, under {plan}, but not again: something besides the "
                f"schedule decides, such as a thread, real time or shared objects",
            )
            raise failure
        finally:
            failure = smaller = None  # or each would refer to itself, by way of its traceback

    def _failure(self, plan: Plan, call: Call, beside: str | None = None) -> BaseException | None:
        """Return with what the test fails under one plan, None if it passes."""
        __tracebackhide__ = True
        try:
            self._try(plan, call, beside)
        except BaseException as error:
            if is_failure(error):
                return error
            raise
        return None

    def _smaller(self, plan: Plan, call: Call, kind: object) -> BaseException | None:
        """Return a failure of that kind with as few choices as it takes, if it comes again."""
        noted: Collection[Any] = ()  # of the latest run that failed in this way

        def again(schedule: Schedule, beside: str | None = None) -> BaseException | None:
            nonlocal noted
            error = self._failure(plan.under(schedule), call, beside)
            if error is None or kind_of(error) != kind:
                return None
            noted = choices_of(schedule).trace
            return error

        assert plan.schedule is not None  # noqa: S101 - plans that are shrunk have one
        before = self.runs
        try:
            small = shrink(
                lambda schedule: again(schedule) is not None, plan.schedule, max_runs=TRIALS
            )
        except ValueError:
            return None
        left = TRIALS - (self.runs - before)
        return again(small, self._beside(plan.under(small), small, call, noted, left))

    def _beside(
        self, plan: Plan, small: Schedule, call: Call, noted: Collection[Any], left: int
    ) -> str | None:
        """
        Return how the run that failed, of which this was ``noted``, differs from one that passes.

        The more the two have in common, the more their difference tells. `shrink` has left only
        what the failure needs: without any one of its choices the test passes. The last is left
        out, since up to there the runs are the same; if that fails in some other way, the one
        before it. A victim that is not cancelled makes one more such run. Of these two, the one
        that goes the same way for longer is shown.

        Args:
            plan: What failed.
            small: Its schedule.
            call: The test.
            noted: The steps of the run that failed.
            left: How many runs may be made.
        """
        best: tuple[int, str] = (0, "")
        for gone in reversed(small.tape):
            if left <= 0:
                break
            left -= 1
            other = retaped(small, {at: n for at, n in small.tape.items() if at != gone})
            parted = self._parting(plan.under(other), other, call, noted)
            if parted is not None:
                best = parted.number, f"under {played(other)!r}; {parted}"
                break
        if plan.victim is not None and left > 0:
            other = retaped(small, small.tape)
            spared = Plan(plan.backend, other, Victim(plan.victim.mode))
            parted = self._parting(spared, other, call, noted)
            if parted is not None:
                text = f"if the victim is not cancelled; {parted}"
                best = max(best, (parted.number, text), key=itemgetter(0))
        return best[1] or None

    def _parting(
        self, plan: Plan, schedule: Schedule, call: Call, noted: Collection[Any]
    ) -> Parting | None:
        """Return where a run parts from the one of which this was ``noted``, None if it fails."""
        if self._failure(plan, call) is not None:
            return None
        return parting(noted, choices_of(schedule).trace)


DEPTHS: Final = (1, 2, 3, 4)
"""The depths of every second schedule at random, in turn."""

FARTHEST: Final = 10_000
"""The turns that count for the horizon where there is no limit to them."""

SHARE: Final = 20
"""The horizon is at most this part of the turns that are a `Livelock`: a task may spin so long."""


def at_random(number: int, choices: int) -> Schedule:
    """
    Return one of the schedules at random, the first of which is number 0.

    Every second one makes each choice at random, and finds what takes many small departures. The
    others have priorities, and find what takes a long one.

    Args:
        number: Which one; also its seed.
        choices: How many choices a run of the program has.
    """
    if number % 2 == 0:
        return Schedule(seed=number)
    depth = DEPTHS[number // 2 % len(DEPTHS)]
    return Schedule(seed=number, depth=depth, horizon=choices)


def installed() -> tuple[str, ...]:
    """Return the backends that can run under virtual time here."""
    return tuple(name for name in BACKENDS if find_spec(name))


# ---- plans -------------------------------------------------------------------------------------

_WAY_OUT: Final = "Pass what a failure has printed, such as asyncio/tape=4:1,9:2/step@5."

_SEED: Final = re.compile(r"seed=([0-9]+)")
_TAPE: Final = re.compile(r"tape=((?:[0-9]+:[0-9]+(?:,[0-9]+:[0-9]+)*)?)")
_DEPTH: Final = re.compile(r"depth=([1-9][0-9]*):([1-9][0-9]*)")
_STRIKE: Final = re.compile(rf"({'|'.join(MODES)})@([0-9]+)")
_EAGER: Final = {"eager": True, "lazy": False}


class Plan:
    """
    On which backend to run, under which schedule, and where to strike.

    Args:
        backend: The name of the backend.
        schedule: Who runs next; None for the backend's own order.
        victim: Who is cancelled when; None for no one.
    """

    __slots__ = ("backend", "schedule", "victim")

    def __init__(
        self, backend: str, schedule: Schedule | None, victim: Victim | None = None
    ) -> None:
        self.backend: str = backend
        self.schedule: Schedule | None = schedule
        self.victim: Victim | None = victim

    def __str__(self) -> str:
        parts = [self.backend]
        if self.schedule is not None:
            parts += _words(self.schedule)
        if self.victim is not None:
            parts.append(f"{self.victim.mode}@{self.victim.at}")
        return "/".join(parts)

    def under(self, schedule: Schedule) -> Plan:
        """Return the same plan under another schedule, with a new victim."""
        victim = self.victim and Victim(self.victim.mode, self.victim.at)
        return Plan(self.backend, schedule, victim)

    @classmethod
    def parse(cls, text: str) -> Plan:
        """
        Return the plan of which ``text`` is the text.

        Raises:
            ValueError: It is the text of none.
        """
        backend, *words = text.split("/")
        if backend not in BACKENDS:
            raise _refusal(text, f"{backend!r} is not a backend with virtual time")
        found: dict[str, str] = {}
        for word in words:
            part = _part(word)
            if part is None:
                raise _refusal(text, f"{word!r} is not part of a plan")
            if part in found:
                raise _refusal(text, f"{found[part]!r} and {word!r} cannot be combined")
            found[part] = word
        victim = None
        strike = _STRIKE.fullmatch(found.get("strike", ""))
        if strike is not None:
            victim = Victim(cast("Mode", strike[1]), int(strike[2]))
        if "order" not in found:
            if found.keys() & {"depth", "fair", "eager"}:
                raise _refusal(text, "it has neither a seed nor a tape")
            return cls(backend, None, victim)
        return cls(backend, _schedule(text, found), victim)


def _part(word: str) -> str | None:
    """Return which part of a plan a word is, None if it is none."""
    if _SEED.fullmatch(word) or _TAPE.fullmatch(word):
        return "order"
    if _DEPTH.fullmatch(word):
        return "depth"
    if _STRIKE.fullmatch(word):
        return "strike"
    return "eager" if word in _EAGER else "fair" if word == "fair" else None


def _schedule(text: str, found: dict[str, str]) -> Schedule:
    """Return the schedule of which these words of a plan speak."""
    fair = "fair" in found
    eager = _EAGER[found["eager"]] if "eager" in found else None
    depth = _DEPTH.fullmatch(found.get("depth", ""))
    seed = _SEED.fullmatch(found["order"])
    if seed is not None and depth is not None:
        return Schedule(
            seed=int(seed[1]), depth=int(depth[1]), horizon=int(depth[2]), fair=fair, eager=eager
        )
    if seed is not None:
        return Schedule(seed=int(seed[1]), fair=fair, eager=eager)
    if depth is not None:
        raise _refusal(text, f"{found['depth']!r} is for a seed, not for a tape")
    marks = re.findall(r"([0-9]+):([0-9]+)", found["order"])
    tape = {int(at): int(choice) for at, choice in marks}
    if len(tape) < len(marks):
        raise _refusal(text, "its tape chooses twice at one moment")
    return Schedule(tape=tape, fair=fair, eager=eager)


def _refusal(text: str, reason: str) -> ValueError:
    return ValueError(f"{text!r} cannot be replayed: {reason}. {_WAY_OUT}")


def _words(schedule: Schedule) -> list[str]:
    if schedule.seed is None:
        words = ["tape=" + ",".join(f"{at}:{choice}" for at, choice in schedule.tape.items())]
    else:
        words = [f"seed={schedule.seed}"]
    if schedule.depth is not None:
        words.append(f"depth={schedule.depth}:{schedule.horizon}")
    if schedule.fair:
        words.append("fair")
    if schedule.eager != (schedule.seed is None):
        words.append("eager" if schedule.eager else "lazy")
    return words
