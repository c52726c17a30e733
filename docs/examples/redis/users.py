"""Three attempts in ten minutes for each user, in all processes together."""

import os
from uuid import uuid4

import anyio

from mtaio.redis import RedisKeyedRateLimiter, RedisStore

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
attempts = RedisKeyedRateLimiter.window(store, "sign-in", 3, per=600)


async def sign_in(user: str) -> str:
    if not await attempts.try_acquire(user):
        return "too many attempts"
    return "wrong password"


async def main() -> None:
    run = uuid4().hex  # so that this program prints the same each time
    async with store:
        for user in ("ada", "ada", "ada", "ada", "bob"):
            print(f"{user}: {await sign_in(f'{user}@{run}')}")


if __name__ == "__main__":
    anyio.run(main)
