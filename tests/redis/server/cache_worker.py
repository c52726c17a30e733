"""
A process with a cache that does what standard input says; run with ``python -m``.

Each line is JSON: a method of the cache, and its arguments; or "load", the key, the seconds that it
takes, and its tags. Each answer is a line of JSON.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import anyio

from mtaio.redis import RedisStore, TieredCache


def say(answer: object) -> None:
    """Print a line."""
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


async def main(*args: str) -> None:
    """Work until standard input ends."""
    url, namespace = args
    async with RedisStore(url, timeout=10) as store, TieredCache[Any](store, namespace) as cache:

        async def load(key: str, seconds: Any, tags: Any) -> Any:
            return await cache.get_or_set(key, partial(work, seconds), tags=tags)

        async def work(seconds: float) -> str:
            say("loading")
            await anyio.sleep(seconds)
            return "old"

        while not cache.statistics().listening:  # noqa: ASYNC110 - a server tells no event
            await anyio.sleep(0.01)
        say("ready")
        while text := await anyio.to_thread.run_sync(sys.stdin.readline):
            name, *args = json.loads(text)
            answer = await (load if name == "load" else getattr(cache, name))(*args)
            say(answer)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
