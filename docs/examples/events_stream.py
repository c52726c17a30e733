"""A slow display shows what it can, and a thermometer does not wait for it."""

import anyio

from mtaio import EventEmitter

emitter = EventEmitter()


async def measure() -> None:
    for degrees in range(20, 30):
        await emitter.emit("temperature", degrees)
        await anyio.sleep(0.25)


async def main() -> None:
    async with (
        emitter.stream(
            "temperature", max_pending=2, overflow="drop_oldest"
        ) as readings,
        anyio.create_task_group() as group,
    ):
        group.start_soon(measure)
        async for event in readings:
            print(f"{event.data} degrees")
            if event.data >= 28:
                break
            await anyio.sleep(0.8)
        print(f"{readings.dropped} readings were not shown")


if __name__ == "__main__":
    anyio.run(main)
