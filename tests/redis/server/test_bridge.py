"""`bridge` with real servers."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.to_thread

from mtaio.events import Event, EventEmitter
from mtaio.redis import RedisStore, bridge
from tests.redis.server.test_tiered import until

if TYPE_CHECKING:
    from tests.redis.servers import Server

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
                await sender.send("n", number, by="ada")
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
        assert got == [3, 4, 5, 6]
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
