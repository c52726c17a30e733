"""The crawler, and its tests: pytest tutorial_8.py."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import pytest

from mtaio import TaskExecutor
from mtaio.resources import ResourceLimiter
from mtaio.testing import Simulation, current_simulation, run, virtual_backend

LINK = re.compile('href="([^"]+)"')


class NotFoundError(Exception):
    """The site has no such page."""


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


# --8<-- [start:tests]
pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run each test on both backends, on a virtual clock."""
    return virtual_backend(request.param)


async def test_silent_page_costs_one_second(sim: Simulation) -> None:
    """A page that never answers is reported broken after one second."""

    async def get(_url: str) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    started = sim.time()
    report = await crawl(get, "/", seconds=60)
    assert report.broken == {"/": "TimeoutError"}
    assert report.complete
    assert sim.time() - started == 1.0


async def test_endless_site_is_left_when_time_is_up(sim: Simulation) -> None:
    """An endless site is crawled for the ten minutes it was given."""

    async def get(url: str) -> str:
        await anyio.sleep(0.7)
        return f'<a href="{url}x">one more</a>'

    started = sim.time()
    report = await crawl(get, "/", seconds=600)
    assert not report.complete
    assert len(report.seen) == 858
    assert sim.time() - started == 600


async def test_three_requests_at_once() -> None:
    """However many links there are, three pages are fetched at once."""
    now = most = 0

    async def get(url: str) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await anyio.sleep(0.5)
        now -= 1
        links = [f'<a href="/{n}">' for n in range(100)]
        return "".join(links) if url == "/" else "a page"

    report = await crawl(get, "/", seconds=60)
    assert len(report.seen) == 101
    assert most == 3


# --8<-- [end:tests]
# --8<-- [start:main]
async def main() -> None:
    sim = current_simulation()
    await test_silent_page_costs_one_second(sim)
    await test_endless_site_is_left_when_time_is_up(sim)
    await test_three_requests_at_once()
    print("all passed")


if __name__ == "__main__":
    run(main)
# --8<-- [end:main]
