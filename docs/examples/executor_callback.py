"""A thread calls back into the event loop after its caller has been cancelled."""

import threading

import anyio
from anyio import from_thread

from mtaio import TaskExecutor

executor = TaskExecutor()


async def main() -> None:
    lock = anyio.Lock()
    started, cancelled = anyio.Event(), threading.Event()

    async def acquire() -> None:
        with (
            anyio.CancelScope()
        ):  # without this, acquire() never returns on asyncio
            await anyio.lowlevel.checkpoint()
        await lock.acquire()

    def work() -> None:
        from_thread.run_sync(started.set)
        cancelled.wait()
        from_thread.run(acquire)

    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_thread, work)
        await started.wait()
        group.cancel_scope.cancel()
        cancelled.set()
    print("locked:", lock.locked())


if __name__ == "__main__":
    anyio.run(main)
