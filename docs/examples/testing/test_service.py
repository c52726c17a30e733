"""A service under test: a new one for each test, in virtual time."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import anyio
import pytest

from mtaio import Application

pytestmark = pytest.mark.anyio


def make_app(**options: Any) -> Application:
    """Make the service, also for ``mtaio run shop:make_app()``."""
    app = Application(name="shop", **options)

    @app.service(restart=3)
    async def count_minutes() -> None:
        for minutes in count():
            await app.cache.set("minutes", minutes)
            await anyio.sleep(60)

    @app.service(drains=True)
    async def say_goodbye() -> None:
        await app.wait_draining()
        await anyio.sleep(2)

    return app


@pytest.fixture
async def app() -> AsyncIterator[Application]:
    """Return a running service without ports, signals and log."""
    app = make_app(probes=False, signals=False, logging=False)
    async with app:
        yield app


async def test_an_hour(app: Application) -> None:
    """An hour passes in a few milliseconds."""
    await anyio.sleep(3599)
    assert await app.cache.get("minutes") == 59


async def test_end(app: Application) -> None:
    """A service that drains finishes its work; nothing is cancelled."""
    app.stop_nowait("the test is over")  # as SIGTERM does
    await app.wait_closed()
    assert anyio.current_time() == 2
    assert app.statistics().cancelled == 0
