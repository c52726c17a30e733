"""Handlers under test: called directly, and watched through a stream."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event
from mtaio.testing import assert_quiescent

emitter = EventEmitter()


@emitter.on("order.paid")
async def ship(event: Event[int]) -> None:
    await anyio.sleep(0.1)
    await emitter.emit("order.shipped", event.data)


async def main() -> None:
    async with emitter.stream("*") as events:
        await ship(Event("order.paid", 7))
        await emitter.emit("order.paid", 8)
        await events.aclose()
        print([(event.name, event.data) async for event in events])
    assert_quiescent(emitter)


if __name__ == "__main__":
    anyio.run(main)
