"""What a user's callable is, and coroutines that will not be awaited."""

from __future__ import annotations

import anyio

from mtaio._internal.callables import close_unstarted
from mtaio.testing import settle


class Later:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> object:
        return iter(())


async def native(value: int) -> int:
    """Return ``value``."""
    return value


async def test_only_what_never_started_is_closed() -> None:
    """A coroutine that runs, or ran, is left alone, and so is what is not a coroutine."""
    begun = native(1)
    assert await begun == 1
    for what in (begun, 5, native, Later()):
        close_unstarted(what)
    close_unstarted(native(1))


async def test_one_that_waits_in_another_task_is_left_alone() -> None:
    """The task that awaits it already gets its result."""
    results: list[str] = []

    async def work() -> str:
        await anyio.sleep(1)
        return "done"

    async def own() -> None:
        results.append(await coroutine)

    coroutine = work()
    async with anyio.create_task_group() as group:
        group.start_soon(own)
        await settle()
        close_unstarted(coroutine)
    assert results == ["done"]
