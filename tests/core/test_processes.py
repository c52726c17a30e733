"""TaskExecutor.run_in_process: real worker processes, under a limit of their own."""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import anyio
import psutil
import pytest

from mtaio.core import TaskExecutor
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import settle

if TYPE_CHECKING:
    from collections.abc import Generator


def add(a: int, b: int) -> tuple[int, int]:
    """Return the sum, and the process in which it was formed."""
    return a + b, os.getpid()


def fail(message: str) -> None:
    """Raise an error."""
    raise LookupError(message)


def unpicklable() -> threading.Lock:
    """Return what cannot be sent back."""
    return threading.Lock()


def die() -> None:
    """End the process one is in."""
    os._exit(1)


def hang(port: int) -> None:
    """Tell in which process one is, and hang."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(str(os.getpid()).encode())
    time.sleep(60)


class Phone:
    """Hears from a process that hangs."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.port: int = server.getsockname()[1]

    async def ring(self) -> int:
        """Wait until a process tells which it is."""
        return await anyio.to_thread.run_sync(self._answer)

    def _answer(self) -> int:
        connection, _ = self.server.accept()
        with connection:
            return int(connection.recv(20))


@pytest.fixture
def phone() -> Generator[Phone]:
    """Return a phone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield Phone(server)


async def test_function_runs_in_another_process() -> None:
    """Arguments go there, the result comes back, and the process is used again."""
    executor = TaskExecutor(process_limiter=1)
    total, process = await executor.run_in_process(add, 1, 2)
    assert total == 3
    assert process != os.getpid()
    assert await executor.run_in_process(add, 3, 4) == (7, process)
    assert executor.statistics().processes == 0


async def test_exception_comes_back() -> None:
    """What the function raised is raised here, without a note about pickling."""
    with pytest.raises(LookupError, match=r"^mine$") as caught:
        await TaskExecutor().run_in_process(fail, "mine")
    assert not hasattr(caught.value, "__notes__")


async def test_limit_is_kept() -> None:
    """A second call waits while the only process is busy, and takes no slot meanwhile."""
    executor = TaskExecutor(1, process_limiter=1)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(executor.run_in_process, add, 1, 2)
        await settle()
        statistics = executor.statistics()
        assert (statistics.processes, statistics.processes_waiting) == (1, 1)
        assert statistics.running == 0
    statistics = executor.statistics()
    assert (statistics.processes, statistics.processes_waiting) == (0, 0)


async def test_users_capacity_limiter_is_honoured() -> None:
    """A limiter of the user's governs alone."""
    limiter = anyio.CapacityLimiter(1)
    executor = TaskExecutor(process_limiter=limiter)
    async with anyio.create_task_group() as group:
        await limiter.acquire()
        group.start_soon(executor.run_in_process, add, 1, 2)
        await settle()
        assert executor.statistics().processes_waiting == 1
        limiter.release()
    assert limiter.borrowed_tokens == 0


async def test_function_that_cannot_be_sent_is_explained() -> None:
    """The error of ``pickle`` gets a note with the way out, and the place comes back."""
    executor = TaskExecutor(process_limiter=1)
    with pytest.raises((pickle.PicklingError, AttributeError)) as caught:
        await executor.run_in_process(lambda: 1)
    assert caught.value.__notes__[0].startswith("A worker process gets the function and its arg")
    with pytest.raises(TypeError, match=r"^cannot pickle") as refused:
        await executor.run_in_process(add, threading.Lock(), 1)
    assert refused.value.__notes__ == caught.value.__notes__
    assert executor.statistics().processes == 0


async def test_result_that_cannot_be_sent_back_is_an_error() -> None:
    """It is the result's fault, not the call's."""
    with pytest.raises(TypeError, match=r"^cannot pickle '_thread\.lock' object$") as caught:
        await TaskExecutor().run_in_process(unpicklable)
    assert not hasattr(caught.value, "__notes__")


async def test_async_function_is_refused() -> None:
    """A process has no event loop to run it in, and a coroutine cannot be sent anywhere."""
    with pytest.raises(TypeError, match=r"^fn=.*sleep.* is an async function: a worker process"):
        await cast("Any", TaskExecutor()).run_in_process(anyio.sleep)


async def test_death_of_the_process_is_told() -> None:
    """A process that is killed from elsewhere is an error, and the next call gets another."""
    executor = TaskExecutor(process_limiter=1)
    with pytest.raises(anyio.BrokenWorkerProcess):
        await executor.run_in_process(die)
    assert (await executor.run_in_process(add, 1, 2))[0] == 3


async def test_cancellation_kills_the_process(phone: Phone) -> None:
    """Unlike a thread, a process can be stopped; the place comes back when it is dead."""
    executor = TaskExecutor(process_limiter=1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_process, hang, phone.port)
        process = await phone.ring()
        assert psutil.pid_exists(process)
        group.cancel_scope.cancel()
    assert not psutil.pid_exists(process)
    assert executor.statistics().processes == 0
    assert (await executor.run_in_process(add, 1, 2))[0] == 3


async def test_cancelled_while_the_process_starts_nothing_is_left() -> None:
    """A worker process that is not ready yet is not forgotten: it ends with the call."""
    executor, children = TaskExecutor(process_limiter=1), psutil.Process().children()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_process, add, 1, 2)
        while len(psutil.Process().children()) == len(children):  # it is real, and takes a while
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert psutil.Process().children() == children
    assert executor.statistics().processes == 0


def test_timeout_kills_the_process(backend: str, phone: Phone) -> None:
    """A call that takes too long is over, process and all (in real time, like the process)."""
    executor = TaskExecutor(process_limiter=1, name="pool")

    async def scenario() -> None:
        _, process = await executor.run_in_process(add, 1, 2)
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(MTAIOTimeoutError, match=r"^pool: timed out after 0\.5 s$"):
                    await executor.run_in_process(hang, phone.port, timeout=0.5)

            group.start_soon(call)
            assert await phone.ring() == process
        assert not psutil.pid_exists(process)
        assert executor.statistics().timed_out == 1
        assert (await executor.run_in_process(add, 1, 2))[0] == 3

    anyio.run(scenario, backend=backend)
