"""The first step in which a run that fails differs from one that passes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from mtaio.testing import Schedule, Victim, current_simulation, explore, run
from mtaio.testing._diagnostics import KEPT, digest, interleaving, parting
from mtaio.testing._schedule import choices_of
from mtaio.testing._world import world_here
from mtaio.testing.schedules import Place, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mtaio.testing._search import Search


def search_of(explored: Any) -> Search:
    """Return what is behind an explored function."""
    search: Search = explored.__mtaio_search__
    return search


def failure(explored: Callable[[], None]) -> BaseException:
    """Return with what a search ends."""
    try:
        explored()
    except Exception as error:  # noqa: BLE001 - is the result
        return error
    pytest.fail("the search has found nothing")


def beside(error: BaseException) -> list[str]:
    """Return the lines of a failure about the run that passes, less places in the code."""
    found = [each for each in error.__notes__ if each.startswith("it passes ")]
    assert len(found) <= 1
    return [re.sub(r"  \(.*", "", line) for note in found for line in note.splitlines()]


def in_turn(wrong: str, other: str | None = None) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return a test of three tasks that end in the wrong order; another is wrong differently."""

    async def turns() -> None:
        order = ""

        async def step(name: str) -> None:
            nonlocal order
            await cancel_shielded_checkpoint()
            order += name

        async with anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(step, name)
        if order == other:
            raise LookupError
        assert order != wrong

    return turns


# ---- which run is shown --------------------------------------------------------------------------


def test_run_without_the_last_departure(backend: str) -> None:
    """It does the same up to the last departure, at which another task goes on."""
    error = failure(explore(backends=[backend])(in_turn("bca")))
    told, _, again = error.__notes__
    assert told.startswith("under Schedule(tape={3: 1, 4: 1}):\n")
    assert beside(error) == [
        "it passes under Schedule(tape={3: 1}); step 6 is the first that differs:",
        "  here   t=0        step#4  ended",
        "  there  t=0        step#2  ended",
    ]
    assert again == f"to see it again: pytest --mtaio-replay {backend}/tape=3:1,4:1"
    steps = told.splitlines()[1:]
    assert steps[6 - 1] == "  t=0        step#4   ended"
    run(in_turn("bca"), backend=backend, schedule=Schedule(tape={3: 1}))


def test_last_departure_without_which_it_fails_otherwise(backend: str) -> None:
    """Where the run without the last departure fails in another way, the one before is left out."""
    error = failure(explore(backends=[backend], exhaustive=None)(in_turn("bca", other="bac")))
    assert isinstance(error, AssertionError)
    told, _, _ = error.__notes__
    choices = re.match(r"under Schedule\(tape=\{(\d: 1), (\d: 1)\}, eager=False\):", told)
    assert choices
    first, *_ = beside(error)
    assert first.startswith(f"it passes under Schedule(tape={{{choices[2]}}}, eager=False); step ")


async def give_up(victim: Victim) -> None:
    """Fail if the victim is cancelled."""

    async def work() -> None:
        await anyio.sleep(1)
        await anyio.sleep(1)

    await victim(work)
    assert not victim.cancelled


@pytest.mark.parametrize("mode", ["checkpoint", "step"])
def test_run_in_which_the_victim_is_spared(backend: str, mode: Any) -> None:
    """A failure that takes no choice is compared with the run without the cancellation."""
    error = failure(explore(backends=[backend], seeds=0, inject=[mode])(give_up))
    first, here, there = beside(error)
    assert first.startswith("it passes if the victim is not cancelled; step ")
    assert here.startswith("  here   t=")
    assert there.startswith("  there  t=")
    assert here.split()[1:] != there.split()[1:]


async def early(victim: Victim) -> None:
    """Fail if the victim is cancelled after two tasks have changed places."""
    order = ""

    async def step(name: str) -> None:
        nonlocal order
        await cancel_shielded_checkpoint()
        order += name

    async def last() -> None:
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(step, "a")
        group.start_soon(step, "b")
        await anyio.sleep(1)
        await victim(last)
    assert order == "ab" or not victim.cancelled


async def late(victim: Victim) -> None:
    """Fail if two tasks change places after the victim was cancelled."""
    order = ""

    async def step(name: str) -> None:
        nonlocal order
        await cancel_shielded_checkpoint()
        order += name

    await victim(checkpoint)
    async with anyio.create_task_group() as group:
        group.start_soon(step, "a")
        group.start_soon(step, "b")
    assert order == "ab" or not victim.cancelled


@pytest.mark.parametrize(
    ("test", "words"), [(early, "if the victim is not cancelled"), (late, "under Schedule(tape={")]
)
def test_run_that_goes_the_same_way_for_longer(backend: str, test: Any, words: str) -> None:
    """Of a run without the last departure and one without the cancellation the later is shown."""
    error = failure(explore(backends=[backend], seeds=100, exhaustive=None)(test))
    told, _, _ = error.__notes__
    assert told.startswith("under Schedule(tape={")
    assert not told.startswith("under Schedule(tape={}")
    first, here, there = beside(error)
    assert first.startswith(f"it passes {words}")
    number = int(first.partition("; step ")[2].partition(" ")[0])
    steps: list[list[str]] = []
    for line in told.splitlines()[1:]:
        times = re.search(r"  \((\d+) times\)$", line)
        steps += [line.split("  (")[0].split()] * (
            int(times[1]) if times else "-------" not in line
        )
    assert steps[number - 1] == here.split()[1:]
    assert here.split()[1:] != there.split()[1:]


