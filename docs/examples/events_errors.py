"""A failing handler: emit raises its error, or on_error gets it."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event, EventPriority


async def ship(_: Event[int]) -> None:
    raise OSError("no parcel left")


async def thank(_: Event[int]) -> None:
    await anyio.sleep(0.1)
    print("thank-you mail sent")


def archive(event: Event[int]) -> None:
    print(f"order {event.data} archived")


async def report(error: Exception, event: Event[int], handler: object) -> None:
    print(
        f"{'ship' if handler is ship else handler} failed on {event.name}: {error}"
    )


async def main() -> None:
    strict = EventEmitter()
    tolerant = EventEmitter(on_error=report)
    for emitter in (strict, tolerant):
        emitter.on("order.paid", ship)
        emitter.on("order.paid", thank)
        emitter.on("order.paid", archive, priority=EventPriority.LOW)

    try:
        await strict.emit("order.paid", 17)
    except* OSError as group:
        print("failed:", *group.exceptions)

    await tolerant.emit("order.paid", 18)


if __name__ == "__main__":
    anyio.run(main)
