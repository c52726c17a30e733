"""`Application.run` in real time, in the main thread: exit codes, and signals that come to it."""

from __future__ import annotations

import faulthandler
import http.client
import importlib.util
import logging
import os
import signal
import socket
import ssl
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from hypercorn.config import Config

from mtaio._internal import clock, ending
from mtaio.app import Application
from mtaio.app._guard import Beat, Guard
from mtaio.app._last_words import write_tasks
from mtaio.app._run import Run
from mtaio.config import Settings
from tests.app.certificates import LOCALHOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from types import FrameType

posix = pytest.mark.skipif(sys.platform == "win32", reason="os.kill() ends a process on Windows")

SETTINGS = Settings(shutdown_timeout=60)
"""Time enough for a machine that stands still now and then: no test waits for the end of it."""


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    """An ASGI application that is not asked for anything."""
    raise NotImplementedError


def make(settings: Settings = SETTINGS, **options: Any) -> Application:
    """Make an application without a health endpoint."""
    return Application(settings, probes=False, **options)


def kill(number: int = signal.SIGTERM) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def until_signalled(guard: Guard) -> None:
    """Wait until the guard's thread has read a signal."""
    while guard._first is None:
        time.sleep(0.001)


def handler_of(number: int) -> Any:
    """Return the handler of a signal, or the one that `Application.run` puts back at the next."""
    handler = signal.getsignal(number)
    owner = getattr(handler, "__self__", None)
    return owner._handler(number) if isinstance(owner, Guard) else handler


@pytest.fixture(autouse=True)
def handlers() -> Any:
    """Hold each test to leaving the signal handlers as they were."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if sys.platform != "win32":
        numbers.append(signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    ending.call_off()  # or a guard whose application was signalled would end these tests
    assert [handler_of(number) for number in numbers] == before
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    assert "mtaio.app guard" not in {each.name for each in threading.enumerate()}


def test_runs_until_it_is_asked_to_stop(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It returns when it has stopped as it was asked to."""
    caplog.set_level("INFO", logger="mtaio.app")
    run_on(backend)
    assert "stopping: all is done" in caplog.messages


