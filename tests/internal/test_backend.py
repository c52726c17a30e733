"""What waits on the event loop itself, on either backend."""

from __future__ import annotations

from typing import Any

import anyio

from mtaio._internal import backend
from mtaio._internal.backend import new_waiter
from mtaio.testing import settle


async def test_waiter_waits_again_and_again() -> None:
    """Each wake ends one wait."""
    waiter = new_waiter()
    woken: list[tuple[int, float]] = []

    async def wait_twice() -> None:
        for number in range(2):
            await waiter
            woken.append((number, anyio.current_time()))

    async with anyio.create_task_group() as group:
        group.start_soon(wait_twice)
        for _ in range(2):
            await anyio.sleep(1)
            waiter.wake()
    assert woken == [(0, 1), (1, 2)]


async def test_waiter_that_is_cancelled_may_be_woken() -> None:
    """Waking a task that has been cancelled, and does not run yet, does nothing."""
    waiter = new_waiter()

    async def wait_in_vain() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await waiter
        await anyio.sleep(1)

    scopes: list[anyio.CancelScope] = []
    async with anyio.create_task_group() as group:
        group.start_soon(wait_in_vain)
        await settle()
        scopes[0].cancel()
        waiter.wake()
        await settle()
        waiter.wake()
    assert scopes[0].cancelled_caught or anyio.current_time() == 1


async def test_tasks_may_be_eager_where_the_loop_has_a_factory() -> None:
    """A loop of asyncio's says so as soon as it has a factory of tasks; trio has none."""
    loop: Any = backend.current_loop()
    may_be_eager = backend.of(loop).may_be_eager
    assert not may_be_eager(loop)
    if backend.is_asyncio(loop):
        loop.set_task_factory(lambda *_, **__: None)
        factory = may_be_eager(loop)
        loop.set_task_factory(None)
        assert factory
