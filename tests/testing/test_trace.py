"""Traces: what happened, in readable form, the same on every Python."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.testing import Schedule, Victim, current_simulation, run
from mtaio.testing._diagnostics import KEPT, MACHINERY, SHOWN, digest, interleaving, place_of
from mtaio.testing.schedules import Place, Step
from tests.backends import BACKENDS
from tests.testing.traced import traces

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

DIGESTS = {
    "asyncio": "ce5970f8c33c946847cc014e277138a1647e55084603cc8cc18cd17f12702d5c",
    "trio": "6c1b846eb0b2689d89a69f4a1b726b441d39c0da5a7c1673ab9dfda037bb2d4d",
}
"""Of the program in traced.py, whatever the Python, the machine and the seed of its hashes."""


def test_digest(backend: str) -> None:
    """One seed gives one trace, on Python 3.11 to 3.14, down to each line at which a task waits."""
    steps = traces(backend)
    assert len(steps) > 300
    assert digest(steps) == DIGESTS[backend]


@pytest.mark.parametrize("hashes", ["0", "1"])
def test_digest_in_other_processes(hashes: str) -> None:
    """Neither the seed of hashes nor addresses change the trace."""
    program = (
        "from tests.testing.traced import traces\n"
        "from mtaio.testing._diagnostics import digest\n"
        "filler = [object() for _ in range(12345)]\n"
        f"for backend in {BACKENDS!r}: print(digest(traces(backend)))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [DIGESTS[backend] for backend in BACKENDS]


def test_digest_tells_traces_apart() -> None:
    """The digest depends on all that a step says but the path of its file."""
    place = Place("a.py", 3, function="f")
    step = Step(1.0, "f#1", waits_at=place)
    others = [
        Step(2.0, "f#1", waits_at=place),
        Step(1.0, "f#2", waits_at=place),
        Step(1.0, "f#1", waits_at=None),
        Step(1.0, "f#1", waits_at=Place("a.py", 4, function="f")),
        Step(1.0, "f#1", waits_at=Place("a.py", 3, function="g")),
        Step(1.0, "f#1", waits_at=place, struck=True),
    ]
    assert len({digest([each]) for each in (step, *others)}) == 7
    assert digest([step]) == digest(
        [Step(1.0, "f#1", waits_at=Place("elsewhere/a.py", 3, function="f"))]
    )
    assert digest([step, step]) != digest([step])


# ---- what a step says ----------------------------------------------------------------------------


def test_steps_of_a_run(backend: str) -> None:
    """Each step says when, which task, and where that waits now."""

    async def child() -> None:
        await anyio.sleep(1)

    async def scenario() -> tuple[Step, ...]:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child, name="of my own")
        return current_simulation().trace

    steps = run(scenario, backend=backend, schedule=Schedule())
    code = child.__code__
    waits = Place(code.co_filename, code.co_firstlineno + 1, function=code.co_qualname)
    assert [(step.time, step.task) for step in steps] == [
        (0.0, "scenario#1"),
        (0.0, "child#2"),
        (0.0, "of my own#3"),
        (1.0, "child#2"),
        (1.0, "of my own#3"),
    ]
    assert [step.waits_at for step in steps[1:]] == [waits, waits, None, None]
    assert steps[0].waits_at is not None
    assert steps[0].waits_at.function == scenario.__qualname__
    assert str(steps[1]) == (
        f"t=0        child#2  waits at  await anyio.sleep(1)  ({waits.function}, line {waits.line})"
    )
    assert str(steps[3]) == "t=1        child#2  ended"


def test_unnamed_tasks_of_asyncio() -> None:
    """A task of asyncio without a name is called after its function; it may get one late."""
    import asyncio  # noqa: PLC0415 - the subject

    async def child() -> None:
        pass

    async def scenario() -> set[str]:
        await asyncio.create_task(child())
        await asyncio.create_task(child(), name="Task-of-mine")
        late = asyncio.create_task(child())
        late.set_name("late")
        await late
        return {step.task for step in current_simulation().trace}

    names = {"scenario#1", "child#2", "Task-of-mine#3", "late#4"}
    assert run(scenario, schedule=Schedule()) == names


def test_trace_has_an_end(backend: str) -> None:
    """The trace keeps the last steps, so that a long run does not fill the memory."""

    async def scenario() -> tuple[Step, ...]:
        for n in range(KEPT + 100):
            await anyio.sleep(n % 2)
        return current_simulation().trace

    steps = run(scenario, backend=backend, schedule=Schedule())
    assert len(steps) == KEPT
    assert steps[-1].time > 4000


def test_trace_begins_when_somebody_asks(backend: str) -> None:
    """Without a schedule steps are noted from the first invariant or step victim on."""

    async def scenario() -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        sim = current_simulation()
        await anyio.sleep(1)
        before = sim.trace
        sim.always(lambda: True)
        await anyio.sleep(1)
        await Victim("step")(anyio.sleep, 1)
        return before, sim.trace

    before, after = run(scenario, backend=backend)
    assert before == ()
    assert [(step.time, step.task) for step in after] == [(1.0, "scenario#1"), (2.0, "scenario#1")]


def test_watch_begun_by_a_child(backend: str) -> None:
    """The step in which the watch begins is noted as its own task's."""

    async def child() -> None:
        await anyio.sleep(1)
        current_simulation().always(lambda: True)
        await anyio.sleep(1)

    async def scenario() -> list[str]:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
        return [step.task.partition("#")[0] for step in current_simulation().trace]

    assert run(scenario, backend=backend) == ["child", "child"]


