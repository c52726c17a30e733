"""The program at the head of the README prints what stands below it."""

from __future__ import annotations

import runpy
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from mtaio.testing import run
from tests.pages import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

HOME = EXAMPLES / "readme"
PACKAGES = {
    "anyio": "High-level concurrency and networking framework on top of asyncio or Trio",
    "httpx": "The next generation HTTP client.",
    "trio": "A friendly Python library for async concurrency and I/O",
}


def test_packages(
    backend: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On both backends, beside a stand-in for PyPI that fails once for each package."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.split("/")[2]
        asked.append(name)
        if asked.count(name) == 1:
            raise httpx.ConnectError("", request=request)
        if name not in PACKAGES:
            return httpx.Response(404, request=request)
        return httpx.Response(200, json={"info": {"summary": PACKAGES[name]}}, request=request)

    transport = httpx.MockTransport(answer)
    client = partial(httpx.AsyncClient, transport=transport)
    monkeypatch.setattr(httpx, "AsyncClient", client)
    real = anyio.run

    def simulated(main: Callable[[], Awaitable[None]]) -> None:
        monkeypatch.setattr(anyio, "run", real)
        run(main, backend=backend)

    monkeypatch.setattr(anyio, "run", simulated)
    runpy.run_path(str(HOME / "packages.py"))
    assert capsys.readouterr().out == (HOME / "packages.out").read_text("utf-8")
    assert sorted(asked) == sorted([*PACKAGES, "no-such-package"] * 2)
