"""Parked tasks, woken in the order in which they parked."""

from __future__ import annotations

import threading

import anyio
import pytest

from mtaio._internal.parking import ParkingLot
from mtaio.testing import settle


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
    assert not lot.is_over()

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
    assert lot.is_over()
    anyio.run(find_it_empty, backend=backend)


async def test_two_loops_at_once_are_refused() -> None:
    """Another loop may neither park here nor wake, while tasks of this one wait."""
    lot = ParkingLot()
    errors: list[str] = []

    async def other_loop() -> None:
        for use in (lot.attach, lot.reach):
            with pytest.raises(RuntimeError) as caught:
                use("<owner>")
            errors.append(str(caught.value))

    async with anyio.create_task_group() as group:
        lot.attach("<owner>")
        group.start_soon(lot.park)
        await settle()
        thread = threading.Thread(target=anyio.run, args=(other_loop,))
        thread.start()
        thread.join()
        assert len(lot) == 1
        lot.reach("<owner>")
        lot.unpark()
    assert len(errors) == 2
    assert errors[0].startswith("'<owner>' has tasks of another running event loop")


async def test_a_thread_cannot_wake() -> None:
    """Outside every loop, the tasks of a running one cannot be reached, save by its own thread."""
    lot = ParkingLot()
    errors: list[type] = []

    def outside() -> None:
        with pytest.raises(anyio.NoEventLoopError) as caught:
            lot.reach("<owner>")
        errors.append(caught.type)

    async with anyio.create_task_group() as group:
        lot.attach("<owner>")
        group.start_soon(lot.park)
        await settle()
        thread = threading.Thread(target=outside)
        thread.start()
        thread.join()
        lot.unpark()
    assert errors == [anyio.NoEventLoopError]
