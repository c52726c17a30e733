"""A simulated network beside everything else that a program and its tests may do."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import from_thread, to_thread

from mtaio.testing import Network, assert_quiescent, run, settle

if TYPE_CHECKING:
    from anyio.abc import SocketStream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")


async def echo(port: int = 80) -> None:
    """Send back what comes."""

    async def answer(stream: SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send(data)

    async with await anyio.create_tcp_listener(local_port=port) as listener:
        await listener.serve(answer)


def test_nobody_is_told_of_what_a_killed_program_has_gathered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """asyncio says so when it is garbage; by then the tasks are garbage too."""

    async def gathers() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            gathered: Any = asyncio.gather(asyncio.ensure_future(asyncio.sleep(1)))
            gathered.cycle = gathered

    async def main() -> None:
        async with Network() as net:
            net.host("a").start(gathers)
            await settle()
            net.host("a").kill()
            await settle()

    run(main, backend="asyncio")
    gc.collect()
    assert caplog.records == []
