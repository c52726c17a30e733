"""Entered caches under many schedules: refreshes, expiry and listeners, and the end of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.cache import TTLCache
from mtaio.testing import assert_no_checkpoints, assert_quiescent
from tests.explored.cache_stage import Stage, explored
from tests.explored.searches import together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim


@explored
async def test_stale_while_revalidate(victim: Victim, sim: Simulation) -> None:
    """A caller that finds a stale value never waits; one load renews it, whichever is cancelled."""
    stage = Stage(sim, default_ttl=1, stale_while_revalidate=5)
    async with stage.entered():
        stage.cache.set_nowait("k", ("k", -1))
        await anyio.sleep(1)
        stage.version = -1  # the source has not changed: what is stale will do

        async def ask(name: str) -> None:
            with assert_no_checkpoints():
                await stage.ask(name)

        await together(
            victim=lambda: victim(stage.ask, "victim"),
            a=lambda: ask("a"),
            b=lambda: ask("b"),
        )
        await anyio.sleep(0.5)
        assert stage.started["k"] == stage.ended["k"] == 1
        assert "k" in stage.cache
    stage.clear("a", "b")


@explored
async def test_stale_while_the_refresh_fails(victim: Victim, sim: Simulation) -> None:
    """The stale value is served until its limit, however many refreshes fail."""
    stage = Stage(sim, default_ttl=1, stale_while_revalidate=1)
    async with stage.entered():
        stage.cache.set_nowait("k", ("k", 0))
        await anyio.sleep(1)
        await together(
            victim=lambda: victim(stage.ask, "victim", "k", stage.fail),
            a=lambda: stage.ask("a", "k", stage.fail),
            b=lambda: stage.ask("b", "k", stage.fail),
        )
        await anyio.sleep(1)
        assert 1 <= stage.started["k"] <= 3
        await stage.ask("late", "k", stage.fail)
        assert stage.got["late"] == "SourceError"
    stage.clear("a", "b")


@explored
async def test_changed_during_a_refresh(victim: Victim, sim: Simulation) -> None:
    """A refresh that a change overtook stores nothing, and who asks then gets what is new."""
    stage = Stage(sim, default_ttl=1, stale_while_revalidate=5)
    async with stage.entered():
        stage.cache.set_nowait("k", ("k", 0))
        await anyio.sleep(1)
        await together(
            victim=lambda: victim(stage.ask, "victim", "k", stage.linger),
            changer=lambda: stage.after(1, stage.changes),
            a=lambda: stage.ask("a"),
        )
        await anyio.sleep(0.5)
        assert stage.cache.get_nowait("k") in (None, ("k", 1))
    stage.clear("a")


@explored
async def test_refresh_that_somebody_waits_for(victim: Victim, sim: Simulation) -> None:
    """Once its stale time is over a refresh is a load like any other: one load answers all."""
    stage = Stage(sim, default_ttl=1, stale_while_revalidate=0.5)

    async def slow(key: str) -> tuple[str, int]:
        await anyio.sleep(1)
        return await stage.load(key)

    async with stage.entered():
        stage.cache.set_nowait("k", ("k", 0))
        await anyio.sleep(1)
        await stage.ask("first", "k", slow)
        await anyio.sleep(0.75)
        assert len(stage.cache.items()) == 0
        await together(
            victim=lambda: victim(stage.ask, "victim"),
            a=lambda: stage.ask("a"),
        )
        await stage.ask("late")
        assert stage.ended["k"] == 1
    stage.clear("first", "a", "late")


@explored
async def test_refresh_that_hangs(victim: Victim, sim: Simulation) -> None:
    """When those who wait for it have given up, however, the next one loads again."""
    stage = Stage(sim, default_ttl=1, stale_while_revalidate=0.5)

    async def hang(key: str) -> tuple[str, int]:
        await anyio.sleep(1000)
        return await stage.load(key)

    async def impatient(name: str) -> None:
        with anyio.move_on_after(1):
            await stage.ask(name)

    async with stage.entered():
        stage.cache.set_nowait("k", ("k", 0))
        await anyio.sleep(1)
        await stage.ask("first", "k", hang)
        await anyio.sleep(0.75)
        await together(
            victim=lambda: victim(impatient, "victim"),
            a=lambda: impatient("a"),
        )
        with anyio.fail_after(1):
            await stage.ask("late")
        assert stage.started["k"] == stage.ended["k"] == 1
    stage.clear("first", "late")


@explored
async def test_refresh_ahead_and_closed(victim: Victim, sim: Simulation) -> None:
    """A refresh that is under way when the cache is left is cancelled; the value stays."""
    stage = Stage(sim, default_ttl=10, refresh_ahead=0.5)
    stage.cache.set_nowait("k", ("k", 0))
    await anyio.sleep(5)

    async def block() -> None:
        async with stage.entered():
            await together(
                a=lambda: stage.ask("a"),
                b=lambda: stage.ask("b"),
            )

    await victim(block)
    assert stage.started["k"] <= 2
    assert await stage.cache.get("k") == ("k", 0)
    await anyio.sleep(5)
    assert (await stage.cache.get("k") is None) == (not stage.ended["k"])
    stage.clear(*(["a", "b"] if not victim.fired else []))


@explored
async def test_expiry_in_the_background(victim: Victim, sim: Simulation) -> None:
    """What expires goes within its second, whatever is set, touched and cancelled meanwhile."""
    stage = Stage(sim)
    cache = stage.cache

    async def change() -> None:
        cache.set_nowait("a", ("a", 1), 0.5)
        cache.set_nowait("b", ("b", 1), 5)
        await anyio.sleep(0.75)
        cache.set_nowait("b", ("b", 2), 0.5)
        cache.set_nowait("c", ("c", 1), 4)
        cache.touch_nowait("c", 0.25)
        await checkpoint()
        cache.set_nowait("d", ("d", 1), 0.125)

    async def watch() -> None:
        await anyio.sleep(1)
        await checkpoint()
        cache.set_nowait("e", ("e", 1), 0.25)

    async with stage.entered():
        await together(victim=lambda: victim(change), watch=watch)
        await anyio.sleep(6.5 - sim.time())
        assert len(cache) == 0
    causes = {cause for _, _, cause in stage.heard}
    assert causes <= {"expired", "replaced"}
    stage.clear()


@explored
async def test_block_that_sweeps_is_cancelled(victim: Victim, sim: Simulation) -> None:
    """Cancelled while it removes what expired, the cache has lost nothing, and can go on."""
    stage = Stage(sim)
    cache = stage.cache
    count = 600  # more than two slices

    async def block() -> None:
        async with stage.entered():
            await anyio.sleep(2)
            await checkpoint()

    cache.set_many_nowait({str(number): (str(number), 0) for number in range(count)}, 1)
    cache.set_nowait("k", ("k", 0), 100)
    await together(block=lambda: victim(block), a=lambda: stage.ask("a", "other"))
    kept = {"k", "other"} if stage.ended["other"] else {"k"}
    statistics = cache.statistics()
    assert statistics.size + statistics.expirations == count + len(kept)
    async with stage.entered():
        await anyio.sleep(3)
        assert set(cache) == kept
        assert len(cache) == len(kept)
    assert len(stage.heard) == count
    stage.clear()


class Hearer:
    """An async listener that takes a step for each, and remembers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.cancelled = 0

    async def __call__(self, key: object, value: object, cause: object) -> None:
        """Be told."""
        try:
            await checkpoint()
        except BaseException:
            self.cancelled += 1
            raise
        self.heard.append((key, value, cause))