def run_on(backend: Any) -> None:
    """Run an application that asks itself to stop."""
    app = make()

    @app.service
    async def ends() -> None:
        app.stop_nowait("all is done")

    app.run(backend)
    assert app.state == "stopped"


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal(number: int, backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A signal stops it, and that is no error."""
    caplog.set_level("INFO", logger="mtaio.app")
    app = make()

    @app.service
    async def ends() -> None:
        kill(number)
        await anyio.sleep_forever()

    app.run(backend)
    assert f"stopping: {signal.Signals(number).name}" in caplog.messages


@posix
def test_signal_before_the_event_loop(backend: Any) -> None:
    """A signal that came before there was a loop is not lost: nothing is opened for long."""
    app = make()

    opened: list[bool] = []

    @app.resource
    async def slow() -> AsyncIterator[None]:
        opened.append(True)
        await anyio.sleep_forever()
        yield

    original = app._live

    async def live(guard: Any, logs: Any) -> Any:
        kill()
        until_signalled(guard)
        return await original(guard, logs)

    app._live = live  # type: ignore[method-assign]  # the moment between the guard and the life
    app.run(backend)
    assert app.state == "stopped"


@posix
def test_signal_while_it_starts(backend: Any) -> None:
    """A start that hangs is cancelled by a signal, which is no error."""
    app = make()
    closed: list[bool] = []

    @app.resource
    async def slow() -> AsyncIterator[None]:
        kill()
        try:
            await anyio.sleep_forever()
            yield
        finally:
            closed.append(True)

    app.run(backend)
    assert closed == [True]


@posix
def test_signal_to_an_application_in_a_block(backend: Any) -> None:
    """In an event loop of somebody else's, the signal ends the wait, and the loop goes on."""
    app = make()
    seen: list[str] = []

    async def main() -> None:
        async with app:
            kill()
            await app.wait_closed()
            seen.append(app.state)
        seen.append("went on")

    anyio.run(main, backend=backend)
    assert seen == ["stopped", "went on"]


@posix
def test_signal_to_a_body_that_waits_for_nothing(backend: Any) -> None:
    """A body that would wait for ever ends with the drain, and the program goes on behind it."""
    app = make()
    seen: list[str] = []

    async def main() -> None:
        async with app:
            kill()
            await anyio.Event().wait()
        seen.append(app.state)

    anyio.run(main, backend=backend)
    assert seen == ["stopped"]


@posix
@pytest.mark.parametrize("wait", ["blocked", "shielded", "cancelled"])
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_signal_while_a_block_starts(wait: str, backend: Any, *, last: bool) -> None:
    """The body does not begin without what it needs: the program ends, with 0."""
    app = make()
    seen: list[str] = []

    @app.resource
    async def slow() -> AsyncIterator[None]:
        kill()
        until_signalled(app._run._guard)  # type: ignore[union-attr, arg-type] # it runs, guarded
        if wait == "cancelled":
            await anyio.sleep_forever()
        with anyio.CancelScope(shield=wait == "shielded"):
            await anyio.lowlevel.checkpoint()
        yield

    if not last:

        @app.resource
        async def other() -> AsyncIterator[None]:
            yield

    async def main() -> None:
        async with app:
            seen.append("begun")
            await app.wait_closed()

    with pytest.raises(SystemExit) as caught:
        anyio.run(main, backend=backend)
    assert caught.value.code == 0
    assert (seen, app.state) == ([], "stopped")


@posix
def test_signal_while_a_block_of_a_server_starts(backend: Any) -> None:
    """A server that was handed the signal leaves the block, which has to begin for that."""
    app = make()
    handed_on: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: handed_on.append(number))

    @app.resource
    async def slow() -> AsyncIterator[None]:
        kill()
        await anyio.sleep_forever()
        yield

    async def main() -> None:
        async with app:
            assert app.state == "stopped"
            assert handed_on == [signal.SIGTERM]

    anyio.run(main, backend=backend)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert handed_on == [signal.SIGTERM]


@posix
@pytest.mark.parametrize("code", [0, 1])
def test_signal_that_nobody_waits_for(code: int) -> None:
    """After start() asyncio's loop ends with the application."""
    app = make()
    ended: list[str] = []

    @app.resource
    async def last() -> AsyncIterator[None]:
        yield
        if code:
            raise OSError

    async def main() -> None:
        await app.start()
        kill()
        try:
            await anyio.Event().wait()
        finally:
            ended.append(app.state)

    with pytest.raises(SystemExit) as caught:
        anyio.run(main)
    app._run.release_guard()  # type: ignore[union-attr]  # which waits for the process to end
    signal.signal(signal.SIGINT, signal.default_int_handler)  # before it was the loop's
    assert caught.value.code == code
    assert ended == ["stopped"]


@posix
def test_signal_that_comes_twice_at_once(backend: Any) -> None:
    """A terminal and a wrapper both hand on Ctrl-C: that is one wish."""
    app = make()
    ended: list[bool] = []

    @app.service(drains=True)
    async def service() -> None:
        kill(signal.SIGINT)
        kill(signal.SIGTERM)
        await app.wait_draining()
        ended.append(True)

    app.run(backend)
    assert ended == [True]


def test_handler_that_was_replaced() -> None:
    """A handler that somebody set meanwhile stays."""
    before = signal.getsignal(signal.SIGTERM)
    guard = Guard(60, describe=str)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guard.release()
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN


