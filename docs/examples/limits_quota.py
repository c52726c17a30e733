"""Six requests to an API that limits requests and tokens."""

import anyio

from mtaio import Quota

quota = Quota(requests=(5, 1), tokens=(1000, 10))  # 5 a second, 1000 in ten


async def ask(number: int, start: float) -> None:
    async with quota.take(tokens=300) as taken:  # an estimate
        print(f"{anyio.current_time() - start:.1f} s: request {number}")
        await anyio.sleep(0.5)
        taken.settle(tokens=200)  # what the answer says it cost


async def main() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(ask, number, start)
            await anyio.sleep(0.01)
    quota.observe(remaining={"tokens": 50})  # an answer says: 50 are left
    print(f"left: {quota.statistics().limits['tokens'].tokens:.0f} tokens")
    quota.hold(3)  # a refusal says: come back in 3 s
    await quota.acquire(tokens=100)
    print(f"{anyio.current_time() - start:.1f} s: goes on")


if __name__ == "__main__":
    anyio.run(main)
