"""Sockets and subprocesses under virtual time: they stay real, and are no deadlock."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import SocketAttribute

from mtaio.testing import run

if TYPE_CHECKING:
    from anyio.abc import Listener, SocketStream

    from mtaio.testing import Simulation

ECHO = [sys.executable, "-c", "print(input())"]


def port_of(listener: Listener[SocketStream]) -> int:
    """Return the port that a listener was given."""
    return listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's extra, not Django's


async def echo(stream: SocketStream) -> None:
    """Send back the first thing received, a second of virtual time later."""
    async with stream:
        data = await stream.receive()
        await anyio.sleep(1)
        await stream.send(data)


async def test_sockets_work_between_tasks(sim: Simulation) -> None:
    """Two tasks talk over a real socket, and their sleeps take virtual time."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = port_of(listener)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
        group.cancel_scope.cancel()
    assert sim.time() == 1.0


def test_waiting_for_a_socket_is_no_deadlock(backend: str) -> None:
    """A task that waits for a peer outside is waiting for something real."""

    def peer(port: int, waiting: threading.Event) -> None:
        waiting.wait()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"from outside")

    threads: list[threading.Thread] = []

    async def scenario() -> bytes:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = port_of(listener)
        received: list[bytes] = []
        waiting = threading.Event()
        threads.append(threading.Thread(target=peer, args=(port, waiting)))
        threads[0].start()

        async def serve(stream: SocketStream) -> None:
            async with stream:
                received.append(await stream.receive())
            group.cancel_scope.cancel()

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            # Longer than the grace, so that only what is real can have kept the run alive.
            threading.Timer(0.4, waiting.set).start()
        return received[0]

    assert run(scenario, backend=backend, grace=0.3) == b"from outside"
    threads[0].join()


async def test_waiting_for_a_subprocess_is_no_deadlock(sim: Simulation) -> None:
    """A subprocess runs to its end, with and without pipes, and virtual time does not move."""
    done = await anyio.run_process(ECHO, input=b"hello\n")
    assert done.stdout.strip() == b"hello"
    code = [sys.executable, "-c", "raise SystemExit(3)"]
    async with await anyio.open_process(
        code, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        assert await process.wait() == 3
    assert (await anyio.run_process("exit 4", check=False)).returncode == 4  # by a shell
    assert sim.time() == 0.0


async def test_held_subprocess_is_not_overtaken_by_its_timeout(sim: Simulation) -> None:
    """With the clock held, a timeout around a subprocess does not fire before its end."""
    with sim.hold(), anyio.fail_after(1):
        done = await anyio.run_process(ECHO, input=b"hello\n")
    assert done.stdout.strip() == b"hello"


async def test_subprocess_is_overtaken_unless_held(sim: Simulation) -> None:
    """Without a hold, virtual time passes as soon as every task waits."""
    with anyio.move_on_after(1) as scope:
        await anyio.run_process([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert scope.cancelled_caught
    assert sim.time() == 1.0


@pytest.mark.parametrize("wait", [0.05])
def test_thread_beside_a_listening_socket_can_still_hang(backend: str, wait: float) -> None:
    """A socket that nobody uses does not hide that a worker thread hangs."""
    gate = threading.Event()

    async def scenario() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            try:
                await anyio.to_thread.run_sync(gate.wait)
            finally:
                group.cancel_scope.cancel()

    with pytest.raises(AssertionError, match=r"^the run is still blocked at t=0\.0 with its clock"):
        run(scenario, backend=backend, grace=wait)
    gate.set()
