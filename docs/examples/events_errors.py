"""A failing handler: the others of its tier run, and emit raises its error."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event, EventPriority

emitter = EventEmitter()


@emitter.on("order.paid")
async def ship(_: Event[int]) -> None:
    raise OSError("no parcel left")


@emitter.on("order.paid")
async def thank(event: Event[int]) -> None:
    await anyio.sleep(0.1)
    print(f"thank-you mail sent for {event.data}")


@emitter.on("order.paid", priority=EventPriority.LOW)
def archive(event: Event[int]) -> None:
    print(f"order {event.data} archived")


async def main() -> None:
    try:
        await emitter.emit("order.paid", 17)
    except* OSError as group:
        print("failed:", *group.exceptions)


if __name__ == "__main__":
    anyio.run(main)
