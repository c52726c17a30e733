"""TaskExecutor.run_in_process: real worker processes, under a limit of their own."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import psutil
import pytest

from mtaio.core import TaskExecutor, _processes
from mtaio.core._errors import RemoteTraceback
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.testing import run, settle
from tests.core.processes import CLASSES, program, workers
from tests.core.work import (
    FrozenError,
    UntellableError,
    Untransferable,
    add,
    fail,
    fail_demandingly,
    fail_frozen,
    fail_untellably,
    fail_untransferably,
    hang,
    leave,
)
from tests.injection import at_every_checkpoint, struck

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


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


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill no process that ends by itself, however slowly: as it does, it writes its coverage."""
    monkeypatch.setattr(_processes, "_END_SECONDS", 60)


@pytest.fixture(autouse=True)
def no_main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the processes the import of pytest, whose main module is that of this program."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)


@pytest.fixture
def phone() -> Generator[Phone]:
    """Return a phone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        yield Phone(server)


async def test_function_runs_in_another_process() -> None:
    """Arguments go there, the result comes back, and the process is used again."""
    executor = TaskExecutor(processes=1)
    total, process = await executor.run_in_process(add, 1, 2)
    assert total == 3
    assert process != os.getpid()
    assert await executor.run_in_process(add, 3, 4) == (7, process)
    assert executor.statistics().processes_in_use == 0


async def test_exception_comes_back() -> None:
    """What the function raised is raised here, without a note about pickling."""
    with pytest.raises(LookupError, match=r"^mine$") as caught:
        await TaskExecutor().run_in_process(fail, "mine")
    assert not hasattr(caught.value, "__notes__")


async def test_traceback_comes_back() -> None:
    """As text in the cause, as with a pool of concurrent.futures, from the function on."""
    executor = TaskExecutor()
    with pytest.raises(LookupError) as caught:
        await executor.run_in_process(fail, "mine")
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert cause.__cause__ is cause.__context__ is None
    lines = str(cause).splitlines()
    assert lines[:3] == ["", '"""', "Traceback (most recent call last):"]
    assert lines[3].endswith(f"line {fail.__code__.co_firstlineno + 2}, in fail")
    assert lines[-2:] == ["LookupError: mine", '"""']
    with pytest.raises(LookupError) as caught:
        await executor.map(fail, ["mine"], via="processes")
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "in fail" in str(caught.value.__cause__)


async def test_traceback_of_what_cannot_come_back() -> None:
    """It comes with what stands for the error, too."""
    executor = TaskExecutor()
    for function, args, error, line in (
        (fail_untransferably, (), pickle.PicklingError, "in fail_untransferably"),
        (fail_demandingly, (), TypeError, "in fail_demandingly"),
        (leave, (SystemExit(3),), anyio.BrokenWorkerProcess, "in leave"),
    ):
        with pytest.raises(error) as caught:
            await executor.run_in_process(function, *args)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert line in str(caught.value.__cause__)


async def test_traceback_of_errors_that_are_difficult() -> None:
    """One that is immutable has it all the same, and one that cannot be described says so."""
    executor = TaskExecutor()
    with pytest.raises(FrozenError) as caught:
        await executor.run_in_process(fail_frozen)
    assert "in fail_frozen" in str(caught.value.__cause__)
    with pytest.raises(UntellableError) as told:
        await executor.run_in_process(fail_untellably)
    assert "the traceback cannot be shown: " in str(told.value.__cause__)


async def test_limit_is_kept() -> None:
    """A second call waits while the only process is busy, and takes no slot meanwhile."""
    executor = TaskExecutor(1, processes=1)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(executor.run_in_process, add, 1, 2)
        await settle()
        statistics = executor.statistics()
        assert (statistics.processes_in_use, statistics.processes_waiting) == (1, 1)
        assert statistics.in_flight == 0
    statistics = executor.statistics()
    assert (statistics.processes_in_use, statistics.processes_waiting) == (0, 0)


async def test_users_capacity_limiter_is_honoured() -> None:
    """A limiter of the user's governs alone."""
    limiter = anyio.CapacityLimiter(1)
    executor = TaskExecutor(processes=limiter)
    async with anyio.create_task_group() as group:
        await limiter.acquire()
        group.start_soon(executor.run_in_process, add, 1, 2)
        await settle()
        assert executor.statistics().processes_waiting == 1
        limiter.release()
    assert limiter.borrowed_tokens == 0


async def test_large_arguments_and_results_pass() -> None:
    """What no socket takes at once goes in parts, both ways."""
    data = bytes(range(256)) * 10_000
    assert await TaskExecutor().run_in_process(bytes, data) == data


async def test_output_of_the_function_is_the_programs(capfd: pytest.CaptureFixture[str]) -> None:
    """What a function prints can be read, and is not mistaken for its result."""
    await TaskExecutor().run_in_process(print, "hello")
    assert capfd.readouterr().out == "hello\n"


