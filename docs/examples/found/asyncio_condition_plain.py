"""asyncio: of two waiters the first is cancelled, and the second not woken."""

import asyncio


async def main() -> None:
    condition = asyncio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    first = asyncio.create_task(wait())
    second = asyncio.create_task(wait())
    for _ in range(5):
        await asyncio.sleep(0)  # both wait now
    async with condition:
        condition.notify()
    first.cancel()
    await asyncio.wait([second], timeout=0.1)
    print("the first is cancelled:", first.cancelled())
    print("the second is woken:", second.done())
    second.cancel()


if __name__ == "__main__":
    asyncio.run(main())
