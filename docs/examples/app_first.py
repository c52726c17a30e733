"""A service: its resources, its work, and the order in which it shuts down."""

from collections.abc import AsyncIterator

import anyio

from mtaio import Application, Settings

# In production: Application(). Here a free port, and signals are left to the test.
app = Application(
    Settings(health_bind="127.0.0.1:0"), logging=False, signals=False
)


@app.resource
async def database() -> AsyncIterator[str]:
    print("database: open")
    yield "database"
    print("database: closed")


@app.resource
async def queue() -> AsyncIterator[str]:
    print("queue: open, stands on", database.get())
    yield "queue"
    print("queue: closed")


@app.service
async def work() -> None:
    print("work: takes from", queue.get())
    try:
        await anyio.sleep_forever()
    finally:
        print("work: cancelled")


async def main() -> None:
    async with app:
        await anyio.sleep(0.1)
        print("the application is", app.state)
    print("the application is", app.state)


if __name__ == "__main__":
    anyio.run(main)  # in production: app.run()
