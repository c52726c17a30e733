"""Crawl a site from its first page, for a limited time."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from mtaio import TaskExecutor
from mtaio.resources import ResourceLimiter

# The site: how many seconds each page takes, and its text.
SITE = {
    "/": (0.25, '<a href="/guide"> <a href="/news"> <a href="/shop">'),
    "/guide": (0.40, '<a href="/guide/install"> <a href="/guide/faq">'),
    "/guide/install": (0.45, '<a href="/guide"> <a href="/downloads">'),
    "/guide/faq": (0.50, '<a href="/contact"> <a href="/">'),
    "/news": (0.25, '<a href="/"> <a href="/calendar">'),
    "/contact": (0.30, '<a href="/">'),
    "/shop": (3600, "Sold out"),
}
LINK = re.compile('href="([^"]+)"')


class NotFoundError(Exception):
    """The site has no such page."""


async def get(url: str) -> str:
    """Fetch a page. For a real site, call an HTTP client here."""
    seconds, html = SITE.get(url, (0.05, ""))
    if url.startswith("/calendar"):  # each day has a link to the next one
        seconds, html = 0.3, f'<a href="{url}+">'
    await anyio.sleep(seconds)
    if not html:
        raise NotFoundError(url)
    return html


Get = Callable[[str], Awaitable[str]]


@dataclass
class Report:
    """What a crawl found."""

    seen: set[str]
    broken: dict[str, str] = field(default_factory=dict)
    complete: bool = False


async def crawl(get: Get, start: str, *, seconds: float) -> Report:
    """Follow all links from ``start``, for at most ``seconds``."""
    report = Report(seen={start})
    executor = TaskExecutor(max_workers=3, max_pending=1000)
    site = ResourceLimiter(rate=10, timeout=1.0, name="site")

    async def visit(url: str) -> None:
        try:
            html = await site.run(get, url)
        except (NotFoundError, TimeoutError) as error:
            report.broken[url] = type(error).__name__
            return
        for link in LINK.findall(html):
            if link not in report.seen:
                report.seen.add(link)
                await executor.submit(visit, link)

    async with executor:
        await executor.submit(visit, start)
        report.complete = await executor.drain(timeout=seconds)
    return report


async def main() -> None:
    report = await crawl(get, "/", seconds=2.1)
    for url, reason in sorted(report.broken.items()):
        print(f"{url}: {reason}")
    print("complete" if report.complete else "there is more, but time is up")


if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
