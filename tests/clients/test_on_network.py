"""Real clients, httpx and aiohttp, on a simulated network: nothing stays open."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import httpx
import pytest

from mtaio import Quota, RateLimiter, Retry
from mtaio.clients import LimitedMiddleware, LimitedTransport
from mtaio.testing import Network, Victim, assert_quiescent, injections, run, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import SocketStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT = b"HTTP/1.1 429 No\r\nRetry-After: 2\r\nContent-Length: 4\r\n\r\nlate"
OPEN = b"HTTP/1.1 429 No\r\nRetry-After: 2\r\n\r\nlate"
ZIPPED = SHORT.replace(b"Retry", b"Content-Encoding: gzip\r\nRetry")


class Api:
    """
    A server that refuses every second request, and streams what it answers.

    Args:
        refusal: What it sends then.
    """

    def __init__(self, refusal: bytes) -> None:
        self.refusal = refusal
        self.connections = 0
        self.requests = 0
        self.bodies: list[bytes] = []

    async def serve(self) -> None:
        """Serve on port 80."""
        async with await anyio.create_tcp_listener(local_port=80) as listener:
            await listener.serve(self.answer)

    async def answer(self, stream: SocketStream) -> None:
        """Answer the requests of one connection."""
        self.connections += 1
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            async with stream:
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        data += await stream.receive()
                    head, _, data = data.partition(b"\r\n\r\n")
                    length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                    while len(data) < int(length or 0):
                        data += await stream.receive()
                    self.bodies.append(data)
                    data = b""
                    self.requests += 1
                    if self.requests % 2:
                        await stream.send(self.refusal)
                        if b"Content-Length" not in self.refusal:
                            return
                    else:
                        await stream.send(OK + b"2\r\nab\r\n")
                        await anyio.sleep(1)
                        await stream.send(b"2\r\ncd\r\n0\r\n\r\n")


async def by_httpx(**options: Any) -> bytes:
    """Ask with httpx, and return what is streamed, after checking when it comes."""
    limited = LimitedTransport(jitter=0, resend=True, **options)
    async with (
        httpx.AsyncClient(transport=limited) as client,
        client.stream("POST", "http://api/", content=b"x") as response,
    ):
        begun = anyio.current_time()
        parts = [(anyio.current_time() - begun, part) async for part in response.aiter_raw()]
    assert [part for _, part in parts] == [b"ab", b"cd"]
    assert 0.9 < parts[1][0] < 1.1
    return b"".join(part for _, part in parts)


async def by_aiohttp(**options: Any) -> bytes:
    """Do the same with aiohttp."""
    middleware = LimitedMiddleware(jitter=0, resend=True, **options)
    async with (
        aiohttp.ClientSession(middlewares=[middleware]) as client,
        client.post("http://api/", data=b"x") as response,
    ):
        begun = anyio.current_time()
        parts = [(anyio.current_time() - begun, part) async for part in response.content.iter_any()]
    assert [part for _, part in parts] == [b"ab", b"cd"]
    assert 0.9 < parts[1][0] < 1.1
    now = middleware.statistics()
    assert (now.requests, now.in_flight) == (1, 0)
    return b"".join(part for _, part in parts)


CALLS: list[tuple[Callable[..., Awaitable[bytes]], str]] = [
    (by_httpx, "asyncio"),
    (by_httpx, "trio"),
    (by_aiohttp, "asyncio"),
]
each_client = pytest.mark.parametrize(
    ("ask", "backend"), CALLS, ids=["httpx-asyncio", "httpx-trio", "aiohttp"]
)


@each_client
@pytest.mark.parametrize("refusal", [SHORT, OPEN, ZIPPED], ids=["short", "open", "zipped"])
def test_a_refusal_is_waited_out(
    ask: Callable[..., Awaitable[bytes]], backend: str, refusal: bytes
) -> None:
    """On the same connection if the refusal could be read; its stream is not touched."""
    pytest.importorskip(backend)
    api = Api(refusal)

    async def main() -> None:
        async with Network(latency=0.01) as net:
            net.host("api").start(api.serve)
            await settle()
            assert await ask(quota=Quota(requests=10)) == b"abcd"
            assert 3 < anyio.current_time() < 3.5
        assert_quiescent(net)

    run(main, backend=backend)
    assert api.bodies == [b"x", b"x"]
    again = refusal is SHORT or (refusal is ZIPPED and ask is by_httpx)
    assert api.connections == (1 if again else 2)


# httpcore leaves the generator of a request's body to the garbage collector, of which trio warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@each_client
def test_nothing_stays_open_of_a_request_that_is_cancelled(
    ask: Callable[..., Awaitable[bytes]], backend: str
) -> None:
    """Wherever it is struck, with limits, refusals and retries."""
    pytest.importorskip(backend)

    async def main(victim: Victim) -> None:
        quota = Quota(requests=10)
        retry = Retry(2, on=(httpx.TransportError, aiohttp.ClientError))
        async with Network(latency=0.01) as net:
            net.host("api").start(Api(SHORT).serve)
            await settle()
            with anyio.CancelScope():
                await victim(partial(ask, quota=quota, limiter=RateLimiter(10), retry=retry))
            await settle()
            assert await ask(quota=quota) == b"abcd"
        assert_quiescent(net)
        assert quota.statistics().in_flight == 0

    for victim in injections():
        run(main, victim, backend=backend)


def test_what_aiohttp_cannot_send_twice() -> None:
    """A generator's body is used up by the first sending; the caller gets the refusal, unread."""
    api = Api(SHORT)

    async def main() -> None:
        async def body() -> Any:
            yield b"x"

        async with Network() as net:
            net.host("api").start(api.serve)
            await settle()
            middleware = LimitedMiddleware()
            async with aiohttp.ClientSession(middlewares=[middleware]) as client:
                headers = {"Content-Length": "1"}
                async with client.put("http://api/", data=body(), headers=headers) as response:
                    assert (response.status, await response.text()) == (429, "late")
                post = client.post("http://api/", data=b"x", headers={"Idempotency-Key": "1"})
                async with post as response:
                    assert response.status == 200
        assert middleware.statistics().given_up == 1

    run(main, backend="asyncio")
