"""Check the pages of a site, three at a time, when one of them never answers."""

import re

import anyio

from mtaio.core import TaskExecutor

# --8<-- [start:site]
# The site: the seconds that each page takes, and what it says.
SITE = {
    "/": (0.25, '<a href="/guide">Guide</a> <a href="/news">News</a> <a href="/shop">Shop</a>'),
    "/guide": (0.40, '<a href="/guide/install">Install</a> <a href="/guide/faq">FAQ</a>'),
    "/guide/install": (0.45, '<a href="/guide">Guide</a> <a href="/downloads">Downloads</a>'),
    "/guide/faq": (0.50, '<a href="/contact">Contact</a> <a href="/">Home</a>'),
    "/news": (0.25, '<a href="/">Home</a>'),
    "/contact": (0.30, '<a href="/">Home</a>'),
    "/shop": (3600, "Sold out"),
}
# --8<-- [end:site]
URLS = [*SITE, "/downloads"]
LINK = re.compile('href="([^"]+)"')


class NotFoundError(Exception):
    """The site has no such page."""


async def get(url: str) -> str:
    """Fetch a page. For a real site this would be a call of an HTTP client."""
    seconds, html = SITE.get(url, (0.05, ""))
    await anyio.sleep(seconds)
    if not html:
        raise NotFoundError(url)
    return html


async def check(url: str) -> str:
    html = await get(url)
    return f"{url}: {len(LINK.findall(html))} links"


# --8<-- [start:main]
executor = TaskExecutor(max_workers=3, timeout=1.0)


async def main() -> None:
    began = anyio.current_time()
    for url, result in zip(URLS, await executor.map(check, URLS, errors="return"), strict=True):
        print(f"{url}: broken: {result!r}" if isinstance(result, Exception) else result)
    print(f"in {anyio.current_time() - began:.2f} s")


# --8<-- [end:main]
if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
