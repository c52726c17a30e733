"""A worker on a Redis stream, which takes over what other workers have left unfinished."""

import os
from dataclasses import dataclass
from uuid import uuid4

import anyio

from mtaio import TaskExecutor
from mtaio.core import Intake
from mtaio.redis import RedisStore
from mtaio.types import Connection

STREAM, GROUP, ME = f"letters-{uuid4().hex}", "senders", "worker-2"
IDLE = 300  # milliseconds after which a letter goes to another worker: more than it ever takes

store = RedisStore(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))


@dataclass
class Letter:
    """An entry of the stream."""

    id: bytes
    to: str


async def receive(connection: Connection) -> Letter:
    """Take what a worker that is gone has left, else what is new."""
    while True:
        with anyio.CancelScope(
            shield=True
        ):  # a read that is cancelled may have taken a letter
            claim = ("XAUTOCLAIM", STREAM, GROUP, ME, IDLE, "0", "COUNT", 1)
            entries = (await store.command(*claim))[1]
            if not entries:
                read = (
                    "XREADGROUP",
                    "GROUP",
                    GROUP,
                    ME,
                    "COUNT",
                    1,
                    "BLOCK",
                    100,
                )
                answer = await connection.command(
                    *read, "STREAMS", STREAM, ">", timeout=2
                )
                entries = answer[STREAM.encode()] if answer else {}
        for number, pairs in entries.items():
            return Letter(number, dict(pairs)[b"to"].decode())
        await anyio.lowlevel.checkpoint()


async def ack(letter: Letter) -> None:
    await store.command("XACK", STREAM, GROUP, letter.id)


async def nack(letter: Letter, error: Exception | None) -> None:
    if (
        error is None
    ):  # others may claim it at once, as if it had been idle for so long
        await store.command(
            "XCLAIM", STREAM, GROUP, ME, 0, letter.id, "IDLE", IDLE, "JUSTID"
        )
    else:  # it would fail again and again
        await store.command(
            "XADD", f"{STREAM}-aside", "*", "to", letter.to, "why", repr(error)
        )
        await ack(letter)


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
        read = (
            "XREADGROUP",
            "GROUP",
            GROUP,
            "worker-1",
            "COUNT",
            2,
            "STREAMS",
            STREAM,
            ">",
        )
        await store.command(*read)  # another worker takes two letters, and dies
        await TaskExecutor().for_each(
            send,
            Intake(lambda: receive(connection), ack, nack),
            limit=2,
            errors=lambda letter, error: print(
                "set aside:", letter.to, repr(error)
            ),
            until=all_sent.wait,
        )
        print(
            sorted(sent),
            (await store.command("XPENDING", STREAM, GROUP))[0],
            "pending",
        )


if __name__ == "__main__":
    anyio.run(main)
