"""Events over a stream: one process sends them, another handles them."""

import os

import anyio

from mtaio import EventEmitter
from mtaio.events import Event
from mtaio.redis import RedisStore, bridge

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
emitter = EventEmitter()
shipped = anyio.Event()


@emitter.on("order.paid")
async def ship(event: Event[dict[str, int]]) -> None:
    print(f"shipping order {event.data['id']} for {event.metadata['user']}")
    shipped.set()


async def pay() -> None:
    async with bridge(emitter, store, stream="orders") as remote:  # sends only
        await remote.send("order.paid", {"id": 7}, metadata={"user": "ada"})


async def main() -> None:
    async with store:
        await pay()  # as another process would
        async with bridge(emitter, store, stream="orders", group="shipping"):
            await shipped.wait()


if __name__ == "__main__":
    anyio.run(main)