@posix
def test_signals_of_somebody_else(backend: Any) -> None:
    """Where a server handles signals already, it goes on to get them."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        test_signal_to_an_application_in_a_block(backend)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_handler_that_wants_to_exit(number: int, backend: Any) -> None:
    """What the program does at a signal does not cut off what is in flight."""
    app = make()
    drained: list[bool] = []

    @app.service(drains=True)
    async def service() -> None:
        kill(number)
        await app.wait_draining()
        await anyio.lowlevel.checkpoint()
        drained.append(True)

    terminate = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app.run(backend)
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)
    assert drained == [True]


@posix
def test_guards_that_are_released_in_their_order() -> None:
    """Of two applications in one process either may be the first to end."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    try:
        one, two = Guard(60, describe=str), Guard(60, describe=str)
        one.release()
        kill()
        until_signalled(two)
        two.hand_on()
        two.release()
        kill()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM] * 2


@posix
@pytest.mark.usefixtures("usr1")
def test_signal_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process ends, one wish that arrives twice is one; another is what it was before."""
    monkeypatch.setattr("mtaio.app._guard._AGAIN", 1e9)
    got: list[int] = []
    mine = lambda number, _: got.append(number)  # noqa: E731 - to be compared
    before = signal.signal(signal.SIGTERM, mine)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        guard = Guard(60, describe=str)
        kill()
        until_signalled(guard)
        for _ in range(2):
            guard.release(lingers=True)
        kill()
        assert got == []
        with monkeypatch.context() as patch:
            patch.setattr("mtaio.app._guard._AGAIN", -1)
            guard._ignore()
            kill()
        assert signal.getsignal(signal.SIGTERM) is mine
        guard._ignore()
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
    assert got == [signal.SIGTERM]


@pytest.fixture
def usr1() -> Iterator[int]:
    """Return the number of SIGUSR1, with nobody who handles it."""
    number: int = getattr(signal, "SIGUSR1", 0)
    before = signal.signal(number, signal.SIG_DFL)
    yield number
    signal.signal(number, before)


def until_shown(guard: Guard) -> None:
    """Wait until the tasks have been written."""
    while guard._showing is None:
        time.sleep(0.001)
    guard._showing.join()


@posix
def test_tasks_on_request(usr1: int, capfd: pytest.CaptureFixture[str]) -> None:
    """A signal of its own has the tasks written, again and again, and then is what it was."""
    guard = Guard(60, describe=str, tasks=lambda: [b"one\n", b"two\n"])
    for _ in range(2):
        kill(usr1)
        until_shown(guard)
        assert capfd.readouterr().err == "one\ntwo\n"
        guard._showing = None
    assert not guard.signalled
    guard.release()
    assert signal.getsignal(usr1) is signal.SIG_DFL


@posix
def test_tasks_are_written_by_one_at_a_time(usr1: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Who asks while they are written gets no second copy, and the guard goes on."""
    reading, go_on = threading.Event(), threading.Event()

    def tasks() -> list[bytes]:
        reading.set()
        assert go_on.wait(60)
        raise LookupError("no tree")

    guard = Guard(60, describe=str, tasks=tasks)
    kill(usr1)
    assert reading.wait(60)
    kill(usr1)
    kill()
    until_signalled(guard)
    go_on.set()
    until_shown(guard)
    guard.release()
    assert capfd.readouterr().err == "the tasks cannot be read: LookupError('no tree')\n"


