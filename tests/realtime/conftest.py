"""The real clock, under each event loop that mtaio promises to run on."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

FLAVOURS = ["asyncio", "trio"]
if sys.version_info >= (3, 12):
    FLAVOURS.append("asyncio+eager")
if sys.platform != "win32" and sys.implementation.name == "cpython":
    FLAVOURS.append("asyncio+uvloop")


def eager_loop() -> asyncio.AbstractEventLoop:
    """Return a loop whose tasks run at once, up to their first suspension."""
    loop = asyncio.new_event_loop()
    if sys.version_info >= (3, 12):
        loop.set_task_factory(asyncio.eager_task_factory)
    return loop


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Return the name of the event loop that the test runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def anyio_backend(flavour: str) -> tuple[str, dict[str, Any]]:
    """
    Run each async test in real time on each of the event loops.

    None is left out because its package is missing: the test then fails, and says which.
    """
    if flavour == "asyncio+uvloop":
        import uvloop  # noqa: PLC0415 - only this flavour needs it

        return "asyncio", {"loop_factory": uvloop.new_event_loop}
    if flavour == "asyncio+eager":
        return "asyncio", {"loop_factory": eager_loop}
    if flavour == "trio":
        import trio  # noqa: F401, PLC0415 - only this flavour needs it, and says so if it is missing

    return flavour, {}
