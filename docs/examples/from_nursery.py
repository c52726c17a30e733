"""Workers and a service in nursery style, and the same with an executor."""

import anyio
from anyio.abc import TaskStatus

from mtaio import TaskExecutor

done: list[int] = []


async def beat(*, task_status: TaskStatus[None]) -> None:
    task_status.started()
    await anyio.sleep_forever()


async def work(number: int) -> None:
    await anyio.sleep(0.02 * number)
    done.append(number)


# --8<-- [start:before]
async def before() -> None:
    limiter = anyio.CapacityLimiter(3)

    async def limited(number: int) -> None:
        async with limiter:
            await work(number)

    async with anyio.create_task_group() as services:
        await services.start(beat)
        async with anyio.create_task_group() as workers:
            for number in range(1, 6):
                workers.start_soon(limited, number)
        services.cancel_scope.cancel()


# --8<-- [end:before]
# --8<-- [start:after]
async def after() -> None:
    async with TaskExecutor(max_workers=3) as executor:
        await executor.start(beat)
        for number in range(1, 6):
            await executor.submit(work, number)


# --8<-- [end:after]
async def main() -> None:
    await before()
    print("before:", sorted(done))
    done.clear()
    await after()
    print("after: ", sorted(done))


if __name__ == "__main__":
    anyio.run(main)
