"""
Read documents, embed their chunks in batches, and keep the vectors in SQLite.

    export INGEST_TEXTS=texts INGEST_DB=vectors.db
    mtaio run ingest:app

It may be stopped or killed at any moment, and goes on where it was when it is
started again. The exit code is 0 when everything is in the table, and 75 when
it was told to stop before.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from textwrap import wrap

import anyio

from mtaio import Application, TaskExecutor


async def vectors_of(texts: list[str]) -> list[float]:
    """Stand for the service that makes vectors of texts."""
    if "INGEST_CALLS" in os.environ:  # a file to count what is asked for
        async with await anyio.open_file(
            os.environ["INGEST_CALLS"], "a"
        ) as calls:
            await calls.write(f"{len(texts)}\n")
    await anyio.sleep(0.05)
    return [float(len(text)) for text in texts]


# --8<-- [start:ingest]
app = Application(name="ingest")
executor = TaskExecutor()
files = sorted(Path(os.environ["INGEST_TEXTS"]).glob("*.txt"))
db = sqlite3.connect(
    os.environ["INGEST_DB"], check_same_thread=False, timeout=10
)
db.execute(
    "CREATE TABLE IF NOT EXISTS vectors"
    " (file, n, vector, PRIMARY KEY (file, n))"
)


Chunk = tuple[str, int, str]
Row = tuple[str, int, float]


def chunks(file: Path) -> list[Chunk]:
    name = file.name
    rows = db.execute("SELECT n FROM vectors WHERE file = ?", [name])
    kept = {n for (n,) in rows}
    parts = enumerate(wrap(file.read_text("utf-8"), width=200))
    return [(name, n, part) for n, part in parts if n not in kept]


async def embed(batch: list[Chunk]) -> list[Row]:
    vectors = await vectors_of([part for _, _, part in batch])
    pairs = zip(batch, vectors, strict=True)
    return [(name, n, vector) for (name, n, _), vector in pairs]


def write(rows: list[Row]) -> None:
    with db:  # one transaction: all of the batch, or nothing
        db.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)


@app.job
async def ingest() -> None:
    parts = executor.stream(
        chunks, files, limit=1, flatten=True, until=app.wait_draining
    )
    rows = executor.stream(embed, parts, batch=100, within=0.5, limit=5)
    await executor.for_each(write, rows, limit=1)


# --8<-- [end:ingest]
if __name__ == "__main__":
    app.run()