# ---- where a task waits --------------------------------------------------------------------------


def waits_in(scenario: Any, backend: str) -> str:
    """Return the function in which the first task of a scenario waits first."""

    async def main() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(scenario)
            await anyio.sleep(1)
            group.cancel_scope.cancel()
        steps = current_simulation().trace
        place = next(step.waits_at for step in steps if not step.task.startswith("main"))
        assert place is not None
        return place.function.rpartition(".<locals>.")[2]

    return run(main, backend=backend, schedule=Schedule())


def test_place_is_in_ones_own_code(backend: str) -> None:  # noqa: C901 - many small functions
    """The place is the innermost line that is of neither Python, a backend, anyio nor mtaio."""

    @contextlib.asynccontextmanager
    async def manager() -> AsyncGenerator[None]:
        yield
        await anyio.sleep(5)

    class Awaitable:
        def __await__(self) -> Generator[Any, Any, None]:
            yield from anyio.sleep(5).__await__()

    async def generate() -> AsyncGenerator[None]:
        await anyio.sleep(5)
        yield

    async def through_an_exit_stack() -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(anyio.sleep, 5)

    async def through_a_manager() -> None:
        async with manager():
            pass

    async def through_an_awaitable() -> None:
        await Awaitable()

    async def through_a_generator() -> None:
        async for _ in generate():
            pass

    async def through_anext() -> None:
        await anext(generate(), None)

    async def in_a_comprehension() -> None:
        _ = [await limiter.acquire() for limiter in (anyio.Semaphore(0),)]  # type: ignore[func-returns-value] # it is to wait

    assert waits_in(through_an_exit_stack, backend) == "through_an_exit_stack"
    assert waits_in(through_a_manager, backend) == "manager"
    assert waits_in(through_an_awaitable, backend) == "Awaitable.__await__"
    assert waits_in(through_a_generator, backend) == "generate"
    assert waits_in(through_anext, backend) == "generate"
    assert waits_in(in_a_comprehension, backend) == "in_a_comprehension"


def test_awaitable_that_holds_its_own_coroutine(backend: str) -> None:
    """An awaitable that refers to what awaits it does not lead in a circle."""

    class Loop:
        def __init__(self) -> None:
            self.awaiting: Any = None
            self.inner: Any = None

        def __await__(self) -> Loop:
            self.inner = anyio.sleep(5).__await__()
            return self

        def __next__(self) -> Any:
            return next(self.inner)

        def send(self, value: Any) -> Any:
            return self.inner.send(value)

        def throw(self, *error: Any) -> Any:
            return self.inner.throw(*error)

    loop = Loop()

    async def inside() -> None:
        await loop  # type: ignore[misc] # it is an iterator by hand

    async def circular() -> None:
        loop.awaiting = inside()
        await loop.awaiting

    assert waits_in(circular, backend) == "inside"


def test_place_in_anyio(backend: str) -> None:
    """A task that AnyIO has started waits in AnyIO's own code, but not in what it hands on."""
    assert waits_in(partial(anyio.sleep, 5), backend) == "sleep"


def test_place_of_what_does_not_wait() -> None:
    """What is over, or no coroutine at all, is nowhere."""

    async def over() -> None:
        pass

    coroutine = over()
    coroutine.close()
    assert place_of(coroutine) is None
    assert place_of(object()) is None


