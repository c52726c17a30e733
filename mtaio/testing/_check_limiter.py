"""
The contract of a concurrency limiter.

Promise: `check_limiter` uses only ``async with`` of a limiter, and ``acquire`` and ``release`` if
it has them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from mtaio.testing._contract import PATIENCE, Clause, check, require, require_nothing_left, struck
from mtaio.testing._inject import Victim
from mtaio.testing._simulation import Simulation, run, settle

__all__ = ["check_limiter"]

Limiter: TypeAlias = AbstractAsyncContextManager[Any, Any]
Make: TypeAlias = Callable[[int], Limiter]
Enter: TypeAlias = Callable[[Any], Limiter]


def check_limiter(
    factory: Callable[[int], AbstractAsyncContextManager[Any, Any]],
    *,
    seeds: int = 100,
    exhaustive: int | None = 2,
    without: Iterable[str] = (),
    backends: Sequence[str] | None = None,
) -> None:
    """
    Raise `ContractError` unless ``factory`` makes a correct concurrency limiter.

    Use it to test a limiter of your own. The limiter is tested like
    `mtaio.resources.ConcurrencyLimiter`: on each backend, under all schedules with few delays and
    some random ones, and cancelled at any point. It may wait only for tasks and timers of the same
    event loop. The clauses, in the order in which they are checked:

    - ``"entry"``: as many tasks enter as there are slots, and one more when one leaves;
    - ``"error"``: an error inside propagates unchanged, and the slot is given back;
    - ``"bound"``: there are never more tasks inside than slots;
    - ``"progress"``: no task waits while a slot is free;
    - ``"order"``: tasks enter in the order in which they asked, also if others wait already;
    - ``"hand"``: ``acquire()`` and ``release()``, if it has them, do what ``async with`` does;
    - ``"checkpoint"``: a task cancelled when it suspends, outside or inside, leaves nothing behind;
    - ``"step"``: the same for a task cancelled between any two steps, such as when it is let in;
    - ``"native"``: the same, on asyncio, for a task cancelled by ``Task.cancel()``;
    - ``"reuse"``: created outside event loops, it works in one after another, on each backend.

    Args:
        factory: Returns a new limiter, such as its class; called with the number of slots.
        seeds: The number of random schedules for each clause on each backend.
        exhaustive: As for `explore`.
        without: Clauses that the limiter does not promise, to be left out.
        backends: Names of backends; None for those of asyncio and trio that are installed.

    Raises:
        ContractError: A clause is broken; ``clause`` is its name.
        TypeError: What ``factory`` makes has no ``__aenter__`` and ``__aexit__``.
        ValueError: There is no such clause or backend, or a number is negative.
        BaseException: What ``factory`` raises when it is first called.

    Example:
        ```python
        import anyio

        from mtaio import ConcurrencyLimiter
        from mtaio.testing import check_limiter

        check_limiter(ConcurrencyLimiter, seeds=10)
        check_limiter(anyio.Semaphore, seeds=10, without=["reuse"])
        ```
    """
    __tracebackhide__ = True
    how: dict[str, Any] = {"seeds": seeds, "exhaustive": exhaustive}
    check("limiter", CLAUSES, NEEDS, factory, 1, without=without, backends=backends, **how)


async def _entered(limiter: Limiter, tasks: int) -> list[int]:
    """Return how many are inside when each of so many tasks has asked, and how many ever were."""
    inside: list[int] = []
    counts: list[int] = []
    leave = anyio.Event()

    async def enter(number: int) -> None:
        async with limiter:
            inside.append(number)
            await leave.wait()

    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(enter, number)
            await settle()
            counts.append(len(inside))
        leave.set()
        group.cancel_scope.deadline = anyio.current_time() + PATIENCE
    return [*counts, len(inside)]


async def _require_free(limiter: Limiter, slots: int) -> None:
    """Hold that all slots are there, and no more."""
    *_, found, _ = await _entered(limiter, slots + 1)
    require(found >= slots, f"{slots - found} of {slots} slots were lost")
    require(found == slots, f"there were more than {slots} slots afterwards")
    require_nothing_left(limiter)


async def _entry(make: Make) -> None:
    """As many as there are slots enter at once, one more enters when one leaves."""
    first, second, third, ever = await _entered(make(2), 3)
    require(first, "the first of two tasks did not enter at once, with 2 slots")
    require(second > first, "the second of two tasks did not enter at once, with 2 slots")
    require(third == second, "a third task entered at once, with 2 slots")
    require(ever > second, "the task that waited did not enter when the others left")


class _InsideError(Exception):
    """What a body raises here."""


async def _error(make: Make) -> None:
    """An error inside goes out as it is, and gives the slot back."""
    limiter = make(1)
    error = _InsideError("an error of the body")
    same = False
    try:
        async with limiter:
            raise error
    except _InsideError as caught:
        same = caught is error
    require(same, "the error of the body did not come out")
    await _require_free(limiter, 1)


async def _crowd(limiter: Limiter, slots: int, enters: Iterable[Enter]) -> None:
    inside = 0

    async def work(enter: Enter) -> None:
        nonlocal inside
        with anyio.move_on_after(PATIENCE):
            async with enter(limiter):
                inside += 1
                require(inside <= slots, f"{inside} were inside, with {slots} slots")
                try:
                    await checkpoint()
                finally:
                    inside -= 1

    async with anyio.create_task_group() as group:
        for enter in enters:
            group.start_soon(work, enter)


async def _bound(make: Make, *, slots: int) -> None:
    """Never more are inside than there are slots."""
    await _crowd(make(slots), slots, [_by_block] * (slots + 2))


async def _progress(make: Make, sim: Simulation) -> None:
    """No task waits while a slot is free."""
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
    """Tasks enter in the order in which they asked, and none overtakes those who wait."""
    limiter = make(1)
    asked: list[str] = []
    served: list[str] = []

    async def work(name: str) -> None:
        for each in (name, f"{name} again"):
            with anyio.move_on_after(PATIENCE):
                asked.append(each)
                async with limiter:
                    served.append(each)
                    await checkpoint()

    async with anyio.create_task_group() as group:
        for name in ("first", "second", "third"):
            group.start_soon(work, name)
    # Another clause checks for tasks that never enter.
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


def _has_hands(limiter: Any) -> bool:
    return all(callable(getattr(limiter, name, None)) for name in ("acquire", "release"))


async def _hand(make: Make) -> None:
    """Acquire() and release() do what async with does."""
    limiter = make(1)
    if _has_hands(limiter):
        await _crowd(limiter, 1, [_by_hand, _by_block, _by_hand])
        await _require_free(limiter, 1)


async def _struck(make: Make, victim: Victim, *, by_hand: bool = False, hold: float = 1) -> None:
    """Leaves nothing behind."""
    limiter = make(1)
    enter: Enter = _by_hand if by_hand and _has_hands(limiter) else _by_block
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


def _reuse(make: Make, backends: Sequence[str]) -> None:
    """Made outside of event loops, it serves one after another, on every backend."""
    limiter = make(2)
    for backend in (*backends, *backends):
        run(_require_free, limiter, 2, backend=backend)


NEEDS = ["__aenter__", "__aexit__"]

CLAUSES = [
    *(Clause(each) for each in (_entry, _error)),
    Clause(_bound, {"slots": 1}, {"slots": 2}),
    *(Clause(each) for each in (_progress, _order, _hand)),
    # With hold=0 the slot comes back before the cancelled task knows.
    *struck("a task", _struck, {}, {"by_hand": True}, {"hold": 0}),
    Clause(_reuse),
]
