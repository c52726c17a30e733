"""`Simulation.always`: looked at after every step, and what breaks it ends the run."""

from __future__ import annotations

import functools
from typing import Any

import anyio
import pytest

from mtaio.testing import (
    Deadlock,
    InvariantError,
    Schedule,
    Simulation,
    current_simulation,
    run,
    settle,
)


def test_broken_invariant_ends_the_run(backend: str) -> None:
    """The run is cancelled in the step that breaks it, cleans up, and fails with the line."""
    cleaned: list[float] = []

    async def scenario() -> None:
        sim = current_simulation()
        total = 0
        sim.always(lambda: total < 3)
        try:
            for _ in range(10):
                await anyio.sleep(1)
                total += 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            cleaned.append(sim.time())

    with pytest.raises(
        InvariantError,
        match=r"^the invariant does not hold at t=3\.0: sim\.always\(lambda: total < 3\)  \(.*"
        r"<lambda>, line \d+\)$",
    ):
        run(scenario, backend=backend)
    assert cleaned == [4.0]


@pytest.mark.parametrize("schedule", [None, Schedule(), Schedule(seed=1)], ids=repr)
def test_looked_at_after_every_step(backend: str, schedule: Schedule | None) -> None:
    """An invariant that breaks and is mended within a step holds; between steps it does not."""

    async def scenario(*, within: bool) -> None:
        whole = True
        current_simulation().always(lambda: whole)

        async def work() -> None:
            nonlocal whole
            whole = False
            if not within:
                await anyio.lowlevel.cancel_shielded_checkpoint()
            whole = True

        async with anyio.create_task_group() as group:
            group.start_soon(work)

    run(functools.partial(scenario, within=True), backend=backend, schedule=schedule)
    with pytest.raises(InvariantError):
        run(functools.partial(scenario, within=False), backend=backend, schedule=schedule)


@pytest.mark.parametrize("schedule", [None, Schedule()], ids=repr)
def test_last_step_counts(backend: str, schedule: Schedule | None) -> None:
    """What the function breaks in its very last step, or in its only one, is seen."""

    async def scenario(*, suspend: bool) -> None:
        broken: list[int] = []
        current_simulation().always(lambda: not broken)
        if suspend:
            await anyio.sleep(1)
        broken.append(1)

    for suspend in (False, True):
        with pytest.raises(InvariantError):
            run(functools.partial(scenario, suspend=suspend), backend=backend, schedule=schedule)


def test_first_look_is_at_once(backend: str) -> None:
    """An invariant that does not hold to begin with is told where it is stated."""

    async def scenario() -> None:
        with pytest.raises(InvariantError, match=r"^the invariant does not hold at t=0\.0: "):
            current_simulation().always(lambda: False)
        await anyio.sleep(1)

    run(scenario, backend=backend)


@pytest.mark.parametrize(
    "error", [LookupError("x"), pytest.fail.Exception("x"), SystemExit(3), KeyboardInterrupt()]
)
def test_predicate_that_raises(backend: str, error: BaseException) -> None:
    """What the predicate raises ends the run, and is raised as it is."""

    async def scenario() -> None:
        steps: list[int] = []

        def look() -> bool:
            if steps:
                raise error
            return True

        current_simulation().always(look)
        await anyio.sleep(1)
        steps.append(1)
        await anyio.sleep(1)

    with pytest.raises(type(error)) as caught:
        run(scenario, backend=backend)
    assert caught.value is error


def test_predicate_without_code(backend: str) -> None:
    """A predicate that is not a function of Python's own is told by its repr."""

    async def scenario() -> None:
        things = [1]
        current_simulation().always(things.copy)
        things.clear()
        await anyio.sleep(1)

    with pytest.raises(
        InvariantError, match=r"^the invariant .*: <built-in method copy of list objec"
    ):
        run(scenario, backend=backend)


def test_invariants_need_not_hold_in_the_cleanup(backend: str) -> None:
    """Once a run is broken off, for whatever reason, invariants are no longer looked at."""

    async def scenario() -> None:
        broken: list[int] = []
        current_simulation().always(lambda: not broken)
        try:
            await anyio.sleep_forever()
        finally:
            broken.append(1)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)

    with pytest.raises(Deadlock) as caught:
        run(scenario, backend=backend)
    assert caught.value.__cause__ is None


def test_several_invariants(backend: str) -> None:
    """The first that breaks is told, whichever it is."""

    async def scenario() -> None:
        sim = current_simulation()
        n = 0
        sim.always(lambda: n < 3)
        sim.always(lambda: n < 2)
        for _ in range(5):
            await anyio.sleep(1)
            n += 1

    with pytest.raises(InvariantError, match=r"at t=2\.0: sim\.always\(lambda: n < 2\)"):
        run(scenario, backend=backend)


# ---- refusals ------------------------------------------------------------------------------------


class Asking:
    """A callable whose call is async."""

    async def __call__(self) -> bool:
        """Say yes."""
        return True


async def ask() -> bool:
    """Say yes."""
    return True


@pytest.mark.parametrize(
    "predicate", [ask, functools.partial(ask), Asking()], ids=["def", "partial", "call"]
)
async def test_predicate_that_is_async(sim: Simulation, predicate: Any) -> None:
    """A predicate that would have to be awaited, and is always true, is a slip that is named."""
    with pytest.raises(
        TypeError,
        match=r"^predicate=.* is async, and nothing can wait here\. Pass a plain function without ",
    ):
        sim.always(predicate)


async def test_predicate_that_is_none(sim: Simulation) -> None:
    """always(f()) is a slip that is named."""
    value: Any = True
    with pytest.raises(TypeError, match=r"^predicate=True is a bool, which is not callable\. Pass"):
        sim.always(value)


def test_simulation_that_is_over(backend: str) -> None:
    """A simulation that is not running has no steps, and no time passes in it."""

    async def get() -> Simulation:
        return current_simulation()

    over = run(get, backend=backend)
    message = r"^there are no steps in <Simulation t=0\.0>: it is not running\. Call always\(\) in "
    with pytest.raises(RuntimeError, match=message):
        over.always(lambda: True)

    async def other() -> None:
        with pytest.raises(RuntimeError, match=message):
            over.always(lambda: True)
        with pytest.raises(
            RuntimeError,
            match=r"^time cannot pass in <Simulation t=0\.0>: it is not running\. Call advance\(\)",
        ):
            await over.advance(1)

    run(other, backend=backend)


async def test_other_threads(sim: Simulation) -> None:
    """Invariants and time belong to the loop's own thread."""

    async def elsewhere() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^time cannot pass in <Simulation t=0\.0>: it is not running in this thread\. C",
        ):
            await sim.advance(1)

    def look() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^there are no steps in <Simulation t=0\.0>: it is not running in this thread\.",
        ):
            sim.always(lambda: True)
        anyio.run(elsewhere)
        with pytest.raises(RuntimeError, match=r"^settle\(\) cannot see which tasks are blocked"):
            anyio.run(settle)

    await anyio.to_thread.run_sync(look)
