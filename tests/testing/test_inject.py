"""Victims: cancelled at each of their moments, and nobody else."""

from __future__ import annotations

import asyncio
import inspect
from types import coroutine
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.testing import (
    Deadlock,
    Schedule,
    Victim,
    current_simulation,
    injections,
    run,
    settle,
)
from mtaio.testing._inject import MODES, Mode
from tests.backends import BACKENDS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator


WRONG: Any = 1.0
PAIRS = [(name, mode) for name in BACKENDS for mode in MODES if (name, mode) != ("trio", "native")]


def modes(backend: str) -> list[Mode]:
    """Return the modes that a backend has."""
    return [mode for mode in MODES if mode != "native" or backend == "asyncio"]


async def thrice() -> str:
    """Suspend three times."""
    for _ in range(3):
        await anyio.sleep(1)
    return "done"


def test_victim_is_cancelled_at_its_moment(backend: str) -> None:
    """The victim is cancelled at the moment that was named, not before, and returns None."""

    async def scenario(mode: Mode, at: int) -> tuple[float, bool]:
        victim = Victim(mode, at)
        result = await victim(thrice)
        assert (result is None) is victim.cancelled
        assert (victim.calls, victim.fired, victim.moments) == (1, True, at)
        return current_simulation().time(), victim.cancelled

    for mode in modes(backend):
        ends = [run(scenario, mode, at, backend=backend) for at in (1, 2, 3)]
        assert (
            ends
            == {
                "checkpoint": [(0.0, True), (1.0, True), (2.0, True)],  # as it suspends
                # Woken, not running; without another wait asyncio has no occasion any more.
                "step": [(1.0, True), (2.0, True), (3.0, backend == "trio")],
                "native": [(1.0, True), (2.0, True), (3.0, True)],  # woken, and told at once
            }[mode]
        )


def test_arguments_and_errors_pass_through(backend: str) -> None:
    """A victim hands its arguments on, and its function's errors up."""

    async def add(a: int, b: int) -> int:
        await anyio.sleep(1)
        return a + b

    async def fail() -> None:
        await anyio.sleep(1)
        raise LookupError

    async def scenario(mode: Mode) -> None:
        victim = Victim(mode)
        assert await victim(add, 2, 3) == 5
        with pytest.raises(LookupError):
            await victim(fail)
        assert victim.calls == 2
        assert not victim.cancelled

    for mode in modes(backend):
        run(scenario, mode, backend=backend)


def test_moments_go_on_from_call_to_call(backend: str) -> None:
    """A victim that is called again counts on, and tells of the latest call."""

    async def scenario(mode: Mode) -> None:
        victim = Victim(mode, at=4)
        assert await victim(thrice) == "done"
        assert not victim.cancelled
        assert await victim(thrice) is None
        assert victim.cancelled
        assert await victim(thrice) == "done"
        assert (victim.calls, victim.moments, victim.fired) == (3, 4, True)
        assert not victim.cancelled

    for mode in modes(backend):
        run(scenario, mode, backend=backend)


@pytest.mark.parametrize("at", range(1, 5))
def test_nobody_else_is_cancelled(backend: str, at: int) -> None:
    """Whatever happens to the victim, its caller and its neighbours go on."""

    async def scenario(mode: Mode) -> None:
        victim = Victim(mode, at)
        done: list[str] = []

        async def neighbour() -> None:
            await thrice()
            done.append("neighbour")

        async with anyio.create_task_group() as group:
            group.start_soon(neighbour)
            await victim(thrice)
            await anyio.sleep(5)
            done.append("caller")
        assert sorted(done) == ["caller", "neighbour"]
        if backend == "asyncio":
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0

    for mode in modes(backend):
        run(scenario, mode, backend=backend)


def test_step_strikes_between_being_woken_and_running(backend: str) -> None:
    """The mode "step" hits a victim that was woken and has not run yet; "checkpoint" cannot."""

    async def scenario(victim: Victim) -> bool:
        lock = anyio.Event()
        handed: list[str] = []

        async def wait() -> None:
            await lock.wait()
            handed.append("taken")

        async with anyio.create_task_group() as group:
            group.start_soon(victim, wait)
            await settle()
            lock.set()
            given = True
            await anyio.sleep(1)
        return given and victim.cancelled and not handed and current_simulation().time() == 1.0

    assert [run(scenario, v, backend=backend) for v in injections("checkpoint")] == [True, False]
    hits = [run(scenario, v, backend=backend) for v in injections("step")]
    assert any(hits)


def test_native_strikes_through_shields() -> None:
    """Only the mode "native" gets through a shield, as ``asyncio.Task.cancel`` does."""

    async def shielded() -> str:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
        return "unharmed"

    async def scenario(mode: Mode) -> tuple[str | None, bool]:
        victim = Victim(mode, at=1)
        return await victim(shielded), victim.cancelled

    assert run(scenario, "checkpoint") == ("unharmed", False)
    assert run(scenario, "step") == ("unharmed", False)
    assert run(scenario, "native") == (None, True)