@explored
async def test_async_listener(victim: Victim) -> None:
    """It is told of each removal once, in order; of what the end of the block cut off, not."""
    hearer = Hearer()
    cache: TTLCache[int] = TTLCache(100, on_removed=hearer)
    removed = 0

    async def block() -> None:
        nonlocal removed
        async with cache:
            for number in range(2):
                cache.set_nowait("k", number)
            removed = 1
            await checkpoint()
            cache.set_nowait("k", 2)
            removed = 2

    async def outside() -> None:
        nonlocal removed
        while cache._loads.block is None:
            if removed:
                return
            await checkpoint()
        removed += cache.delete_nowait("other")

    async with anyio.create_task_group() as group:
        group.start_soon(victim, block)
        group.start_soon(outside)
    values = [value for _, value, _ in hearer.heard]
    assert values == [0, 1][: len(values)]
    told = len(values) + hearer.cancelled + cache.statistics().dropped
    assert told == removed
    assert victim.fired or len(values) == removed == 2
    with pytest.raises(RuntimeError, match=r"^<TTLCache .*> has an async on_removed"):
        cache.set_nowait("k", 3)
    assert_quiescent(cache)


@explored
async def test_entered_again_and_again(victim: Victim, sim: Simulation) -> None:
    """A block may follow the one that was just cancelled, with the values of that."""
    stage = Stage(sim)

    async def block(name: str) -> None:
        async with stage.entered():
            await stage.ask(name)

    async def blocks() -> None:
        await victim(block, "victim")
        await block("a")
        await block("b")

    await together(blocks=blocks, c=lambda: stage.ask("c"))
    stage.clear("a", "b")
    assert stage.started["k"] <= 3
