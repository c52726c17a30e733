"""Records of libraries: one made quieter, one written to its own file."""

import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler, configure


def show(*paths: Path) -> None:
    for path in paths:
        print(f"{path.name}:")
        for line in path.read_text(encoding="utf-8").splitlines():
            print(" ", line.rsplit(",", 1)[-1][4:] if "," in line else line)


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with configure(
            level="INFO", file=folder / "shop.log", console=False
        ):
            logging.getLogger("httpx").setLevel(logging.WARNING)

            access = logging.getLogger("hypercorn.access")
            access.addHandler(AsyncFileHandler(folder / "access.log"))
            access.propagate = False  # or shop.log would get it too

            logging.getLogger("hypercorn.error").info(
                "Running on http://127.0.0.1:8000"
            )
            logging.getLogger("httpx").info(
                "HTTP Request: GET https://example.org/ 200 OK"
            )
            logging.getLogger("httpx").warning("retrying")
            access.info("GET /orders 200")

            for handler in access.handlers[:]:
                access.removeHandler(handler)
                handler.close()
        show(folder / "access.log", folder / "shop.log")


if __name__ == "__main__":
    anyio.run(main)
