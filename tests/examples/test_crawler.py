"""The crawler of the guide, asked on the virtual clock what it does to the hosts that it visits."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import httpx
from anyio.lowlevel import checkpoint

from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

crawler = load(ROOT / "docs" / "examples" / "programs" / "crawler.py", "example_crawler")


class Web:
    """All hosts there are; each answer takes a quarter of a second."""

    def __init__(self, answer: Callable[[str, str], httpx.Response]) -> None:
        self.asked: list[tuple[float, str]] = []
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._answer = answer

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        host, path = request.url.netloc.decode(), request.url.path
        self.asked.append((anyio.current_time(), f"{host}{path}"))
        self._at_once[host] += 1
        self.most_at_once[host] = max(self.most_at_once[host], self._at_once[host])
        try:
            await anyio.sleep(0.25)
        finally:
            self._at_once[host] -= 1
        return self._answer(host, path)

    def of(self, host: str) -> list[tuple[float, str]]:
        """Return when a host was asked, and for what."""
        return [
            (at, urlsplit(f"//{what}").path) for at, what in self.asked if what.startswith(host)
        ]


class Endless(httpx.AsyncByteStream):
    """A page that never ends."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await checkpoint()
        return b"<p>" + b"x" * 1_000_000


def html(*links: str, title: str = "") -> httpx.Response:
    """Return a page."""
    anchors = " ".join(f'<a href="{link}">x</a>' for link in links)
    return httpx.Response(200, html=f"<html><title>{title}</title><body>{anchors}</body></html>")


async def crawl(web: Web, *seeds: str, pages: int = 100) -> list[dict[str, Any]]:
    """Crawl, and return what was written."""
    output = io.StringIO()
    async with httpx.AsyncClient(transport=httpx.MockTransport(web.handle)) as client:
        await crawler.Crawler(client, output, pages, 1.0).crawl(seeds)
    return [json.loads(line) for line in output.getvalue().splitlines()]


async def test_each_host_has_a_pace_of_its_own() -> None:
    """A host is asked once in a second by one task, robots.txt once, and waits for no other."""

    def answer(_: str, path: str) -> httpx.Response:
        if path == "/robots.txt":
            return httpx.Response(404)
        return html("/1", "/2#part", "/1", "http://[bad", "http://c/", "mailto:d", title="A & B")

    web = Web(answer)
    lines = await crawl(web, "http://a/", "http://b:8080/")
    assert web.of("a") == [(0.0, "/robots.txt"), (1.0, "/"), (2.0, "/1"), (3.0, "/2")]
    assert [at for at, _ in web.of("b:8080")] == [0.0, 1.0, 2.0, 3.0]
    assert web.of("c") == []
    assert set(web.most_at_once.values()) == {1}
    assert sorted(line["url"] for line in lines) == [
        *("http://a/", "http://a/1", "http://a/2"),
        *("http://b:8080/", "http://b:8080/1", "http://b:8080/2"),
    ]
    assert lines[0] == {"url": lines[0]["url"], "status": 200, "title": "A & B", "links": 5}


async def test_robots_are_heeded() -> None:
    """What robots.txt forbids is not asked for, and a longer delay is kept."""

    def answer(_: str, path: str) -> httpx.Response:
        if path == "/robots.txt":
            return httpx.Response(200, text="User-agent: *\nDisallow: /secret\nCrawl-delay: 5\n")
        return html("/secret/1", "/open")

    web = Web(answer)
    lines = await crawl(web, "http://a/")
    assert [(line["url"], line.get("error")) for line in lines] == [
        ("http://a/", None),
        ("http://a/secret/1", "robots.txt forbids it"),
        ("http://a/open", None),
    ]
    assert [path for _, path in web.of("a")] == ["/robots.txt", "/", "/open"]
    _, first, second = (at for at, _ in web.of("a"))
    assert second - first >= 5


