"""
What `bridge` costs with a real server: one that sends, one that receives.

    python -m benchmarks.redis_bridge cost|killed asyncio|trio redis-server|valkey-server

killed: three processes receive, and one of them is killed every 0.7 s and another started. In the
end every event has been handled; some twice.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
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


async def receive(url: str, *paths: str) -> None:
    """Write the number of each event that is handled to a file, until killed."""
    emitter = EventEmitter()

    @emitter.on("n")
    async def take(event: Event[Any]) -> None:
        await anyio.sleep(0.01)
        os.write(file, f"{event.data}\n".encode())

    file = os.open(paths[0], os.O_APPEND | os.O_WRONLY)
    async with (
        RedisStore(url) as store,
        bridge(emitter, store, stream="n", group="g", claim_after=1, max_deliveries=100, limit=4),
    ):
        await anyio.sleep_forever()


async def send(url: str) -> None:
    """Send the events, over some ten seconds."""
    async with RedisStore(url) as store, bridge(EventEmitter(), store, stream="n") as sender:
        for number in range(EVENTS):
            await sender.send("n", number)
            await anyio.sleep(0.001)


def killed(backend: str, url: str) -> None:
    """Kill those who receive."""
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, "-m", "benchmarks.redis_bridge", "receive", backend, url]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen([*command, file.name])  # noqa: S603 - this program

        processes = [start() for _ in range(3)]
        sending = threading.Thread(target=lambda: anyio.run(send, url, backend=backend))
        sending.start()
        kills = 0
        while sending.is_alive():
            time.sleep(0.7)
            oldest = processes.pop(0)
            oldest.kill()
            oldest.wait()
            kills += 1
            processes.append(start())
        until = time.monotonic() + 20
        handled: list[int] = []
        while len(set(handled)) < EVENTS and time.monotonic() < until:
            time.sleep(0.2)
            file.seek(0)
            handled = [int(line) for line in file.read().split()]
        for process in processes:
            process.kill()
            process.wait()
    missing = EVENTS - len(set(handled))
    print(f"  {kills} kills: {missing} of {EVENTS} missing, {len(handled) - EVENTS} handled again")


def main(part: str, backend: str, where: str, *rest: str) -> None:
    """Run it."""
    if part == "receive":
        anyio.run(receive, where, *rest, backend=backend)
        return
    with serving(where) as server:
        print(f"bridge {part} {backend} {where}")
        if part == "killed":
            killed(backend, server.url)
        else:
            anyio.run(measure, server.url, backend=backend)


if __name__ == "__main__":
    main(*sys.argv[1:])
