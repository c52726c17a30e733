"""Coroutines whose event loop was closed while they waited, as when a program just stops it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def leave_waiting(coroutine: Coroutine[Any, Any, object], until: Callable[[], object]) -> None:
    """
    Run a coroutine in a loop of asyncio's, and close the loop once ``until`` returns what is true.

    The caller holds the coroutine, which stays where it waits. To close it is what the garbage
    collector would do to one that nobody holds.
    """

    async def wait() -> None:
        while not until():  # noqa: ASYNC110 - of the test, which knows no event
            await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # tasks destroyed, it would say
    loop.create_task(coroutine)  # noqa: RUF006 - the coroutine holds what holds the task
    loop.run_until_complete(wait())  # one task: AnyIO's threads end with it, or never
    loop.close()
