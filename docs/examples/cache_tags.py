"""What depends on a user is dropped when the user changes."""

import anyio

from mtaio import cached


def tags_of(user: int) -> set[str]:
    return {f"user:{user}"}


@cached(ttl=60, tags=tags_of)
async def profile(user: int) -> str:
    print(f"loading the profile of {user}")
    return "Ann"


@cached(ttl=60, tags=tags_of, cache=profile.cache)
async def orders(user: int) -> int:
    print(f"loading the orders of {user}")
    return 2


async def main() -> None:
    for user in (7, 8):
        await profile(user)
        await orders(user)
    print("dropped:", await profile.cache.invalidate_tag("user:7"))
    await profile(7)
    await profile(8)


if __name__ == "__main__":
    anyio.run(main)