# ---- what cannot be sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "culprit"),
    [
        ((lambda: 1,), "The function <function <lambda> at "),
        ((add, 1, Untransferable()), "Argument 2, <it>, "),
        ((str, Untransferable("nameless")), "Argument 1, <Untransferable instance at "),
        ((partial(add, b=cast("Any", Untransferable())), 1), "Argument b, <it>, "),
    ],
)
async def test_call_that_cannot_be_sent_is_explained(call: tuple[Any, ...], culprit: str) -> None:
    """The error of ``pickle`` gets a note that names the part and the way out."""
    executor = TaskExecutor(processes=1)
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)) as caught:
        await executor.run_in_process(*call)
    note = caught.value.__notes__[-1]
    assert note.startswith(culprit)
    assert note.endswith(
        "cannot be sent to a worker process by pickle. Pass a function from the top level of a "
        "module, and plain data; for anything else use run_in_thread()."
    )
    assert executor.statistics().processes_in_use == 0


async def test_call_that_cannot_be_loaded_is_explained() -> None:
    """It was sent, but the process cannot make anything of it."""
    with pytest.raises(ZeroDivisionError) as caught:
        await TaskExecutor().run_in_process(str, Untransferable("unreadable"))
    (note,) = caught.value.__notes__
    assert note == (
        "A worker process cannot load the call of str(). Pass a function from the top level of a "
        "module, and plain data; for anything else use run_in_thread()."
    )


async def test_result_that_cannot_be_sent_back_is_explained() -> None:
    """The note names it and the way out."""
    with pytest.raises(TypeError, match=r"^not me") as caught:
        await TaskExecutor().run_in_process(Untransferable)
    (note,) = caught.value.__notes__
    assert note == (
        "<it>, which Untransferable() returned, cannot be sent back from a worker process by "
        "pickle. Return plain data, or use run_in_thread()."
    )


async def test_result_that_cannot_be_received_is_explained() -> None:
    """The note says whose it was."""
    with pytest.raises(ZeroDivisionError) as caught:
        await TaskExecutor().run_in_process(Untransferable, "unreadable")
    (note,) = caught.value.__notes__
    assert note == ("This is from unpickling what Untransferable() returned in its worker process.")


async def test_error_that_cannot_be_sent_back_is_explained() -> None:
    """Another stands for it, and says what it was."""
    with pytest.raises(pickle.PicklingError) as caught:
        await TaskExecutor().run_in_process(fail_untransferably)
    assert str(caught.value) == "LookupError(<it>) cannot be pickled: TypeError('not me')"


async def test_error_that_cannot_be_received_is_explained() -> None:
    """The error of ``pickle`` says what it was about."""
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        await TaskExecutor().run_in_process(fail_demandingly)
    (note,) = caught.value.__notes__
    assert note == (
        "This is from unpickling the error DemandingError('1: reason') that fail_demandingly() "
        "raised in its worker process."
    )


# ---- how a process ends --------------------------------------------------------------------------


def die() -> None:
    """End the process."""
    os._exit(1)


async def test_death_of_the_process_is_told() -> None:
    """A process that ends in the middle of a call is an error, and the next call gets another."""
    executor = TaskExecutor(processes=1)
    with pytest.raises(
        anyio.BrokenWorkerProcess,
        match=r"^worker process \d+ ended with exit status 1 before die\(\) returned$",
    ):
        await executor.run_in_process(die)
    assert executor.statistics().processes_in_use == 0
    assert (await executor.run_in_process(add, 1, 2))[0] == 3


