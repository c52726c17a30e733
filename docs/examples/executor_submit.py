"""A service, submitted work, and a grace period at the end."""

import anyio
from anyio.abc import TaskStatus

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=2, max_pending=10)


async def heartbeat(*, task_status: TaskStatus[str]) -> None:
    await anyio.sleep(0.1)  # as if opening a connection
    task_status.started("connected")
    try:
        await anyio.sleep_forever()
    finally:
        print("the service ends")


async def work(seconds: float) -> float:
    await anyio.sleep(seconds)
    return seconds


async def main() -> None:
    async with executor:
        service = await executor.start(heartbeat)
        print(service.start_value)
        tasks = [await executor.submit(work, s) for s in (0.1, 1, 60)]
        print("first:", await tasks[0])
        print("all done:", await executor.drain(timeout=2))
        print([str(task.status) for task in tasks])


if __name__ == "__main__":
    anyio.run(main)
