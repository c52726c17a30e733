"""When an operation that need not wait lets others run."""

from __future__ import annotations

import anyio

from mtaio._internal import checkpoints


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
