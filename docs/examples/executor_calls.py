"""Different calls at once: all, the fastest, each as it is ready."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=10)


async def name() -> str:
    await anyio.sleep(0.2)
    return "Ada"


async def age() -> int:
    await anyio.sleep(0.1)
    return 36


async def ask(mirror: str, seconds: float) -> str:
    await anyio.sleep(seconds)
    if mirror == "north":
        raise ConnectionError("north is down")
    return f"from {mirror}"


async def main() -> None:
    who, years = await executor.gather(name(), age())
    print(who, years)

    print(
        await executor.race(
            ask("south", 0.3), ask("north", 0.1), ask("west", 0.2)
        )
    )

    async with executor.as_completed(
        ask("south", 0.3), ask("north", 0.1)
    ) as outcomes:
        async for outcome in outcomes:
            print(outcome.index, repr(outcome.error or outcome.value))


if __name__ == "__main__":
    anyio.run(main)
