"""Check the pages of a site that is busy now and then."""

import re

import anyio

from mtaio import Retry, TaskExecutor

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
SITE["/shop"] = (3600, "Sold out")
URLS = [*SITE, "/downloads"]


class NotFoundError(Exception):
    """The site has no such page."""


# --8<-- [start:get]
class BusyError(Exception):
    """The site asks us to come back later."""

    retry_after = 0.4


refusals = {"/news": 2}  # how often the page is still too busy to answer


async def get(url: str) -> str:
    """Fetch a page. For a real site, call an HTTP client here."""
    seconds, html = SITE.get(url, (0.05, ""))
    if refusals.get(url, 0) > 0:
        refusals[url] -= 1
        raise BusyError(url)
    await anyio.sleep(seconds)
    if not html:
        raise NotFoundError(url)
    return html


# --8<-- [end:get]
async def check(url: str) -> str:
    html = await get(url)
    return f"links on {url}: {len(LINK.findall(html))}"


# --8<-- [start:main]
executor = TaskExecutor(max_workers=3, timeout=1.0)
when_busy = Retry(attempts=4, on=BusyError)


async def main() -> None:
    results = await executor.map(
        check, URLS, errors="return", rate=10, retry=when_busy
    )
    for url, result in zip(URLS, results, strict=True):
        failed = isinstance(result, Exception)
        print(f"broken: {url}: {result!r}" if failed else result)
    print(executor.statistics().retried, "retries")


# --8<-- [end:main]
if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