def test_native_victim_that_swallows_its_cancellation() -> None:
    """A function that goes on after a native cancellation returns, and owes nobody anything."""

    async def swallow() -> str:
        try:
            await anyio.sleep(1)
        except asyncio.CancelledError:
            return "swallowed"
        return "missed"

    async def scenario() -> None:
        victim = Victim("native", at=1)
        assert await victim(swallow) == "swallowed"
        assert (victim.fired, victim.cancelled) == (True, False)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await anyio.sleep(1)

    run(scenario)


@pytest.mark.parametrize(("backend", "mode"), PAIRS)
def test_cancellation_of_somebody_else(backend: str, mode: Any) -> None:
    """A victim that is cancelled from outside hands that on, and does not claim it."""

    async def scenario() -> None:
        victim = Victim(mode, at=50)
        with anyio.move_on_after(1.5) as scope:
            await victim(thrice)
        assert scope.cancelled_caught
        assert (victim.fired, victim.cancelled) == (False, False)

    run(scenario, backend=backend)


def test_cancellation_that_the_function_raises_itself() -> None:
    """A CancelledError that nobody has asked for gets through a native victim."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await Victim("native")(cancelled)

    run(scenario)


def test_victims_within_victims(backend: str) -> None:
    """Of two victims, one within the other, each is cancelled at its own moment, and alone."""

    async def scenario(mode: Mode, outer_at: int, inner_at: int) -> tuple[bool, bool, float]:
        outer, inner = Victim(mode, outer_at), Victim(mode, inner_at)

        async def both() -> None:
            await inner(thrice)
            await thrice()

        await outer(both)
        return outer.cancelled, inner.cancelled, current_simulation().time()

    for mode in modes(backend):
        late = 0 if mode == "checkpoint" else 1
        assert run(scenario, mode, 0, 0, backend=backend) == (False, False, 6.0)
        assert run(scenario, mode, 0, 2, backend=backend) == (False, True, 4.0 + late)
        assert run(scenario, mode, 5, 0, backend=backend) == (True, False, 4.0 + late)
        assert run(scenario, mode, 2, 0, backend=backend) == (True, False, 1.0 + late)
        assert run(scenario, mode, 4, 2, backend=backend)[:2] == (True, True)


def test_victim_in_the_middle_of_a_call(backend: str) -> None:
    """A victim that is called by two tasks at once is a slip that is named."""

    async def scenario() -> None:
        victim = Victim("checkpoint", at=7)
        async with anyio.create_task_group() as group:
            group.start_soon(victim, thrice)
            await settle()
            with pytest.raises(
                RuntimeError,
                match=r"^Victim\('checkpoint', at=7\) is in the middle of a call\. Make another",
            ):
                await victim(thrice)
        assert (victim.calls, victim.moments) == (1, 3)

    run(scenario, backend=backend)


def test_checkpoint_mode_drives_any_awaitable(backend: str) -> None:
    """Coroutines, generators, async generators and hand-made awaitables are all counted."""

    class Awaitable:
        def __await__(self) -> Generator[Any, Any, str]:
            yield from anyio.sleep(1).__await__()
            return "awaited"

    @coroutine
    def generator() -> Generator[Any, Any, str]:
        yield from anyio.sleep(1).__await__()
        return "generated"

    async def numbers() -> AsyncGenerator[int]:
        for n in range(2):
            await anyio.sleep(1)
            yield n

    async def collect() -> list[int]:
        return [n async for n in numbers()]

    async def scenario() -> None:
        afn: Any
        for afn, result, moments in (
            (Awaitable, "awaited", 1),
            (generator, "generated", 1),
            (collect, [0, 1], 2),
        ):
            victim = Victim()
            assert await victim(afn) == result
            assert victim.moments == moments

    run(scenario, backend=backend)


def test_checkpoint_mode_hands_errors_in(backend: str) -> None:
    """An error that the event loop throws in arrives, and the function may go on after it."""

    async def twice() -> str:
        with anyio.move_on_after(1):
            await anyio.sleep(5)
        await anyio.sleep(1)
        return "went on"

    async def scenario() -> None:
        victim = Victim()
        assert await victim(twice) == "went on"
        assert victim.moments >= 2

    run(scenario, backend=backend)


def test_checkpoint_mode_needs_no_simulation() -> None:
    """The mode "checkpoint" uses public API alone, and works in real time."""

    async def scenario() -> None:
        victim = Victim("checkpoint", at=1)
        await victim(anyio.sleep, 60)
        assert victim.cancelled

    anyio.run(scenario)


def test_victim_that_is_closed_while_it_waits() -> None:
    """A victim whose task is thrown away closes what it drives."""
    closed: list[str] = []

    @coroutine
    def suspend() -> Generator[None, None, None]:
        yield

    async def wait() -> None:
        try:
            await suspend()
        finally:
            closed.append("closed")

    async def main() -> None:
        await Victim()(wait)

    async def scenario() -> None:
        awaited = main()
        awaited.send(None)
        awaited.close()
        assert inspect.getcoroutinestate(awaited) == "CORO_CLOSED"

    run(scenario)
    assert closed == ["closed"]


def test_stack_and_trace_see_into_a_victim(backend: str) -> None:
    """Where a victim waits is shown as if it were not one, in every mode."""

    async def inside() -> None:
        await anyio.Event().wait()  # here

    async def scenario(mode: Mode) -> None:
        await Victim(mode)(inside)

    for mode in modes(backend):
        with pytest.raises(Deadlock) as caught:
            run(scenario, mode, backend=backend, schedule=Schedule())
        (stack,) = caught.value.stacks
        assert stack.frames[-1].endswith("inside: await anyio.Event().wait()  # here")
        (told,) = caught.value.__notes__
        assert "scenario#1  waits at  await anyio.Event().wait()  # here  (" in told


def test_trace_tells_who_is_struck(backend: str) -> None:
    """The trace says which task was struck, when and how."""

    async def scenario(victim: Victim) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(victim, thrice, name="the victim")
            group.start_soon(thrice)

    for mode in modes(backend):
        victim: Any = Victim(mode, at=1)
        schedule = Schedule()

        async def main(victim: Victim = victim) -> list[str]:
            await scenario(victim)
            return [str(step) for step in current_simulation().trace if step.struck]

        told = run(main, backend=backend, schedule=schedule)
        time = "t=0" if mode != "native" or backend == "asyncio" else ""
        assert len(told) == 1
        assert told[0].startswith(time)
        assert told[0].endswith(f"------- the victim#2 is cancelled ({mode}@1) -------")


@pytest.mark.parametrize(("backend", "mode"), PAIRS)
def test_injections_leave_no_moment_out(backend: str, mode: Any) -> None:
    """injections() strikes at the first moment, the second, and so on, and ends when none is."""
    seen: list[tuple[int, bool]] = []
    for victim in injections(mode):
        run(victim, thrice, backend=backend)
        seen.append((victim.at, victim.fired))
    assert seen == [(1, True), (2, True), (3, True), (4, False)]


def test_injections_into_nothing() -> None:
    """A scenario that does not call its victim is refused, because nothing was tried."""
    search = injections("step")
    next(search)
    with pytest.raises(
        RuntimeError,
        match=r"^injections\(\) cannot continue: Victim\('step', at=1\) was not called, so nothing "
        r"was cancelled\. Let the scenario await victim\(afn, \*args\)\.$",
    ):
        next(search)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (
            lambda: Victim("step", -1),
            ValueError,
            r"^at=-1 is less than 0\. Pass the number of a mo",
        ),
        (lambda: Victim("step", WRONG), TypeError, r"^at=1\.0 is a float, not an int\."),
        (
            lambda: Victim(WRONG),
            ValueError,
            r"^mode=1\.0 is unknown\. Pass one of 'checkpoint', 's",
        ),
        (
            lambda: injections(WRONG),
            ValueError,
            r"^mode=1\.0 is unknown\. Pass one of 'checkpoint'",
        ),
    ],
)
def test_arguments_that_are_refused(
    give: Callable[[], object], error: type[Exception], message: str
) -> None:
    """There are three modes, and the moment is a whole number; all else is refused at once."""
    with pytest.raises(error, match=message):
        give()


async def test_coroutine_instead_of_a_function() -> None:
    """victim(f()) is a slip that is named."""
    awaited: Any = thrice()
    victim = Victim()
    with pytest.raises(TypeError, match=r"^afn=<coroutine .* is not callable\. Pass the coroutine"):
        await victim(awaited)
    awaited.close()
    assert victim.calls == 0


async def test_function_that_is_not_async() -> None:
    """A function whose result cannot be awaited is Python's own TypeError, and frees the victim."""
    victim = Victim()
    plain: Any = int
    with pytest.raises(TypeError, match="await"):
        await victim(plain)
    assert await victim(thrice) == "done"


