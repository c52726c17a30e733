"""
A relay for log lines, in plain trio: takes them over TCP, posts batches.

    pip install httpx    # beside mtaio with its extra "trio"
    python relay.py --listen 127.0.0.1:5140 https://logs.example.org/lines
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeAlias

import httpx
import trio

from mtaio import KeyedRateLimiter, Retry, TimeoutManager
from mtaio.exceptions import RateLimitError

Sink: TypeAlias = Callable[[list[str]], Awaitable[None]]

MOST_LINE: Final = 16_384  # bytes; a line whose end has not come by then is cut
BATCH: Final = 100  # lines
LATEST: Final = 1.0  # seconds that a line waits for a batch to be full
GRACE: Final = 20.0  # seconds after a signal in which the rest is sent

log = logging.getLogger("relay")
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
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MOST_LINE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            await pace.acquire(peer)
            await lines.send(line.decode("utf-8", "replace"))
    if rest:
        await lines.send(rest.decode("utf-8", "replace"))


async def ship(lines: trio.MemoryReceiveChannel[str], sink: Sink) -> None:
    """Send batches until the channel is closed and empty."""

    async def send(batch: list[str]) -> None:
        async with timeouts():
            await sink(batch)

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


async def relay(listeners: list[trio.SocketListener], sink: Sink) -> None:
    """Take lines until a signal comes, then send what was taken."""
    send_channel, receive_channel = trio.open_memory_channel[str](BATCH)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await take(stream.socket.getpeername()[0], stream, send_channel)
        except (OSError, trio.BrokenResourceError, RateLimitError) as error:
            log.warning("a connection has ended: %s", error)

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
    if shipping.cancel_scope.cancelled_caught:
        log.error("lines lost: the rest was not sent within %g s", GRACE)


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