@pytest.mark.parametrize(
    ("file", "machinery"),
    [
        (os.__file__, True),
        (contextlib.__file__, True),
        (anyio.__file__, True),
        (sys.modules["mtaio.testing"].__file__, True),
        ("<frozen _collections_abc>", True),
        (pytest.__file__, False),
        (__file__, False),
        (sys.modules["mtaio"].__file__, False),
        ("<string>", False),
    ],
)
def test_what_is_machinery(file: str, *, machinery: bool) -> None:
    """Python's own library and the backends are; installed packages and the tests are not."""
    assert bool(MACHINERY[file]) is machinery


# ---- an interleaving -----------------------------------------------------------------------------


def test_interleaving_lines_up() -> None:
    """Names are padded to the longest, and what is no step stands out."""
    steps = [
        Step(0.0, "f#1", waits_at=Place("nowhere.py", 3, function="f")),
        Step(0.5, "a longer name#2", waits_at=None),
        Step(1.0, "f#1 is cancelled (step@2)", waits_at=None, struck=True),
        Step(12345678.0, "f#1", waits_at=None),
    ]
    assert interleaving(steps) == (
        "  t=0        f#1              waits at    (f, line 3)\n"
        "  t=0.5      a longer name#2  ended\n"
        "  t=1        ------- f#1 is cancelled (step@2) -------\n"
        "  t=1.23457e+07 f#1              ended"
    )


def test_interleaving_without_a_step() -> None:
    """Where no task took a step, a line says so, or which victim was struck."""
    assert interleaving(()) == "  no task took a step"
    strike = Step(0.0, "struck", waits_at=None, struck=True)
    assert interleaving([strike]) == "  t=0        ------- struck -------"


def test_interleaving_shows_the_end() -> None:
    """Of a long trace the last steps are shown, and how many came before."""
    steps = [Step(float(n), "f#1", waits_at=None) for n in range(SHOWN + 5)]
    lines = interleaving(steps).splitlines()
    assert lines[0] == "  … 5 steps before"
    assert len(lines) == SHOWN + 1
    assert lines[-1] == f"  t={SHOWN + 4:<8} f#1  ended"


def test_interleaving_folds_repeats() -> None:
    """A step that comes again and again, and lines that do so in turn, are shown once."""
    spin, ping, pong = (Step(0.0, name, waits_at=None) for name in ("spin#1", "ping#2", "pong#3"))
    assert interleaving([spin] * 5 + [ping]).splitlines() == [
        "  t=0        spin#1  ended  (5 times)",
        "  t=0        ping#2  ended",
    ]
    assert interleaving([spin, *[ping, pong] * 30, spin]).splitlines() == [
        "  t=0        spin#1  ended",
        "  t=0        ping#2  ended",
        "  t=0        pong#3  ended",
        "  … these 2 lines 29 more times",
        "  t=0        spin#1  ended",
    ]
    assert interleaving([ping, ping, pong] * 3).splitlines() == [
        "  t=0        ping#2  ended  (2 times)",
        "  t=0        pong#3  ended",
        "  … these 2 lines 2 more times",
    ]
    assert len(interleaving([ping, pong] * 2).splitlines()) == 4  # hardly shorter otherwise


def test_interleaving_counts_what_it_leaves_out() -> None:
    """What came before the lines that are shown is counted in steps, repeats included."""
    busy = [Step(0.0, f"f#{n % 2}", waits_at=None) for n in range(5_000)]
    last = [Step(float(n), "f#1", waits_at=None) for n in range(SHOWN - 3)]
    first, *lines = interleaving(busy + last).splitlines()
    repeated = 1_000 - len(last)
    assert first == f"  … {5_000 - repeated} steps before"
    assert lines[2] == f"  … these 2 lines {repeated // 2 - 1} more times"
    assert len(lines) == SHOWN


def test_interleaving_of_a_livelock(backend: str) -> None:
    """Tasks that wake each other for ever are a few lines."""

    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(spin)
            group.start_soon(spin)

    with pytest.raises(AssertionError) as caught:
        run(scenario, backend=backend, schedule=Schedule(fair=True), max_turns=500)
    (told,) = caught.value.__notes__
    assert len(told.splitlines()) < 12
    assert re.search(r"^  … these 2 lines \d+ more times$", told, re.MULTILINE)


def test_interleaving_ends_where_the_run_was_broken_off(backend: str) -> None:
    """The steps of being cancelled are counted, not shown: they tell nothing of the failure."""

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(anyio.sleep_forever)

    with pytest.raises(AssertionError) as caught:
        run(scenario, backend=backend, schedule=Schedule())
    (told,) = caught.value.__notes__
    lines = told.splitlines()
    assert lines[-2] == "  t=0        ------- Deadlock: the run is aborted -------"
    assert re.fullmatch(r"  … [45] steps of cleaning up", lines[-1])
