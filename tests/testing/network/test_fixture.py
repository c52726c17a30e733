"""The fixture ``net`` and its marker, in test sessions of their own."""

from __future__ import annotations

import sys

import pytest

from tests.testing.test_pytest_plugin import check, session

__all__ = ["session"]

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network needs Linux")

ECHO = """
import socket
from contextlib import suppress
import anyio, pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from mtaio.testing import Network, explore, settle

async def echo():
    async def answer(stream):
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for data in stream:
                    await stream.send(data)

    async with await anyio.create_tcp_listener(local_port=80) as listener:
        await listener.serve(answer)

async def ask():
    async with await anyio.connect_tcp("a", 80) as stream:
        await stream.send(b"x")
        assert await stream.receive() == b"x"
"""


def test_it_is_open_in_the_test(session: pytest.Pytester) -> None:
    """And in nothing else: what other fixtures have opened is real, and the next test's as well."""
    check(
        session,
        ECHO
        + """
real = socket.socket.connect

@pytest.fixture
async def listener():
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        yield listener

@pytest.mark.network(latency=0.25)
async def test_marker(net):
    net.host("a").start(echo)
    await settle()
    await ask()
    assert anyio.current_time() == 1.0

async def test_no_marker(net, listener):
    assert socket.socket.connect is not real
    assert net.open == ()
    with pytest.raises(OSError):
        await anyio.connect_tcp("127.0.0.1", listener.extra(anyio.abc.SocketAttribute.local_port))

@pytest.fixture
async def stock(net):
    net.host("a").start(echo)

@pytest.mark.network(latency=0.25)
async def test_started_before(net, stock):
    await settle()
    await ask()
    assert anyio.current_time() == 1.0

async def test_without():
    assert socket.socket.connect is real

@pytest.fixture
async def own():
    async with Network(latency=0.25) as net:
        net.host("a").start(echo)
        await settle()
        yield net

async def test_fixture_that_opens_one(own):
    await ask()
    assert anyio.current_time() == 1.0

@settings(max_examples=5, database=None)
@given(st.integers(1, 9))
async def test_examples(n):
    async with Network(latency=n) as net:
        net.host("a").start(echo)
        await settle()
        await ask()
        assert anyio.current_time() == 4 * n
""",
        passed=6,
    )


def test_failures(session: pytest.Pytester) -> None:
    """What goes wrong in the block, in a program, or because a fault missed, fails the test."""
    result = check(
        session,
        ECHO
        + """
async def test_block(net):
    net.host("a").start(echo)
    assert 1 == 2

async def test_program(net):
    async def fails():
        await anyio.sleep(1)
        raise LookupError("of the program")

    net.host("a").start(fails)
    await anyio.sleep(5)

async def test_missed(net):
    net.partition("a", "b")

async def test_next(net):
    net.host("a").start(echo)
    await settle()
    await ask()
""",
        passed=1,
        failed=3,
    )
    result.stdout.fnmatch_lines(
        ["*assert 1 == 2", "*LookupError: of the program", "*never struck*"]
    )


def test_refused(session: pytest.Pytester) -> None:
    """Where it would not be open it says what to write; no test goes on with the real network."""
    result = check(
        session,
        ECHO
        + """
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 9))
async def test_examples(net, n):
    pass

@explore(seeds=1)
async def test_explored(net):
    pass

@pytest.mark.network(latency="much")
async def test_marker(net):
    pass
""",
        failed=2,
        errors=1,
    )
    result.stdout.fnmatch_lines(
        [
            "*TypeError: latency='much' is a str, not a number.*",
            "*test is many runs*",
            "*test is many runs*",
        ]
    )
