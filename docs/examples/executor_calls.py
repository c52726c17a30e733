"""Different calls at once: all, the fastest, each as it ends."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=10)


async def ask(mirror: str, seconds: float) -> str:
    await anyio.sleep(seconds)
    if mirror == "north":
        raise ConnectionError("north is down")
    return f"from {mirror}"


async def main() -> None:
    both = await executor.gather(ask("south", 0.3), ask("west", 0.2))
    print(both)

    fastest = await executor.race(ask("north", 0.1), ask("west", 0.2))
    print(fastest)

    calls = [ask("south", 0.3), ask("north", 0.1)]
    async with executor.as_completed(*calls) as outcomes:
        async for outcome in outcomes:
            print(outcome.index, repr(outcome.error or outcome.value))


if __name__ == "__main__":
    anyio.run(main)
