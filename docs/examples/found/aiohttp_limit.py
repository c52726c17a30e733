"""aiohttp 3.14.5: a kept-alive connection is reused in spite of the limit."""

from typing import Any, cast

import aiohttp
import anyio
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from anyio.lowlevel import checkpoint

from mtaio.testing import explore


class Wire:
    """Stands in for an open connection."""

    closed = None
    should_close = False
    transport = None

    def is_connected(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing."""


class Connector(aiohttp.BaseConnector):
    """Connects to nothing, in one step."""

    async def _create_connection(self, *_: Any) -> ResponseHandler:
        await checkpoint()
        return cast("ResponseHandler", Wire())


class Request:
    """What a connector needs to know about a request."""

    proxy = None

    def __init__(self, host: str) -> None:
        self.connection_key = ConnectionKey(
            host, 80, False, True, None, None, None
        )


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_limit_holds() -> None:
    """With ``limit=1`` there is one request at a time, to whichever host."""
    connector = Connector(limit=1)
    now = most = 0

    async def request(host: str) -> None:
        nonlocal now, most
        wanted = cast("ClientRequest", Request(host))
        connection = await connector.connect(
            wanted, [], aiohttp.ClientTimeout()
        )
        now += 1
        most = max(most, now)
        await checkpoint()
        now -= 1
        connection.release()

    async with anyio.create_task_group() as group:
        for host in ("a.example", "b.example", "a.example"):
            group.start_soon(request, host)
    await connector.close()
    assert most == 1, f"{most} at once"


# --8<-- [end:test]
