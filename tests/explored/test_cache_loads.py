"""Loads under many schedules, cancelled everywhere: one for all, none too old, nothing left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio.cache import cached
from tests.explored.cache_stage import Stage, explored
from tests.explored.searches import together

if TYPE_CHECKING:
    from mtaio.testing import Simulation, Victim

BOTH = pytest.mark.parametrize("entered", [True, False], ids=["entered", "not entered"])


@BOTH
@explored
async def test_one_load_for_all(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """A cancelled caller changes nothing for the others, and costs one load more at most."""
    stage = Stage(sim)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim"),
            a=lambda: stage.ask("a"),
            b=lambda: stage.ask("b"),
        )
        assert stage.started["k"] == 1 + stage.cancelled["k"] <= 1 + victim.fired
        assert await stage.cache.get("k") == ("k", 0)
    stage.clear("a", "b")
    assert victim.cancelled or stage.got["victim"] == ("k", 0)


@BOTH
@explored
async def test_loader_that_fails(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """Each caller gets the error of a load that ran while it waited, and nothing is kept."""
    stage = Stage(sim)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim", "k", stage.fail),
            a=lambda: stage.ask("a", "k", stage.fail),
            b=lambda: stage.ask("b", "k", stage.fail),
        )
        assert stage.got["a"] == stage.got["b"] == "SourceError"
        assert victim.cancelled or stage.got["victim"] == "SourceError"
        assert 1 <= stage.failed["k"] <= 3
        assert stage.cache.statistics().failed == stage.failed["k"]
        assert len(stage.cache) == 0
    stage.clear()
    assert stage.heard == []


@BOTH
@explored
async def test_errors_that_are_kept(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """With error_ttl one failed load answers all callers; a cancellation never does."""
    stage = Stage(sim, error_ttl=10, max_size=1)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim", "k", stage.fail),
            a=lambda: stage.ask("a", "k", stage.fail),
            b=lambda: stage.ask("b", "k", stage.fail),
        )
        assert stage.got["a"] == stage.got["b"] == "SourceError"
        assert stage.failed["k"] == 1
        await anyio.sleep(12)
        assert len(stage.cache) == (not entered)
        await stage.ask("late")
    stage.clear("late")


@BOTH
@explored
async def test_changed_in_flight(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """Nobody who asks after a change gets what was read before it; what is kept is the newest."""
    stage = Stage(sim)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim"),
            a=lambda: stage.ask("a"),
            changer=lambda: stage.after(1, stage.changes),
            b=lambda: stage.ask("b"),
        )
        kept = await stage.cache.get("k")
        assert kept in (None, ("k", 1))
        assert stage.started["k"] - stage.cancelled["k"] <= 2
    stage.clear("a", "b")


@BOTH
@explored
async def test_changed_while_a_load_cannot_be_cancelled(
    victim: Victim, sim: Simulation, *, entered: bool
) -> None:
    """A load that everybody left, and that comes back all the same, brings nothing old."""
    stage = Stage(sim)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim", "k", stage.linger),
            changer=lambda: stage.after(2, stage.changes),
            a=lambda: stage.ask("a"),
        )
        await anyio.sleep(1)
        assert await stage.cache.get("k") in (None, ("k", 1))
    stage.clear("a")


@BOTH
@explored
async def test_tag_invalidated_in_flight(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """A tag finds what carries it, and what is still on its way; other keys are left alone."""
    stage = Stage(sim)

    def change() -> None:
        stage.version += 1
        stage.cache.invalidate_tag_nowait("tag")

    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(lambda: stage.ask("victim", "k", tags=["tag"])),
            other=lambda: stage.ask("other", "o", tags=["beside"]),
            changer=lambda: stage.after(1, change),
            a=lambda: stage.ask("a", "k", tags=["tag"]),
        )
        assert await stage.cache.get("k") in (None, ("k", 1))
        assert "o" in stage.cache
        assert stage.started["o"] == 1
    stage.clear("a", "other")


@BOTH
@explored
async def test_set_in_flight(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """What is set during a load stays, whenever the load comes back."""
    stage = Stage(sim)

    def put() -> None:
        stage.version += 1
        stage.cache.set_nowait("k", ("k", stage.version))

    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim"),
            setter=lambda: stage.after(1, put),
            a=lambda: stage.ask("a"),
        )
        assert await stage.cache.get("k") == ("k", 1)
    stage.clear("a")


@BOTH
@explored
async def test_refresh_beside_a_load(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """Each refresh begins a load of its own, and what began before it stores nothing any more."""
    stage = Stage(sim)

    asked = 0

    async def renew(name: str) -> None:
        nonlocal asked
        asked += 1
        number = asked

        async def load(key: str) -> tuple[str, int]:
            await stage.load(key, 3 - number)
            return key, number

        await stage.renew(name, "k", load)

    async def renewer() -> None:
        await checkpoint()
        await victim(renew, "victim")

    async with stage.entered(really=entered):
        await together(
            a=lambda: stage.ask("a"),
            renewer=renewer,
            b=lambda: renew("b"),
        )
        kept = await stage.cache.get("k")
        assert victim.fired or kept == ("k", 2)
        await stage.ask("late")
    stage.clear("a", "b", "late")


@BOTH
@explored
async def test_everybody_may_leave(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """With callers that give up after a step, the last ends the load; who comes then is served."""
    stage = Stage(sim)

    async def impatient(name: str) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(stage.after, 1, scope.cancel)
                await stage.ask(name)

    async with stage.entered(really=entered):
        await together(
            a=lambda: impatient("a"),
            victim=lambda: victim(stage.ask, "victim"),
            b=lambda: impatient("b"),
        )
        await stage.ask("late")
        assert stage.started["k"] - stage.cancelled["k"] == 1
    stage.clear("late")


@BOTH
@explored
async def test_loads_within_loads(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """A load that waits for another key's load shares it with that key's callers."""
    stage = Stage(sim)

    async def outer(key: str) -> tuple[str, int]:
        inner = await stage.cache.get_or_set("k", lambda: stage.load("k"))
        return key, inner[1]

    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask, "victim", "outer", outer),
            a=lambda: stage.ask("a"),
            b=lambda: stage.ask("b", "outer", outer),
        )
        assert stage.started["k"] <= 1 + victim.fired
    stage.clear("a", "b")


@BOTH
@explored
async def test_loader_that_asks_for_itself(
    victim: Victim, sim: Simulation, *, entered: bool
) -> None:
    """It is refused in each run, and those who wait for it are told."""
    stage = Stage(sim)

    async def around(key: str) -> tuple[str, int]:
        await checkpoint()
        return await stage.cache.get_or_set("k", lambda: recursive(key))

    async def recursive(key: str) -> tuple[str, int]:
        await checkpoint()
        await stage.cache.get_or_set("other", lambda: around("other"))
        return key, 0

    async def ask(name: str) -> None:
        with pytest.raises(RuntimeError, match=r"^the load of key='k' in <TTLCache "):
            await stage.ask(name, "k", recursive)
        stage.got[name] = "itself"

    async with stage.entered(really=entered):
        await together(victim=lambda: victim(ask, "victim"), a=lambda: ask("a"))
        assert stage.got["a"] == "itself"
        assert len(stage.cache) == 0
    stage.clear()


@BOTH
@explored
async def test_cached_function(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """Calls with equal arguments share one, and an invalidation in between is heeded."""
    stage = Stage(sim)
    loads = 0

    @cached(cache=stage.cache, key=lambda number: number)
    async def fetch(number: int) -> tuple[int, int]:
        nonlocal loads
        loads += 1
        version = stage.version
        await checkpoint()
        return number, version

    async def call(name: str) -> None:
        since = stage.version
        stage.callers += 1
        try:
            answer = await fetch(7)
        finally:
            stage.callers -= 1
        assert answer[1] >= since
        stage.got[name] = ("7", answer[1])

    def change() -> None:
        stage.version += 1
        fetch.invalidate_nowait(7)

    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(call, "victim"),
            a=lambda: call("a"),
            changer=lambda: stage.after(1, change),
            b=lambda: call("b"),
        )
        assert 1 <= loads <= 2 + victim.fired
    stage.clear("a", "b")


@BOTH
@explored
async def test_never_more_than_there_is_room_for(
    victim: Victim, sim: Simulation, *, entered: bool
) -> None:
    """Loads of more keys than there is room for all answer, and one value is kept."""
    stage = Stage(sim, max_size=1)
    async with stage.entered(really=entered):
        await together(
            a=lambda: stage.ask("a", "x"),
            victim=lambda: victim(stage.ask, "victim", "y"),
            b=lambda: stage.ask("b", "z"),
        )
        assert len(stage.cache) == 1
    evicted = stage.ended.total() - 1
    assert stage.cache.statistics().evictions == evicted == len(stage.heard)
    stage.clear("a", "b")


@explored
async def test_closed_during_loads(victim: Victim, sim: Simulation) -> None:
    """Callers outside the block get a value or are told; those who come after load themselves."""
    stage = Stage(sim)

    async def block() -> None:
        async with stage.entered():
            await checkpoint()

    async def twice(name: str) -> None:
        await stage.ask(name)
        stage.cache.delete_nowait("k")
        await stage.ask(f"{name} again")

    await together(
        block=block,
        a=lambda: twice("a"),
        victim=lambda: victim(stage.ask, "victim"),
        b=lambda: stage.ask("b"),
    )
    await stage.ask("late")
    stage.clear("late")
    assert {"a", "a again", "b"} <= {*stage.got}
    assert {each for each in stage.got.values() if isinstance(each, str)} <= {"CacheClosedError"}


@explored
async def test_block_that_is_cancelled(victim: Victim, sim: Simulation) -> None:
    """Whenever the block's own task is cancelled, nothing hangs, and the cache is usable again."""
    stage = Stage(sim)

    async def block() -> None:
        async with stage.entered():
            await stage.ask("inside")
            await checkpoint()

    await together(
        block=lambda: victim(block),
        a=lambda: stage.ask("a"),
        b=lambda: stage.ask("b", "other"),
    )
    async with stage.entered():
        await stage.ask("late")
    stage.clear("late")
    assert {"a", "b"} <= {*stage.got}


