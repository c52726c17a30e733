"""The request a record belongs to: a filter adds the value of a context variable."""

import logging
import tempfile
from contextvars import ContextVar
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler

request_id: ContextVar[str] = ContextVar("request_id", default="-")
log = logging.getLogger("shop")


def add_request(record: logging.LogRecord) -> bool:
    record.request = request_id.get()
    return True


async def serve(request: str, article: str) -> None:
    request_id.set(request)
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
            group.start_soon(serve, "r1", "tea")
            await anyio.sleep(0.05)
            group.start_soon(serve, "r2", "cake")
        log.warning("closing")
        log.removeHandler(handler)
        handler.close()
        show(path)


if __name__ == "__main__":
    anyio.run(main)
