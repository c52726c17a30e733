"""The descriptors of simulated sockets, which others may get when they are closed."""

from __future__ import annotations

import gc
import os
import socket
import warnings

import anyio
import pytest

from mtaio.testing import Network, settle


async def test_descriptor_that_was_closed_behind_our_back() -> None:
    """A socket that gets the number of one which was closed unseen is not taken for it."""
    async with Network() as net:
        number = socket.socket().detach()
        assert len(net.open) == 1
        os.close(number)
        with socket.socket(socket.AF_UNIX) as other:
            assert other.fileno() == number
            other.settimeout(0)
            with pytest.raises(RuntimeError, match="Unix sockets are not simulated"):
                other.connect("/tmp/nobody")  # noqa: S108 - is not there
        assert not net.open


async def test_what_a_killed_program_has_left_is_closed_for_it() -> None:
    """The garbage collector finds no open socket of a killed program, as soon as that has ended."""

    async def serve() -> None:
        listener = await anyio.create_tcp_listener(local_port=80)
        await listener.serve(lambda _: anyio.sleep_forever())  # and nobody closes the listener

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with Network() as net:
            net.host("a").start(serve)
            await settle()
            async with await anyio.connect_tcp("a", 80):
                net.host("a").kill()
                await settle()
                gc.collect()
    assert [str(each.message) for each in warned] == []
