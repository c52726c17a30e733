"""A supervisor that starts its child at most three times in ten seconds."""

import anyio
from anyio.abc import TaskStatus

from mtaio import Retry, TaskExecutor

lives = iter([20, 20, 1, 1, 1])  # seconds until it fails


async def child(*, task_status: TaskStatus[None]) -> None:
    print(f"{anyio.current_time():.0f} s: started")
    task_status.started()
    await anyio.sleep(next(lives))
    raise ConnectionError("lost")


async def main() -> None:
    try:
        async with TaskExecutor() as supervisor:
            await supervisor.start(child, restart=Retry(3, per=10, waits=[0]))
            await anyio.sleep_forever()
    except ConnectionError as error:
        print(f"{anyio.current_time():.0f} s: gave up: {error}")


if __name__ == "__main__":
    anyio.run(main)
