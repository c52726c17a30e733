"""One JSON object per line, with the values of ``extra``, the task and the traceback."""

import json
import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler, JsonFormatter

log = logging.getLogger("shop")


async def sell(article: str, number: int) -> None:
    log.info(
        "sold %d of %s",
        number,
        article,
        extra={"article": article, "number": number},
    )
    try:
        print(10 / number)
    except ZeroDivisionError as error:
        log.exception("cannot share", extra={"error_message": str(error)})


def show(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        for key, value in json.loads(line).items():
            shown = "…" if key == "time" else value
            print(f"{key:>14}: {str(shown).splitlines()[-1]}")
        print()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        handler = AsyncFileHandler(path)
        handler.setFormatter(
            JsonFormatter(fields={"service": "shop", "version": "1.4"})
        )
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        async with anyio.create_task_group() as group:
            group.start_soon(sell, "tea", 0, name="till 1")
        log.removeHandler(handler)
        handler.close()
        show(path)


if __name__ == "__main__":
    anyio.run(main)
