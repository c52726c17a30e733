"""
Whether this version of asyncio shows the steps of its tasks.

Promise: a hook that is missing is named, so that no search runs that could choose nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final

from mtaio.testing._asyncio_steps import CALLBACK, CANCELLED, task_of

READY: Final = "_ready"
"""The loop's queue of what is ready."""

STEP: Final = "__self__ on the callback of a task's step"


def missing_hook(loop: object) -> str | None:
    """Return what ``loop`` has not got of that which the queues need, None if it has all."""
    if not isinstance(getattr(loop, READY, None), deque):
        return f"loop.{READY}"
    for slot in (CALLBACK, CANCELLED):
        if not hasattr(asyncio.Handle, slot):
            return f"Handle.{slot}"
    return None if shows_tasks() else STEP


@cache
def shows_tasks() -> bool:
    """Tell whether each of the ways in which a task is made to run is known to be its step."""
    with ThreadPoolExecutor(1) as aside:  # a loop of its own may be running here
        return aside.submit(_probe).result()


def _probe() -> bool:
    seen: list[asyncio.Task[Any] | None] = []

    class Queue(deque[asyncio.Handle]):
        def popleft(self) -> asyncio.Handle:
            handle = super().popleft()
            seen.append(task_of(getattr(handle, CALLBACK)))
            return handle

    async def steps(loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        return asyncio.current_task()

    loop: Any = asyncio.SelectorEventLoop()
    try:
        setattr(loop, READY, Queue())
        task = loop.run_until_complete(steps(loop))
    finally:
        loop.close()
    # Its beginning, its going on after a bare yield, a plain callback, its being woken.
    return seen[:4] == [task, task, None, task]
