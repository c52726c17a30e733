"""A long call and a short one share three slots."""

import anyio

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=3)


async def long_call() -> None:
    started = anyio.current_time()
    await executor.for_each(anyio.sleep, [0.1, 0.2, 0.3, *([0.3] * 9)])
    print(f"long call: {anyio.current_time() - started:.2f} s")


async def short_call() -> None:
    await anyio.sleep(0.25)
    started = anyio.current_time()
    await executor.for_each(anyio.sleep, [0.15, 0.15], limit=1)
    print(f"short call: {anyio.current_time() - started:.2f} s")


async def main() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(long_call)
        group.start_soon(short_call)
    print(f"never more than {executor.statistics().peak} at once")


if __name__ == "__main__":
    anyio.run(main)
