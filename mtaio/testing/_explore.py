"""
One test that is many runs: every schedule with few delays, many at random, and cancelled anywhere.

Promise: a failure is made as small as it goes, raised as it is, and carries the line with which to
see it again; the runs are the same each time, on every machine.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, Final, ParamSpec, TypeAlias, cast

from mtaio._internal import checks
from mtaio.testing import _schedule
from mtaio.testing._inject import MODES, Mode, Victim, injections
from mtaio.testing._plan import Plan
from mtaio.testing._run import run
from mtaio.testing._schedule import Schedule
from mtaio.testing._simulation import current_simulation
from mtaio.testing._threads import replaced
from mtaio.testing._world import StepsUnseenError

P = ParamSpec("P")

Test: TypeAlias = Callable[..., Coroutine[Any, Any, object]]
Given: TypeAlias = Callable[[Victim | None], Coroutine[Any, Any, object]]
"""A test that waits for nothing but its victim."""

GIVEN: Final = ("sim", "victim")
"""The parameters of a test that the search itself fills in."""


class ExplorationWarning(UserWarning):
    """A search did less than it was asked to, and says why."""


class Search:
    """
    What `explore` does with one test.

    The arguments are those of `explore`.
    """

    __slots__ = (
        "backends",
        "exhaustive",
        "given",
        "inject",
        "max_runs",
        "max_turns",
        "replay",
        "runs",
        "seeds",
        "test",
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
        max_turns: int,
    ) -> None:
        names = inspect.signature(test).parameters
        self.test: Test = test
        self.given: tuple[str, ...] = tuple(name for name in GIVEN if name in names)
        self.seeds: int = seeds
        self.exhaustive: int | None = exhaustive
        self.inject: tuple[Mode, ...] = inject
        self.backends: tuple[str, ...] | None = backends
        self.max_runs: int = max_runs
        self.max_turns: int = max_turns
        self.replay: str | None = None
        self.runs: int = 0

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run the test with ``args`` under every plan; stop at the first failure."""
        __tracebackhide__ = True
        self.runs = 0

        async def test(victim: Victim | None) -> None:
            __tracebackhide__ = True
            given = dict(kwargs)
            if "victim" in self.given:
                given["victim"] = Victim() if victim is None else victim
            if "sim" in self.given:
                given["sim"] = current_simulation()
            await self.test(*args, **given)

        test.__name__ = test.__qualname__ = getattr(self.test, "__qualname__", repr(self.test))
        if self.replay is not None:
            self._try(Plan.parse(self.replay), test)
            return
        for backend in self.backends or installed():
            with replaced(backend):
                self._search(backend, test)

    def _search(self, backend: str, test: Given) -> None:
        __tracebackhide__ = True
        try:
            self._try(Plan(backend, Schedule()), test)
        except StepsUnseenError as error:
            warnings.warn(f"not explored: {error}", ExplorationWarning, stacklevel=4)
            self._try(Plan(backend, None), test)
            return
        for plan in self._plans(backend):
            self._attempt(plan, test)

    @contextmanager
    def told(self, *, seeds: int | None, replay: str | None) -> Generator[None]:
        """Search otherwise inside the block: with so many seeds, or just one plan."""
        before = self.seeds
        self.seeds = before if seeds is None else seeds
        self.replay = replay
        try:
            yield
        finally:
            self.seeds = before
            self.replay = None

    def _plans(self, backend: str) -> Iterator[Plan]:
        if self.exhaustive is not None:
            yield from self._exhaustive(backend, self.exhaustive)
        for seed in range(self.seeds):
            yield Plan(backend, Schedule(seed=seed))
        for mode in self.inject:
            if mode == "native" and backend != "asyncio":
                continue
            for seeded in (False, True):
                for victim in injections(mode):
                    schedule = Schedule(seed=victim.at) if seeded else Schedule()
                    yield Plan(backend, schedule, victim)

    def _exhaustive(self, backend: str, max_delays: int) -> Iterator[Plan]:
        for number, schedule in enumerate(_schedule.exhaustive(max_delays)):
            if number >= self.max_runs:
                warnings.warn(
                    f"exhaustive={max_delays} was broken off on {backend} after "
                    f"{self.max_runs:,} schedules of {self.test!r}. Raise max_runs, lower "
                    f"exhaustive, or let the test do less.",
                    ExplorationWarning,
                    stacklevel=6,
                )
                return
            yield Plan(backend, schedule)

    def _attempt(self, plan: Plan, test: Given) -> None:
        """Run the test under one plan; if it fails, raise the simplest failure of that kind."""
        __tracebackhide__ = True
        try:
            self._try(plan, test)
        except Exception as error:  # noqa: BLE001 - raised again, smaller
            failure = error
        else:
            return
        kind = _kind(failure)

        def fails(schedule: Schedule) -> bool:
            trial = plan.under(schedule)
            try:
                self._try(trial, test)
            except Exception as error:  # noqa: BLE001 - is the question
                return _kind(error) == kind
            return False

        assert plan.schedule is not None  # noqa: S101 - only the first plan has none
        try:
            small = _schedule.shrink(fails, plan.schedule)
        except ValueError:
            failure.add_note(
                f"seen in run {self.runs:,} of the search, under {plan}, but not again: something "
                f"besides the schedule decides, such as a thread, real time or shared objects"
            )
            raise failure from None
        self._try(plan.under(small), test)

    def _try(self, plan: Plan, test: Given) -> None:
        __tracebackhide__ = True
        self.runs += 1
        try:
            run(
                test,
                plan.victim,
                backend=plan.backend,
                schedule=plan.schedule,
                max_turns=self.max_turns,
            )
        except Exception as error:
            error.add_note(f"to see it again: pytest --mtaio-replay {plan}")
            raise


