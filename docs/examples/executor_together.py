"""A reader and a writer inside each item: calls that wait for each other."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=2)


async def copy(name: str) -> str:
    send, receive = anyio.create_memory_object_stream[int](1)
    received: list[int] = []

    async def write() -> None:
        async with send:
            for part in range(3):
                await send.send(part)

    async def read() -> None:
        async with receive:
            received.extend([part async for part in receive])

    await executor.gather(read, write)
    return f"{name}: {received}"


async def main() -> None:
    for line in await executor.map(copy, ["first", "second", "third"]):
        print(line)


if __name__ == "__main__":
    anyio.run(main)
