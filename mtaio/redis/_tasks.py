"""
A task group that ends with its block.

Promise: its tasks are cancelled when the block ends, and a single error leaves the block as it is,
not in a group of one.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

__all__ = ["tasks_of_block"]


@asynccontextmanager
async def tasks_of_block() -> AsyncGenerator[TaskGroup]:
    """Yield a task group for tasks that the block needs."""
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise
