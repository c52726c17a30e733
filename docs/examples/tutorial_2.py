"""Check the pages of a site, three at a time."""

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


async def get(url: str) -> str:
    """Fetch a page. For a real site, call an HTTP client here."""
    seconds, html = SITE[url]
    await anyio.sleep(seconds)
    return html


async def check(url: str) -> str:
    html = await get(url)
    return f"links on {url}: {len(LINK.findall(html))}"


# --8<-- [start:main]
executor = TaskExecutor(max_workers=3)


async def main() -> None:
    started = anyio.current_time()
    for line in await executor.map(check, SITE.keys()):
        print(line)
    print(f"in {anyio.current_time() - started:.2f} s")


# --8<-- [end:main]
if __name__ == "__main__":
    anyio.run(main)  # or anyio.run(main, backend="trio")
