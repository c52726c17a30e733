"""`explore`: one test that is many runs, whose failure is small and can be seen again."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import warnings
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mtaio.testing import (
    ExplorationWarning,
    Schedule,
    Simulation,
    Victim,
    current_simulation,
    explore,
    run,
)
from mtaio.testing._inject import MODES
from mtaio.testing._search import Plan, Search, installed
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK: dict[str, Any] = {"seeds": 3, "exhaustive": 1}


def search_of(explored: Callable[..., None]) -> Search:
    """Return what is behind an explored function."""
    return cast("Search", cast("Any", explored).__mtaio_search__)


async def update(victim: Victim | None = None) -> None:
    """Lose an update whenever a second task runs between read and write."""
    total = 0

    async def add() -> None:
        nonlocal total
        before = total
        total = before + 1

    async def add_late() -> None:
        nonlocal total
        before = total
        await anyio.lowlevel.cancel_shielded_checkpoint()
        total = before + 1

    async with anyio.create_task_group() as group:
        group.start_soon(add_late)
        await anyio.sleep(1)
        group.start_soon(add_late)
        await anyio.lowlevel.cancel_shielded_checkpoint()
        await anyio.lowlevel.cancel_shielded_checkpoint()
        await anyio.lowlevel.cancel_shielded_checkpoint()
        group.start_soon(add if victim is None else lambda: victim(add))
    assert total == 3


def test_all_runs_of_a_test_that_passes() -> None:
    """The test runs on each backend, plain, exhaustively, at random and with each injection."""
    seen: list[tuple[str, int]] = []

    @explore(seeds=4, exhaustive=1)
    async def test(victim: Victim) -> None:
        seen.append((type(anyio.lowlevel.current_token().native_token).__name__, victim.at))
        await victim(anyio.sleep, 1)

    test()
    for loop in {name for name, _ in seen}:
        strikes = [at for name, at in seen if name == loop]
        modes = len(MODES) - (loop != "VirtualLoop")
        # The plain run, one exhaustive, the seeds; then each moment and one more, on two schedules.
        assert strikes[:6] == [0] * 6
        assert strikes[6:] == [1, 2] * 2 * modes
    assert len({name for name, _ in seen}) == len(BACKENDS)
    assert search_of(test).runs == len(seen)


@pytest.mark.parametrize("options", [{"exhaustive": 2, "seeds": 0}, {"exhaustive": None}])
def test_failure_is_found_and_made_small(backend: str, options: Any) -> None:
    """A lost update is found by both searches, and comes with the fewest choices it takes."""
    explored = explore(backends=[backend], **options)(update)
    with pytest.raises(AssertionError) as caught:
        explored()
    told, beside, again = caught.value.__notes__
    assert told.startswith("under Schedule(tape={")
    assert beside.startswith("it passes under Schedule(tape={")
    assert again.startswith(f"to see it again: pytest --mtaio-replay {backend}/tape=")
    plan = Plan.parse(again.rpartition(" ")[2])
    assert plan.schedule is not None
    assert 1 <= len(plan.schedule.tape) <= 2
    with search_of(explored).told(replay=str(plan)), pytest.raises(AssertionError):
        explored()
    assert search_of(explored).runs == 1


def test_plain_failure_is_not_searched(backend: str) -> None:
    """A test that fails without any choice fails in its first run."""

    @explore(backends=[backend])
    async def test() -> None:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        test()
    assert search_of(test).runs == 1
    assert caught.value.__notes__[1] == f"to see it again: pytest --mtaio-replay {backend}/tape="


@pytest.mark.parametrize(
    ("backend", "mode"),
    [(name, mode) for name in BACKENDS for mode in MODES if (name, mode) != ("trio", "native")],
)
def test_failure_under_injection(backend: str, mode: Any) -> None:
    """A failure that takes a strike is replayed with it."""

    @explore(backends=[backend], inject=[mode], seeds=0, exhaustive=None)
    async def test(victim: Victim) -> None:
        async def work() -> None:
            await anyio.sleep(1)
            await anyio.sleep(1)

        await victim(work)
        assert not victim.cancelled

    with pytest.raises(AssertionError) as caught:
        test()
    again = caught.value.__notes__[-1]
    assert again == f"to see it again: pytest --mtaio-replay {backend}/tape=/{mode}@1"
    with search_of(test).told(replay=again.rpartition(" ")[2]), pytest.raises(AssertionError):
        test()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), pytest.skip.Exception("x")])
def test_what_breaks_a_test_off_breaks_the_search_off(backend: str, error: BaseException) -> None:
    """Ctrl-C, exit and skip() get through at once and untouched, also in the middle of a search."""
    runs: list[int] = []

    @explore(backends=[backend], **QUICK)
    async def test() -> None:
        runs.append(1)
        if len(runs) == 3:
            raise error

    with pytest.raises(type(error)) as caught:
        test()
    assert caught.value is error
    assert len(runs) == 3
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(
    ("failing", "otherwise"), [({2}, None), ({2, 3}, None), ({2, 3, 4}, None), ({2}, OSError())]
)
def test_failure_that_does_not_come_again(
    backend: str, failing: set[int], otherwise: OSError | None
) -> None:
    """A failure that comes no more, or as another one, is raised all the same, and says so."""
    runs: list[int] = []

    @explore(backends=[backend], **QUICK)
    async def test() -> None:
        runs.append(1)
        if len(runs) in failing:
            raise LookupError(len(runs))
        if otherwise is not None and len(runs) > 2:
            raise otherwise

    with pytest.raises(LookupError, match=r"^2\b") as caught:
        test()
    assert caught.value.__notes__[-1] == (
        f"seen in run 2 of the search, under {backend}/tape=, but not again: something besides the "
        f"schedule decides, such as a thread, real time or shared objects"
    )


# ---- what a test may look like -------------------------------------------------------------------


def test_arguments_reach_every_run() -> None:
    """Arguments, defaults and those of a partial function are handed to each run."""
    seen: set[tuple[object, ...]] = set()

    @explore(**QUICK)
    async def test(
        first: int, victim: Victim, second: int = 2, *, third: int, sim: Simulation
    ) -> None:
        assert sim.time() == current_simulation().time() == 0
        assert isinstance(victim, Victim)
        await victim(anyio.sleep, 1)
        seen.add((first, second, third))

    test(1, third=3)
    test(1, 7, third=3)
    explore(**QUICK)(functools.partial(inspect.unwrap(test), 5))(third=3)
    assert seen == {(1, 2, 3), (1, 7, 3), (5, 2, 3)}
    with pytest.raises(TypeError, match="missing a required argument: 'first'"):
        test(third=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'victim'"):
        test(1, third=3, victim=Victim())


def test_explored_function_is_a_plain_one() -> None:
    """The result has the test's name, sentence and marks, and only the parameters left to fill."""

    @explore(**QUICK)
    @pytest.mark.parametrize("n", [1])
    async def test(n: int, victim: Victim, sim: Simulation) -> None:
        """Promise something."""

    function: Any = test
    assert (function.__name__, function.__doc__) == ("test", "Promise something.")
    assert [mark.name for mark in function.pytestmark] == ["parametrize"]
    assert list(inspect.signature(test).parameters) == ["n"]
    assert not inspect.iscoroutinefunction(test)