# ---- where there is nothing to show --------------------------------------------------------------


def test_failure_without_a_choice(backend: str) -> None:
    """What fails in the plain run is compared with none, and no further run is made."""

    @explore(backends=[backend])
    async def test() -> None:
        raise LookupError

    assert beside(failure(test)) == []
    assert search_of(test).runs == 1


def test_runs_with_the_same_steps() -> None:
    """A victim that hides its cancellation takes the same steps: they do not tell anything."""

    @explore(backends=["asyncio"], seeds=0, inject=["checkpoint"])
    async def test(victim: Victim) -> None:
        hidden: list[object] = []

        async def work() -> None:
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class() as error:
                hidden.append(error)

        await victim(work)
        assert not hidden

    error = failure(test)
    assert len(error.__notes__) == 2
    assert beside(error) == []


def test_failure_without_the_cancellation(backend: str) -> None:
    """Where the run without the cancellation fails as well, it is not shown."""
    runs = 0

    @explore(backends=[backend], seeds=0, exhaustive=None, inject=["checkpoint"])
    async def test(victim: Victim) -> None:
        nonlocal runs
        runs += 1
        await victim(checkpoint)
        assert runs == 1

    assert beside(failure(test)) == []


@pytest.mark.parametrize(("trials", "shown"), [(500, True), (1, False)])
def test_budget(backend: str, monkeypatch: pytest.MonkeyPatch, trials: int, *, shown: bool) -> None:
    """The runs for the comparison are among those that may be spent on a failure, and are few."""
    monkeypatch.setattr("mtaio.testing._search.TRIALS", trials)
    for test, options in ((in_turn("bac"), {"seeds": 0}), (give_up, {"inject": ["step"]})):
        explored = explore(backends=[backend], **options)(test)
        assert bool(beside(failure(explored))) is shown


def test_number_of_runs(backend: str) -> None:
    """One run more is made than without the comparison, and one for a victim."""
    made: list[Schedule] = []

    @explore(backends=[backend], seeds=0, exhaustive=1)
    async def test() -> None:
        world = world_here()
        assert world is not None
        assert world.schedule is not None
        made.append(world.schedule)
        await in_turn("bac")()

    failure(test)
    # It was found, tried twice, and raised; without its choice it was tried, and then compared.
    *_, passes, fails = made
    assert (passes.tape, fails.tape) == ({}, {3: 1})
    assert [schedule.tape for schedule in made].count({3: 1}) == 4
    assert search_of(test).runs == len(made)


def test_replay_makes_one_run(backend: str) -> None:
    """To see a failure again is one run, in which one may print and stop: nothing is compared."""
    explored = explore(backends=[backend])(in_turn("bac"))
    search = search_of(explored)
    with search.told(replay=f"{backend}/tape=3:1"):
        error = failure(explored)
    assert search.runs == 1
    assert beside(error) == []


# ---- two traces ----------------------------------------------------------------------------------


def noted(backend: str, steps: int) -> Any:
    """Return what is noted of a run with so many steps."""

    async def scenario() -> None:
        for _ in range(steps - 1):
            await checkpoint()

    schedule = Schedule()
    run(scenario, backend=backend, schedule=schedule)
    return choices_of(schedule).trace


def test_long_runs_are_not_compared(backend: str) -> None:
    """Of a run with more steps than are kept the beginning is gone, with which one would begin."""
    short, other, long = (noted(backend, steps) for steps in (3, 4, KEPT))
    found = parting(short, other)
    assert found is not None
    assert found.number == 3
    assert (found.here.waits_at, found.there.waits_at is None) == (None, False)
    assert parting(short, short) is None
    assert parting(short, long) is None
    assert parting(long, short) is None


# ---- the host of a step --------------------------------------------------------------------------


def test_steps_name_their_hosts(backend: str) -> None:
    """In a simulated network each step has the name of the host that its task acts on, if any."""

    async def child() -> None:
        await checkpoint()

    async def scenario() -> tuple[Step, ...]:
        world = world_here()
        assert world is not None
        assert world.steps is not None
        steps = world.steps
        steps.host_of = lambda task: "stock" if str(steps.record(task)) == "child#2" else None
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        return current_simulation().trace

    steps = run(scenario, backend=backend, schedule=Schedule())
    assert [(step.task, step.host) for step in steps] == [
        ("scenario#1", None),
        ("child#2", "stock"),
        ("child#2", "stock"),
    ]
    assert str(steps[2]) == "t=0        stock: child#2  ended"
    assert interleaving(steps).splitlines()[2] == "  t=0        stock: child#2  ended"
    nowhere = [Step(step.time, step.task, waits_at=step.waits_at) for step in steps]
    assert digest(steps) != digest(nowhere)


def test_hosts_line_up() -> None:
    """Names are padded to the longest with its host; what is no step has none."""
    place = Place("nowhere.py", 3, function="f")
    steps = [
        Step(0.0, "main#1", waits_at=place),
        Step(0.0, "stock is killed", waits_at=None, struck=True),
        Step(0.0, "serve#2", waits_at=None, host="stock"),
    ]
    assert interleaving(steps).splitlines() == [
        "  t=0        main#1          waits at    (f, line 3)",
        "  t=0        ------- stock is killed -------",
        "  t=0        stock: serve#2  ended",
    ]
