"""
A relay for log lines, in plain trio: takes them over TCP, posts batches.

    pip install httpx    # beside mtaio with its extra "trio"
    python relay.py --listen 127.0.0.1:5140 https://logs.example.org/lines
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import httpx
import trio

from mtaio import ConcurrencyLimiter, KeyedRateLimiter, Retry, TimeoutManager
from mtaio.exceptions import LimitError

Sink: TypeAlias = Callable[[list[str]], Awaitable[None]]

MOST_LINE: Final = 16_384  # bytes; a line whose end has not come by then is cut
BATCH: Final = 100  # lines
LATEST: Final = 1.0  # seconds that a line waits for a batch to be full
IDLE: Final = 600.0  # seconds after which a silent connection is closed
GRACE: Final = 20.0  # seconds after a signal in which the rest is sent

log = logging.getLogger("relay")
connections = ConcurrencyLimiter(500, max_waiting=0, name="connections")
pace = KeyedRateLimiter(200, burst=1000, name="lines of a client")
timeouts = TimeoutManager(10.0, name="sending")
retry = Retry(
    attempts=5, on=(httpx.HTTPError, OSError), wait_initial=0.5, wait_max=10.0
)


async def take(
    peer: str,
    stream: trio.abc.ReceiveStream,
    lines: trio.MemorySendChannel[str],
) -> None:
    """Read what a client sends; one that sends too much waits, alone."""
    whole: deque[bytes] = deque()
    rest, ended = b"", False
    try:
        while not ended:
            with trio.fail_after(IDLE):
                chunk = await stream.receive_some()
            ended = not chunk
            *read, rest = (rest + chunk).split(b"\n")
            if rest and (ended or len(rest) > MOST_LINE):
                read, rest = [*read, rest], b""
            whole.extend(read)
            while whole:
                await pace.acquire(peer)
                await lines.send(whole[0].decode("utf-8", "replace"))
                whole.popleft()
    finally:
        if lost := len(whole) + bool(rest):
            log.error("lines lost: %d, of %s", lost, peer)


async def ship(lines: trio.MemoryReceiveChannel[str], sink: Sink) -> None:
    """Send batches until the channel is closed and empty."""

    async def send(batch: list[str]) -> None:
        async with timeouts():
            await sink(batch)

    batch: list[str] = []
    try:
        async for first in lines:
            batch = [first]
            with trio.move_on_after(LATEST):
                async for line in lines:
                    batch.append(line)
                    if len(batch) == BATCH:
                        break
            try:
                await retry.run(send, batch)
            except Exception:
                log.exception("lines lost: %d", len(batch))
            batch = []
    finally:
        if lost := len(batch) + lines.statistics().current_buffer_used:
            log.error("lines lost: %d, not sent in time", lost)


async def relay(listeners: list[trio.SocketListener], sink: Sink) -> None:
    """Take lines until a signal comes, then send what was taken."""
    send_channel, receive_channel = trio.open_memory_channel[str](BATCH)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            peer = stream.socket.getpeername()[0]
            async with connections:
                await take(peer, stream, send_channel)
        except (
            OSError,
            trio.BrokenResourceError,
            trio.TooSlowError,
            LimitError,
        ) as error:
            log.warning("a connection has ended: %r", error)

    async with trio.open_nursery() as shipping:
        shipping.start_soon(ship, receive_channel, sink)
        async with send_channel, trio.open_nursery() as taking:
            with trio.open_signal_receiver(
                signal.SIGINT, signal.SIGTERM
            ) as signals:
                taking.start_soon(
                    partial(trio.serve_listeners, serve, listeners)
                )
                async for _ in signals:
                    break  # a second one ends the process
            taking.cancel_scope.cancel()
        # The channel is closed now, so ship() ends when it has sent the rest.
        shipping.cancel_scope.deadline = trio.current_time() + GRACE


async def main(host: str, port: int, url: str) -> None:
    async with httpx.AsyncClient(timeout=None) as client:

        async def sink(batch: list[str]) -> None:
            (
                await client.post(url, content="\n".join(batch))
            ).raise_for_status()

        await relay(await trio.open_tcp_listeners(port, host=host), sink)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Relay log lines in batches.")
    parser.add_argument("url", help="where to post batches")
    parser.add_argument(
        "--listen", default="127.0.0.1:5140", metavar="HOST:PORT"
    )
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    if not options.url.startswith(("http://", "https://")):
        parser.error(f"{options.url}: write https://logs.example.org/lines")
    if not (host and port.isdecimal() and int(port) < 65536):
        parser.error(f"--listen {options.listen}: write HOST:PORT")
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    trio.run(main, host, int(port), options.url)
