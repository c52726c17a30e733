"""Check the pages of a site when one of them never answers."""

import re

import anyio

from mtaio import TaskExecutor

# The site: how many seconds each page takes, and its text.
SITE = {
    "/": (0.25, '<a href="/guide"> <a href="/news"> <a href="/shop">'),
    "/guide": (0.40, '<a href="/guide/install"> <a href="/guide/faq">'),
    "/guide/install": (0.45, '<a href="/guide"> <a href="/downloads">'),
    "/guide/faq": (0.50, '<a href="/contact"> <a href="/">'),
    "/news": (0.25, '<a href="/">'),
    "/contact": (0.30, '<a href="/">'),
}
LINK = re.compile('href="([^"]+)"')

# --8<-- [start:shop]
SITE["/shop"] = (3600, "Sold out")
URLS = [*SITE, "/downloads"]
# --8<-- [end:shop]


class NotFoundError(Exception):
    """The site has no such page."""


async def get(url: str) -> str:
    """Fetch a page. For a real site, call an HTTP client here."""
    seconds, html = SITE.get(url, (0.05, ""))
    await anyio.sleep(seconds)
    if not html:
        raise NotFoundError(url)
    return html


async def check(url: str) -> str:
    html = await get(url)
    return f"links on {url}: {len(LINK.findall(html))}"


# --8<-- [start:main]
executor = TaskExecutor(max_workers=3, timeout=1.0)


async def main() -> None:
    started = anyio.current_time()
    results = await executor.map(check, URLS, errors="return")
    for url, result in zip(URLS, results, strict=True):
        failed = isinstance(result, Exception)
        print(f"broken: {url}: {result!r}" if failed else result)
    print(f"in {anyio.current_time() - started:.2f} s")


# --8<-- [end:main]
if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