@explored
async def test_closed_while_a_load_cannot_be_cancelled(victim: Victim, sim: Simulation) -> None:
    """Who asks while the block is left, and the key was changed, gets nothing of what runs on."""
    stage = Stage(sim)

    async def block() -> None:
        async with stage.entered():
            await checkpoint()

    async def changer() -> None:
        await stage.after(2, stage.changes)
        await stage.ask("after")

    await together(
        block=block,
        victim=lambda: victim(stage.ask, "victim", "k", stage.linger),
        a=lambda: stage.ask("a", "k", stage.linger),
        changer=changer,
    )
    await stage.ask("late")
    stage.clear("late")


@BOTH
@pytest.mark.parametrize("how", ["asks", "child asks", "background asks"])
@explored
async def test_loads_that_wait_for_each_other(
    victim: Victim, sim: Simulation, *, entered: bool, how: str
) -> None:
    """Whichever caller is cancelled, three loads in a circle end with their callers."""
    stage = Stage(sim)
    keys = ["a", "b", "c"]
    told = 0
    over = False

    async def load(key: str) -> tuple[str, int]:
        answer = await stage.load(key)
        following = keys[(keys.index(key) + 1) % 3]
        if how == "asks":
            await ask(following)
        elif how == "child asks":
            async with anyio.create_task_group() as group:
                group.start_soon(ask, following)
        elif not over:
            background.start_soon(ask, following)
        return answer

    async def ask(key: str) -> None:
        nonlocal told
        stage.callers += 1
        try:
            await stage.cache.get_or_set(key, lambda: load(key))
        except RuntimeError as error:
            told += "would wait for itself" in str(error)
        finally:
            stage.callers -= 1

    async def caller(key: str) -> None:
        with anyio.move_on_after(10):
            await ask(key)

    async with stage.entered(really=entered), anyio.create_task_group() as background:
        await together(
            victim=lambda: victim(caller, "a"),
            b=lambda: caller("b"),
            c=lambda: caller("c"),
        )
        over = True
        if how == "background asks":
            assert anyio.current_time() == 0
            assert told == 0
        elif how == "asks" or entered:
            assert anyio.current_time() == 0
    assert stage.cache.statistics().in_flight == stage.cache.statistics().waiting == 0
    assert not stage.cache._loads.table
    await stage.cache.get_or_set("a", lambda: stage.load("a"))
    stage.clear()


@BOTH
@explored
async def test_several_keys_at_once(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """However sets of keys overlap and callers leave, each key is loaded once, or once more."""
    stage = Stage(sim)
    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask_many, "victim", "jk"),
            several=lambda: stage.ask_many("several", "kl"),
            one=lambda: stage.ask("one"),
        )
        assert 1 <= stage.started["k"] <= 1 + victim.fired
        assert stage.started["l"] == 1
        assert await stage.cache.get_many(["k", "l"]) == {"k": ("k", 0), "l": ("l", 0)}
    stage.clear("several", "one")


@BOTH
@explored
async def test_a_key_that_is_left_out(victim: Victim, sim: Simulation, *, entered: bool) -> None:
    """Who asked for it alone gets it all the same; a change meanwhile is seen by those after it."""
    stage = Stage(sim)

    def change() -> None:
        stage.changes("j")
        stage.cache.delete_nowait("k")

    async with stage.entered(really=entered):
        await together(
            victim=lambda: victim(stage.ask_many, "victim", "jk", "k"),
            several=lambda: stage.ask_many("several", "kj", "k"),
            one=lambda: stage.ask("one"),
            changer=lambda: stage.after(1, change),
        )
    stage.clear("several", "one")
