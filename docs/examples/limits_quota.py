"""Six requests under two limits of one API: what each takes, gives back and waits for."""

import anyio

from mtaio import Quota

quota = Quota(requests=(5, 1), tokens=(1000, 10))  # 5 a second, and 1000 in ten


async def ask(number: int, start: float) -> None:
    async with quota.take(tokens=300) as taken:
        print(f"{anyio.current_time() - start:.1f} s: request {number}")
        await anyio.sleep(0.5)
        taken.settle(tokens=200)  # what the service says that it was


async def main() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(ask, number, start)
            await anyio.sleep(0.01)
    quota.observe(
        remaining={"tokens": 50}
    )  # as an answer says: others use it too
    print(f"left: {quota.statistics().limits['tokens'].tokens:.0f} tokens")
    quota.hold(3)  # as a refusal says: retry after 3 s
    await quota.acquire(tokens=100)
    print(f"{anyio.current_time() - start:.1f} s: goes on")


if __name__ == "__main__":
    anyio.run(main)
