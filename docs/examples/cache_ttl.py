"""A token is kept until it expires, and what was not found is not kept."""

from dataclasses import dataclass

import anyio

from mtaio import cached


@dataclass(frozen=True)
class Token:
    """Grants access for a limited time."""

    user: str
    seconds: float


@cached(ttl=lambda token: token.seconds - 5)
async def log_in(user: str) -> Token:
    print(f"{user} logs in")
    return Token(user, seconds=60)


@cached(ttl=600, keep=lambda found: found is not None)
async def find(item: str) -> str | None:
    print(f"looking for {item}")
    return None if item == "salt" else f"shelf of {item}"


async def main() -> None:
    for _ in range(2):
        await log_in("ann")
        await find("tea")
        await find("salt")
    await anyio.sleep(55)
    await log_in("ann")


if __name__ == "__main__":
    anyio.run(main)
