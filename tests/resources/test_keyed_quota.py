"""What KeyedQuota promises, one case at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio import RateLimiter
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.exceptions import LimitClosedError, LimitTimeoutError, RateLimitError
from mtaio.resilience import Pipeline
from mtaio.resources import KeyedQuota
from mtaio.testing import assert_checkpoints, assert_quiescent, run
from tests.resources.moments import cancel_everywhere, modes

if TYPE_CHECKING:
    from mtaio.testing import Victim
    from tests.resources.moments import Mode


def tokens(quotas: KeyedQuota, key: str, name: str = "a") -> float:
    """Return how much a key has of a limit."""
    return quotas.statistics_for(key).limits[name].tokens


async def test_each_key_has_its_own() -> None:
    """A task that waits delays no other key."""
    quotas = KeyedQuota(a=2, b=10, per=10)
    served: list[tuple[str, float]] = []

    async def ask(key: str) -> None:
        async with quotas.take(key, b=5):
            served.append((key, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for key in ("x", "x", "x", "y"):
            group.start_soon(ask, key)
    assert sorted(served) == [("x", 0), ("x", 0), ("x", 5), ("y", 0)]
    figures = quotas.statistics()
    assert (figures.keys, figures.acquired, figures.wait_seconds) == (2, 4, 5)
    assert quotas.limits == ("a", "b")


async def test_ways_to_take() -> None:
    """What a quota has, with the key first."""
    quotas = KeyedQuota(a=4, per=4, name="tenants")
    await quotas.acquire("x", a=2)
    assert quotas.try_acquire("x")
    quotas.acquire_nowait("x")
    assert not quotas.try_acquire("x")
    with pytest.raises(LimitTimeoutError):
        await quotas.acquire("x", timeout=0.5)
    with pytest.raises(ValueError, match=r"^cannot take 5 a of <Quota 'tenants' of a"):
        await quotas.acquire("x", a=5)
    assert quotas.name == "tenants"
    assert repr(quotas) == "<KeyedQuota 'tenants' of a 4/4 s burst=4 keys=1>"
    assert (quotas.statistics().rejected, quotas.statistics().timed_out) == (1, 1)


async def test_what_the_server_says_of_a_key() -> None:
    """A hold, what is left and what was used are those of one key."""
    quotas = KeyedQuota(a=10, per=10)
    async with quotas.take("x", a=8) as taken:
        taken.settle(a=2)
        assert repr(taken) == ("<Taken: 2 a of <Quota of a 10/10 s burst=10> for key='x'>")
    assert (tokens(quotas, "x"), tokens(quotas, "y")) == (8, 10)
    quotas.observe("x", limit={"a": 5}, remaining={"a": 1}, reset={"a": 9})
    quotas.hold("y", 3)
    assert (tokens(quotas, "x"), tokens(quotas, "y")) == (1, 0)
    assert (tokens(quotas, "z"), quotas.statistics().keys) == (10, 2)
    await quotas.acquire("y")
    assert anyio.current_time() == 3


@pytest.mark.parametrize("window", [False, True])
async def test_idle_keys_are_forgotten(*, window: bool) -> None:
    """A key makes room when it is as good as new: not in a block, in debt, held or waited for."""
    quotas = KeyedQuota(a=2, per=2, max_keys=1, idle_ttl=1, window=window)
    async with quotas.take("x", a=2) as taken:
        await anyio.sleep(5)
        with pytest.raises(RateLimitError, match=r"has no room for key='y': max_keys=1 are held"):
            await quotas.acquire("y")
        taken.settle(a=4)
    with pytest.raises(RateLimitError) as refused:
        quotas.acquire_nowait("y")
    assert refused.value.retry_after == 2
    quotas.hold("x", 3)
    await anyio.sleep(2.5)
    assert not quotas.try_acquire("y")
    await anyio.sleep(1.5)
    assert quotas.try_acquire("y")
    figures = quotas.statistics()
    assert (figures.keys, figures.max_keys, figures.forgotten, figures.rejected_keys) == (
        1,
        1,
        1,
        3,
    )
    await anyio.sleep(9)
    for _ in range(FAST_CALLS):
        await quotas.acquire("y", a=0)
    assert quotas.statistics().forgotten == 2


async def test_a_block_is_of_the_key_that_there_is_when_it_is_entered() -> None:
    """A key may be forgotten and come back between `take` and the block."""
    quotas = KeyedQuota(a=2, per=2, max_keys=1)
    taken = quotas.take("x")
    assert quotas.try_acquire("y")
    await anyio.sleep(3)
    async with taken:
        assert tokens(quotas, "x") == 1
        assert quotas.statistics_for("x").in_flight == 1


async def test_some_calls_yield() -> None:
    """One in 64 calls lets other tasks run, whatever their keys."""
    quotas = KeyedQuota(a=2)
    with assert_checkpoints():
        for number in range(FAST_CALLS):
            await quotas.acquire(number)
    assert quotas.statistics().keys == FAST_CALLS
    await anyio.sleep(100)
    forgotten = [0]
    for number in range(9):
        quotas.acquire_nowait(f"new {number}")
        forgotten.append(quotas.statistics().forgotten)
    # Never so many in one go that the event loop stands still.
    assert max(later - sooner for sooner, later in pairwise(forgotten)) == 16
    assert forgotten[-1] == FAST_CALLS


async def test_close() -> None:
    """Nobody gets in any more, and no key is held."""
    quotas = KeyedQuota(a=1, per=60)
    await quotas.acquire("x")

    async def refused(key: str) -> None:
        with pytest.raises(LimitClosedError):
            await quotas.acquire(key)

    async with anyio.create_task_group() as group:
        group.start_soon(refused, "x")
        await anyio.sleep(1)
        quotas.close()
    await refused("y")
    assert (quotas.statistics().keys, quotas.statistics().rejected) == (0, 2)


async def test_in_a_pipeline() -> None:
    """Its calls need a key; given as it is, each costs one of each limit."""
    quotas = KeyedQuota(a=10, b=100, per=1000, name="tenants")

    async def answer(prompt: str) -> str:
        return prompt[:1]

    part = quotas.part(b=len, used=lambda answer: {"b": len(answer)})
    assert str(part) == "KeyedQuota('tenants', b=len)"
    await Pipeline(part).run(answer, "abc", key="x")
    await Pipeline(quotas).run(answer, "abc", key="x")
    assert (tokens(quotas, "x"), tokens(quotas, "x", "b")) == (8, 98)
    with pytest.raises(ValueError, match="has no key"):
        await Pipeline(part).run(answer, "abc")

    @quotas(key=lambda prompt: prompt[0], b=len)
    async def ask(prompt: str) -> str:
        return prompt

    await ask("yes")
    assert tokens(quotas, "y", "b") == 97


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, TypeError, "^a Quota without limits"),
        ({"a": RateLimiter(1)}, TypeError, "^a=<RateLimiter .*> would be shared by all keys"),
        ({"a": 1, "max_keys": 0}, ValueError, "^max_keys=0 is less than 1"),
        ({"a": 1, "idle_ttl": -1}, ValueError, "^idle_ttl=-1 is less than 0"),
    ],
)
def test_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """What makes no sense is refused when it is made."""
    with pytest.raises(kind, match=message):
        KeyedQuota(**options)


def test_keys_that_cannot_be_hashed(backend: str) -> None:
    """Such a key is refused by name, and nothing else happens."""
    quotas = KeyedQuota(a=1, max_keys=None)

    async def ask() -> None:
        with pytest.raises(TypeError, match=r"^key=\[\] cannot be hashed"):
            await quotas.acquire([])  # type: ignore[arg-type] # wrong on purpose

    run(ask, backend=backend)
    assert quotas.statistics().keys == 0


def test_from_one_clock_to_the_next(backend: str) -> None:
    """Keys are idle by the time of the loop that uses them."""
    quotas = KeyedQuota(a=1, per=10, max_keys=1)

    async def first() -> None:
        await quotas.acquire("x")
        await anyio.sleep(6)

    async def second() -> None:
        assert not quotas.try_acquire("y")
        await anyio.sleep(5)
        assert quotas.try_acquire("y")

    run(first, backend=backend)
    run(second, backend=backend)


@modes
def test_cancelled_anywhere(mode: Mode) -> None:
    """A task that is cancelled has taken nothing of its key."""

    async def scenario(victim: Victim) -> None:
        quotas = KeyedQuota(a=1, max_keys=2)
        served: list[str] = []

        async def use(name: str, key: str) -> None:
            async with quotas.take(key):
                served.append(name)
                await anyio.sleep(0.5)

        async with anyio.create_task_group() as group:
            group.start_soon(use, "first", "x")
            group.start_soon(victim, use, "victim", "x")
            group.start_soon(use, "other", "y")
            group.start_soon(use, "last", "x")
        assert {"first", "other", "last"} <= set(served)
        assert quotas.statistics().acquired == len(served)
        assert_quiescent(quotas)

    cancel_everywhere(mode, scenario)
