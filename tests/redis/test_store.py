"""The block of `RedisStore`, with connections that are not made."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis import RedisStore


class Links:
    """Stands for the endpoint of a server that is down."""

    name = "nowhere"
    timeout = 0.5

    def __init__(self) -> None:
        self.opened: list[FailingLink] = []

    async def open(self) -> FailingLink:
        """Be opened."""
        self.opened.append(FailingLink())
        return self.opened[-1]


class FailingLink:
    """A connection over which nothing is answered."""

    def __init__(self) -> None:
        self.failing_since = clock.now()
        self.closed = 0

    async def command(self, *_: object, timeout: float | None = None) -> None:
        """Fail."""
        del timeout
        msg = "nowhere"
        raise StoreError(msg)

    async def close(self) -> None:
        """Be closed."""
        self.closed += 1


async def test_connection_made_at_the_end_is_closed() -> None:
    """A task that says goodbye to a server that is down for long leaves no connection behind."""
    pytest.importorskip("glide")
    store: Any = RedisStore("redis://127.0.0.1:1")
    store._endpoint = links = Links()

    async def say_goodbye() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True), pytest.raises(StoreError):
                await store.ping()

    async with store:
        store.start(say_goodbye)
        await anyio.sleep(10)
    assert [link.closed for link in links.opened] == [1, 1]
