"""Canaries: what a simulated network needs of Python and trio beside their documented parts."""

from __future__ import annotations

import os
import socket

import pytest
import trio
import trio.testing
from trio import _socket

from mtaio.testing import _trio
from mtaio.testing._network import _sockets


def test_the_methods_of_sockets() -> None:
    """socket.socket is a class of Python, over one in C, that accepts and closes by two methods."""
    assert isinstance(socket.socket, type)
    assert set(_sockets.REPLACED) <= set(dir(socket.socket))
    assert {"__init__", "_real_close", "accept", "close"} <= set(vars(socket.socket))
    called: list[str] = []

    class Watched(socket.socket):
        def _accept(self) -> tuple[int, object]:
            called.append("_accept")
            raise BlockingIOError

        def _real_close(self, *args: object) -> None:
            called.append("_real_close")
            super()._real_close(*args)  # type: ignore[misc]

    with Watched() as sock, pytest.raises(BlockingIOError):
        sock.accept()
    assert called == ["_accept", "_real_close"]


def test_trio_says_which_descriptors_are_waited_for() -> None:
    """They are the keys of a dict of its run."""
    seen: list[int] = []

    async def main() -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, reading)
            await trio.testing.wait_all_tasks_blocked()
            seen.append(reading in set(_trio.awaited_files()))
            nursery.cancel_scope.cancel()
        os.close(reading)
        os.close(writing)

    trio.run(main)
    assert seen == [True]


def test_trio_wraps_a_socket() -> None:
    """Its type has the methods that are replaced, and the socket as an attribute."""

    async def main() -> None:
        with trio.socket.socket() as sock:
            assert type(sock) is _socket._SocketType
            assert type(sock._sock) is socket.socket

    trio.run(main)
    assert {"recv", "recv_into", "recvfrom", "send", "sendto"} <= set(vars(_socket._SocketType))
