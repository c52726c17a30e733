"""An id for work that is no HTTP request, in JSON by itself and in a format of your own."""

import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler, request_id

log = logging.getLogger("shop")


def add_request(record: logging.LogRecord) -> bool:
    record.request = request_id.get() or "-"
    return True


async def handle(message: str, article: str) -> None:
    request_id.set(message)
    log.warning("asked for %s", article)
    await anyio.sleep(0.1)
    log.warning("sold %s", article)


def show(path: Path) -> None:
    print(path.read_text(encoding="utf-8"), end="")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        handler = AsyncFileHandler(path)
        handler.addFilter(add_request)
        handler.setFormatter(logging.Formatter("%(request)s %(message)s"))
        log.addHandler(handler)
        async with anyio.create_task_group() as group:
            group.start_soon(handle, "r1", "tea")
            await anyio.sleep(0.05)
            group.start_soon(handle, "r2", "cake")
        log.warning("closing")
        log.removeHandler(handler)
        handler.close()
        show(path)


if __name__ == "__main__":
    anyio.run(main)
