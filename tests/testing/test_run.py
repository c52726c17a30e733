"""`run`: results, errors, refusals, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import functools
import math
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_process, to_thread
from anyio._core._eventloop import get_async_backend

from mtaio._internal import clock
from mtaio.testing import Deadlock, Schedule, current_simulation, run, settle, virtual_backend
from mtaio.testing._simulation import simulation_of
from mtaio.testing._threads import FROM_THREAD, TO_THREAD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def add(a: int, b: int) -> int:
    """Add two numbers, which takes a second."""
    await anyio.sleep(1)
    return a + b


def test_arguments_and_result_pass_through(backend: str) -> None:
    """run() returns what the function returns, on asyncio unless told otherwise."""
    assert run(add, 2, 3, backend=backend) == 5
    assert run(functools.partial(add, 2), 3, backend=backend) == 5

    async def which() -> str:
        return type(anyio.lowlevel.current_token().native_token).__module__.split(".")[0]

    assert run(which) == "mtaio"  # our loop, which is one of asyncio's
    assert run(which, backend=backend) == {"asyncio": "mtaio", "trio": "trio"}[backend]


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3), KeyboardInterrupt()])
def test_exceptions_pass_through(backend: str, error: BaseException) -> None:
    """run() raises the very exception that the function raised."""

    async def fail() -> None:
        await anyio.sleep(1)
        raise error

    with pytest.raises(type(error)) as caught:
        run(fail, backend=backend)
    assert caught.value is error
    assert error.__cause__ is None


def test_ctrl_c_interrupts(backend: str) -> None:
    """Ctrl-C cancels the function, lets it clean up, and is raised."""
    log: list[str] = []

    async def scenario() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep(1)
            log.append("not reached")
        finally:
            log.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run(scenario, backend=backend)
    assert log == ["cleaned up"]


def test_ctrl_c_interrupts_a_waiting_loop(backend: str) -> None:
    """Ctrl-C gets through while the loop waits for something real."""

    async def scenario() -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            await listener.serve(anyio.aclose_forcefully)

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        run(scenario, backend=backend)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):  # trio puts it into the listener's groups
        (error,) = error.exceptions
    assert type(error) is KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("uvloop", ValueError, r"^backend='uvloop' cannot run under virtual time: its timers live"),
        ("curio", ValueError, r"^backend='curio' is unknown\. Pass 'asyncio' or 'trio'\.$"),
        (None, ValueError, r"^backend=None is unknown\. Pass 'asyncio' or 'trio'\.$"),
    ],
)
@pytest.mark.parametrize("give", [lambda name: run(add, 1, 2, backend=name), virtual_backend])
def test_backends_that_are_refused(
    give: Callable[[Any], object], name: Any, error: type[Exception], message: str
) -> None:
    """A backend that there is not, or that keeps its own time, is refused."""
    with pytest.raises(error, match=message):
        give(name)


@pytest.mark.parametrize("give", [lambda name: run(add, 1, 2, backend=name), virtual_backend])
def test_missing_trio(give: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without trio, asking for it says how to install it, and asyncio works."""
    monkeypatch.delitem(sys.modules, "mtaio.testing._trio", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(ImportError, match=r"^backend='trio' needs trio\. Install it with: pip"):
        give("trio")
    assert run(add, 1, 2) == 3


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"grace": 0}, ValueError, r"^grace=0 is not more than 0\. Pass the real seconds"),
        ({"grace": -1.5}, ValueError, r"^grace=-1\.5 is not more than 0\. Pass the real seconds"),
        ({"grace": math.nan}, ValueError, r"^grace=nan is not a number\. Pass the real seconds"),
        ({"grace": None}, TypeError, r"^grace=None is a NoneType, not a number\. Pass the real"),
        ({"max_turns": 0}, ValueError, r"^max_turns=0 is less than 1\. Pass how often the event"),
        ({"max_turns": 1e6}, TypeError, r"^max_turns=1000000\.0 is a float, not an int\. Pass how"),
    ],
)
def test_limits_that_are_refused(
    limits: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The grace is a number of seconds, more than 0; the turns are a whole number from 1."""
    with pytest.raises(error, match=message):
        run(add, 1, 2, **limits)
    with pytest.raises(error, match=message):
        virtual_backend("asyncio", **limits)


def test_endless_grace(backend: str) -> None:
    """``grace=inf`` waits for worker threads for as long as they take."""

    async def work() -> int:
        return await to_thread.run_sync(int)

    assert run(work, backend=backend, grace=math.inf) == 0


def test_coroutine_instead_of_a_function() -> None:
    """run(f()) is a slip that is named."""
    coroutine: Any = add(1, 2)
    with pytest.raises(TypeError, match=r"^afn=<coroutine object add .* is not callable\. Pass"):
        run(coroutine)
    coroutine.close()


async def test_inside_a_running_loop() -> None:
    """run() in an async test is a slip that is named."""
    with pytest.raises(
        RuntimeError, match=r"^run\(\) cannot be called while an event loop is running in this"
    ):
        run(settle)


def snapshot(backend: str) -> dict[str, object]:
    """Return all that a simulation replaces while it runs."""
    methods = vars(get_async_backend(backend))
    return {
        "clock": clock.read,
        "process": to_process.run_sync,
        "signal": signal.getsignal(signal.SIGINT),
        **{name: methods[name] for name in (TO_THREAD, FROM_THREAD)},
    }


async def succeed() -> None:
    """Do nothing."""


async def fail() -> None:
    """Raise an error."""
    raise LookupError


async def hold_and_fail() -> None:
    """Raise an error with the clock held and a thread at work."""
    with current_simulation().hold():
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: to_thread.run_sync(int))
            raise LookupError


async def break_off() -> None:
    """Deadlock, and again in the cleanup."""
    with anyio.CancelScope(shield=True):
        await anyio.Event().wait()


@pytest.mark.parametrize("schedule", [None, Schedule()], ids=repr)
@pytest.mark.parametrize("scenario", [succeed, fail, hold_and_fail, anyio.sleep_forever, break_off])
def test_nothing_is_left_behind(
    backend: str, scenario: Callable[[], Awaitable[None]], schedule: Schedule | None
) -> None:
    """However a run ends, all is as it was before, and the next run starts at 0."""
    before = snapshot(backend)
    try:
        run(scenario, backend=backend, schedule=schedule)
    except (LookupError, ExceptionGroup, Deadlock):
        pass
    else:
        assert scenario is succeed
    assert snapshot(backend) == before
    with pytest.raises(RuntimeError, match=r"^current_simulation\(\) has nothing to return"):
        current_simulation()

    async def next_run() -> None:
        assert anyio.current_time() == clock.now() == 0.0
        await anyio.sleep(1)
        assert anyio.current_time() == clock.now() == 1.0

    run(next_run, backend=backend)


def test_testing_needs_neither_pytest_nor_trio() -> None:
    """Without pytest and trio `run` works on asyncio; names are imported when they are used."""
    program = """
import sys
sys.modules["pytest"] = sys.modules["trio"] = None
import anyio, mtaio.testing
assert not [name for name in sys.modules if name.startswith("mtaio.testing.")]
for name in mtaio.testing.__all__:
    assert getattr(mtaio.testing, name).__name__ == name
async def nap():
    await anyio.sleep(3600)
    return anyio.current_time()
assert mtaio.testing.run(nap) == 3600
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)  # noqa: S603 - our own


@pytest.mark.parametrize(
    "real", ["asyncio", ("asyncio", {}), ("asyncio", {"debug": True}), ("trio", {"clock": None})]
)
def test_backends_in_real_time_have_no_simulation(real: object) -> None:
    """Other values of anyio_backend are told from virtual ones."""
    assert simulation_of(real) is None


def test_unknown_name() -> None:
    """A name that there is not is an AttributeError, as in any module."""
    import mtaio.testing  # noqa: PLC0415 - the subject

    with pytest.raises(AttributeError, match=r"^module 'mtaio\.testing' has no attribute 'walk'$"):
        mtaio.testing.walk  # type: ignore[attr-defined] # noqa: B018 - looking is what is tested
