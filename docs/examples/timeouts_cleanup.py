"""Clean-up has its own, limited time, even in what is cancelled."""

import anyio

from mtaio import TimeoutManager

timeouts = TimeoutManager(1.0)


async def transfer() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with timeouts.shielded(grace=2.0):
            await anyio.sleep(0.5)  # say goodbye to the other side
            print("rolled back")


async def main() -> None:
    try:
        with timeouts():
            await transfer()
    except TimeoutError as error:
        print(error)


if __name__ == "__main__":
    anyio.run(main)
