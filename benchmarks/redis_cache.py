"""
What `TieredCache` promises, with a real server, and what it costs.

    python -m benchmarks.redis_cache PART asyncio|trio redis-server|valkey-server

PART is race, strict, tags, clear, cost or killed.

race: four processes of eight tasks read some keys while a writer changes their source and deletes
them from the cache. Stale is a value older than the source was when the ``delete`` had returned,
read by a call that began more than a grace later; ``late_ms`` is how long after that the last call
began that still got an older one. At the end every process is asked once more for each key:
``kept`` are those that have an older value then.

strict: the same, with ``delete(confirm=5)``, where nothing may be stale, with or without grace;
tags and clear: with ``invalidate_tag(confirm=5)`` and ``clear(confirm=5)`` in place of it.

cost: what hits and loads take. killed: how long others wait when the loader is killed.
"""

from __future__ import annotations

import json
import math
import mmap
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import anyio

from mtaio.redis import RedisStore, TieredCache
from tests.redis.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

KEYS = 20
PROCESSES, TASKS = 4, 8
READS = 100_000
GRACE = 0.05
PAUSES = 0.3
dice = Random()  # noqa: S311 - no secrets
SIZE = KEYS * 32 + 1 + PROCESSES


class Source:
    """A file that all processes share: for each key its version, and that which was last told."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)

    def version(self, key: int) -> int:
        """Return the version of the source."""
        version: int = struct.unpack_from("q", self._map, key * 32)[0]
        return version

    def change(self, key: int) -> int:
        """Change the source, and return its version."""
        version = self.version(key) + 1
        struct.pack_into("q", self._map, key * 32, version)
        return version

    # The moment is written before the version and read after it: so it is never too early.

    def told(self, key: int) -> tuple[int, float]:
        """Return the version that was last told to all, and when that had been done."""
        version = struct.unpack_from("q", self._map, key * 32 + 8)[0]
        return version, struct.unpack_from("d", self._map, key * 32 + 16)[0]

    def tell(self, key: int, version: int) -> None:
        """Note that it was told."""
        struct.pack_into("d", self._map, key * 32 + 16, time.monotonic())
        struct.pack_into("q", self._map, key * 32 + 8, version)

    def end(self, number: int) -> None:
        """Note that a reader, or the writer as number 0, has ended."""
        self._map[KEYS * 32 + number] = 1

    def ended(self) -> int:
        """Return how many have ended."""
        return sum(self._map[KEYS * 32 :])


async def read(
    url: str, source: Source, reads: int, number: int, *, tagged: bool
) -> dict[str, float]:
    """Be one of the processes that read."""
    count = dict.fromkeys(("reads", "stale", "within_grace", "kept"), 0)
    late = 0.0
    async with RedisStore(url) as store, TieredCache[int](store, "race") as cache:

        def load_of(key: int) -> Callable[[], Coroutine[Any, Any, int]]:
            async def load() -> int:
                version = source.version(key)
                await anyio.sleep(dice.uniform(0, 0.004))
                return version

            return load

        async def ask() -> None:
            nonlocal late
            while count["reads"] < reads:
                count["reads"] += 1
                key = dice.randrange(KEYS)
                told, when = source.told(key)
                began = time.monotonic()
                tags = {f"tag {key}"} if tagged else ()
                got = await cache.get_or_set(str(key), load_of(key), tags=tags)
                if got < told:
                    late = max(late, began - when)
                    count["stale" if began - when > GRACE else "within_grace"] += 1
                if dice.random() < PAUSES:
                    await anyio.sleep(dice.uniform(0, 0.002))

        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(ask)
        source.end(number)
        while source.ended() <= PROCESSES:  # noqa: ASYNC110 - another process
            await anyio.sleep(0.01)
        await anyio.sleep(0.5)
        for key in range(KEYS):
            count["kept"] += await cache.get_or_set(str(key), load_of(key)) < source.version(key)
        seen = cache.statistics()
    return {
        **count,
        "late_ms": late * 1000,
        "loads": seen.loads,
        "outdated": seen.outdated,
        "near_hits": seen.near_hits,
        "far_hits": seen.far_hits,
        "heard": seen.changes_heard,
    }


def race(part: str, backend: str, kind: str) -> None:
    """Run the race."""
    with serving(kind) as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source"
        path.write_bytes(b"\0" * SIZE)
        readers = []
        for number in range(1, PROCESSES + 1):
            command = [
                sys.executable,
                "-m",
                "benchmarks.redis_cache",
                "reader",
                backend,
                server.url,
            ]
            readers.append(
                subprocess.Popen(  # noqa: S603 - this program
                    [*command, str(path), str(number), part], stdout=subprocess.PIPE, text=True
                )
            )
        source = Source(str(path))
        changes = anyio.run(write, server.url, source, part, backend=backend)
        seen = [json.loads(each.communicate(timeout=60)[0]) for each in readers]
    total = {name: sum(each[name] for each in seen) for name in seen[0]}
    total["late_ms"] = round(max(each["late_ms"] for each in seen), 1)
    print(f"{part} {backend} {kind}: {changes} changes, {total}")


async def write(url: str, source: Source, part: str) -> int:
    """Change things until the readers have read."""
    changes = 0
    confirm = None if part == "race" else 5.0
    async with RedisStore(url) as store, TieredCache[int](store, "race") as cache:
        while source.ended() < PROCESSES:
            key = dice.randrange(KEYS)
            version = source.change(key)
            if part == "tags":
                await cache.invalidate_tag(f"tag {key}", confirm=confirm)
            elif part == "clear":
                await cache.clear(confirm=confirm)
            else:
                await cache.delete(str(key), confirm=confirm)
            source.tell(key, version)
            changes += 1
            await anyio.sleep(dice.uniform(0, 0.004))
    source.end(0)
    return changes


async def cost(url: str) -> None:
    """Print what hits cost."""
    async with RedisStore(url) as store:
        near, far = TieredCache[int](store, "cost"), TieredCache[int](store, "cost", near_ttl=0)

        async def load() -> int:
            return 1

        async with near, far:
            await anyio.sleep(0.5)
            await near.get_or_set("key", load)
            rounds = []
            for _ in range(7):
                start = time.perf_counter()
                for _ in range(100_000):
                    await near.get_or_set("key", load)
                rounds.append((time.perf_counter() - start) / 0.1)
            print(f"  near hit {min(rounds):.2f} us (median of 7: {statistics.median(rounds):.2f})")
            calls = []
            for _ in range(3000):
                start = time.perf_counter()
                await far.get_or_set("key", load)
                calls.append((time.perf_counter() - start) * 1e6)
            print(f"  far hit {statistics.median(calls):.0f} us (median of 3000)")
            calls = []
            for number in range(1000):
                start = time.perf_counter()
                await far.get_or_set(f"new {number}", load)
                calls.append((time.perf_counter() - start) * 1e6)
            print(f"  load {statistics.median(calls):.0f} us (median of 1000; two scripts)")


async def hold(url: str) -> None:
    """Begin a load that never ends."""
    async with RedisStore(url) as store, TieredCache[int](store, "killed", lease=2) as cache:

        async def load() -> int:
            print("loading", flush=True)
            await anyio.sleep_forever()
            return 0

        await cache.get_or_set("key", load)


async def wait(url: str, loading: subprocess.Popen[str]) -> tuple[float, int]:
    """Return how long those wait whose loader is killed, and how many loads they make."""
    loads, took = 0, math.nan

    async def load() -> int:
        nonlocal loads
        loads += 1
        return 1

    async with RedisStore(url) as store:
        caches = [TieredCache[int](store, "killed", lease=2) for _ in range(3)]
        async with caches[0], caches[1], caches[2], anyio.create_task_group() as group:
            for cache in caches:
                group.start_soon(cache.get_or_set, "key", load)
            await anyio.sleep(3)
            if loads:
                sys.exit("a lease was lost while its holder lived")
            loading.kill()
            start = time.monotonic()
            while not loads:  # noqa: ASYNC110 - whoever it is
                await anyio.sleep(0.001)
            took = time.monotonic() - start
        return took, loads


def killed(backend: str, kind: str) -> None:
    """Kill the loader ten times."""
    waits = []
    with serving(kind) as server:
        for _ in range(5):
            command = [
                sys.executable,
                "-m",
                "benchmarks.redis_cache",
                "holder",
                backend,
                server.url,
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as loading:  # noqa: S603 - this program
                if loading.stdout is not None:
                    loading.stdout.readline()
                took, loads = anyio.run(wait, server.url, loading, backend=backend)
                waits.append(took if loads == 1 else math.nan)

                async def forget() -> None:
                    async with RedisStore(server.url) as store:
                        await store.command("FLUSHALL")

                anyio.run(forget, backend=backend)
    print(
        f"killed {backend} {kind}: lease 2 s; waited {sorted(round(each, 2) for each in waits)} s"
    )


def main(argv: list[str]) -> None:
    """Run what is asked for."""
    part, backend, where = argv[:3]
    if part == "reader":
        source = Source(argv[3])
        reads = READS // PROCESSES
        reading = partial(read, tagged=argv[5] == "tags")
        seen = anyio.run(reading, where, source, reads, int(argv[4]), backend=backend)
        print(json.dumps(seen))
    elif part == "holder":
        anyio.run(hold, where, backend=backend)
    elif part in {"race", "strict", "tags", "clear"}:
        race(part, backend, where)
    elif part == "killed":
        killed(backend, where)
    else:
        with serving(where) as server:
            print(f"cost {backend} {where}")
            anyio.run(cost, server.url, backend=backend)


if __name__ == "__main__":
    main(sys.argv[1:])
