"""Alerts as events, for any part of the program that acts on them."""

import anyio

from mtaio import EventEmitter
from mtaio.events import Event
from mtaio.monitoring import ResourceMonitor

emitter = EventEmitter()
monitor = ResourceMonitor(interval=0.1)
monitor.forward_to(emitter)
orders: list[int] = []


monitor.gauge("queue_depth", lambda: len(orders))
monitor.set_threshold("queue_depth", 100, clear=50)


@emitter.on("monitor.threshold_exceeded")
async def take_fewer(event: Event[dict[str, object]]) -> None:
    print("taking fewer orders:", event.data)


@emitter.on("monitor.recovered")
async def take_all(event: Event[dict[str, object]]) -> None:
    print("taking all orders:", event.data)


async def main() -> None:
    async with monitor:
        orders.extend(range(150))
        await anyio.sleep(0.35)
        orders.clear()
        await anyio.sleep(0.35)


if __name__ == "__main__":
    anyio.run(main)
