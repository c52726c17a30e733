"""KeyedConcurrencyLimiter: slots for each key, which is forgotten with its last user."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from mtaio.exceptions import ConcurrencyLimitError, LimitTimeoutError
from mtaio.resilience import Pipeline, Timeout
from mtaio.resources import KeyedConcurrencyLimiter
from mtaio.statistics import KeyConcurrencyStatistics
from mtaio.testing import check_limiter, run
from tests.hammer.hammer import HAS_GIL, at_once

REFUSED = r"^<KeyedConcurrencyLimiter limit=1 keys=1> has no room for key='b': max_keys=1 have a"


async def test_each_key_has_slots_of_its_own() -> None:
    """No more than the limit at once for each key, and one does not wait for another."""
    limiter = KeyedConcurrencyLimiter(2, name="hosts")
    inside: Counter[str] = Counter()
    ended: list[tuple[str, float]] = []

    async def work(key: str) -> None:
        async with limiter.slot(key):
            inside[key] += 1
            assert inside[key] <= 2
            await anyio.sleep(1)
            inside[key] -= 1
        ended.append((key, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for key in "aaab":
            group.start_soon(work, key)
            await wait_all_tasks_blocked()
        await anyio.sleep(0.5)
        now = limiter.statistics()
        assert (now.limit, now.keys, now.max_keys) == (2, 2, 10_000)
        assert (now.in_use, now.waiting, now.acquired) == (3, 1, 3)
        assert limiter.statistics_for("a") == KeyConcurrencyStatistics(in_use=2, waiting=1)
        assert limiter.statistics_for("c") == KeyConcurrencyStatistics(in_use=0, waiting=0)
        assert repr(limiter) == "<KeyedConcurrencyLimiter 'hosts' limit=2 keys=2>"
    assert sorted(ended) == [("a", 1), ("a", 1), ("a", 2), ("b", 1)]
    now = limiter.statistics()
    assert (now.keys, now.in_use, now.acquired) == (0, 0, 4)
    assert (now.wait_seconds, now.max_wait_seconds) == (1, 1)


async def test_a_key_costs_nothing_when_nobody_uses_it() -> None:
    """It is forgotten with its last slot, however many keys there are in turn; and so is it."""

    class Key:
        pass

    limiter = KeyedConcurrencyLimiter(1, max_keys=1)
    key = Key()
    seen = weakref.ref(key)
    async with limiter.slot(key):
        assert limiter.statistics().keys == 1
    del key
    gc.collect()
    assert seen() is None
    for number in range(50):
        await limiter.acquire(number)
        limiter.release(number)
    assert limiter.statistics().acquired == 51


async def test_no_room_for_another_key() -> None:
    """A new key is refused while `max_keys` are in use, and one that is held is not."""
    limiter = KeyedConcurrencyLimiter(1, max_keys=1)
    await limiter.acquire("a")
    with pytest.raises(ConcurrencyLimitError, match=REFUSED):
        await limiter.acquire("b")
    assert not limiter.try_acquire("b")
    assert not limiter.try_acquire("a")
    with pytest.raises(LimitTimeoutError, match=r"^<KeyedConcurrencyLimiter key='a': 1 of 1 slo"):
        await limiter.acquire("a", timeout=1)
    with anyio.move_on_after(1):
        await limiter.acquire("a")
    now = limiter.statistics()
    assert (now.rejected_keys, now.rejected, now.timed_out, now.cancelled) == (2, 1, 1, 1)
    limiter.release("a")
    async with limiter.slot("b"):
        assert (limiter.max_keys, limiter.max_waiting, limiter.name) == (1, None, None)
    unbounded = KeyedConcurrencyLimiter(1, max_keys=None)
    for number in range(10):
        await unbounded.acquire(number)
    assert unbounded.statistics().keys == 10


async def test_the_queue_of_a_key_is_bounded() -> None:
    """`max_waiting` counts for each key."""
    limiter = KeyedConcurrencyLimiter(1, max_waiting=1)
    async with anyio.create_task_group() as group:
        for key in "aab":
            group.start_soon(limiter.acquire, key)
        await wait_all_tasks_blocked()
        with pytest.raises(ConcurrencyLimitError, match=r"key='a': .* lets at most max_waiting=1 "):
            await limiter.acquire("a")
        limiter.release("a")
    limiter.release("a")
    limiter.release("b")


async def test_limit_changes_for_every_key() -> None:
    """Also for keys that come later, by way of a limiter that served another key."""
    limiter = KeyedConcurrencyLimiter(1)
    async with limiter.slot("gone"):
        pass
    async with anyio.create_task_group() as group:
        for key in "aabb":
            group.start_soon(limiter.acquire, key)
        await wait_all_tasks_blocked()
        assert limiter.statistics().waiting == 2
        limiter.limit = 2
        await wait_all_tasks_blocked()
    assert limiter.limit == 2
    for key in "ccaabb":
        if key == "c":
            assert limiter.try_acquire(key)
        else:
            limiter.release(key)
    assert limiter.statistics().in_use == 2
    with pytest.raises(ValueError, match=r"^limit=-1 is less than 0\. Pass how much may run"):
        limiter.limit = -1


async def test_as_a_decorator_and_in_a_pipeline() -> None:
    """The key comes from the arguments of a call, or with the call."""
    limiter = KeyedConcurrencyLimiter(1)
    pipeline = Pipeline(limiter, Timeout(9))
    assert "KeyedConcurrencyLimiter(1)" in str(pipeline)

    class Client:
        @limiter(key=lambda _self, host, **_: host, timeout=5)
        async def get(self, host: str, *, page: int = 0) -> str:
            """Return a page."""
            await anyio.sleep(1)
            return f"{host}/{page}"

    async def items(host: str) -> AsyncGenerator[str]:
        yield f"{host}/0"
        await anyio.sleep(1)
        yield f"{host}/1"

    client, got = Client(), []

    async def stream() -> None:
        async with pipeline.stream(items, "b", key="b") as pages:
            got.extend([page async for page in pages])

    async with anyio.create_task_group() as group:
        group.start_soon(client.get, "a")
        group.start_soon(stream)
        await wait_all_tasks_blocked()
        assert await client.get("a", page=1) == "a/1"
        assert anyio.current_time() == 2
        assert await pipeline.run(client.get.__wrapped__, client, "b", key="b") == "b/0"  # type: ignore[attr-defined]
        assert anyio.current_time() == 3
    assert got == ["b/0", "b/1"]
    assert limiter.statistics().keys == 0
    with pytest.raises(ConnectionError):
        async with pipeline.stream(broken, key="b"):
            pytest.fail("opened")
    assert limiter.statistics().keys == 0
    with pytest.raises(ValueError, match=r"^the call of .* has no key, and <KeyedConcurrencyLimi"):
        await pipeline.run(client.get, "a")


async def broken() -> AsyncGenerator[int]:
    """Yield nothing."""
    raise ConnectionError
    yield 1


class Odd:
    """A key that cannot be compared."""

    def __hash__(self) -> int:
        return hash("odd")

    def __eq__(self, other: object) -> bool:
        raise TypeError("odd")


async def test_bad_arguments() -> None:
    """What cannot be is refused, with the name, the value and the way out."""
    limiter = KeyedConcurrencyLimiter(1)
    refusals: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1, "max_keys": 0}]
    for options in refusals:
        with pytest.raises(ValueError, match=r"^(limit|max_keys)=0 is less than 1\. Pass how "):
            KeyedConcurrencyLimiter(**options)
    unhashable: Any = ["a"]
    for call in (limiter.acquire_nowait, limiter.release, limiter.statistics_for):
        with pytest.raises(TypeError, match=r"^key=\['a'\] cannot be hashed: .* Pass what can be"):
            call(unhashable)
    async with limiter.slot(Odd()):
        for call in (limiter.acquire_nowait, limiter.release):
            with pytest.raises(TypeError, match=r"^odd$"):
                call(Odd())
    with pytest.raises(RuntimeError, match=r"^cannot release a slot of key='b': <Keyed.* has none"):
        limiter.release("b")
    await limiter.acquire("a")
    with pytest.raises(ValueError, match=r"^timeout=-1 "):
        await limiter.acquire("a", timeout=-1)
    assert limiter.statistics().cancelled == 0
    untyped: Any = limiter
    with pytest.raises(TypeError, match=r"^key=1 is an int, which is not callable"):
        untyped(key=1)


def test_a_loop_that_is_over_leaves_no_key(backend: str) -> None:
    """Tasks that waited in a loop that was closed are forgotten, with their keys."""
    limiter = KeyedConcurrencyLimiter(1)

    async def wait() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.acquire, "a")
            group.start_soon(limiter.acquire, "a")
            await wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    for _ in range(2):
        run(wait, backend=backend)
        limiter.release("a")
        assert limiter.statistics().keys == 0


@pytest.mark.skipif(not HAS_GIL, reason="a limiter belongs to one thread there")
def test_in_threads() -> None:
    """Slots may be taken and given back in any thread, and there are never too many."""
    limiter = KeyedConcurrencyLimiter(2, max_keys=3)
    inside: Counter[int] = Counter()
    most: Counter[int] = Counter()

    def work() -> None:
        for number in range(300):
            key = number % 3
            if limiter.try_acquire(key):
                inside[key] += 1
                most[key] = max(most[key], limiter.statistics_for(key).in_use)
                limiter.release(key)

    at_once([work] * 4)
    assert set(most.values()) <= {1, 2}
    assert limiter.statistics().keys == 0


def test_keeps_the_contract_of_a_limiter() -> None:
    """One key is as good as a limiter of concurrency."""
    check_limiter(lambda limit: KeyedConcurrencyLimiter(limit).slot("key"), seeds=5, exhaustive=1)
