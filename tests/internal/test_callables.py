"""What a user's callable is, and coroutines that will not be awaited."""

from __future__ import annotations

from functools import partial, partialmethod
from typing import TYPE_CHECKING

import anyio
import pytest

from mtaio._internal.callables import close_unstarted, is_async, is_async_def
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Later:
    """An awaitable that is not a coroutine."""

    def __await__(self) -> object:
        return iter(())


async def native(value: int) -> int:
    """Return ``value``."""
    return value


async def generator() -> AsyncGenerator[int]:
    """Yield: calling it makes no coroutine."""
    yield 1


class Client:
    """What has async methods."""

    async def fetch(self, page: int) -> int:
        """Return ``page``."""
        return page

    def plain(self) -> int:
        """Return a number."""
        return 1

    first = partialmethod(fetch, 1)
    __call__ = fetch


client = Client()


@pytest.mark.parametrize(
    ("fn", "found", "asynchronous"),
    [
        (native, True, True),
        (client.fetch, True, True),
        (partial(native, 1), True, True),
        (partial(partial(client.fetch), 1), True, True),
        (client, False, True),
        (client.__call__, True, True),
        (client.plain, False, False),
        (generator, False, False),
        (len, False, False),
        (lambda: native(1), False, False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_async_def_is_seen_at_once(fn: object, *, found: bool, asynchronous: bool) -> None:
    """In functions, methods and partials; what is found so is async by the long way too."""
    assert is_async_def(fn) is found
    assert is_async(fn) is asynchronous  # type: ignore[arg-type] # whatever it is


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
