"""
What a limiter has to hold to, clause by clause, for `check_limiter`.

Promise: each clause looks at one thing and lets everything else pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing._contract import Contract, require, require_nothing_left
from mtaio.testing._simulation import run, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mtaio.testing._inject import Victim
    from mtaio.testing._simulation import Simulation

__all__ = ["CONTRACT", "Make"]

Limiter: TypeAlias = AbstractAsyncContextManager[Any, Any]
Make: TypeAlias = Callable[[int], Limiter]
Enter: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any, Any]]

PATIENCE = 100.0
"""Seconds after which those who wait give up, where that they wait for ever is not the question."""


async def _free_slots(limiter: Limiter, tried: int) -> int:
    """Return how many of so many tasks, one after another, get in at once; let all out again."""
    inside = found = 0
    leave = anyio.Event()

    async def enter() -> None:
        nonlocal inside
        async with limiter:
            inside += 1
            await leave.wait()

    async with anyio.create_task_group() as group:
        for _ in range(tried):
            group.start_soon(enter)
            await settle()
        found = inside
        leave.set()
        group.cancel_scope.deadline = anyio.current_time() + PATIENCE
    return found


async def _require_free(limiter: Limiter, slots: int) -> None:
    """Hold that all slots are there, and no more."""
    found = await _free_slots(limiter, slots + 1)
    require(found >= slots, f"{slots - found} of {slots} slots were lost")
    require(found == slots, f"there were more than {slots} slots afterwards")
    require_nothing_left(limiter)


async def _entry(make: Make) -> None:
    slots = 2
    limiter = make(slots)
    log: list[str] = []
    leave = anyio.Event()

    async def work(name: str) -> None:
        async with limiter:
            log.append(name)
            await leave.wait()

    async with anyio.create_task_group() as group:
        for number, name in enumerate(["the first", "the second"], 1):
            group.start_soon(work, name)
            await settle()
            require(len(log) == number, f"{name} of two tasks did not enter at once, with 2 slots")
        group.start_soon(work, "the third")
        await settle()
        require(len(log) == slots, "a third task entered at once, with 2 slots")
        leave.set()
        group.cancel_scope.deadline = PATIENCE
    require(len(log) > slots, "the task that waited did not enter when the others left")


class _InsideError(Exception):
    """What a body raises here."""


async def _error(make: Make) -> None:
    limiter = make(1)
    error = _InsideError("an error of the body")
    try:
        async with limiter:
            raise error
    except _InsideError as caught:
        same = caught is error
    else:
        same = False
    require(same, "the error of the body did not come out")
    await _require_free(limiter, 1)


async def _crowd(make: Make, slots: int) -> None:
    limiter = make(slots)
    inside = 0

    async def work() -> None:
        nonlocal inside
        with anyio.move_on_after(PATIENCE):
            async with limiter:
                inside += 1
                require(inside <= slots, f"{inside} were inside, with {slots} slots")
                try:
                    await checkpoint()
                finally:
                    inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(slots + 2):
            group.start_soon(work)


async def _bound_of_one(make: Make) -> None:
    await _crowd(make, 1)


async def _bound_of_two(make: Make) -> None:
    await _crowd(make, 2)


async def _progress(make: Make, sim: Simulation) -> None:
    limiter, tasks = make(2), 4
    ended: list[float] = []

    async def work() -> None:
        with anyio.move_on_after(PATIENCE):
            async with limiter:
                await anyio.sleep(1)
            ended.append(sim.time())

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(work)
    require(len(ended) == tasks, f"{tasks - len(ended)} of {tasks} tasks never entered")
    require(ended == [1, 1, 2, 2], f"4 seconds of work in 2 slots were done at {ended}")


async def _order(make: Make) -> None:
    limiter = make(1)
    asked: list[str] = []
    served: list[str] = []

    async def work(name: str) -> None:
        with anyio.move_on_after(PATIENCE):
            asked.append(name)
            async with limiter:
                served.append(name)
                await checkpoint()

    async def twice(name: str) -> None:
        await work(name)
        await work(f"{name} again")

    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(twice, name)
    # Who never entered is the affair of another clause.
    expected = [name for name in asked if name in served]
    require(served == expected, f"asked: {', '.join(expected)}; entered: {', '.join(served)}")


@asynccontextmanager
async def _by_hand(limiter: Any) -> AsyncGenerator[None]:
    await limiter.acquire()
    try:
        yield
    finally:
        limiter.release()


def _by_block(limiter: Limiter) -> Limiter:
    return limiter


def _has_hands(limiter: object) -> bool:
    return callable(getattr(limiter, "acquire", None)) and callable(
        getattr(limiter, "release", None)
    )


async def _hand(make: Make) -> None:
    limiter = make(1)
    if not _has_hands(limiter):
        return
    inside: list[int] = []

    async def work(number: int, enter: Enter) -> None:
        with anyio.move_on_after(PATIENCE):
            async with enter(limiter):
                inside.append(number)
                require(len(inside) == 1, f"{len(inside)} were inside, with 1 slot")
                try:
                    await checkpoint()
                finally:
                    inside.remove(number)

    async with anyio.create_task_group() as group:
        for number, enter in enumerate((_by_hand, _by_block, _by_hand)):
            group.start_soon(work, number, enter)
    await _require_free(limiter, 1)


async def _struck(make: Make, victim: Victim, enter: Enter, *, hold: float) -> None:
    limiter = make(1)
    served: list[str] = []

    async def work(name: str, seconds: float) -> None:
        async with enter(limiter):
            served.append(name)
            await anyio.sleep(seconds)

    async def others(name: str, seconds: float) -> None:
        with anyio.move_on_after(PATIENCE):
            await work(name, seconds)

    async with anyio.create_task_group() as group:
        group.start_soon(others, "first", hold)
        group.start_soon(victim, work, "victim", 0.0)
        group.start_soon(others, "last", 0.0)
    for name in ("first", "last"):
        require(name in served, f"the {name} of three never entered after the second was cancelled")
    await _require_free(limiter, 1)


async def _struck_in_block(make: Make, victim: Victim) -> None:
    await _struck(make, victim, _by_block, hold=1)


async def _struck_by_hand(make: Make, victim: Victim) -> None:
    await _struck(make, victim, _by_hand if _has_hands(make(1)) else _by_block, hold=1)


async def _struck_in_haste(make: Make, victim: Victim) -> None:
    # The slot comes back before the cancelled task has learnt of it.
    await _struck(make, victim, _by_block, hold=0)


def _reuse(make: Make, backends: Sequence[str]) -> None:
    limiter = make(2)
    for backend in (*backends, *backends):
        run(_require_free, limiter, 2, backend=backend)


CONTRACT = Contract("limiter", needs=["__aenter__", "__aexit__"])
CONTRACT.add(
    "entry", "as many as there are slots enter at once, one more enters when one leaves", _entry
)
CONTRACT.add("error", "an error inside goes out as it is, and gives the slot back", _error)
CONTRACT.add("bound", "never more are inside than there are slots", _bound_of_one, _bound_of_two)
CONTRACT.add("progress", "nobody waits while a slot is free", _progress)
CONTRACT.add("order", "who asks first enters first, and nobody barges in", _order)
CONTRACT.add("hand", "acquire() and release() do what async with does", _hand)
_STRUCK = (_struck_in_block, _struck_by_hand, _struck_in_haste)
CONTRACT.add_struck("a task", "leaves nothing behind", *_STRUCK)
CONTRACT.add(
    "reuse", "made outside of event loops, it serves one after another, on every backend", _reuse
)
