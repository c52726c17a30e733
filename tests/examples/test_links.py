"""The command-line tool of the guide, on the virtual clock; tests/service has it in a process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import httpx

from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    import pytest

links = load(ROOT / "docs" / "examples" / "programs" / "links.py", "example_links")
URLS = [f"http://host/{number}" for number in range(10)]


class Web:
    """Answers after a second, with 404 for what is missing; what is flaky fails at first."""

    def __init__(self, missing: str = "", flaky: dict[str, Exception | int] | None = None) -> None:
        self.asked: list[str] = []
        self.in_flight = self.peak = 0
        self._missing, self._flaky = missing, flaky or {}

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        path = request.url.path
        self.asked.append(path)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await anyio.sleep(1)
        finally:
            self.in_flight -= 1
        fault = self._flaky.get(path, 200) if self.asked.count(path) == 1 else 200
        if isinstance(fault, Exception):
            raise fault
        return httpx.Response(404 if path == self._missing else fault)

    async def check(self, output: Path) -> int:
        """Check the URLs, three at once."""
        return await check(self.handle, output, 3, 10)


class Strict:
    """Refuses what comes too often or too soon; asks once for a pause of five seconds."""

    def __init__(self, rate: int) -> None:
        self.served: list[float] = []
        self.too_fast = self.too_soon = self.refused = 0
        self._rate, self._closed = rate, 0.0
        self._arrived: list[float] = []

    async def handle(self, _request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        now = anyio.current_time()
        self._arrived.append(now)
        self.too_fast += sum(each > now - 1 for each in self._arrived) > self._rate
        self.too_soon += now < self._closed
        if len(self._arrived) == self._rate + 2:
            self._closed, self.refused = now + 5, self.refused + 1
            return httpx.Response(429, headers={"Retry-After": "5"})
        self.served.append(now)
        await anyio.sleep(0.1)
        return httpx.Response(200)


async def check(
    handle: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]],
    output: Path,
    limit: int,
    rate: int,
) -> int:
    """Check the URLs."""
    transport = httpx.MockTransport(handle)
    async with httpx.AsyncClient(transport=transport) as client:
        failed: int = await links.check(URLS, output, limit, rate, client)
    return failed


def keys(output: Path) -> list[str]:
    """Return the URLs that have a line."""
    return sorted(json.loads(line)["key"] for line in output.read_text("utf-8").splitlines())


async def test_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """Three requests at once; what is done has a line; the next run asks for the rest alone."""
    output, web = tmp_path / "statuses.jsonl", Web()
    with anyio.move_on_after(1.5):
        await web.check(output)
    assert keys(output) == URLS[:3]
    assert (web.peak, web.in_flight) == (3, 0)
    web.asked.clear()
    assert await web.check(output) == 0
    assert sorted(web.asked) == [f"/{number}" for number in range(3, 10)]
    assert keys(output) == URLS
    web.asked.clear()
    assert await web.check(output) == 0
    assert web.asked == []


async def test_failures_are_named_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lost connection, a 5xx and a timeout are tried again at once, a 404 by the next run."""
    flaky: dict[str, Exception | int] = {
        "/5": httpx.ReadError("the connection was lost"),
        "/6": 503,
        "/7": TimeoutError("too late"),
    }
    output, web = tmp_path / "statuses.jsonl", Web(missing="/4", flaky=flaky)
    assert await web.check(output) == 1
    assert keys(output) == [url for url in URLS if url != URLS[4]]
    assert [web.asked.count(path) for path in ("/4", "/5", "/6", "/7", "/8")] == [1, 2, 2, 2, 1]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("http://host/4: Client error '404 Not Found'")
    assert len(printed.err.splitlines()) == 1
    repaired = Web()
    assert await repaired.check(output) == 0
    assert repaired.asked == ["/4"]


async def test_keeps_to_the_limits_of_a_strict_server(tmp_path: Path) -> None:
    """No second has too many requests, and none arrives during a pause that the server asks for."""
    strict = Strict(rate=3)
    assert await check(strict.handle, tmp_path / "statuses.jsonl", 1, 3) == 0
    assert (strict.too_fast, strict.too_soon, strict.refused) == (0, 0, 1)
    assert len(strict.served) == len(URLS)
