"""
A worker that delivers webhooks from a queue in SQLite, each at least once.

    pip install httpx    # beside mtaio with its extra "app"
    export WORKER_QUEUE=/var/lib/hooks/queue.db
    python worker.py put https://example.org/hook '{"order": 7}'
    python worker.py run
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from mtaio import Application, Retry, TaskExecutor
from mtaio.core import Intake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Seconds for which a job is ours, and between two looks for a new one.
LEASE = float(os.environ.get("WORKER_LEASE", "60"))
POLL = float(os.environ.get("WORKER_POLL", "1"))


def wish(error: Exception) -> str | None:
    """Return what the receiver asks for: seconds or a date."""
    if not isinstance(error, httpx.HTTPStatusError):
        return None
    asked: str | None = error.response.headers.get("Retry-After")
    return asked


RETRY = Retry(
    attempts=int(os.environ.get("WORKER_ATTEMPTS", "8")),
    wait_initial=float(os.environ.get("WORKER_WAIT", "5")),
    wait_max=3600.0,
    retry_after=wish,
)

log = logging.getLogger("worker")
logging.getLogger("httpx").setLevel(logging.WARNING)
app = Application(name="worker")
disk = TaskExecutor(threads=1, name="disk")  # one thread waits for SQLite


@dataclass(frozen=True, slots=True)
class Job:
    """A webhook to deliver; the attempts include this one."""

    id: int
    url: str
    body: str
    attempts: int


class Queue:
    """
    Jobs in a table that several processes may share.

    A job can be taken once it is ``due``, and taking it moves that moment on:
    if the worker dies, the job comes back by itself.
    """

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=10
        )
        self._execute("PRAGMA journal_mode = WAL")
        self._execute(
            "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY"
            " AUTOINCREMENT, url TEXT, body TEXT, due REAL DEFAULT 0,"
            " attempts INTEGER DEFAULT 0, error TEXT)"
        )
        self._execute("CREATE INDEX IF NOT EXISTS jobs_due ON jobs (due)")

    def _execute(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def put(self, url: str, body: str) -> None:
        """Add a job; it is on disk when this returns."""
        self._execute(
            "INSERT INTO jobs (url, body) VALUES (:url, :body)",
            url=url,
            body=body,
        )

    def take(self) -> Job | None:
        """Lease the job that has been due the longest."""
        rows = self._execute(
            "UPDATE jobs SET due = :now + :lease, attempts = attempts + 1"
            " WHERE id = (SELECT id FROM jobs WHERE due <= :now"
            " AND attempts < :most ORDER BY due LIMIT 1)"
            " RETURNING id, url, body, attempts",
            now=time.time(),
            lease=LEASE,
            most=RETRY.attempts,
        )
        return Job(*rows[0]) if rows else None

    def delete(self, job: Job) -> None:
        """Forget a job that is done."""
        self._execute("DELETE FROM jobs WHERE id = :id", id=job.id)

    def put_off(self, job: Job, error: Exception) -> None:
        """Make a failed job wait, or set it aside after the last attempt."""
        last = job.attempts == RETRY.attempts
        wait = 0 if last else RETRY.wait_before(job.attempts + 1, error)
        due = time.time() + min(wait, RETRY.wait_max)
        sql = "UPDATE jobs SET due = :due, error = :error WHERE id = :id"
        self._execute(
            sql, due=due, error=f"{type(error).__name__}: {error}", id=job.id
        )

    def give_back(self, job: Job) -> None:
        """Let others take a job at once, as if it had not been taken."""
        sql = "UPDATE jobs SET due = 0, attempts = attempts - 1 WHERE id = :id"
        self._execute(sql, id=job.id)

    def dead(self) -> list[tuple[Any, ...]]:
        """Return the jobs that were set aside: number, URL, last error."""
        return self._execute(
            "SELECT id, url, error FROM jobs"
            " WHERE due <= :now AND attempts >= :most",
            now=time.time(),
            most=RETRY.attempts,
        )

    def close(self) -> None:
        """Close it."""
        self._db.close()


@app.resource
async def queue() -> AsyncIterator[Queue]:
    with closing(Queue(os.environ["WORKER_QUEUE"])) as queue:
        yield queue


@app.resource
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=None) as client:
        yield client


async def deliver(job: Job) -> None:
    """Do the job; if it comes twice, the receiver can tell by the key."""
    headers = {
        "Idempotency-Key": str(job.id),
        "Content-Type": "application/json",
    }
    answer = await client.get().post(job.url, content=job.body, headers=headers)
    answer.raise_for_status()


async def receive() -> Job:
    while True:
        job = await disk.run_in_thread(queue.get().take)
        if job is not None:
            return job
        await anyio.sleep(POLL)


async def ack(job: Job) -> None:
    log.info("job %d is done", job.id)
    await disk.run_in_thread(queue.get().delete, job)


async def nack(job: Job, error: Exception | None) -> None:
    if error is None:  # it was cancelled: the time to stop is over
        await disk.run_in_thread(queue.get().give_back, job)
    else:
        await disk.run_in_thread(queue.get().put_off, job, error)


def failed(job: Job, error: Exception) -> None:
    level = logging.ERROR if job.attempts == RETRY.attempts else logging.WARNING
    text = "job %d failed, attempt %d of %d: %r"
    log.log(level, text, job.id, job.attempts, RETRY.attempts, error)


@app.service(drains=True)  # at shutdown, what was begun is finished
async def consumer() -> None:
    await app.executor.for_each(
        deliver,
        Intake(receive, ack, nack, grace=1.0),
        timeout=LEASE / 2,  # it ends before others may take the job
        errors=failed,
        until=app.wait_draining,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Deliver webhooks, each at least once."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="deliver until told to stop")
    run.add_argument(
        "--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio"
    )
    new = commands.add_parser("put", help="add a job")
    new.add_argument("url")
    new.add_argument("body")
    commands.add_parser("dead", help="show the jobs that were set aside")
    options = parser.parse_args()
    if options.command == "put" and not options.url.startswith(
        ("http://", "https://")
    ):
        parser.error(f"{options.url}: write https://example.org/hook")
    path = os.environ.get("WORKER_QUEUE") or parser.error(
        "set WORKER_QUEUE to the queue's path"
    )
    if options.command == "run":
        app.run(options.backend)
    else:
        with closing(Queue(path)) as jobs:
            if options.command == "put":
                jobs.put(options.url, options.body)
            else:
                for row in jobs.dead():
                    print(*row)
