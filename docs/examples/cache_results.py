"""How long to keep a result may depend on it or on the call; equivalent calls share a key."""

from dataclasses import dataclass

import anyio

from mtaio import cached


@dataclass(frozen=True)
class Token:
    """Grants access for a limited time."""

    name: str
    seconds: float


@cached(ttl=lambda token: token.seconds - 5)
async def login(name: str) -> Token:
    print(f"{name} logs in")
    return Token(name, 60)


@cached(ttl=60, keep=lambda found: found is not None, bind=True)
async def find(item: str, shop: str = "north") -> str | None:
    print(f"looking for {item} in the {shop}")
    return None if item == "salt" else f"{item}, {shop}"


@cached(ttl_for=lambda _, *, live=False: 0.5 if live else 60)
async def page(user: str, *, live: bool = False) -> str:
    return f"{user} {'now' if live else 'today'}"


async def main() -> None:
    await login("ann")
    print("kept:", login.contains_nowait("ann"))

    await find("salt")
    await find("salt")  # None is not kept: it looks again
    await find("tea")
    await find(shop="north", item="tea")  # means the same: no second look
    print(
        "kept:",
        find.contains_nowait("salt"),
        find.contains_nowait("tea", "north"),
    )

    await page("ann")
    await page("ann", live=True)
    await anyio.sleep(0.5)
    print(
        "kept:",
        page.contains_nowait("ann"),
        page.contains_nowait("ann", live=True),
    )


if __name__ == "__main__":
    anyio.run(main)
