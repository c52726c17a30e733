"""One JSON object per line, with ``extra``, the task and the traceback."""

import json
import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import configure

log = logging.getLogger("shop")


async def share(article: str, people: int) -> None:
    try:
        print(10 / people)
    except ZeroDivisionError:
        log.exception("cannot share", extra={"article": article})


def show(path: Path) -> None:
    entry = json.loads(path.read_text(encoding="utf-8"))
    for key, value in entry.items():
        shown = "…" if key == "time" else value
        print(f"{key:>9}: {str(shown).splitlines()[-1]}")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        async with (
            configure(
                file=path,
                format="json",
                fields={"service": "shop"},
                console=False,
            ),
            anyio.create_task_group() as group,
        ):
            group.start_soon(share, "tea", 0, name="till 1")
        show(path)


if __name__ == "__main__":
    anyio.run(main)
