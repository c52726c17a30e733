"""The handler set up by hand: a file with rotation, in a custom format."""

import contextlib
import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler


def setup_logging() -> AsyncFileHandler:
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    handler = AsyncFileHandler("shop.log", max_bytes=10_000_000, backup_count=5)
    handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
    logger.addHandler(handler)
    return handler


def show(path: Path) -> None:
    print(path.read_text(encoding="utf-8"), end="")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        handler = setup_logging()
        logging.getLogger("shop").info("open")
        await handler.aflush()  # a test waits; a service need not
        show(Path("shop.log"))
        logging.getLogger("shop").removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    anyio.run(main)
