"""
A polite crawler: follows links at a pace that each host can bear.

    pip install httpx    # beside mtaio with its extra "cli"
    python crawler.py https://example.org/ --contact you@example.org
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import anyio
import httpx

from mtaio import (
    KeyedRateLimiter,
    Retry,
    TaskExecutor,
    TimeoutManager,
    TTLCache,
)
from mtaio.core import progress

if TYPE_CHECKING:
    from collections.abc import Collection

AGENT = "mtaio-crawler"
MOST_TEXT = 2_000_000  # characters read of a page
MOST_PATIENCE = 300  # seconds; a host that wants more is not asked again
BACKENDS: dict[str, tuple[str, dict[str, bool]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {"restrict_keyboard_interrupt_to_checkpoints": True}),
}


class BusyError(Exception):
    """The host wants to be left alone, for seconds or until a date."""

    def __init__(self, response: httpx.Response) -> None:
        self.wish: str = response.headers.get("Retry-After", "0")
        status = response.status_code
        super().__init__(f"status {status}, Retry-After: {self.wish}")


def is_worth_a_retry(error: Exception) -> bool:
    passing = isinstance(error, BusyError | httpx.TransportError | TimeoutError)
    return passing and RETRY.wait_before(2, error) <= MOST_PATIENCE


def wish(error: Exception) -> str | None:
    return error.wish if isinstance(error, BusyError) else None


RETRY = Retry(4, on=is_worth_a_retry, wait_initial=1.0, retry_after=wish)


class Links(HTMLParser):
    """The title of a page, and what it links to."""

    def __init__(self, url: str, html: str) -> None:
        super().__init__()
        self.title, self.urls = "", list[str]()
        self._url, self._tag = url, ""
        self.feed(html)

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        """Note a link."""
        self._tag = tag
        if tag == "a" and (target := dict(attrs).get("href")):
            with suppress(ValueError):  # a malformed URL
                self.urls.append(urldefrag(urljoin(self._url, target)).url)

    def handle_endtag(self, _: str) -> None:
        """Note that an element has ended."""
        self._tag = ""

    def handle_data(self, data: str) -> None:
        """Add to the title."""
        self.title += data if self._tag == "title" else ""


class Crawler:
    """Visits each host in a task of its own, page by page, 20 at once."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        output: TextIO,
        pages: int,
        delay: float,
    ) -> None:
        self.visited = 0
        self._client, self._output, self._pages = client, output, pages
        self._executor = TaskExecutor(20, max_pending=pages)
        self._pace = KeyedRateLimiter(1, per=delay, max_keys=pages)
        self._timeouts = TimeoutManager(30)
        self._rules = TTLCache[RobotFileParser](
            86400, max_size=pages, error_ttl=600
        )
        self._seen, self._queues = set[str](), dict[str, deque[str]]()

    async def crawl(self, seeds: Collection[str]) -> None:
        """Visit the seeds, and what they lead to on their hosts."""
        self._hosts = {urlsplit(url).netloc for url in seeds}
        with progress.bar("crawling") as self._on_progress:
            async with self._executor:  # until no host has pages left
                self._add(seeds)

    def _add(self, urls: Collection[str]) -> None:
        for url in urls:
            scheme, host = urlsplit(url)[:2]
            if scheme not in {"http", "https"} or host not in self._hosts:
                continue
            if url in self._seen or len(self._seen) == self._pages:
                continue
            self._seen.add(url)
            if host in self._queues:
                self._queues[host].append(url)
            else:
                self._queues[host] = deque([url])
                self._executor.submit_nowait(self._visit_all, host)

    async def _visit_all(self, host: str) -> None:
        queue = self._queues[host]
        while queue:
            url = queue.popleft()
            [page] = await self._executor.map(
                self._visit, [url], errors="return"
            )
            if isinstance(page, Exception):
                page = {"error": f"{type(page).__name__}: {page}"}
            self._output.write(json.dumps({"url": url, **page}) + "\n")
            self.visited += 1
            self._on_progress(self.visited, len(self._seen), host)
        del self._queues[host]  # the next link to this host starts a new task

    async def _visit(self, url: str) -> dict[str, Any]:
        site = urljoin(url, "/robots.txt")
        rules = await self._rules.get_or_set(site, partial(self._load, site))
        if not rules.can_fetch(AGENT, url):
            return {"error": "robots.txt forbids it"}
        await anyio.sleep(float(rules.crawl_delay(AGENT) or 0))
        status, text, target = await RETRY.run(self._ask, url)
        found = await self._executor.run_in_thread(Links, url, text)
        self._add([urljoin(url, target), *found.urls])
        title = found.title.strip()
        return {"status": status, "title": title, "links": len(found.urls)}

    async def _load(self, site: str) -> RobotFileParser:
        status, text, _ = await RETRY.run(self._ask, site)
        rules = RobotFileParser(site)
        rules.parse(text.splitlines() if status == 200 else ())
        return rules

    async def _ask(self, url: str) -> tuple[int, str, str]:
        await self._pace.acquire(urlsplit(url).netloc)  # before each attempt
        async with (
            self._timeouts(),
            self._client.stream("GET", url) as response,
        ):
            if response.status_code == 429 or response.is_server_error:
                raise BusyError(response)
            text, headers = "", response.headers
            if headers.get("Content-Type", "").startswith("text/"):
                with anyio.CancelScope() as reading:
                    async for part in response.aiter_text():
                        text += part
                        if len(text) > MOST_TEXT:
                            reading.cancel()
            return response.status_code, text, headers.get("Location", "")


async def crawl(options: argparse.Namespace, output: TextIO) -> None:
    limits = httpx.Limits(max_connections=None)  # the crawler sets the limits
    headers = {"User-Agent": f"{AGENT} ({options.contact})"}
    async with httpx.AsyncClient(
        limits=limits, timeout=None, headers=headers
    ) as client:
        crawler = Crawler(client, output, options.pages, options.delay)
        try:
            await crawler.crawl(options.url)
        finally:
            print(f"{crawler.visited} pages visited", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow links politely.")
    add = parser.add_argument
    add("url", nargs="+", help="where to begin; stays on these hosts")
    add("--output", type=Path, default=Path("pages.jsonl"))
    add("--contact", required=True, help="whom a host may complain to")
    add("--pages", type=int, default=1000, help="how many to visit in all")
    add("--delay", type=float, default=1.0, help="seconds between requests")
    add("--backend", choices=BACKENDS, default="asyncio")
    options = parser.parse_args()
    for url in options.url:
        if not url.startswith(("http://", "https://")) or not urlsplit(url)[1]:
            parser.error(f"{url}: write https://example.org/")
    if options.pages < 1:
        parser.error(f"--pages {options.pages}: write 1 or more")
    if not 0 < options.delay < float("inf"):
        parser.error(f"--delay {options.delay}: write seconds, more than 0")
    try:
        output = options.output.open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        parser.error(f"--output {options.output}: {error.strerror}")
    backend, backend_options = BACKENDS[options.backend]
    with output:
        try:
            anyio.run(
                crawl,
                options,
                output,
                backend=backend,
                backend_options=backend_options,
            )
        except* KeyboardInterrupt:  # it may be in a group
            sys.exit(130)  # as shells report it
