"""Sync functions in worker threads, one of them left behind."""

import hashlib
import threading

import anyio
import anyio.from_thread

from mtaio import TaskExecutor

executor = TaskExecutor(threads=1)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


async def main() -> None:
    print(await executor.map(digest, ["tea", "cake"]))

    started, enough = anyio.Event(), threading.Event()

    def stubborn() -> None:
        anyio.from_thread.run_sync(started.set)
        enough.wait()

    async def call() -> None:
        await executor.run_in_thread(stubborn, abandon_on_cancel=True)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await started.wait()
        group.cancel_scope.cancel()
    print("threads after cancelling:", executor.statistics().threads_in_use)
    enough.set()
    print(await executor.run_in_thread(digest, "milk"))  # waits for the slot
    print("threads at the end:", executor.statistics().threads_in_use)


if __name__ == "__main__":
    anyio.run(main)
