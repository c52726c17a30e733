"""A file for each day: what an earlier day left is moved with the first record."""

import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler

log = logging.getLogger("shop")


def leave_behind(folder: Path, name: str, text: str) -> None:
    """Make a file, as a run on 30 November would have left it."""
    path = folder / name
    path.write_text(f"{text}\n", encoding="utf-8")
    evening = datetime(2025, 11, 30, 21, tzinfo=UTC).timestamp()
    os.utime(path, (evening, evening))


def show(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        print(f"  {path.name:22} {path.read_text(encoding='utf-8').split()}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        leave_behind(folder, "shop.log.2025-11-28", "sale-1")
        leave_behind(folder, "shop.log.2025-11-29", "sale-2")
        leave_behind(folder, "shop.log", "sale-3")
        print("before:")
        show(folder)

        handler = AsyncFileHandler(
            folder / "shop.log", when="midnight", utc=True, backup_count=2
        )
        log.addHandler(handler)
        log.warning("sale-4")
        log.removeHandler(handler)
        handler.close()
        print("after a sale today:")
        show(folder)


if __name__ == "__main__":
    anyio.run(main)
