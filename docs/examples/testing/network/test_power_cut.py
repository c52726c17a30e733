"""Orders that were confirmed are still there after a power cut."""

# --8<-- [start:shop]
import os
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from mtaio.testing import Network, settle


async def shop(folder: Path) -> None:
    """Take orders; each is written down before it is confirmed."""
    with (folder / "orders").open("ab") as orders:
        sync_directory(folder)

        async def take(stream: SocketStream) -> None:
            async with stream:
                async for order in stream:
                    orders.write(order)
                    orders.flush()
                    os.fsync(orders.fileno())
                    await stream.send(b"ok")

        async with await anyio.create_tcp_listener(local_port=80) as listener:
            await listener.serve(take)


def sync_directory(folder: Path) -> None:
    """Make the names in a folder durable: os.fsync of a file does not."""
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


# --8<-- [end:shop]
# --8<-- [start:test]
@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(20))
async def test_confirmed_orders_survive_a_power_cut(seed: int) -> None:
    confirmed = b""
    async with Network(latency=0.01, seed=seed) as net:
        host = net.host("shop")
        host.start(shop, host.disk.path)
        await settle()
        async with await anyio.connect_tcp("shop", 80) as stream:
            for number in range(3):
                order = b"order %d\n" % number
                await stream.send(order)
                assert await stream.receive() == b"ok"
                confirmed += order
        host.kill(silent=True)
        assert (host.disk.path / "orders").read_bytes().startswith(confirmed)


# --8<-- [end:test]
