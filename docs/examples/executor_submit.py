"""A service, submitted work, and a grace period."""

import anyio
from anyio.abc import TaskStatus

from mtaio import TaskExecutor

executor = TaskExecutor(max_workers=2, max_pending=10)
log: list[str] = []


async def write_log(*, task_status: TaskStatus[str]) -> None:
    await anyio.sleep(0.1)  # as if opening a connection
    task_status.started("connected")
    try:
        while True:
            await anyio.sleep(0.5)
            log.append("flushed")
    finally:
        print(f"the service ends, having flushed {len(log)} times")


async def work(seconds: float) -> float:
    await anyio.sleep(seconds)
    if seconds == 0.2:
        raise ValueError("0.2 is unlucky")
    return seconds


async def main() -> None:
    async with executor:
        service = await executor.start(write_log)
        print(service.start_value)

        times = [0.1, 0.2, 1.0, 60]
        handles = [await executor.submit(work, seconds) for seconds in times]
        print("first:", await handles[0])
        try:
            await handles[1]
        except ValueError as error:
            print("second:", error)

        print("all ended by themselves:", await executor.drain(timeout=2))
        print([str(handle.status) for handle in handles])


if __name__ == "__main__":
    anyio.run(main)
