"""A service: what it opens, what it does, and how it stops."""

from collections.abc import AsyncIterator

import anyio

from mtaio import Application, Settings

# In production: Application(). Here any free port, and no log.
app = Application(
    Settings(health_bind="127.0.0.1:0"), logging=False, signals=False
)


@app.resource
async def database() -> AsyncIterator[str]:
    print("database: open")
    yield "database"
    print("database: closed")


@app.service
async def work() -> None:
    print("work: uses the", database.get())
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
