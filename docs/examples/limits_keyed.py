"""One bucket for each user: a busy one does not hold up the others."""

import anyio
from anyio.lowlevel import checkpoint

from mtaio import KeyedRateLimiter

per_user = KeyedRateLimiter(rate=1, burst=2, max_keys=10_000)


async def serve(user: str, start: float) -> None:
    await per_user.acquire(user)
    print(f"{anyio.current_time() - start:.0f} s: {user}")


async def main() -> None:
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for user in ["ann", "ann", "ann", "bob"]:
            group.start_soon(serve, user, start)
            await checkpoint()  # let it queue, so that they queue in this order


if __name__ == "__main__":
    anyio.run(main)
