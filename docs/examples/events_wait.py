"""A program waits until a service says that it is ready."""

import anyio

from mtaio import EventEmitter

emitter = EventEmitter()


async def serve() -> None:
    for port in (8080, 443):
        await anyio.sleep(0.1)
        await emitter.emit("service.ready", port)


async def main() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        event = await emitter.wait_for(
            "service.ready", lambda event: event.data == 443
        )
        print(f"{event.data} is open")

        try:
            await emitter.wait_for("service.ready", timeout=5)
        except TimeoutError as error:
            print(error)


if __name__ == "__main__":
    anyio.run(main)