@posix
def test_tasks_where_there_can_be_no_thread(
    usr1: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written then, and the guard goes on."""

    def none(_: object) -> None:
        raise RuntimeError("can't start new thread")

    guard = Guard(60, describe=str)
    monkeypatch.setattr("mtaio.app._guard.threading.Thread.start", none)
    kill(usr1)
    kill()
    until_signalled(guard)
    guard.release()
    assert capfd.readouterr().err == ""


@posix
def test_handler_of_somebody_else_is_left(usr1: int) -> None:
    """A program that handles SIGUSR1 goes on doing so, also if it does that in C."""
    mine = lambda *_: None  # noqa: E731 - to be compared
    signal.signal(usr1, mine)
    Guard(60, describe=str).release()
    assert signal.getsignal(usr1) is mine
    signal.signal(usr1, signal.SIG_DFL)
    if sys.platform == "linux":
        faulthandler.register(usr1)
        try:
            guard = Guard(60, describe=str)
            assert signal.getsignal(usr1) is signal.SIG_DFL
            guard.release()
        finally:
            faulthandler.unregister(usr1)


@posix
def test_tasks_where_the_system_has_no_list_of_handlers(
    usr1: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on Linux what Python knows counts."""

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", none)
    guard = Guard(60, describe=str)
    assert callable(signal.getsignal(usr1))
    guard.release()


@posix
def test_request_while_it_ends(usr1: int, capfd: pytest.CaptureFixture[str]) -> None:
    """While the process ends nothing comes of it; the next application has it again."""
    Guard(60, describe=str).release(lingers=True)
    kill(usr1)
    guard = Guard(60, describe=str, tasks=lambda: [b"tree\n"])
    Guard(60, describe=str, tasks=lambda: [b"other\n"]).release()
    kill(usr1)
    until_shown(guard)
    guard.release()
    assert capfd.readouterr().err == "tree\n"
    assert signal.getsignal(usr1) is signal.SIG_DFL


def test_tasks_before_the_event_loop() -> None:
    """Before an application has a loop, and when it has none any more, that is said."""
    app = make()
    assert b"".join(app._tasks()) == b"there is no event loop whose tasks could be shown\n"
    anyio.run(app.start)
    assert b"".join(app._tasks()) == b"there is no event loop whose tasks could be shown\n"


def test_thread_stays_until_the_program_starts_another(backend: Any) -> None:
    """The thread of an application that has run waits for the exit, unless the program goes on."""
    run_on(backend)
    stayed = [each for each in threading.enumerate() if each.name == "mtaio.app guard"]
    run_on(backend)
    assert [each.is_alive() for each in stayed] == [False]


def test_application_left_without_a_signal_leaves_nothing(backend: Any) -> None:
    """Where a block was left, or the application stopped by itself, the program goes on."""

    async def main() -> None:
        async with make():
            pass

    anyio.run(main, backend=backend)
    assert "mtaio.app guard" not in {each.name for each in threading.enumerate()}


def test_thread_that_stays_where_there_can_be_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nobody to speak for it then, and stays all the same."""

    def none(_: object) -> None:
        raise RuntimeError("can't start new thread")

    guard = Guard(60, describe=str)
    guard.begin(clock.now())
    with monkeypatch.context() as patch:
        patch.setattr("mtaio.app._guard.threading.Thread.start", none)
        guard.release(lingers=True)
    assert guard._thread.is_alive()
    ending.call_off()
    assert not guard._thread.is_alive()


@posix
def test_signal_before_there_is_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """To set the log up takes a moment, in which a signal may come."""
    app = make()
    monkeypatch.setattr(app, "_configure_logging", kill)
    app.run()
    assert app.state == "stopped"


def test_no_more_descriptors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], backend: Any
) -> None:
    """Without descriptors or threads it does not start, and says so."""

    def none(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async def start() -> None:
        for logs in (True, False):
            with pytest.raises(OSError, match="Too many open files"):
                await make(logging=logs).start()

    root = logging.getLogger()
    before = root.handlers[:]
    with monkeypatch.context() as patch:
        patch.setattr("mtaio.app._guard.socket.socketpair", none)
        with pytest.raises(SystemExit) as caught:
            make().run(backend)
    assert caught.value.code == 3
    assert capsys.readouterr().err == "mtaio: [Errno 24] Too many open files\n"
    monkeypatch.setattr(Application, "_new_guard", none)
    anyio.run(start, backend=backend)
    assert root.handlers == before


def test_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Threads run out as descriptors do; an error of the loop after the start is not one of it."""

    def none(_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def live(*_: object) -> None:
        app._run = object()  # type: ignore[assignment]  # there is one now
        raise OSError("later")

    with monkeypatch.context() as patch:
        patch.setattr("mtaio.app._guard.threading.Thread.start", none)
        with pytest.raises(SystemExit) as caught:
            make().run()
    assert caught.value.code == 3
    assert capsys.readouterr().err.endswith("] can't start new thread\n")
    app = make()
    monkeypatch.setattr(app, "_live", live)
    with pytest.raises(OSError, match="later"):
        app.run()


def test_signals_are_left_alone(backend: Any) -> None:
    """With signals=False, and in any other thread than the main one, no handler is set."""
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def live(*, signals: bool) -> None:
        app = make(signals=signals)

        @app.service
        async def ends() -> None:
            seen.append(signal.getsignal(signal.SIGTERM))
            app.stop_nowait()

        app.run(backend)

    live(signals=False)
    thread = threading.Thread(target=live, kwargs={"signals": True})
    thread.start()
    thread.join()
    assert seen == [before, before]


def test_uvloop() -> None:
    """It runs on uvloop, where that is installed."""
    pytest.importorskip("uvloop")
    run_on("uvloop")


def test_address_that_is_taken(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot listen is a failed start, and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        app = make()
        app.serve(nothing, bind=address)
        with pytest.raises(SystemExit) as caught:
            app.run(backend)
    assert caught.value.code == 3
    assert any(address in message for message in caplog.messages)


def test_server_that_ends_by_itself(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A server may be told to answer so many requests; then the application stops."""
    caplog.set_level("INFO", logger="mtaio.app")
    app = make()
    statuses: list[int] = []

    async def asgi(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(address: str) -> int:
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            connection.request("GET", "/")
            return connection.getresponse().status

    config = Config()
    config.max_requests, config.max_requests_jitter = 0, 0
    app.serve(asgi, bind="127.0.0.1:0", config=config)

    @app.service
    async def client() -> None:
        (address,) = app.addresses
        statuses.append(await to_thread.run_sync(ask, address))
        await anyio.sleep_forever()

    app.run(backend)
    assert statuses == [204]
    assert app.addresses == ()
    assert "stopping: a server has ended" in caplog.messages


def test_options_of_a_server(backend: Any) -> None:
    """What `run` is given goes to the server: TLS, a proxy that is believed, and a limit."""
    app = make(Settings(health_bind="127.0.0.1:0", trusted_proxies="127.0.0.1"))
    seen: list[Any] = []

    async def asgi(scope: Any, _receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))
        seen.append(await to_thread.run_sync(ask))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask() -> int:
        host, _, port = app.addresses[0].rpartition(":")
        trusting = ssl.create_default_context(cafile=LOCALHOST)
        trusting.check_hostname = False
        connection = http.client.HTTPSConnection(host, int(port), context=trusting, timeout=60)
        with closing(connection):
            connection.request("GET", "/", headers={"X-Forwarded-For": "1.2.3.4"})
            return connection.getresponse().status

    app.serve(asgi, bind="127.0.0.1:0", max_in_flight=9, body_timeout=3)

    @app.service
    async def client() -> None:
        seen.append(await to_thread.run_sync(ask))
        app.stop_nowait("all was asked")

    app.run(backend, certfile=LOCALHOST, max_in_flight=1)
    assert seen == [(("1.2.3.4", 0), "https"), 503, 204]


def test_several_servers(backend: Any) -> None:
    """Each has figures of its own, by its name or its address."""
    app = make()
    figures: set[str] = set()
    for name in (None, None, "admin"):
        app.serve(nothing, bind="127.0.0.1:0", name=name)
    with pytest.raises(ValueError, match="there is already a server named 'admin'"):
        app.serve(nothing, name="admin")

    @app.service
    async def look() -> None:
        sources = app.monitor._watched.read().sources
        figures.update(str(each.name) for each in sources if each.kind == "server")
        assert figures == {*app.addresses[:2], "admin"}
        app.stop_nowait()

    app.run(backend)
    assert figures


def test_failing_start(backend: Any) -> None:
    """What could not start exits with 3."""
    app = make()

    @app.resource
    async def broken() -> AsyncIterator[None]:
        raise OSError
        yield

    with pytest.raises(SystemExit) as caught:
        app.run(backend)
    assert caught.value.code == 3


def test_failing_service(backend: Any) -> None:
    """What failed while it ran exits with 1."""
    app = make()

    @app.service
    async def broken() -> None:
        raise OSError

    with pytest.raises(SystemExit) as caught:
        app.run(backend)
    assert caught.value.code == 1


def test_task_that_exits(backend: Any) -> None:
    """What a task says to `sys.exit` is the exit code, also where tasks end in a group."""
    app = make()

    @app.service
    async def exits() -> None:
        async def leave() -> None:
            sys.exit(2)

        async with anyio.create_task_group() as group:
            group.start_soon(leave)

    with pytest.raises(SystemExit) as caught:
        app.run(backend)
    assert caught.value.code == 2


def test_failing_service_in_a_block(backend: Any) -> None:
    """In a block its error is raised, once the block is left."""
    app = make()

    @app.service
    async def broken() -> None:
        raise OSError("broken")

    async def main() -> None:
        async with app:
            await to_thread.run_sync(time.sleep, 0)

    with pytest.raises(OSError, match=r"^broken$"):
        anyio.run(main, backend=backend)


def test_settings_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is wrong with the variables is printed, with no traceback, and it exits with 2."""
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "none")
    monkeypatch.setenv("MTAIO_LOG_LEVEL", "LOUD")
    with pytest.raises(SystemExit) as caught:
        Application().run()
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("mtaio: ")
    assert "MTAIO_MAX_WORKERS='none'" in printed
    assert "MTAIO_LOG_LEVEL='LOUD'" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backend": "twisted"}, "mtaio: backend='twisted' is unknown"),
        ({"bind": ["127.0.0.1:0"]}, "mtaio: bind=['127.0.0.1:0'] has 1 addresses, but the "),
        ({"certfile": "c.pem"}, "mtaio: <Application new> has no server that takes options. Add"),
    ],
)
def test_usage(options: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong arguments are said, with 2."""
    with pytest.raises(SystemExit) as caught:
        make().run(**options)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(complaint)


def test_backend_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing event loop is said with how to get it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "mtaio.app._usage.find_spec", lambda name: None if name == "trio" else find(name)
    )
    with pytest.raises(SystemExit):
        make().run("trio")
    assert capsys.readouterr().err == (
        "mtaio: backend='trio' needs trio, which is not installed. Install it with: pip install "
        "'mtaio[trio]'\n"
    )


def test_log_file_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That is a matter of configuration."""
    settings = Settings(log_file=tmp_path / "none" / "app.log")
    with pytest.raises(SystemExit) as caught:
        make(settings, logging=True).run()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("mtaio: [Errno 2] cannot open the log file ")


def test_where_servers_listen() -> None:
    """``bind`` takes the place of what was registered; a name that was given stays."""
    app = make()
    app.serve(nothing, bind="127.0.0.1:1")
    app.serve(nothing, bind="127.0.0.1:2", name="admin", max_in_flight=7)
    app._rebind(["127.0.0.1:3", "127.0.0.1:4"])
    assert [(each.name, each.bind) for each in app.servers] == [
        ("127.0.0.1:3", "127.0.0.1:3"),
        ("admin", "127.0.0.1:4"),
    ]
    assert [each.options.max_in_flight for each in app._registered.servers] == [None, 7]


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child() -> None:
    """A child that gets a signal does what it would have done without the guard."""
    if sys.platform == "win32":
        return
    guard = Guard(60, describe=str)
    try:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # the signal is handled at once
            os._exit(9)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert not guard.signalled
    finally:
        guard.release()


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_that_unwinds() -> None:
    """A child leaves the guard of its parent alone, whatever it does with its own copy."""
    if sys.platform == "win32":
        return
    guard = Guard(60, describe=str)
    try:
        child = os.fork()
        if not child:
            guard.release()
            os._exit(9)
        os.waitpid(child, 0)
        kill()
        while guard._thread.is_alive() and guard._first is None:
            time.sleep(0.001)
        assert guard._thread.is_alive()
    finally:
        guard.release()


@posix
def test_ignored_interrupts() -> None:
    """What a shell has started in the background goes on to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        guard = Guard(60, describe=str)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        guard.release()
    finally:
        signal.signal(signal.SIGINT, before)


def test_beat() -> None:
    """The thread does again and again what it is to do, whatever the event loop does."""
    beats = threading.Semaphore(0)
    guard = Guard(60, describe=str, beat=Beat(0.001, beats.release))
    for _ in range(3):
        assert beats.acquire(timeout=60)
    guard.release()


@posix
def test_systemd_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: Any) -> None:
    """Ready, alive, stopping: systemd hears of it."""
    if sys.platform == "win32":
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        app = make()
        heard: list[bytes] = []

        @app.service
        async def ends() -> None:
            while b"WATCHDOG=1" not in heard or b"READY=1" not in heard:
                heard.append(await to_thread.run_sync(systemd.recv, 4096))
            app.stop_nowait()

        app.run(backend)
        while heard[-1] != b"EXTEND_TIMEOUT_USEC=65000000":
            heard.append(systemd.recv(4096))
    assert b"STOPPING=1" in heard


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110 - a device
def test_log_that_cannot_be_written(capfd: pytest.CaptureFixture[str], backend: Any) -> None:
    """A full disk keeps nothing from stopping, in time, and that it lost lines is said."""
    settings = Settings(log_file="/dev/full", log_console=False, shutdown_timeout=2)
    app = make(settings, logging=True)

    @app.service
    async def ends() -> None:
        logging.getLogger("shop").error("lost")
        app.stop_nowait()

    app.run(backend)
    assert "mtaio: not all of the log could be written\n" in capfd.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110 - a device
def test_log_and_console_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops in order even if it can tell nobody that lines were lost, and there is no thread."""

    async def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    class Broken:
        def write(self, _: str) -> None:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    settings = Settings(log_file="/dev/full", log_console=False, shutdown_timeout=2)
    app = make(settings, logging=True)

    @app.service
    async def ends() -> None:
        logging.getLogger("shop").error("lost")
        monkeypatch.setattr("mtaio.app._run.to_thread.run_sync", none)
        app.stop_nowait()

    monkeypatch.setattr("sys.stderr", Broken())
    app.run()


@posix
def test_signal_before_anything_is_made(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body does not begin, even if the guard's thread is late to read the signal."""
    reached: list[str] = []
    started = threading.Event()
    receive, wait = Guard._receive, Run.await_signal

    def late(guard: Guard) -> bytes:
        byte = receive(guard)
        assert started.wait(60)
        return byte

    async def await_signal(run: Run) -> None:
        started.set()
        await wait(run)

    monkeypatch.setattr(Guard, "_receive", late)
    monkeypatch.setattr(Run, "await_signal", await_signal)

    def strike(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_prepare":
            sys.setprofile(None)
            kill()

    async def main() -> None:
        sys.setprofile(strike)
        async with make():
            reached.append("the body")

    with pytest.raises(SystemExit) as caught:
        anyio.run(main, backend=backend)
    assert caught.value.code == 0
    assert reached == []


def test_start_that_is_refused(backend: Any) -> None:
    """What cannot be made is raised, and the handlers of signals are put back."""

    async def main() -> None:
        app: Any = Application
        async with app(SETTINGS, probes=False, name=5):
            pass

    with pytest.raises(TypeError, match=r"^name=5 is an int, not a str"):
        anyio.run(main, backend=backend)


def test_program_without_a_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its file descriptor may be another file's by now, so nothing is written there."""
    monkeypatch.setattr(sys, "__stderr__", None)
    write_tasks(lambda: [b"tree\n"])
    assert capfd.readouterr().err == ""