def _kind(error: BaseException) -> object:
    """Return what two failures of one kind have in common."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return frozenset(map(_kind, group.exceptions))
    return type(error)


def installed() -> tuple[str, ...]:
    """Return the backends that can run under virtual time here."""
    return tuple(name for name in ("asyncio", "trio") if find_spec(name))


def explore(
    *,
    seeds: int = 200,
    exhaustive: int | None = 2,
    inject: Sequence[Mode] | None = None,
    backends: Sequence[str] | None = None,
    max_runs: int = 10_000,
    max_turns: int = 10_000,
) -> Callable[[Callable[P, Coroutine[Any, Any, object]]], Callable[P, None]]:
    """
    Turn an async test into one that is run again and again, each time in another way.

    On every backend it is run with every schedule of few delays, then with schedules at random, and
    then, if it has a parameter ``victim``, with that `Victim` cancelled at each of its moments. The
    first failure is shrunk and raised, with a note that says how to see it again. The result is a
    plain function; pytest finds it as one test, and it needs no pytest.

    The test makes its objects itself, afresh in each run, and leaves real time, threads and random
    numbers alone. It may have the parameters ``victim`` and ``sim`` (its `Simulation`); all others
    are the fixtures of pytest, which all its runs share.

    Args:
        seeds: How many schedules at random to try on each backend.
        exhaustive: How often the other schedules may depart from the oldest task, as
            `mtaio.testing.exhaustive` says; None for none of them.
        inject: The modes in which to strike the victim. Default: all that the backend has, if the
            test has a victim.
        backends: Their names. Default: those that are installed of asyncio and trio.
        max_runs: After how many of the exhaustive schedules on a backend to break off, with an
            `ExplorationWarning`.
        max_turns: As for `run`; runs are short here.

    Raises:
        TypeError: The test is not async, has no ``victim`` for ``inject``, or an argument has the
            wrong type.
        ValueError: An argument is out of range or unknown.

    Example:
        ```python
        import anyio

        from mtaio.testing import Victim, explore


        @explore(seeds=20, exhaustive=1)
        async def test_slot_comes_back(victim: Victim) -> None:
            semaphore = anyio.Semaphore(1)

            async def work() -> None:
                async with semaphore:
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                await victim(work)
            assert semaphore.value == 1


        test_slot_comes_back()
        ```
    """
    number = "Pass a whole number >= 0."
    checks.count("seeds", seeds, least=0, way_out=number)
    if exhaustive is not None:
        checks.count("exhaustive", exhaustive, least=0, way_out=f"{number[:-1]}, or None.")
    checks.count("max_runs", max_runs, way_out="Pass a whole number >= 1.")
    checks.count("max_turns", max_turns, way_out="Pass a whole number >= 1.")
    for mode in inject or ():
        Victim(mode)  # for its checks

    def decorate(test: Callable[P, Coroutine[Any, Any, object]]) -> Callable[P, None]:
        if not inspect.iscoroutinefunction(test):
            msg = f"cannot explore {test!r}: it is not async. Decorate an async def function."
            raise TypeError(msg)
        signature = inspect.signature(test)
        if inject and "victim" not in signature.parameters:
            msg = (
                f"inject={inject!r} has nobody to strike: {test!r} has no parameter 'victim'. Add "
                f"it, and let the test await victim(afn, *args)."
            )
            raise TypeError(msg)
        modes = tuple(MODES if inject is None else inject)
        search = Search(
            test,
            seeds=seeds,
            exhaustive=exhaustive,
            inject=modes if "victim" in signature.parameters else (),
            backends=None if backends is None else tuple(backends),
            max_runs=max_runs,
            max_turns=max_turns,
        )

        @wraps(test)
        def explored(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True
            search(*args, **kwargs)

        fixtures = [each for each in signature.parameters.values() if each.name not in GIVEN]
        function: Any = explored
        function.__signature__ = signature.replace(parameters=fixtures, return_annotation=None)
        function.__mtaio_search__ = search
        return explored

    return decorate
