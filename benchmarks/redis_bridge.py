"""
What `bridge` costs with a real server: one that sends, one that receives.

    python -m benchmarks.redis_bridge asyncio|trio redis-server|valkey-server
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import anyio

from mtaio.events import Event, EventEmitter
from mtaio.redis import RedisStore, bridge
from tests.redis.servers import serving

EVENTS = 5000


async def measure(url: str) -> None:
    """Print events per second and the time that one takes."""
    emitter = EventEmitter()
    latencies: list[float] = []
    over = anyio.Event()

    @emitter.on("n")
    def take(event: Event[Any]) -> None:
        latencies.append(time.perf_counter() - event.data)
        if len(latencies) in {EVENTS, EVENTS + 500}:
            over.set()

    async with RedisStore(url) as store:
        async with bridge(EventEmitter(), store, stream="n") as sender:
            start = time.perf_counter()
            for _ in range(EVENTS):
                await sender.send("n", time.perf_counter())
            sent = time.perf_counter() - start
            start = time.perf_counter()
            async with bridge(emitter, store, stream="n", group="g"):
                await over.wait()
                received = time.perf_counter() - start
                latencies.clear()
                over = anyio.Event()
                for _ in range(500):
                    await sender.send("n", time.perf_counter())
                    await anyio.sleep(0.002)
                await anyio.sleep(0.5)
        print(
            f"  sent {EVENTS / sent:.0f}/s one by one, received {EVENTS / received:.0f}/s; "
            f"latency of one {statistics.median(latencies) * 1000:.2f} ms (median of 500)"
        )


def main(backend: str, kind: str) -> None:
    """Run it."""
    with serving(kind) as server:
        print(f"bridge {backend} {kind}")
        anyio.run(measure, server.url, backend=backend)


if __name__ == "__main__":
    main(*sys.argv[1:3])
