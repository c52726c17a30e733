"""Logging for a whole program, in one call."""

import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import configure

log = logging.getLogger("shop")


def show(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        _date, _time, rest = line.split(" ", 2)
        print(rest)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        async with configure(level="INFO", file=path, console=False):
            log.info("open")
            log.debug("below the level")
            log.warning("login failed: user=bob password=hunter2")
        # The block has ended: the file is complete.
        show(path)


if __name__ == "__main__":
    anyio.run(main)
