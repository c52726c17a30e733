"""AnyIO 4.16.0, asyncio: a waiter is cancelled as it reacquires the lock."""

import asyncio

import anyio


async def main() -> None:
    condition = anyio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    waiter = asyncio.create_task(wait())
    for _ in range(5):
        await asyncio.sleep(0)  # it waits now
    async with condition:
        condition.notify()
        await asyncio.sleep(0)  # it has been woken, and waits for the lock
        waiter.cancel()
    await asyncio.wait([waiter])
    print("the waiter is cancelled:", waiter.cancelled())
    print("it raises:", repr(waiter.exception()))


if __name__ == "__main__":
    asyncio.run(main())
