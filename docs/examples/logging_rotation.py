"""Rotation by size, and a file that another program moved."""

import logging
import os
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler

log = logging.getLogger("shop")


def show(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:14} {path.read_text(encoding='utf-8').split()}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        handler = AsyncFileHandler(
            folder / "shop.log", max_bytes=20, backup_count=2
        )
        log.addHandler(handler)

        for number in range(9):
            log.warning("sale-%d", number)
        await handler.aflush()
        print(f"rotated {handler.statistics().rotations} times:")
        show(folder)

        if os.name == "nt":
            handler.close()  # Windows cannot move an open file
        (folder / "shop.log").rename(
            folder / "shop.log.old"
        )  # as logrotate does
        log.warning("sale-9")
        await handler.aflush()
        print("moved away:")
        show(folder)

        log.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    anyio.run(main)
