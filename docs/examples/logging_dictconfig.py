"""The same from a dictionary, as it might be in a settings file."""

import json
import logging
import logging.config
import tempfile
from pathlib import Path

import anyio


def settings(path: Path) -> dict[str, object]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "redact": {"()": "mtaio.logging.RedactingFilter"},
        },
        "formatters": {
            "json": {
                "()": "mtaio.logging.JsonFormatter",
                "fields": {"service": "shop"},
            },
        },
        "handlers": {
            "file": {
                "class": "mtaio.logging.AsyncFileHandler",
                "filename": str(path),
                "max_bytes": 10_000_000,
                "backup_count": 5,
                "formatter": "json",
                "filters": ["redact"],
            },
        },
        "loggers": {
            "shop": {"level": "INFO", "handlers": ["file"]},
        },
    }


def show(path: Path) -> None:
    entry = json.loads(path.read_text(encoding="utf-8"))
    print(
        {
            key: value
            for key, value in entry.items()
            if key not in {"time", "task"}
        }
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shop.log")
        logging.config.dictConfig(settings(path))
        logging.getLogger("shop.till").info(
            "paid", extra={"amount": 7, "token": "4f1d"}
        )

        # Another configuration closes the handlers of the one before, which writes what is queued.
        logging.config.dictConfig(
            {**settings(path), "loggers": {"shop": {}}, "handlers": {}}
        )
        show(path)


if __name__ == "__main__":
    anyio.run(main)