# ---- less than asked -----------------------------------------------------------------------------


def test_search_that_is_broken_off(backend: str) -> None:
    """When the exhaustive schedules are more than ``max_runs``, a warning says so."""

    @explore(backends=[backend], seeds=0, exhaustive=2, max_runs=10)
    async def test() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(anyio.sleep, 1)

    with pytest.warns(
        ExplorationWarning,
        match=rf"^test_search_that_is_broken_off\.<locals>\.test is not explored in full: "
        rf"exhaustive=2 was stopped on {backend} after 10 schedules\. Raise max_runs, lower ",
    ) as caught:
        test()
    assert caught[0].filename == __file__
    assert search_of(test).runs == 11
    with search_of(test).told(max_runs=0), warnings.catch_warnings():
        warnings.simplefilter("error")
        test()
    assert search_of(test).runs > 50


def test_search_without_limits(backend: str) -> None:
    """With None there is an end to the schedules and to the turns, but none to their number."""
    turns = 0

    @explore(backends=[backend], seeds=0, exhaustive=1, max_runs=None, max_turns=None)
    async def test() -> None:
        nonlocal turns
        for _ in range(1 if turns else 11_000):  # explored tests are broken off after 10,000
            await anyio.lowlevel.checkpoint()
            turns += 1

    test()
    assert search_of(test).max_runs == sys.maxsize
    assert turns > 11_000


