"""Three ways to test what a program logs."""

import json
import logging
import tempfile
from pathlib import Path

import anyio

from mtaio.logging import AsyncFileHandler, JsonFormatter, RedactingFilter

log = logging.getLogger("shop")


async def sell(article: str) -> None:
    log.warning("sold %s", article, extra={"token": "4f1d"})


class Kept(logging.Handler):
    """Keeps records; under pytest the fixture ``caplog`` has them in ``caplog.records``."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)


async def test_the_program_says_so() -> None:
    """Check what was logged, wherever it is written."""
    kept = Kept()
    log.addHandler(kept)
    await sell("tea")
    log.removeHandler(kept)
    assert [record.getMessage() for record in kept.records] == ["sold tea"]


def test_the_line_is_right() -> None:
    """Filters and formatters work on any record, without a handler."""
    record = logging.makeLogRecord({"msg": "sold tea", "token": "4f1d"})
    RedactingFilter().filter(record)
    entry = json.loads(JsonFormatter().format(record))
    assert entry.items() >= {"message": "sold tea", "token": "***"}.items()


async def test_the_file_is_right(folder: Path) -> None:
    """After a flush the records are in the file: no test has to wait and hope."""
    handler = AsyncFileHandler(folder / "shop.log")
    log.addHandler(handler)
    await sell("tea")
    assert await handler.aflush()
    assert (folder / "shop.log").read_text(encoding="utf-8") == "sold tea\n"
    assert not handler.statistics().dropped
    log.removeHandler(handler)
    handler.close()


async def main() -> None:
    await test_the_program_says_so()
    test_the_line_is_right()
    with tempfile.TemporaryDirectory() as folder:
        await test_the_file_is_right(Path(folder))
    print("3 passed")


if __name__ == "__main__":
    anyio.run(main)
