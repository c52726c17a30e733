"""A service with a health check and an alert."""

import logging

import anyio

from mtaio import Application, Settings
from mtaio.events import Event

logging.getLogger("mtaio.monitoring").addHandler(
    logging.NullHandler()
)  # the log would repeat it
settings = Settings(
    health_bind="127.0.0.1:0", cpu_threshold=100, memory_threshold=100
)  # no alert
app = Application(settings, logging=False, signals=False)
orders: list[str] = []
app.monitor.gauge("orders_waiting", lambda: len(orders))
app.monitor.set_threshold("orders_waiting", 2)


@app.health_check("database", timeout=0.5, failure_threshold=1, ttl=0)
async def ask_database() -> None:
    if len(orders) > 2:
        raise ConnectionError("no route to host")


@app.emitter.on("monitor.threshold_exceeded")
async def tell(event: Event[dict[str, object]]) -> None:
    print("alert:", event.data["metric"], "is", event.data["value"])


async def main() -> None:
    async with app:
        print("ready:", (await app.health.report()).ready)
        orders.extend(["pen", "ink", "paper"])
        await app.monitor.tick()
        print("ready:", (await app.health.report()).ready)


if __name__ == "__main__":
    anyio.run(main)
