"""aiohttp 3.14.5: a request that is cancelled when woken wakes no other."""

from typing import Any, cast

import aiohttp
import anyio
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from anyio.lowlevel import checkpoint

from mtaio.testing import Victim, explore


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

    connection_key = ConnectionKey(
        "example.com", 80, False, True, None, None, None
    )
    proxy = None


# --8<-- [start:test]
@explore(backends=("asyncio",))
async def test_connection_goes_to_who_waits(victim: Victim) -> None:
    """If the first of two waiters is cancelled, the second is served."""
    connector = Connector(limit=1, force_close=True)

    async def request() -> None:
        wanted = cast("ClientRequest", Request())
        connection = await connector.connect(
            wanted, [], aiohttp.ClientTimeout()
        )
        with anyio.CancelScope(shield=True):
            await checkpoint()
        connection.release()

    async def impatient() -> None:
        await victim(request)

    async with anyio.create_task_group() as group:
        group.start_soon(request)
        group.start_soon(impatient)
        group.start_soon(request)
    await connector.close()


# --8<-- [end:test]