@pytest.mark.parametrize("mode", ["step", "native"])
def test_modes_that_need_a_simulation(mode: Any) -> None:
    """In real time there are no steps to strike between, and the refusal says what to do."""

    async def scenario() -> None:
        with pytest.raises(
            RuntimeError,
            match=rf"^Victim\('{mode}', at=1\) cancels between the steps of tasks, and no "
            r"simulation is running that shows them\. Use mtaio\.testing\.run\(\) or a virtual_b",
        ):
            await Victim(mode, at=1)(thrice)

    anyio.run(scenario)


async def test_simulation_of_another_thread() -> None:
    """A loop of its own in a worker thread has no steps, though a simulation runs elsewhere."""

    async def inside() -> None:
        with pytest.raises(RuntimeError, match="no simulation is running that shows them"):
            await Victim("step", at=1)(thrice)

    await anyio.to_thread.run_sync(anyio.run, inside)


def test_native_needs_asyncio() -> None:
    """The mode "native" is refused on trio."""
    trio = pytest.importorskip("trio")

    async def scenario() -> None:
        with pytest.raises(
            ValueError,
            match=r"^mode='native' cancels with asyncio\.Task\.cancel\(\), and this is not "
            r"asyncio\. Use 'checkpoint' or 'step' here\.$",
        ):
            await Victim("native")(thrice)

    run(scenario, backend="trio")
    trio.run(scenario)
