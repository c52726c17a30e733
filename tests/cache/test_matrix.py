"""
What can happen to a load, and what comes of it: each event, in both modes, told in full.

Three callers ask for one key at 0 s, of a loader that takes a second; at 0.5 s something happens;
at 0.75 s a newcomer asks. The table says how many loads there are, what each of the four gets and
when, and what is in the cache afterwards.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import anyio
import pytest

from mtaio.cache import TTLCache
from mtaio.testing import assert_quiescent, settle
from mtaio.types import EvictionPolicy
from tests.cache.loads import BOTH, Callers, Loader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@dataclass
class Stage:
    """What an event can reach."""

    cache: TTLCache[str]
    callers: Callers
    loader: Loader
    block: AsyncExitStack


async def nothing(stage: Stage) -> None:
    """Let it be."""


async def leader_cancelled(stage: Stage) -> None:
    """Cancel the first who asked."""
    stage.callers.scopes[0].cancel()


async def follower_cancelled(stage: Stage) -> None:
    """Cancel the second who asked."""
    stage.callers.scopes[1].cancel()


async def loader_raises(stage: Stage) -> None:
    """Let the loader fail when its second is over."""
    stage.loader.fail = True


async def all_out(stage: Stage) -> None:
    """Cancel all who wait, in one step."""
    for scope in stage.callers.scopes:
        scope.cancel()


async def leaders_cancelled(stage: Stage) -> None:
    """Cancel the one who leads, three times."""
    for _ in range(3):
        stage.callers.scopes[stage.loader.leaders[-1]].cancel()
        await settle()


async def out_from_the_last(stage: Stage) -> None:
    """Cancel them one after another, the first who asked last."""
    for scope in reversed(stage.callers.scopes):
        scope.cancel()
        await settle()


async def closed(stage: Stage) -> None:
    """Leave the block; or, if the loads run in none, enter and leave one beside them."""
    entered = stage.cache._loads.block is not None
    await stage.block.aclose()
    if not entered:
        async with stage.cache:
            await settle()


async def deleted(stage: Stage) -> None:
    """Delete the key."""
    stage.cache.delete_nowait("key")


async def overwritten(stage: Stage) -> None:
    """Set the key."""
    stage.cache.set_nowait("key", "set")


async def cleared(stage: Stage) -> None:
    """Clear the cache."""
    stage.cache.clear_nowait()


async def recursive(stage: Stage) -> None:
    """Have the loader ask for its own key, as it does from the beginning; see `Recursive`."""


class Recursive(Loader):
    """Asks for the key that it loads, after half a second."""

    def __init__(self, cache: TTLCache[str]) -> None:
        super().__init__()
        self.cache = cache

    async def __call__(self) -> str:
        """Ask for the key that is being loaded."""
        self.started += 1
        await anyio.sleep(0.5)
        return await self.cache.get_or_set("key", self)


Row: TypeAlias = tuple[str, str, str, str, str, str]

# started/ended/cancelled loads, what the first, second, third and the newcomer get, what is kept.
ENTERED: dict[Callable[[Stage], Awaitable[None]], Row] = {
    nothing: ("1/1/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 1 @1", "value 1"),
    leader_cancelled: ("1/1/0", "out @0.5", "value 1 @1", "value 1 @1", "value 1 @1", "value 1"),
    follower_cancelled: ("1/1/0", "value 1 @1", "out @0.5", "value 1 @1", "value 1 @1", "value 1"),
    loader_raises: ("1/1/0", "load 1 @1", "load 1 @1", "load 1 @1", "load 1 @1", "nothing"),
    all_out: ("2/1/1", "out @0.5", "out @0.5", "out @0.5", "value 2 @1.75", "value 2"),
    leaders_cancelled: ("1/1/0", "out @0.5", "value 1 @1", "value 1 @1", "value 1 @1", "value 1"),
    out_from_the_last: ("2/1/1", "out @0.5", "out @0.5", "out @0.5", "value 2 @1.75", "value 2"),
    closed: ("2/1/1", "closed @0.5", "closed @0.5", "closed @0.5", "value 2 @1.75", "value 2"),
    deleted: ("2/2/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 2 @1.75", "value 2"),
    overwritten: ("1/1/0", "value 1 @1", "value 1 @1", "value 1 @1", "set @0.75", "set"),
    cleared: ("2/2/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 2 @1.75", "value 2"),
    recursive: ("2/0/0", "itself @0.5", "itself @0.5", "itself @0.5", "itself @1.25", "nothing"),
}

NOT_ENTERED: dict[Callable[[Stage], Awaitable[None]], Row] = {
    nothing: ("1/1/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 1 @1", "value 1"),
    leader_cancelled: (
        *("2/1/1", "out @0.5", "value 2 @1.5", "value 2 @1.5", "value 2 @1.5", "value 2"),
    ),
    follower_cancelled: ("1/1/0", "value 1 @1", "out @0.5", "value 1 @1", "value 1 @1", "value 1"),
    loader_raises: ("1/1/0", "load 1 @1", "load 1 @1", "load 1 @1", "load 1 @1", "nothing"),
    all_out: ("2/1/1", "out @0.5", "out @0.5", "out @0.5", "value 2 @1.75", "value 2"),
    leaders_cancelled: ("4/1/3", "out @0.5", "out @0.5", "out @0.5", "value 4 @1.75", "value 4"),
    out_from_the_last: ("2/1/1", "out @0.5", "out @0.5", "out @0.5", "value 2 @1.75", "value 2"),
    closed: ("1/1/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 1 @1", "value 1"),
    deleted: ("2/2/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 2 @1.75", "value 2"),
    overwritten: ("1/1/0", "value 1 @1", "value 1 @1", "value 1 @1", "set @0.75", "set"),
    cleared: ("2/2/0", "value 1 @1", "value 1 @1", "value 1 @1", "value 2 @1.75", "value 2"),
    recursive: ("2/0/0", "itself @0.5", "itself @0.5", "itself @0.5", "itself @1.25", "nothing"),
}


def told(callers: Callers, number: int) -> str:
    """Say what a caller got, and when."""
    answer = str(callers.answers[number])
    for long, short in {
        "cancelled": "out",
        "<TTLCache s3fifo 0 of 100, 10 s> was closed while loading key='key'": "closed",
        "<TTLCache lru 0 of 100, 10 s> was closed while loading key='key'": "closed",
    }.items():
        answer = short if answer == long else answer
    if answer.startswith("the load of key='key' in <TTLCache"):
        assert "asked for its own key" in answer
        answer = "itself"
    return f"{answer} @{callers.moments[number]:g}"


@BOTH
@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
@pytest.mark.parametrize("event", ENTERED, ids=lambda event: event.__name__)
async def test_matrix(
    event: Callable[[Stage], Awaitable[None]],
    policy: EvictionPolicy,
    entered: bool,  # noqa: FBT001 - a parameter
) -> None:
    """As many loads as the table says, and to each caller what it says, at that moment."""
    cache: TTLCache[str] = TTLCache(
        10, max_size=100, policy=policy
    )  # without a limit, all policies are one
    loader = Recursive(cache) if event is recursive else Loader()
    async with anyio.create_task_group() as group, AsyncExitStack() as block:
        if entered:
            await block.enter_async_context(cache)
        callers = Callers(cache, group)
        for _ in range(3):
            await callers.ask(loader)
        await anyio.sleep(0.5)
        await event(Stage(cache, callers, loader, block))
        await settle()
        await anyio.sleep(0.25)
        await callers.ask(loader)
        await anyio.sleep(2)
        await settle()
        assert_quiescent(cache)
    row = (
        f"{loader.started}/{loader.ended}/{loader.cancelled}",
        *(told(callers, number) for number in range(4)),
        str(await cache.get("key", "nothing")),
    )
    assert row == (ENTERED if entered else NOT_ENTERED)[event]
    statistics = cache.statistics()
    assert statistics.loads == loader.started
    raised = loader.started - loader.ended - loader.cancelled + loader.fail
    assert statistics.failed == raised
    found = (event is overwritten) + (row[-1] != "nothing")  # by the newcomer, and by this test
    assert (statistics.hits, statistics.misses) == (found, 5 - found)


def test_matrix_is_whole() -> None:
    """Both modes have a row for each event."""
    assert [*ENTERED] == [*NOT_ENTERED]