async def test_retry_after_is_kept() -> None:
    """A host is left alone for as long as it wants; if that is too long, it is not asked again."""
    left = Counter({"/": 1})

    def answer(_: str, path: str) -> httpx.Response:
        if path == "/greedy":
            return httpx.Response(503, headers={"Retry-After": "86400"})
        if left[path]:
            left[path] -= 1
            return httpx.Response(429, headers={"Retry-After": "30"})
        return html("/greedy", "/next") if path == "/" else html()

    web = Web(answer)
    lines = await crawl(web, "http://a/")
    first, busy, again, greedy, last = web.of("a")
    assert (first, busy) == ((0.0, "/robots.txt"), (1.0, "/"))
    assert 31.25 <= again[0] < 46.25  # a random part comes on top
    assert (again[1], greedy, last) == (
        "/",
        (again[0] + 1, "/greedy"),
        (again[0] + 2, "/next"),
    )
    assert [line.get("error") for line in lines] == [
        None,
        "BusyError: status 503, Retry-After: 86400",
        None,
    ]


async def test_retry_after_may_be_a_date() -> None:
    """A date counts from now; one that has passed is no wait, and one far away is too long."""
    for year, is_tried_again in (2015, True), (9015, False):
        date = f"Wed, 21 Oct {year} 07:28:00 GMT"
        error = crawler.BusyError(httpx.Response(503, headers={"Retry-After": date}))
        assert crawler.is_worth_a_retry(error) is is_tried_again


async def test_host_that_is_down_is_left_alone() -> None:
    """If robots.txt cannot be had after four attempts, nothing of the host is asked for."""

    def answer(_: str, __: str) -> httpx.Response:
        raise httpx.ConnectError("refused")

    web = Web(answer)
    lines = await crawl(web, *(f"http://a/{number}" for number in range(5)))
    assert [path for _, path in web.of("a")] == ["/robots.txt"] * 4
    assert [line["error"] for line in lines] == ["ConnectError: refused"] * 5


async def test_endless_site_ends() -> None:
    """No more pages are visited, and no more URLs are held, than were asked for."""

    def answer(_: str, path: str) -> httpx.Response:
        return html(*(f"{path}{number}" for number in range(10)))

    web = Web(answer)
    lines = await crawl(web, "http://a/", pages=25)
    assert len(lines) == 25
    assert len(web.of("a")) == 26


async def test_redirect_is_a_link() -> None:
    """A redirect is followed as a link is: on the same hosts, within the pace."""

    def answer(_: str, path: str) -> httpx.Response:
        target = {"/": "/new", "/new": "http://elsewhere/"}.get(path)
        return httpx.Response(301, headers={"Location": target}) if target else html()

    web = Web(answer)
    lines = await crawl(web, "http://a/")
    assert [(line["url"], line["status"]) for line in lines] == [
        ("http://a/", 301),
        ("http://a/new", 301),
    ]
    assert web.of("elsewhere") == []


async def test_lines_are_written_as_they_come() -> None:
    """A crawl that is cancelled has written a whole line for each page that it has visited."""
    web = Web(lambda _, path: html(f"{path}x"))
    output = io.StringIO()
    async with httpx.AsyncClient(transport=httpx.MockTransport(web.handle)) as client:
        with anyio.move_on_after(5.5):
            await crawler.Crawler(client, output, 100, 1.0).crawl(["http://a/"])
    lines = [json.loads(line)["url"] for line in output.getvalue().splitlines()]
    assert lines == [f"http://a/{'x' * number}" for number in range(5)]


async def test_what_is_no_text_is_not_read() -> None:
    """A picture has a line, and a page without end is cut."""

    def answer(_: str, path: str) -> httpx.Response:
        if path == "/":
            return httpx.Response(200, content=b"\x89PNG", headers={"Content-Type": "image/png"})
        return httpx.Response(200, stream=Endless(), headers={"Content-Type": "text/html"})

    web = Web(answer)
    lines = await crawl(web, "http://a/", "http://a/long")
    assert [line["title"] for line in lines] == ["", ""]