def test_options_rule_inside_the_block_alone() -> None:
    """What the command line says holds for one call, and then the test's own numbers again."""

    @explore(backends=["asyncio"], seeds=2, exhaustive=None)
    async def test() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.sleep, 1)

    search = search_of(test)
    test()
    assert search.runs == 3
    with search.told(seeds=7):
        test()
        assert search.runs == 8
    with search.told(delays=1):
        test()
        assert search.runs > 4
    with search.told(seeds=0, delays=None, max_runs=None):
        test()
        assert search.runs == 1
    test()
    assert (search.runs, search.exhaustive, search.max_runs) == (3, None, 10_000)


# ---- replay --------------------------------------------------------------------------------------


def test_replay_of_a_strike_without_a_victim() -> None:
    """A plan with a strike is refused by a test that has no victim."""

    @explore(**QUICK)
    async def test() -> None:
        pass

    with (
        search_of(test).told(replay="asyncio/tape=/step@1"),
        pytest.raises(ValueError, match=r"^asyncio/tape=/step@1 cannot be replayed with .*\.test,"),
    ):
        test()


def test_replay_of_a_moment_that_does_not_come(backend: str) -> None:
    """A plan whose moment does not come does not fit, as a tape that is too long does not."""

    @explore(**QUICK)
    async def test(victim: Victim) -> None:
        await victim(anyio.sleep, 1)

    with (
        search_of(test).told(replay=f"{backend}/tape=/checkpoint@9"),
        pytest.raises(
            ValueError,
            match=rf"^{backend}/tape=/checkpoint@9 does not fit this run of .*\.test: there were "
            r"only 1 moments to cancel at\. It was recorded with another program, backend or ",
        ),
    ):
        test()


def test_replay_of_plain_runs(backend: str) -> None:
    """A plan may leave the order to the backend, and strike all the same."""

    @explore(**QUICK)
    async def test(victim: Victim) -> None:
        await victim(anyio.sleep, 1)
        assert not victim.cancelled

    with search_of(test).told(replay=backend):
        test()
    with (
        search_of(test).told(replay=f"{backend}/checkpoint@1"),
        pytest.raises(AssertionError) as caught,
    ):
        test()
    assert caught.value.__notes__ == [
        f"to see it again: pytest --mtaio-replay {backend}/checkpoint@1"
    ]


