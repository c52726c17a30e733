"""The crawler of the guide, which visits machines that fail on a simulated network."""

from __future__ import annotations

import io
import json
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from mtaio.testing import Network, assert_quiescent, run, settle
from tests.examples.site import Site
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

crawler = load(ROOT / "docs" / "examples" / "programs" / "crawler.py", "example_crawler_on_network")

LATENCY = 0.05


def pages(_: str, path: str) -> httpx.Response:
    """Be a site of five pages, each of which leads to the next."""
    if path == "/robots.txt":
        return httpx.Response(404)
    number = int(path.removeprefix("/") or 0)
    link = f'<a href="/{number + 1}">x</a>' if number < 4 else ""
    return httpx.Response(200, html=f"<html><body>{link}</body></html>")


async def crawl(*hosts: str, most: int = 100) -> list[dict[str, Any]]:
    """Crawl with the client that the program has, and return what was written."""
    output = io.StringIO()
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None) as client:  # noqa: S113 - as there
        await crawler.Crawler(client, output, most, 1.0).crawl(
            [f"http://{each}/" for each in hosts]
        )
    return [json.loads(line) for line in output.getvalue().splitlines()]


def simulate(backend: str, site: Site, test: Callable[[Network], Awaitable[None]]) -> None:
    """Run a test with a site on the hosts "a", "b" and "c"."""

    async def main() -> None:
        async with Network(latency=LATENCY, segment=1000) as net:
            for name in "abc":
                net.host(name).start(site.serve)
            await settle()
            await test(net)
        assert_quiescent(net)

    run(main, backend=backend)


def test_host_that_cannot_be_reached_delays_no_other(backend: str) -> None:
    """Its pages fail after four attempts of 30 seconds each; the others are visited meanwhile."""
    site = Site(pages, takes=0.1)

    async def test(net: Network) -> None:
        net.partition("main", "c")
        lines = await crawl("a", "b", "c")
        for host in "ab":
            # To connect takes a round trip: at first, and after what is no text, which is not read.
            assert [at for at, _ in site.of(host)] == [0.15, 1.15, 2.05, 3.05, 4.05, 5.05]
            assert [path for _, path in site.of(host)] == [
                "/robots.txt",
                "/",
                "/1",
                "/2",
                "/3",
                "/4",
            ]
        assert site.of("c") == []
        assert [line["url"] for line in lines if "error" in line] == ["http://c/"]
        assert 4 * 30 < anyio.current_time() < 4 * 30 + 15
        assert site.most_at_once == {"a": 1, "b": 1}

    simulate(backend, site, test)


def test_host_that_is_killed_is_tried_again(backend: str) -> None:
    """A request that was under way is asked again, at its pace, until the host is back."""
    site = Site(pages, takes=0.3)

    async def test(net: Network) -> None:
        async def outage() -> None:
            await anyio.sleep_until(2.2)  # while "/1" is answered
            net.host("a").kill()
            await anyio.sleep(2)
            net.host("a").restart()

        async with anyio.create_task_group() as group:
            group.start_soon(outage)
            lines = await crawl("a", "b")
        assert all("error" not in line for line in lines)
        assert len(lines) == 10
        times = [at for at, _ in site.of("a")]
        assert all(later - earlier > 0.89 for earlier, later in pairwise(times))
        assert [path for _, path in site.of("a")].count("/1") == 2
        assert [path for _, path in site.of("b")].count("/1") == 1

    simulate(backend, site, test)


def test_cancelled_at_any_moment_it_leaves_no_connection(backend: str) -> None:
    """Ctrl-C comes when it comes: no socket is left."""
    site = Site(pages, takes=0.1)

    async def test(net: Network) -> None:
        for moment in range(30):
            with anyio.move_on_after(moment * 0.083):
                await crawl("a", "b", most=3)
            assert [each for each in net.open if each.host == "main"] == []

    simulate(backend, site, test)
