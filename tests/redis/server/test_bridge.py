"""`bridge` with real servers."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest

from mtaio.core import TaskExecutor
from mtaio.events import Event, EventEmitter
from mtaio.redis import RedisStore, bridge

if TYPE_CHECKING:
    from tests.redis.servers import Server

assert sys.platform != "win32", "the servers are for POSIX"

from tests.redis.server.test_tiered import until  # noqa: E402 - not on Windows

KILLED = """
import os, signal, sys
import anyio
from mtaio.events import EventEmitter
from mtaio.redis import RedisStore, bridge

emitter = EventEmitter()

@emitter.on("n")
def die(event):
    if event.data == 3:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with RedisStore(sys.argv[1]) as store:
        async with bridge(emitter, store, stream=sys.argv[2], group="g"):
            await anyio.sleep(20)

anyio.run(main, backend=sys.argv[3])
"""


async def test_all_that_it_does(shared_server: Server, anyio_backend_name: str) -> None:
    """Delivery, failure, setting aside, giving back, and a consumer killed in the midst."""
    name = f"test {uuid4().hex}"
    got: list[Any] = []
    times: list[int] = []
    emitter = EventEmitter()

    @emitter.on("n")
    async def take(event: Event[Any]) -> None:
        if event.data == "bad":
            times.append(event.metadata["deliveries"])
            raise OSError("bad")
        got.append(event.data)

    async with RedisStore(shared_server.url) as store:
        async with bridge(EventEmitter(), store, stream=name) as sender:
            for number in range(6):
                await sender.send("n", number, metadata={"by": "ada"})
        process = await anyio.run_process(
            [sys.executable, "-c", KILLED, shared_server.url, name, anyio_backend_name],
            check=False,
            stderr=subprocess.DEVNULL,
        )
        assert process.returncode == -9
        options: Any = {"stream": name, "group": "g", "claim_after": 0.3, "max_deliveries": 2}
        async with bridge(emitter, store, **options) as made:
            await until(lambda: len(got) == 3)
            await made.send("n", "bad")
            await made.send("n", 6)
            await until(lambda: made.statistics().set_aside)
        assert sorted(got) == [3, 4, 5, 6]  # what the other had goes when its time is over
        assert times == [1, 2]
        stream = f"mtaio:events:{{{name}}}"
        aside = await store.command("XRANGE", f"{stream}:aside", "-", "+")
        ((_, pairs),) = aside.items()
        fields = dict(pairs)
        assert (fields[b"data"], fields[b"deliveries"], fields[b"group"]) == (b'"bad"', b"2", b"g")
        assert (await store.command("XPENDING", stream, "g"))[0] == 0

        async def stay(_: Event[Any]) -> None:
            holding.set()
            await anyio.sleep_forever()

        holding = anyio.Event()
        slow = EventEmitter()
        slow.on("n", stay)
        async with bridge(slow, store, stream=name, group="g"):
            await sender.send("n", 7)
            await holding.wait()
        async with bridge(emitter, store, **options):
            await until(lambda: got[-1] == 7)


@pytest.mark.parametrize("stop", ["scope", "item", "break"])
async def test_events_as_the_source_of_an_executor(shared_server: Server, stop: str) -> None:
    """Each is begun once, or kept by its stream, or comes again to the next consumer."""
    name = f"test {uuid4().hex}"
    begun: list[int] = []
    again: list[Event[int]] = []
    emitter, later = EventEmitter(), EventEmitter()
    later.on("n", again.append)

    async def work(event: Event[int]) -> int:
        begun.append(event.data)
        if event.data == 3 and stop == "scope":
            scope.cancel()
        if event.data == 3 and stop == "item":
            raise OSError("no")
        await anyio.sleep(0 if event.data <= 3 else math.inf)
        return event.data

    async with RedisStore(shared_server.url) as store:
        async with bridge(EventEmitter(), store, stream=name) as sender:
            for number in range(12):
                await sender.send("n", number)
        options: Any = {"stream": name, "group": "g"}
        async with emitter.stream("n", max_pending=2) as events:
            try:
                async with bridge(emitter, store, **options):
                    with anyio.CancelScope() as scope:
                        if stop == "break":
                            async with TaskExecutor().stream(work, events, limit=2) as results:
                                async for result in results:
                                    if result == 3:
                                        break
                        else:
                            await TaskExecutor().for_each(work, events, limit=2)
            except OSError:
                assert stop == "item"
            await events.aclose()
            kept = [event.data async for event in events]
        had = sorted(begun + kept)
        assert had == [*range(len(had))]
        async with bridge(later, store, **options):
            await until(lambda: {*had, *(event.data for event in again)} == {*range(12)})
        twice = [event for event in again if event.data in had]
        assert len(twice) <= 1
        assert all(event.metadata["deliveries"] == 2 for event in twice)
        assert (await store.command("XPENDING", f"mtaio:events:{{{name}}}", "g"))[0] == 0