def test_backend_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that was asked for by name has to be there; by default it is left out."""
    import sys  # noqa: PLC0415 - next to its only use

    monkeypatch.delitem(sys.modules, "mtaio.testing._trio", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)

    @explore(backends=["trio"], **QUICK)
    async def test() -> None:
        pass

    with pytest.raises(ImportError, match=r"^backend='trio' needs trio\. Install it with: pip ins"):
        test()
    monkeypatch.setattr("mtaio.testing._search.find_spec", lambda name: name == "asyncio" or None)
    assert installed() == ("asyncio",)
    explore(**QUICK)(anyio.lowlevel.checkpoint)()


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": -1}, ValueError, r"^seeds=-1 is less than 0\. Pass a whole number >= 0\.$"),
        ({"seeds": None}, TypeError, r"^seeds=None is a NoneType, not an int\."),
        ({"exhaustive": -1}, ValueError, r"^exhaustive=-1 is less than 0\. Pass .* >= 0, or None"),
        ({"exhaustive": 1.0}, TypeError, r"^exhaustive=1\.0 is a float, not an int\."),
        ({"max_runs": 0}, ValueError, r"^max_runs=0 is less than 1\. Pass a whole number >= 1"),
        ({"max_turns": 0}, ValueError, r"^max_turns=0 is less than 1\. Pass a whole number >= 1"),
        ({"inject": "step"}, TypeError, r"^inject='step' is a str, not a tuple\. Pass \('step',\)"),
        ({"inject": ["hop"]}, ValueError, r"^mode='hop' is unknown\. Pass one of 'checkpoint', 's"),
        ({"inject": 3}, TypeError, r"^inject=3 is an int, not a tuple\. Pass \(3,\)\.$"),
        ({"backends": "trio"}, TypeError, r"^backends='trio' is a str, not a tuple\. Pass \('trio"),
        ({"backends": []}, ValueError, r"^backends=\[\] leaves nothing to run\. Pass some of 'asy"),
        ({"backends": ["uvloop"]}, ValueError, r"^backends=\['uvloop'\] has 'uvloop', which has n"),
        (
            {"backends": ["trio"], "inject": ["native"]},
            ValueError,
            r"^inject=\('native',\) works on asyncio alone, and backends=\['trio'\]\. Pass some",
        ),
    ],
)
def test_arguments_that_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Each bad argument is named where the test is defined."""
    with pytest.raises(error, match=message):
        explore(**options)


def plain() -> None:
    """Be no async function."""


async def generator() -> Any:
    """Be an async generator."""
    yield


@pytest.mark.parametrize("function", [plain, generator, explore(**QUICK)(update), 5])
def test_functions_that_are_refused(function: Any) -> None:
    """Only an async function can be explored."""
    with pytest.raises(TypeError, match=r"^cannot explore .*: it is not async\. Decorate an async"):
        explore(**QUICK)(function)


def test_injection_without_a_victim() -> None:
    """To ask for injection in a test without a victim is a slip that is named."""

    async def test() -> None:
        pass

    with pytest.raises(TypeError, match=r"^inject=\['step'\] has no task to cancel: <function "):
        explore(inject=["step"])(test)
    explore(inject=[], **QUICK)(test)()


def test_search_leaves_no_garbage() -> None:
    """Passing runs on asyncio leave nothing for the garbage collector."""
    import gc  # noqa: PLC0415 - next to its only use

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.sleep, 1)
        await asyncio.sleep(1)

    for schedule in (None, Schedule(), Schedule(seed=1)):
        run(scenario, schedule=schedule)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                run(scenario, schedule=schedule)
            assert gc.collect() == 0
        finally:
            gc.enable()


def test_strikes_under_more_schedules() -> None:
    """The more seeds there are, the more schedules each moment is struck under."""
    seen: list[int] = []

    @explore(seeds=0, exhaustive=None, inject=["step"], backends=["asyncio"])
    async def test(victim: Victim) -> None:
        seen.append(victim.at)
        await victim(anyio.sleep, 1)

    for seeds, schedules in ((0, 2), (399, 2), (400, 3)):
        seen.clear()
        with search_of(test).told(seeds=seeds):
            test()
        assert len(seen) == 1 + seeds + 2 * schedules


def test_explore_without_parentheses() -> None:
    """The same as with none of its options; what is not async is refused."""
    ran: list[int] = []

    @explore
    async def test_something() -> None:
        """Do something."""
        ran.append(1)

    test_something()
    assert search_of(test_something).seeds == search_of(explore()(update)).seeds
    assert test_something.__doc__ == "Do something."
    assert ran
    wrong: Any = explore
    with pytest.raises(TypeError, match=r"^cannot explore 200: it is not async\."):
        wrong(200)
