"""Events from a function that cannot await, delivered by the emitter."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event

emitter = EventEmitter()
stock = {"tea": 1, "cake": 5}


def take(article: str) -> None:
    stock[article] -= 1
    print(f"{article} taken")
    if not stock[article]:
        emitter.emit_nowait("sold out", article)


@emitter.on("sold out")
async def reorder(event: Event[str]) -> None:
    await anyio.sleep(0.1)
    print(f"{event.data} reordered")


async def main() -> None:
    async with emitter:
        take("tea")
        take("cake")
    print("everything is delivered")


if __name__ == "__main__":
    anyio.run(main)
