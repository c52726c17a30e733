"""
Read documents, embed their chunks in batches, and keep the vectors in SQLite: each exactly once.

    python ingest.py DIRECTORY vectors.db

It may be stopped or killed at any moment, and goes on where it was when it is started again. The
exit code is 0 when everything is in the table, and 75 when it was told to stop before.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import anyio

from mtaio import Application, TaskExecutor

SIZE = 200  # characters of a chunk


async def vectors_of(texts: list[str]) -> list[float]:
    """Stand for the service that makes vectors of texts."""
    if "INGEST_CALLS" in os.environ:  # a file to count what is asked for
        async with await anyio.open_file(os.environ["INGEST_CALLS"], "a") as calls:
            await calls.write(f"{len(texts)}\n")
    await anyio.sleep(0.05)
    return [float(len(text)) for text in texts]


# --8<-- [start:ingest]
Chunk = tuple[str, int, str]  # the file, the number of the chunk in it, and its text

app = Application(name="ingest")
executor = TaskExecutor()
files = sorted(Path(sys.argv[1]).glob("*.txt"))
db = sqlite3.connect(sys.argv[2], check_same_thread=False, timeout=10)
db.execute("CREATE TABLE IF NOT EXISTS vectors (file, number, vector, PRIMARY KEY (file, number))")


def chunks(file: Path) -> list[Chunk]:
    there = {
        number for (number,) in db.execute("SELECT number FROM vectors WHERE file = ?", [file.name])
    }
    text = file.read_text("utf-8")
    parts = enumerate(text[start : start + SIZE] for start in range(0, len(text), SIZE))
    return [(file.name, number, part) for number, part in parts if number not in there]


async def embed(batch: list[Chunk]) -> list[tuple[str, int, float]]:
    vectors = await vectors_of([text for _, _, text in batch])
    return [
        (file, number, vector) for (file, number, _), vector in zip(batch, vectors, strict=True)
    ]


def write(rows: list[tuple[str, int, float]]) -> None:
    with db:  # one transaction: all of the batch, or nothing
        db.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)


@app.job
async def ingest() -> None:
    parts = executor.stream(chunks, files, limit=1, flatten=True, until=app.wait_draining)
    rows = executor.stream(embed, parts, batch=100, within=0.5, limit=5)
    await executor.for_each(write, rows, limit=1)


# --8<-- [end:ingest]
if __name__ == "__main__":
    app.run(os.environ.get("INGEST_BACKEND", "asyncio"))
