"""The handler alone, set up by hand: a file with rotation, in a custom format."""

import contextlib
import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler


async def setup_logging() -> None:
    logger = logging.getLogger("mtaio")
    logger.setLevel(logging.INFO)

    handler = AsyncFileHandler(
        filename="app.log",
        max_bytes=10_000_000,  # 10 MB
        backup_count=5,
    )
    formatter = logging.Formatter(
        "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    )
    handler.setFormatter(formatter)
    logger.addHandler(handler)


def show(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        print(line.split(" - ", 1)[1])


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        await setup_logging()
        logger = logging.getLogger("mtaio.shop")
        logger.info("open")
        logger.warning("%s is nearly sold out", "tea")

        for handler in logging.getLogger("mtaio").handlers[:]:
            logging.getLogger("mtaio").removeHandler(handler)
            handler.close()  # what the interpreter's exit does too
        show(Path("app.log"))


if __name__ == "__main__":
    anyio.run(main)
