"""A worker on a Redis stream, which takes over what other workers have left."""

import os
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import anyio

from mtaio import TaskExecutor
from mtaio.core import Intake
from mtaio.redis import RedisStore
from mtaio.types import Connection

STREAM, GROUP, ME = f"letters-{uuid4().hex}", "senders", "worker-2"
IDLE = 300  # ms after which a letter goes to another worker: more than it takes

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))


@dataclass
class Letter:
    """An entry of the stream."""

    id: bytes
    to: str


def read(worker: str, count: int, *options: Any) -> tuple[Any, ...]:
    """Return the command that reads new entries for a worker."""
    head = ("XREADGROUP", "GROUP", GROUP, worker, "COUNT", count)
    return (*head, *options, "STREAMS", STREAM, ">")


async def receive(connection: Connection) -> Letter:
    """Take what a worker that is gone has left, or else what is new."""
    claim = ("XAUTOCLAIM", STREAM, GROUP, ME, IDLE, "0", "COUNT", 1)
    while True:
        # A read that is cancelled may have taken a letter.
        with anyio.CancelScope(shield=True):
            entries = (await store.command(*claim))[1]
            if not entries:
                new = read(ME, 1, "BLOCK", 100)
                answer = await connection.command(*new, timeout=2)
                entries = answer[STREAM.encode()] if answer else {}
        for number, pairs in entries.items():
            return Letter(number, dict(pairs)[b"to"].decode())
        await anyio.lowlevel.checkpoint()


async def ack(letter: Letter) -> None:
    await store.command("XACK", STREAM, GROUP, letter.id)


async def nack(letter: Letter, error: Exception | None) -> None:
    if error is None:  # others may claim it at once, as if it had been idle
        claim = ("XCLAIM", STREAM, GROUP, ME, 0, letter.id)
        await store.command(*claim, "IDLE", IDLE, "JUSTID")
    else:  # it would fail again and again
        aside = ("to", letter.to, "why", repr(error))
        await store.command("XADD", f"{STREAM}-aside", "*", *aside)
        await ack(letter)


def report(letter: Letter, error: Exception) -> None:
    print("set aside:", letter.to, repr(error))


async def main() -> None:
    sent: list[str] = []
    all_sent = anyio.Event()

    async def send(letter: Letter) -> None:
        await anyio.sleep(0.01)
        if letter.to == "nobody":
            raise LookupError(letter.to)
        sent.append(letter.to)
        if len(sent) == 4:
            all_sent.set()

    async with store, store.dedicated() as connection:
        await store.command("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
        for to in ("ada", "nobody", "bob", "eve", "joe"):
            await store.command("XADD", STREAM, "*", "to", to)
        # Another worker takes two letters, and dies.
        await store.command(*read("worker-1", 2))
        letters = Intake(lambda: receive(connection), ack, nack)
        await TaskExecutor().for_each(
            send, letters, limit=2, errors=report, until=all_sent.wait
        )
        pending = await store.command("XPENDING", STREAM, GROUP)
        print(sorted(sent), pending[0], "pending")


if __name__ == "__main__":
    anyio.run(main)