@pytest.mark.parametrize("how", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_end_of_the_program_in_a_process_is_an_error(how: BaseException) -> None:
    """``sys.exit()`` and the like end neither this program nor that process."""
    executor = TaskExecutor(processes=1)
    _, process = await executor.run_in_process(add, 1, 2)
    with pytest.raises(anyio.BrokenWorkerProcess) as caught:
        await executor.run_in_process(leave, how)
    assert str(caught.value) == f"leave() raised {how!r} in its worker process"
    assert await executor.run_in_process(add, 1, 2) == (3, process)


async def test_interrupt_is_left_to_the_program() -> None:
    """Ctrl-C, which the terminal sends to all processes, breaks off no call."""
    await TaskExecutor().run_in_process(signal.raise_signal, signal.SIGINT)


async def test_process_that_is_idle_for_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call does without it."""
    executor = TaskExecutor()
    _, process = await executor.run_in_process(add, 1, 2)
    monkeypatch.setattr(_processes, "_MAX_IDLE_SECONDS", 0)
    _, other = await executor.run_in_process(add, 1, 2)
    assert other != process


def test_no_process_outlives_its_loop(backend: str) -> None:
    """Neither idle ones nor one whose call nothing waits for any more."""
    executor, children = TaskExecutor(), workers()

    async def main() -> int:
        return (await executor.run_in_process(add, 1, 2))[1]

    first, second = run(main, backend=backend), run(main, backend=backend)
    assert first != second
    assert workers() == children


async def test_cancellation_kills_the_process(phone: Phone) -> None:
    """Unlike a thread, a process can be stopped; the slot comes back when it is dead."""
    executor = TaskExecutor(processes=1)
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_process, hang, phone.port)
        process = await phone.ring()
        assert psutil.pid_exists(process)
        group.cancel_scope.cancel()
    assert not psutil.pid_exists(process)
    assert executor.statistics().processes_in_use == 0
    assert (await executor.run_in_process(add, 1, 2))[0] == 3


async def test_cancelled_while_the_process_starts_nothing_is_left() -> None:
    """A worker process that is not ready yet is not forgotten: it ends with the call."""
    executor, children = TaskExecutor(processes=1), workers()
    async with anyio.create_task_group() as group:
        group.start_soon(executor.run_in_process, add, 1, 2)
        while len(workers()) == len(children):  # it is real, and takes a while
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert workers() == children
    assert executor.statistics().processes_in_use == 0


@pytest.mark.parametrize("again", [None, 1, 2], ids=["once", "as it ends", "while it ends"])
def test_natively_cancelled_call_leaves_no_process_behind(again: int | None) -> None:
    """``Task.cancel()``, wherever it comes and be it twice, ends the process, too."""
    children = workers()

    async def scenario(at: int) -> bool:
        executor, hits = TaskExecutor(processes=1), list[int]()

        async def call() -> None:
            task = cast("asyncio.Task[None]", asyncio.current_task())

            def strike() -> None:
                hits.append(at)
                task.cancel()
                if again is not None:
                    strike_later(again)

            def strike_later(turns: int) -> None:
                later = task.cancel if turns == 1 else partial(strike_later, turns - 1)
                asyncio.get_running_loop().call_soon(later)

            await struck(executor.run_in_process(add, 1, 2), at, strike)

        await asyncio.wait([asyncio.ensure_future(call())])
        assert len(workers()) <= len(children) + 1
        assert (await executor.run_in_process(add, 1, 2))[0] == 3
        assert len(workers()) == len(children) + 1
        assert executor.statistics().processes_in_use == 0
        return bool(hits)

    assert run(at_every_checkpoint, scenario, backend="asyncio") >= 2
    assert workers() == children


def test_timeout_kills_the_process(backend: str, phone: Phone) -> None:
    """A call that takes too long is over, process and all (in real time, like the process)."""
    executor = TaskExecutor(processes=1, name="pool")

    async def scenario() -> None:
        _, process = await executor.run_in_process(add, 1, 2)
        async with anyio.create_task_group() as group:

            async def call() -> None:
                with pytest.raises(
                    MTAIOTimeoutError, match=r"^pool: .* did not end within timeout=0\.5 s$"
                ):
                    await executor.run_in_process(hang, phone.port, timeout=0.5)

            group.start_soon(call)
            assert await phone.ring() == process
        assert not psutil.pid_exists(process)
        assert executor.statistics().timed_out == 1
        assert (await executor.run_in_process(add, 1, 2))[0] == 3

    anyio.run(scenario, backend=backend)


# ---- the main module -----------------------------------------------------------------------------


def test_classes_of_the_main_module_come_back_as_themselves(tmp_path: Path, backend: str) -> None:
    """Results and errors alike, however the program was started."""
    command = ["program.py"] if backend == "asyncio" else ["-m", "program"]
    done = program(tmp_path, CLASSES.format(backend=backend), *command)
    assert (done.stdout, done.stderr) == ("True\nOwnError('details')\n", "")


def test_main_module_without_a_guard_is_refused(tmp_path: Path) -> None:
    """It does not start processes that start processes without end."""
    text = CLASSES.format(backend="asyncio").replace('if __name__ == "__main__":', "if True:")
    done = program(tmp_path, text)
    assert done.stderr.splitlines()[-1] == (
        "anyio.BrokenWorkerProcess: a worker process could not load the main module: "
        "RuntimeError('run_in_process() was called while the main module was being loaded'). "
        'Programs that use processes must start under if __name__ == "__main__":'
    )


def test_function_of_a_program_without_a_file_is_explained(tmp_path: Path) -> None:
    """A process cannot find it."""
    done = program(tmp_path, "", "-c", CLASSES.format(backend="asyncio"))
    assert done.stderr.splitlines()[-1].startswith("A worker process cannot load the call of work")


def test_main_module_of_a_package_is_left_alone(tmp_path: Path) -> None:
    """It seldom has a guard, and what it imports can be used."""
    folder = tmp_path / "package"
    folder.mkdir()
    text = CLASSES.format(backend="asyncio").replace('if __name__ == "__main__":', "def run():")
    (folder / "code.py").write_text(text)
    (folder / "__main__.py").write_text("from .code import run\nrun()\n")
    done = program(tmp_path, "", "-m", "package")
    assert (done.stdout, done.stderr) == ("True\nOwnError('details')\n", "")
