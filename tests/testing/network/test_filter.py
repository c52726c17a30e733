"""A packet filter on a listener, with which a server that stops lets nobody join its queue."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from mtaio.testing import Network, run

if TYPE_CHECKING:
    from anyio.abc import Listener

ATTACH = 26
DETACH = 27
DROP, KEEP = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)

NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), DROP, KEEP)
PORT_80_IS_CLOSED = ((0x28, 0, 0, 2), (0x15, 0, 1, 80), DROP, KEEP)
JUMPS = ((0x05, 0, 0, 1), KEEP, (0x20, 0, 0, 4), (0x25, 1, 0, 0), (0x35, 0, 1, 0), DROP, KEEP)
ADDS = ((0x04, 0, 0, 1), KEEP)


def raw(listener: Listener[Any]) -> socket.socket:
    """Return the socket of a listener."""
    return listener.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's


def attach(listener: socket.socket, steps: tuple[tuple[int, int, int, int], ...]) -> None:
    """Attach a filter, as `mtaio.app` does."""
    kept = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HP", len(steps), ctypes.addressof(kept))
    listener.setsockopt(socket.SOL_SOCKET, ATTACH, program)


@pytest.mark.parametrize("steps", [NO_SYN, PORT_80_IS_CLOSED, JUMPS])
def test_filter_drops_requests_to_connect(
    steps: tuple[tuple[int, int, int, int], ...], backend: str
) -> None:
    """Nobody hears of a SYN that it drops; the next, a second later, meets a closed port."""

    async def main() -> None:
        async with Network(latency=0.01) as net:
            listener = await anyio.create_tcp_listener(local_port=80)
            attach(raw(listener), steps)

            async def connect() -> None:
                with pytest.raises(OSError):  # noqa: PT011 - which one is up to the backend
                    await anyio.connect_tcp("main", 80)

            async with anyio.create_task_group() as group:
                with net.host("client"):
                    group.start_soon(connect)
                await anyio.sleep(0.5)
                await listener.aclose()
            assert round(anyio.current_time(), 9) == 1.02

    run(main, backend=backend)


def test_filter_is_detached(backend: str) -> None:
    """What was dropped gets through a second later if the filter has gone."""

    async def main() -> None:
        async with (
            Network(latency=0.01) as net,
            await anyio.create_tcp_listener(local_port=80) as listener,
        ):
            attach(raw(listener), NO_SYN)
            with net.host("client"), anyio.move_on_after(0.9):
                await anyio.connect_tcp("main", 80)
            raw(listener).setsockopt(socket.SOL_SOCKET, DETACH, 0)
            with net.host("client"):
                await (await anyio.connect_tcp("main", 80)).aclose()
            assert round(anyio.current_time(), 9) == 0.92

    run(main, backend=backend)


def test_unknown_instruction_is_refused(backend: str) -> None:
    """What is not simulated is refused where it is attached, and no program by the kernel."""

    async def main() -> None:
        async with Network():
            with socket.socket() as listener:
                with pytest.raises(RuntimeError, match="instruction 0x4 of a packet filter is not"):
                    attach(listener, ADDS)
                with pytest.raises(OSError, match="Invalid argument"):
                    attach(listener, (DROP, (0x05, 0, 0, 1)))

    run(main, backend=backend)
