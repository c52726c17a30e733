"""The command-line tool of the guide, on the virtual clock; tests/service has it in a process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import httpx

from tests.programs import ROOT, load

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

links = load(ROOT / "docs" / "examples" / "programs" / "links.py", "example_links")
URLS = [f"http://host/{number}" for number in range(10)]


class Web:
    """Answers after a second, with 404 for what is missing; a flaky path loses a connection."""

    def __init__(self, missing: str = "", flaky: str = "") -> None:
        self.asked: list[str] = []
        self.in_flight = self.peak = 0
        self._missing, self._flaky = missing, flaky

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
        if path == self._flaky and self.asked.count(path) == 1:
            raise httpx.ReadError("the connection was lost")
        return httpx.Response(404 if path == self._missing else 200)

    async def check(self, output: Path) -> int:
        """Check the URLs, three at once."""
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.handle)) as client:
            failed: int = await links.check(URLS, output, 3, client)
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
    """A lost connection is tried again at once, an answer of 404 by the next run."""
    output, web = tmp_path / "statuses.jsonl", Web(missing="/4", flaky="/5")
    assert await web.check(output) == 1
    assert keys(output) == [url for url in URLS if url != URLS[4]]
    assert (web.asked.count("/4"), web.asked.count("/5")) == (1, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("http://host/4: Client error '404 Not Found'")
    assert len(printed.err.splitlines()) == 1
    repaired = Web()
    assert await repaired.check(output) == 0
    assert repaired.asked == ["/4"]
