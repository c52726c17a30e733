"""Check the links on every page of a site."""

import re

import anyio

from mtaio import TaskExecutor
from mtaio.resources import ResourceLimiter

# The site: how many seconds each page takes, and its text.
SITE = {
    "/": (0.25, '<a href="/guide"> <a href="/news"> <a href="/shop">'),
    "/guide": (0.40, '<a href="/guide/install"> <a href="/guide/faq">'),
    "/guide/install": (0.45, '<a href="/guide"> <a href="/downloads">'),
    "/guide/faq": (0.50, '<a href="/contact"> <a href="/">'),
    "/news": (0.25, '<a href="/">'),
    "/contact": (0.30, '<a href="/">'),
    "/shop": (3600, "Sold out"),
}
LINK = re.compile('href="([^"]+)"')


class NotFoundError(Exception):
    """The site has no such page."""


# --8<-- [start:main]
executor = TaskExecutor(max_workers=3)
site = ResourceLimiter(rate=10, timeout=1.0, name="site")


@site
async def get(url: str) -> str:
    """Fetch a page. For a real site, call an HTTP client here."""
    seconds, html = SITE.get(url, (0.05, ""))
    await anyio.sleep(seconds)
    if not html:
        raise NotFoundError(url)
    return html


async def is_broken(url: str) -> bool:
    try:
        await get(url)
    except (NotFoundError, TimeoutError):
        return True
    return False


async def check(url: str) -> list[str]:
    links = LINK.findall(await get(url))
    broken = await executor.map(is_broken, links)
    return [link for link, bad in zip(links, broken, strict=True) if bad]


async def main() -> None:
    results = await executor.map(check, SITE.keys(), errors="return")
    for url, result in zip(SITE, results, strict=True):
        print(f"{url}: {result!r}")
    print(f"{site.statistics().entered} requests")


# --8<-- [end:main]
if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
