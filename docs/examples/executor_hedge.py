"""A hedged request: the next mirror is asked only while none has answered."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=10)


async def ask(mirror: str, seconds: float) -> str:
    print("asking", mirror)
    await anyio.sleep(seconds)
    return f"from {mirror}"


async def main() -> None:
    # One more every half second, until the first answer comes.
    print(
        await executor.race(
            ask("south", 2.0), ask("north", 0.2), ask("west", 0.1), rate=2
        )
    )


if __name__ == "__main__":
    anyio.run(main)
