"""Events over a stream: what one process sends, one process of each group handles."""

import os

import anyio

from mtaio import EventEmitter
from mtaio.events import Event
from mtaio.redis import RedisStore, bridge

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
emitter = EventEmitter()
done = anyio.Semaphore(0)


@emitter.on("order.paid")
async def ship(event: Event[dict[str, int]]) -> None:
    print(f"shipping order {event.data['id']} for {event.metadata['user']}")
    done.release()


async def main() -> None:
    async with store:
        async with bridge(
            emitter, store, stream="orders"
        ) as remote:  # sends only
            await remote.send("order.paid", {"id": 7}, metadata={"user": "ada"})
            await remote.send("order.paid", {"id": 8}, metadata={"user": "bob"})
        async with bridge(emitter, store, stream="orders", group="shipping"):
            await done.acquire()
            await done.acquire()


if __name__ == "__main__":
    anyio.run(main)
