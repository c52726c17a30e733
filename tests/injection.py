"""Cancellation at every checkpoint, by hand: drive a coroutine and strike as it suspends."""

from __future__ import annotations

import asyncio
from types import coroutine
from typing import TYPE_CHECKING, Any, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator


@coroutine
def struck(
    call: Coroutine[Any, Any, object], at: int, strike: Callable[[], object]
) -> Generator[Any, Any, int]:
    """Run ``call``, call ``strike`` as it suspends for the ``at``-th time, and count the times."""
    times = 0
    step: Callable[[Any], Any] = call.send
    value: Any = None
    while True:
        try:
            trap = step(value)
        except StopIteration:
            return times
        times += 1
        if times == at:
            strike()
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - handed on to the coroutine
            step, value = call.throw, error
        else:
            step = call.send


async def suspensions(call: Coroutine[Any, Any, object]) -> int:
    """Run ``call`` and tell how often it suspended."""
    return await struck(call, 0, lambda: None)


async def cancelled_at(call: Coroutine[Any, Any, object], at: int) -> bool:
    """Run ``call``, cancelled at its ``at``-th checkpoint; return whether it has so many."""
    hits: list[int] = []
    with anyio.CancelScope() as scope:

        def strike() -> None:
            hits.append(at)
            scope.cancel()

        await struck(call, at, strike)
    return bool(hits)


async def natively_cancelled_at(call: Coroutine[Any, Any, object], at: int) -> bool:
    """Do the same with ``Task.cancel()``, from inside the task whose end this is."""
    hits: list[int] = []

    def strike() -> None:
        hits.append(at)
        cast("asyncio.Task[object]", asyncio.current_task()).cancel()

    async def victim() -> None:
        await struck(call, at, strike)

    await asyncio.wait([asyncio.ensure_future(victim())])
    return bool(hits)


async def at_every_checkpoint(scenario: Callable[[int], Awaitable[bool]]) -> int:
    """Run ``scenario(1)``, ``scenario(2)`` … until one has not so many; return how many had."""
    at = 1
    while await scenario(at):
        at += 1
    return at - 1
