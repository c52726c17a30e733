"""
How many Python functions the most used paths enter: ``python -m tests.fast_paths asyncio``.

A process of its own, because the virtual clock of other tests stays in the way of the real one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

import mtaio
from mtaio._internal.checkpoints import FAST_CALLS
from mtaio.app._request import Request
from mtaio.cache import TTLCache, cached
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.resilience import Breaker, Pipeline, Retry
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

    Step = Callable[[], Awaitable[object]]

limiter = RateLimiter(1e9, burst=1e9)
keyed = KeyedRateLimiter(1e9, burst=1e9)
slots = ConcurrencyLimiter(10)
retry = Retry(3)
pipeline = Pipeline(retry)
limited_pipeline = Pipeline(retry, limiter)
cache: TTLCache[int] = TTLCache(300)
emitter = EventEmitter()
executor = TaskExecutor()
GET: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": "GET", "headers": []}


async def nothing() -> int:
    """Return a value, as a function of a user's does in no time."""
    return 1


@cached(ttl=300)
async def loaded() -> int:
    """Return what is loaded once."""
    return 1


@limiter
async def limited() -> None:
    """Do nothing, so often."""


@limited_pipeline
async def tried() -> None:
    """Do nothing, again if it fails."""


@Breaker()
async def guarded() -> None:
    """Do nothing, unless it fails too often."""


@emitter.on("event")
def handle(_: object) -> None:
    """Handle an event."""


async def turn() -> None:
    """Take as many tokens as there are calls from one that yields to the next."""
    for _ in range(FAST_CALLS):
        await limiter.acquire()


async def block() -> None:
    """Enter a block and leave it."""
    async with slots:
        pass


async def mapped(items: int) -> None:
    """Run a function for some items, two at a time."""
    async with TaskExecutor(max_workers=2) as executor:
        await executor.map(same, range(items))


async def submitted() -> None:
    """Submit a task, and wait for it."""
    await (await executor.submit(nothing))


async def answered() -> None:
    """Answer a request, whose client keeps up."""
    request = Request(GET, received, send, closing=bool, whole=False, bare=True)
    await request.run(app, print)


async def app(_: object, __: object, send: Any) -> None:
    """Answer as an application does."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"ok"})


async def received() -> dict[str, Any]:
    """Receive the end of a request."""
    return {"type": "http.request"}


async def send(_: object) -> None:
    """Send it."""


async def same(item: int) -> int:
    """Return what it was called with."""
    return item


PATHS: dict[str, Step] = {
    "a token": limiter.acquire,
    "a token of a key": lambda: keyed.acquire("key"),
    "a slot, in a block": block,
    "a function with a rate": limited,
    "a hit": lambda: cache.get_or_set("key", nothing),
    "a hit of a function": loaded,
    "an event": lambda: emitter.emit("event", 1),
    "a try": lambda: retry.run(nothing),
    "a pipeline": lambda: pipeline.run(nothing),
    "a function of a pipeline": tried,
    "a function of a part": guarded,
    "100 items": lambda: mapped(100),
    "200 items": lambda: mapped(200),
}

STARTING: dict[str, Step] = {
    "two at once": lambda: executor.gather(nothing, nothing),
    "a race of two": lambda: executor.race(nothing, nothing),
    "a task": submitted,
    "a request": answered,
    "64 tokens": turn,
}
"""
Paths that start tasks, yield or enter scopes.

Only our own functions count, as loops and AnyIO have many and differ.
"""

OURS = str(Path(mtaio.__file__).parent)


async def entered(step: Step, *, within: str = "") -> int:
    """Return how many functions a step enters, itself included: the least of a few."""
    counts: list[int] = []
    for _ in range(5):
        count = 0

        def see(frame: FrameType, event: str, _: Any) -> None:
            nonlocal count
            count += event == "call" and frame.f_code.co_filename.startswith(within)

        sys.setprofile(see)
        try:
            await step()
        finally:
            sys.setprofile(None)
        counts.append(count)
    return min(counts)


async def main() -> None:
    """Print the count for each path."""
    counts = {path: await entered(step) for path, step in PATHS.items()}
    async with executor:
        for path, step in STARTING.items():
            counts[path] = await entered(step, within=OURS)
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    anyio.run(main, backend=sys.argv[1])
