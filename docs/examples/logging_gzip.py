"""Older log files compressed, with the same functions as for a standard handler."""

import gzip
import logging
import shutil
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler

log = logging.getLogger("shop")


def namer(name: str) -> str:
    return name + ".gz"


def rotator(source: str, dest: str) -> None:
    with Path(source).open("rb") as plain, gzip.open(dest, "wb") as smaller:
        shutil.copyfileobj(plain, smaller)
    Path(source).unlink()


def show(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        print(path.name)
    with gzip.open(folder / "shop.log.1.gz", "rt", encoding="utf-8") as older:
        print(older.read().split())


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        handler = AsyncFileHandler(
            folder / "shop.log", max_bytes=20, backup_count=2
        )
        handler.namer = namer
        handler.rotator = rotator
        log.addHandler(handler)
        for number in range(5):
            log.warning("sale-%d", number)
        await handler.aflush()
        show(folder)
        log.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    anyio.run(main)
