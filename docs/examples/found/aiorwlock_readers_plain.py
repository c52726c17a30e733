"""aiorwlock 1.5.1: nobody writes, and yet a reader has to wait."""

import asyncio

import aiorwlock


async def main() -> None:
    lock = aiorwlock.RWLock()

    async def write() -> None:
        async with lock.writer:
            pass

    async def read() -> None:
        async with lock.reader:
            pass

    async with lock.reader:
        writer = asyncio.create_task(write())
        reader = asyncio.create_task(read())
        for _ in range(5):
            await asyncio.sleep(0)  # the writer waits, and the reader behind it
        writer.cancel()
        await asyncio.wait([reader], timeout=0.1)
        print("the writer is cancelled:", writer.cancelled())
        print("the reader has read:", reader.done())
        late = asyncio.create_task(read())
        await asyncio.wait([late], timeout=5)
        print("a reader that comes now has read:", late.done())
        print("and the one that was there before:", reader.done())
    await reader


if __name__ == "__main__":
    asyncio.run(main())
