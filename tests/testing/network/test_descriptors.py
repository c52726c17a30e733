"""The descriptors of simulated sockets, which others may get when they are closed."""

from __future__ import annotations

import os
import socket

import pytest

from mtaio.testing import Network


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
        assert net.open == ()
