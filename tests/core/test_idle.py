"""When a block of an executor is idle."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from mtaio.core._block import Block


async def test_who_was_let_in_is_waited_for() -> None:
    """A block without tasks is not idle while a call of submit is about to start one."""
    block = Block(None)
    block.joining = 1

    async def join() -> None:
        await checkpoint()
        block.joining -= 1

    async with anyio.create_task_group() as group:
        group.start_soon(join)
        await block._until_idle()
        assert block.joining == 0
