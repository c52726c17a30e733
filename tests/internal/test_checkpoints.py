"""When an operation that need not wait lets others run."""

from __future__ import annotations

import anyio

from mtaio._internal import checkpoints
from mtaio.testing import settle


def test_limits_are_powers_of_two() -> None:
    """Both limits are powers of two, so that a count can be tested with a mask."""
    for limit in (checkpoints.FAST_CALLS, checkpoints.FAST_ITEMS):
        assert limit > 1
        assert limit & (limit - 1) == 0


async def test_checkpoint_turns_the_loop() -> None:
    """The checkpoint is a real one: others run, and deadlines fire."""
    ran: list[int] = []

    async def other() -> None:
        ran.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        while not ran:
            await checkpoints.checkpoint()
    with anyio.move_on_after(0) as scope:
        for _ in range(10):
            await checkpoints.checkpoint()
    assert scope.cancelled_caught


async def test_checkpoint_if_cancelled() -> None:
    """It is one in a cancelled scope, and does not turn the loop in another."""
    ran: list[int] = []

    async def other() -> None:
        ran.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await checkpoints.checkpoint_if_cancelled()
        assert ran == []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await checkpoints.checkpoint_if_cancelled()
    assert scope.cancelled_caught


async def test_checkpoint_if_cancelled_in_a_scope_that_was_cancelled_before() -> None:
    """A task that starts there late is cancelled, where AnyIO's own turns the loop for ever."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:

            async def start_late() -> None:
                with anyio.CancelScope(shield=True):
                    await settle()
                    await outer.start_soon(checkpoints.checkpoint_if_cancelled).wait()

            inner.start_soon(start_late)
            await settle()
            scope.cancel()
    assert scope.cancelled_caught
