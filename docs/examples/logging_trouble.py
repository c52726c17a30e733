"""A file that cannot be written: what is kept, what is dropped, and how it is reported."""

import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler

log = logging.getLogger("shop")


def trouble(error: Exception) -> None:
    print(
        f"on_error: {type(error).__name__}"
    )  # once a minute at most; count it, raise an alert


def show(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number in (0, 99, 100, 109, 110):
        print(f"{number:5} {lines[number]}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "not there yet")
        handler = AsyncFileHandler(
            folder / "shop.log",
            delay=True,  # or the missing folder would be an error here
            max_pending=100,
            keep_room=10,  # for records at keep_level (ERROR) and above
            on_error=trouble,
        )
        log.addHandler(handler)

        for number in range(150):
            log.warning("sale %d", number)
        for number in range(12):
            log.error("till %d is on fire", number)
        print("written in time:", await handler.aflush(timeout=0.5))
        figures = handler.statistics()
        print(f"queued {figures.pending}, dropped {dict(figures.dropped)}")

        await anyio.Path(folder).mkdir()
        print("written in time:", await handler.aflush())
        show(folder / "shop.log")

        log.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    anyio.run(main)
