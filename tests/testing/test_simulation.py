"""The simulation in a test's hand: advance, hold, settle."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio.testing import Deadlock, current_simulation, run, settle

if TYPE_CHECKING:
    from mtaio.testing import Simulation


async def test_fixture_is_the_running_simulation(sim: Simulation) -> None:
    """The fixture, `current_simulation` and anyio tell the same time."""
    await anyio.sleep(2.5)
    assert sim.time() == current_simulation().time() == anyio.current_time() == 2.5
    assert repr(sim) == "<Simulation t=2.5>"


async def test_advance_passes_exactly_that_time(sim: Simulation) -> None:
    """Time is exactly where advance() was to take it, also between other deadlines."""
    woken: list[float] = []

    async def tick() -> None:
        while True:
            await anyio.sleep(1)
            woken.append(sim.time())

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await settle()
        await sim.advance(2.5)
        assert (sim.time(), woken) == (2.5, [1.0, 2.0])
        await sim.advance(0.5)
        assert (sim.time(), woken) == (3.0, [1.0, 2.0, 3.0])
        group.cancel_scope.cancel()


async def test_advance_returns_when_all_that_is_due_is_done(sim: Simulation) -> None:
    """What follows, at that very moment, from a timer due at it has happened as well."""
    done = False

    async def work() -> None:
        nonlocal done
        await anyio.sleep(1)
        for _ in range(30):
            await anyio.lowlevel.checkpoint()
        done = True

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await settle()
        await sim.advance(1)
        assert done


async def test_advance_waits_for_threads(sim: Simulation) -> None:
    """What worker threads do at the moment to which time has come is part of that moment."""
    log: list[float] = []

    def work() -> None:
        anyio.from_thread.run(anyio.sleep, 2)
        time.sleep(0.05)  # real work, after a wait in virtual time
        log.append(sim.time())

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: anyio.to_thread.run_sync(work))
        await sim.advance(2)
        assert log == [2.0]
        group.start_soon(lambda: anyio.to_thread.run_sync(time.sleep, 0.05))
        await sim.advance(0)
        group.start_soon(lambda: anyio.getaddrinfo("localhost", 80))
        await sim.advance(0)
        assert sim.time() == 2.0


async def test_tasks_that_advance_do_not_wait_for_each_other(sim: Simulation) -> None:
    """Several tasks may advance at once; the last to arrive moves the time."""
    arrived: list[tuple[int, float]] = []

    async def advance(seconds: int) -> None:
        await sim.advance(seconds)
        arrived.append((seconds, sim.time()))

    async with anyio.create_task_group() as group:
        for seconds in (2, 1, 3):
            group.start_soon(advance, seconds)
        with anyio.move_on_after(0.5):
            await sim.advance(1)
    assert arrived == [(1, 1.0), (2, 2.0), (3, 3.0)]


async def test_advance_by_nothing_settles(sim: Simulation) -> None:
    """advance(0) lets the others run, and time stays."""
    ran = False

    async def work() -> None:
        nonlocal ran
        await anyio.lowlevel.checkpoint()
        ran = True

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await sim.advance(0)
        assert ran
        assert sim.time() == 0.0


async def test_cancelled_advance_leaves_nothing(sim: Simulation) -> None:
    """A cancelled advance() leaves no timer: nothing wakes anybody at the moment it aimed at."""
    with anyio.move_on_after(1):
        await sim.advance(5)
    assert sim.time() == 1.0
    await sim.advance(1)
    assert sim.time() == 2.0


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (-1, ValueError, r"^seconds=-1 is less than 0\. Pass the seconds of virtual time"),
        (math.nan, ValueError, r"^seconds=nan is not a number\. Pass the seconds"),
        (math.inf, ValueError, r"^seconds=inf would never pass\. Pass the seconds"),
        ("1", TypeError, r"^seconds='1' is a str, not a number\. Pass the seconds"),
    ],
)
async def test_advance_refuses(
    sim: Simulation, seconds: float, error: type[Exception], message: str
) -> None:
    """advance() takes finite seconds >= 0 alone."""
    with pytest.raises(error, match=message):
        await sim.advance(seconds)


async def test_settle_lets_everybody_run_and_keeps_the_time(sim: Simulation) -> None:
    """settle() returns when every other task is blocked, and no timer has fired."""
    steps: list[str] = []

    async def work() -> None:
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        steps.append("blocked")
        await anyio.sleep(1)
        steps.append("woken")

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await settle()
        assert (sim.time(), steps) == (0.0, ["blocked"])
    assert (sim.time(), steps) == (1.0, ["blocked", "woken"])


async def test_settling_tasks_do_not_wait_for_each_other() -> None:
    """A task that settles counts as blocked, and so does a cancelled one."""
    settled: list[int] = []

    async def work(n: int) -> None:
        await settle()
        settled.append(n)

    async def give_up() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await settle()

    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(work, n)
            group.start_soon(give_up)
    assert sorted(settled) == [0, 1, 2]


@pytest.mark.parametrize("call", ["settle", "current_simulation"])
def test_outside_a_simulation(call: str) -> None:
    """Where no simulation runs, the refusal says how to get one."""
    message = (
        r"^(settle\(\) cannot see which tasks .*|current_simulation\(\) has nothing to return): "
        r"no simulation is running\. Start one with mtaio\.testing\.run\(\)"
    )

    async def ask() -> None:
        await settle() if call == "settle" else current_simulation()

    with pytest.raises(RuntimeError, match=message):
        anyio.run(ask)


async def test_held_clock_stands_still(sim: Simulation) -> None:
    """While the clock is held no timer fires, and afterwards all do."""
    woken: list[float] = []

    async def sleep() -> None:
        await anyio.sleep(1)
        woken.append(sim.time())

    arrived = anyio.Event()
    token = anyio.lowlevel.current_token()

    def foreign_thread() -> None:
        anyio.from_thread.run_sync(arrived.set, token=token)

    async with anyio.create_task_group() as group:
        group.start_soon(sleep)
        with sim.hold(), sim.hold():
            thread = threading.Thread(target=foreign_thread)
            thread.start()
            await arrived.wait()
            assert (sim.time(), woken) == (0.0, [])
    assert woken == [1.0]
    thread.join()


def test_held_clock_and_nothing_happening_is_a_deadlock(backend: str) -> None:
    """A hold during which nothing comes, though nothing real is awaited, is stuck."""

    async def scenario() -> None:
        with current_simulation().hold():
            await anyio.sleep(1)

    with pytest.raises(
        Deadlock,
        match=r"^the run is blocked at t=0\.0 with its clock held, and nothing has happened for "
        r"0\.01 s of real time\. End the hold\(\) earlier, or raise grace=0\.01\.\n",
    ):
        run(scenario, backend=backend, grace=0.01)


async def test_hold_belongs_to_the_loop(sim: Simulation) -> None:
    """A hold from another thread is refused, since the loop would not notice its end."""

    def hold() -> None:
        with sim.hold():
            pytest.fail("it must be refused")

    with pytest.raises(RuntimeError, match=r"^cannot hold <Simulation t=0\.0> from outside"):
        await anyio.to_thread.run_sync(hold)
