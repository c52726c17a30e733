"""
Random scripts: whatever programs do with two sockets, the loopback and the simulation answer alike.

``MTAIO_SCRIPTS=1000`` in the environment makes so many of them.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.testing.network.loopback import Stage, compare, on_loopback, simulated

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

NUMBER = int(os.environ.get("MTAIO_SCRIPTS", "16"))
STEPS = 14
ABORT = struct.pack("ii", 1, 0)


def abort(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


def error_of(sock: socket.socket) -> str:
    """Return the name of a socket's pending error, which is cleared thereby."""
    return errno.errorcode.get(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "none")


DEEDS: dict[str, Callable[[socket.socket, int], object]] = {
    "send": lambda sock, size: sock.send(b"abcdefghij"[:size]),
    "sendmsg": lambda sock, size: sock.sendmsg([b"abcdefghij"[:size], b"k"]),
    "send much": lambda sock, size: sock.send(bytes(1000 * size)),
    "recv": lambda sock, size: sock.recv(size),
    "recv much": lambda sock, _: len(sock.recv(100_000)),
    "peek": lambda sock, size: sock.recv(size, socket.MSG_PEEK),
    "recv_into": lambda sock, size: sock.recv_into(bytearray(size)),
    "end": lambda sock, _: sock.shutdown(socket.SHUT_WR),
    "end both": lambda sock, _: sock.shutdown(socket.SHUT_RDWR),
    "close": lambda sock, _: sock.close(),
    "abort": lambda sock, _: abort(sock),
    "linger": lambda sock, _: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT),
    "peer": lambda sock, _: sock.getpeername()[1] > 0,
    "name": lambda sock, _: sock.getsockname()[1] > 0,
    "error": lambda sock, _: error_of(sock),
}
ONES = ("accept", "connect", "dup", "listen", "ready")
"""What needs more than the socket itself."""


def script(seed: int) -> Callable[[Stage], Coroutine[Any, Any, None]]:
    """Return a script in which one socket after the other does something at random."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    begins = rng.choice(("connected", "connected", "refused", "listening"))
    names = rng.choices((*DEEDS, *ONES, "send", "recv", "ready"), k=STEPS)
    plan = [(name, rng.random(), rng.randrange(1, 9)) for name in names]

    async def run(stage: Stage) -> None:
        if begins == "connected":
            first, second = await stage.pair()
        else:
            first = stage.near()
            second = stage.bound() if begins == "refused" else stage.listener()
            first.connect_ex(second.getsockname())
        ends = {"first": first, "second": second}
        await stage.pause()
        for name, which, size in plan:
            who = sorted(ends)[int(which * len(ends))]
            if not says_the_same(name, who, begins):
                continue
            await step(stage, name, ends, who, size)
            await stage.pause()

    return run


def says_the_same(name: str, who: str, begins: str) -> bool:
    """Leave out what the simulation does not model: see the list in test_like_loopback."""
    if name in {"end", "end both"}:
        return begins == "connected" or (begins == "listening" and who.startswith("first"))
    if name == "connect":
        return begins != "connected" and who == "first"
    return name != "listen" or who == "second"


async def step(
    stage: Stage, name: str, ends: dict[str, socket.socket], who: str, size: int
) -> None:
    """Let a socket do something, and note what comes of it."""
    sock = ends[who]
    what = f"{who} {name} {size}"

    def keep(made: socket.socket) -> None:
        ends[f"{who} {name} {len(ends)}"] = stage.keep(made)

    if name in DEEDS:
        stage.call(what, DEEDS[name], sock, size)
    elif name == "accept":
        stage.call(what, lambda: keep(sock.accept()[0]))
    elif name == "dup":
        stage.call(what, lambda: keep(sock.dup()))
    elif name == "listen":
        stage.call(what, sock.listen, size)
    elif name == "connect" and ends["second"].fileno() >= 0:
        stage.call(what, sock.connect, ends["second"].getsockname())
    elif name == "ready" and sock.fileno() >= 0:
        await stage.ready(what, sock)


@pytest.mark.parametrize("part", range(4))
def test_random_scripts(part: int) -> None:
    """Scripts that nobody thought of see the same as well."""
    for seed in range(part, NUMBER, 4):
        seen = on_loopback(script(seed), "asyncio")
        for backend, apart in (("asyncio", seed % 2 > 0), ("trio", seed % 2 == 0)):
            where = f"script {seed} on loopback", f"simulated, {backend}, {apart=}"
            compare(
                where[0],
                ["", *seen],
                where[1],
                ["", *simulated(script(seed), backend, apart=apart)],
            )
