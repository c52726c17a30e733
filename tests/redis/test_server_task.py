"""The task of a limiter that calls the server, where event loops come and go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.redis import RedisConcurrencyLimiter, RedisRateLimiter
from mtaio.redis._bucket import RESERVE
from mtaio.testing import run, settle
from tests.redis.exchanging import Slots
from tests.redis.memory import MemoryStore
from tests.redis.reserving import reserve

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Tokens(MemoryStore):
    """A server that knows the script of rates."""

    def forget(self) -> None:
        """Lose what was stored."""
        self.data.clear()


def made(kind: str) -> tuple[Any, Any]:
    """Return a server and a limiter, of which one task at a time gets something."""
    if kind == "rate":
        tokens = Tokens({RESERVE: reserve}, latency=0)
        return tokens, RedisRateLimiter(tokens, "key", 0.1, burst=1)
    slots = Slots(latency=0)
    return slots, RedisConcurrencyLimiter(slots, "key", 1)


def close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Do what the garbage collector does with the coroutine of a task whose loop was closed."""
    with suppress(RuntimeError):  # AnyIO's, of a scope that ends in another task
        coroutine.close()


@pytest.mark.parametrize("when", ["before its first use", "while its tasks wait"])
@pytest.mark.parametrize("kind", ["rate", "slots"])
def test_coroutines_of_a_closed_loop(kind: str, when: str, backend: str) -> None:
    """Whenever they are thrown away in the next loop, the tasks that wait there do not notice."""
    store, limiter = made(kind)
    left: list[Coroutine[Any, Any, Any]] = []

    async def first() -> None:
        def start(fn: Any) -> object:
            left.append(fn())
            return asyncio.ensure_future(left[-1])

        store.start = start
        await limiter.acquire()
        tasks = [start(call) for call in (limiter.acquire, limiter.try_acquire, limiter.acquire)]
        for _ in range(50):
            await asyncio.sleep(0)
        loop.set_exception_handler(lambda *_: tasks)  # which keeps them

    async def second() -> None:
        async with store:
            if when == "before its first use":
                for each in left:
                    close(each)
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(limiter.acquire)
                await settle()
                assert limiter.statistics().waiting == 2
                if when == "while its tasks wait":
                    for each in left:
                        close(each)
                    await settle()
                    assert limiter.statistics().waiting == 2
                await anyio.sleep(10.5)
                assert limiter.statistics().waiting == (1 if kind == "rate" else 2)
                group.cancel_scope.cancel()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    loop.close()
    del store.start
    store.forget()  # it has the clock of the loop
    run(second, backend=backend)
