"""A shop tells its other parts that an order was paid."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event

emitter = EventEmitter()


@emitter.on("order.*")
def note(event: Event[int]) -> None:
    print(f"{event.name} by {event.metadata['user']}")


@emitter.on("order.paid")
async def ship(event: Event[int]) -> None:
    await anyio.sleep(0.1)
    print(f"order {event.data} is shipped")


async def main() -> None:
    await emitter.emit("order.paid", 17, metadata={"user": "ada"})
    print("all handlers have ended")


if __name__ == "__main__":
    anyio.run(main)
