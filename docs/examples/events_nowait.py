"""Events from code that cannot await, delivered in the emitter's block."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event

emitter = EventEmitter(max_pending=100)
stock = {"tea": 1, "cake": 5}


@emitter.on("order")
def take(event: Event[str]) -> None:
    stock[event.data] -= 1
    print(f"{event.data} taken")
    if not stock[event.data]:
        emitter.emit_nowait(
            "sold out", event.data
        )  # a plain function, which cannot await


@emitter.on("sold out")
async def reorder(event: Event[str]) -> None:
    await anyio.sleep(0.1)
    print(f"{event.data} reordered")


async def main() -> None:
    async with emitter:
        for article in ("tea", "cake"):
            await emitter.emit("order", article)
        print(f"{emitter.statistics().pending} event to be delivered")
    print("the block is left, and everything delivered")


if __name__ == "__main__":
    anyio.run(main)
