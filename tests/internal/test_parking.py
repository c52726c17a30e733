"""Parked tasks, woken in the order in which they parked."""

from __future__ import annotations

import threading

import anyio
import pytest

from mtaio._internal.parking import ParkingLot
from mtaio.testing import Simulation, run, settle


async def parked(lot: ParkingLot, name: str, woken: list[str]) -> None:
    """Park, and note when woken."""
    await lot.park()
    woken.append(name)


async def test_first_parked_first_woken() -> None:
    """Each call wakes the task that has been parked longest; with none parked it does nothing."""
    lot, woken = ParkingLot(), list[str]()
    lot.unpark()
    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(parked, lot, name, woken)
            await settle()
        assert len(lot) == 3
        lot.unpark()
        await settle()
        assert woken == ["a"]
        lot.unpark_all()
        await settle()
    assert sorted(woken) == ["a", "b", "c"]  # trio lets those that are woken together run by lot
    assert len(lot) == 0


async def test_a_task_that_gives_up_leaves_the_queue() -> None:
    """A cancelled task leaves the queue, and wakes no other."""
    lot, woken = ParkingLot(), list[str]()
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(1):
            await lot.park()
        group.start_soon(parked, lot, "other", woken)
        await settle()
        assert len(lot) == 1
        assert woken == []
        lot.unpark()
    assert woken == ["other"]


@pytest.mark.parametrize("handler", [False, True])
async def test_a_wake_up_is_never_lost(handler: bool) -> None:  # noqa: FBT001 - a parameter
    """A task that is woken, and cancelled before it resumes, passes on what it was woken for."""
    lot, woken, lost = ParkingLot(), list[str](), list[str]()

    def pass_on() -> None:
        lost.append("lost")
        lot.unpark()

    async def victim() -> None:
        with scope:
            await lot.park(pass_on if handler else None)

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(victim)
        await settle()
        group.start_soon(parked, lot, "next", woken)
        await settle()
        scope.cancel()
        lot.unpark()
        await settle()
        assert woken == ["next"]
    assert lost == ["lost"] * handler


def test_one_loop_after_another(backend: str) -> None:
    """Tasks of a loop that has finished are forgotten; the next loop finds an empty lot."""
    lot = ParkingLot()

    async def leave_one_behind() -> None:
        assert not lot.attach("<owner>")
        coroutine = lot.park()
        coroutine.send(None)
        kept.append(coroutine)

    async def find_it_empty() -> None:
        assert len(lot) == 1
        assert lot.attach("<owner>")
        assert len(lot) == 0
        assert not lot.attach("<owner>")

    kept: list[object] = []
    anyio.run(leave_one_behind, backend=backend)
    anyio.run(find_it_empty, backend=backend)


async def test_two_loops_at_once_are_refused() -> None:
    """Another loop may not park here while tasks of this one wait."""
    lot = ParkingLot()
    errors: list[str] = []

    async def other_loop() -> None:
        with pytest.raises(RuntimeError) as caught:
            lot.attach("<owner>")
        errors.append(str(caught.value))

    async with anyio.create_task_group() as group:
        lot.attach("<owner>")
        group.start_soon(lot.park)
        await settle()
        thread = threading.Thread(target=anyio.run, args=(other_loop,))
        thread.start()
        thread.join()
        assert len(lot) == 1
        lot.call_there(lot.unpark)
    assert len(errors) == 1
    assert errors[0].startswith("'<owner>' has tasks of another running event loop")


@pytest.mark.parametrize("looped", [False, True], ids=["without a loop", "in another loop"])
async def test_a_thread_has_tasks_woken_in_their_loop(sim: Simulation, *, looped: bool) -> None:
    """What another thread calls for is called in the thread of the tasks that are parked."""
    lot = ParkingLot()
    threads: list[int] = []

    def wake() -> None:
        threads.append(threading.get_ident())
        lot.unpark()

    async def elsewhere() -> None:
        lot.call_there(wake)

    def call() -> None:
        if looped:
            anyio.run(elsewhere)
        else:
            lot.call_there(wake)

    async with anyio.create_task_group() as group:
        lot.attach("<owner>")
        group.start_soon(lot.park)
        await settle()
        with sim.hold():
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    assert threads == [threading.get_ident()]


def test_tasks_of_a_finished_loop_are_forgotten_by_threads(backend: str) -> None:
    """Where nobody can be woken any more, it is called at once, with no task parked."""
    lot = ParkingLot()
    kept: list[object] = []
    seen: list[int] = []

    async def leave_one_behind() -> None:
        lot.attach("<owner>")
        coroutine = lot.park()
        coroutine.send(None)
        kept.append(coroutine)

    anyio.run(leave_one_behind, backend=backend)
    thread = threading.Thread(target=lot.call_there, args=(lambda: seen.append(len(lot)),))
    thread.start()
    thread.join()
    assert seen == [0]


async def test_a_task_sees_to_what_came_before_it_was_parked() -> None:
    """When a task is in the queue, its owner is told, and may wake it at once."""
    lot = ParkingLot()
    lot.attach("<owner>")
    await lot.park(on_parked=lot.unpark)
    assert len(lot) == 0


def test_thread_that_looks_as_the_next_loop_begins(backend: str) -> None:
    """Who finds that a loop is over forgets its tasks, not those of the loop that comes next."""
    lot = ParkingLot()
    woken: list[str] = []

    async def park_and_be_woken() -> None:
        class Last:
            """A loop that is over; as somebody asks it, the next begins to use the lot."""

            def is_closed(self) -> bool:
                lot.attach("the lot")
                lot.tasks[anyio.Event()] = None
                return True

        lot._loop, lot._ask = Last(), lambda: None
        lot.call_there(lambda: woken.append("here"))
        assert len(lot) == 1

    run(park_and_be_woken, backend=backend)
    assert woken == ["here"]
