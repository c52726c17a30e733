"""One policy for blocks, calls and functions."""

import anyio

from mtaio import TimeoutManager
from mtaio.exceptions import TimeoutError as RanOutError

timeouts = TimeoutManager(30.0, name="inventory")


@timeouts.limit(5.0)
async def look_up(item: str) -> str:
    await anyio.sleep(1)
    return f"{item}: 3 left, {timeouts.remaining():.0f} s to go"


async def main() -> None:
    print(await look_up("lamp"))
    try:
        with timeouts(0.5):
            await anyio.sleep_forever()
    except RanOutError as error:
        print(error, "| allowed:", error.timeout)
    with timeouts(0.5) as scope:
        await anyio.sleep(0.4)
        scope.reschedule(2.0)  # there was progress: two seconds from now
        await anyio.sleep(1.9)
    print("expired:", scope.expired)


if __name__ == "__main__":
    anyio.run(main)
