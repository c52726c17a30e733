"""What the guide to timeouts says of httpx's own, beside mtaio's."""

from __future__ import annotations

import sys

import anyio
import httpx
import pytest

from mtaio import RateLimiter, Timeout
from mtaio.clients import LimitedTransport
from mtaio.exceptions import LimitTimeoutError
from mtaio.testing import Network, run, settle


async def serve() -> None:
    """Answer with the first half of a response, and then with nothing."""

    async def answer(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            await anyio.sleep(3)
            await stream.send(b".")
            await anyio.sleep_forever()

    await (await anyio.create_tcp_listener(local_port=80)).serve(answer)


@pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")
def test_steps_are_limited_one_by_one(backend: str) -> None:
    """``connect=`` ends a connection that is not made, ``read=`` a response that stands still."""

    async def main() -> None:
        async with Network(latency=0.05) as net:
            net.host("api").start(serve)
            await settle()
            async with httpx.AsyncClient(timeout=httpx.Timeout(None, read=30)) as client:
                began = anyio.current_time()
                with pytest.raises(httpx.ReadTimeout):
                    await client.get("http://api/")
                assert anyio.current_time() - began == pytest.approx(33, abs=0.5)
            net.partition("main", "api")
            async with httpx.AsyncClient(timeout=httpx.Timeout(None, connect=2)) as client:
                began = anyio.current_time()
                with pytest.raises(httpx.ConnectTimeout):
                    await client.post("http://api/")
                assert anyio.current_time() - began == pytest.approx(2)

    run(main, backend=backend)


async def test_wait_for_a_limit_is_no_step() -> None:
    """The wait of a transport for its limit counts for mtaio's timeout, not for httpx's."""

    async def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    limited = LimitedTransport(httpx.MockTransport(answer), limiter=RateLimiter(0.5))
    async with httpx.AsyncClient(transport=limited, timeout=0.5) as client:
        for seconds in (0, 2):
            began = anyio.current_time()
            assert (await client.get("http://api/")).is_success
            assert anyio.current_time() - began == pytest.approx(seconds)
        with pytest.raises(LimitTimeoutError):
            await Timeout(1).run(client.get, "http://api/")


def test_timeouts_of_httpx_are_of_its_own_kind() -> None:
    """So ``on=`` names both: httpx's are no builtin ``TimeoutError``."""
    assert issubclass(httpx.PoolTimeout, httpx.TransportError)
    assert not issubclass(httpx.TimeoutException, TimeoutError)
