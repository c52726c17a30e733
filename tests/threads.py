"""
Calls of a method from where the event loop of its object does not run.

While tasks wait at the object in one loop, a method is called in a worker thread of that loop, in a
thread of its own, and in another thread with a loop of its own; then where there is no loop at all.
It works, or it refuses, with a text that says what to do, and nothing has changed. An async method
needs a loop, so it is called in the thread that has one.
"""

from __future__ import annotations

import inspect
import threading
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FunctionType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint

import mtaio
from mtaio import exceptions
from mtaio.testing import run, settle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

HOME: Final = str(Path(mtaio.__file__).parent)

_STEPS: Final = 10
"""For how many steps of a second loop a call there may go on: one refuses within two."""


class Case:
    """
    A primitive, and how tasks come to wait at it.

    Args:
        make: Makes the primitive.
        wait: What two tasks do with it, for a second or more each.
        entered: Whether it is entered meanwhile.
        around: What is entered meanwhile in place of it; yields what tasks use.
        wanted: What is called in its place: something that it has made, in its loop.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        wait: Callable[[Any], Awaitable[object]],
        *,
        entered: bool = False,
        around: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None,
        wanted: Callable[[Any], Awaitable[Any]] | None = None,
    ) -> None:
        self.make = make
        self.wait = wait
        self.around = around or (_inside if entered else _beside)
        self.wanted = wanted


@asynccontextmanager
async def _inside(made: Any) -> AsyncGenerator[Any]:
    async with made:
        yield made


@asynccontextmanager
async def _beside(made: Any) -> AsyncGenerator[Any]:
    yield made


def public(kind: type) -> set[str]:
    """Return the names of the methods of a class, and of what may be assigned."""
    found: set[str] = set()
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if isinstance(member, classmethod | staticmethod | FunctionType) or (
            isinstance(member, property) and member.fset is not None
        ):
            found.add(name)
    return {name for name in found if not name.startswith("_")}


def readable(kind: type) -> set[str]:
    """Return the names of the properties of a class."""
    return {
        name
        for name in dir(kind)
        if not name.startswith("_")
        and isinstance(inspect.getattr_static(kind, name), property | MemberDescriptorType)
    }


def attempt(call: Callable[[], Any]) -> Any:
    """Call a method from a thread, and return what it raised; await nothing."""
    try:
        answer = call()
    except Exception as error:  # noqa: BLE001 - looked at in the test
        return error
    if inspect.iscoroutine(answer):
        answer.close()
    return None


def attempt_alone(call: Callable[[], Any]) -> Any:
    """Do the same in a thread that knows nothing of any loop."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(attempt(call)))
    thread.start()
    thread.join()
    return answers[0]


def attempt_in_loop(call: Callable[[], Any]) -> Any:
    """Do the same in a loop of this thread, and await what is to be awaited for some steps."""
    errors: list[Exception] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(attempt_here)
            for _ in range(_STEPS):
                await checkpoint()
            group.cancel_scope.cancel()

    async def attempt_here() -> None:
        try:
            answer = call()
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:  # noqa: BLE001 - as above
            errors.append(error)

    anyio.run(main)
    return errors[0] if errors else None


def within(enter: Callable[[Any], AbstractAsyncContextManager[Any]]) -> Callable[[Any], Any]:
    """Return a call that enters the block that a method returns, and leaves it."""

    async def call(it: Any) -> None:
        async with enter(it):
            pass

    return call


PLACES: Final = {"worker": attempt, "thread": attempt_alone, "loop": attempt_in_loop}


def counts(it: Any) -> dict[str, Any]:
    """Return what must not change when a call is refused."""
    if not hasattr(it, "statistics"):
        return {}
    changes = {"rejected", "rejected_keys", "calls", "seconds", "wait_seconds", "tokens"}
    changes |= {"next_grant_seconds", "next_grant", "uptime"}
    now = it.statistics()
    return {each.name: getattr(now, each.name) for each in fields(now) if each.name not in changes}


def check_refusal(error: BaseException | None) -> None:
    """Make sure that an error is ours, and says more than what went wrong."""
    if error is None or isinstance(error, exceptions.MTAIOError):
        return  # the second is an answer that the loop's own tasks get too
    assert not isinstance(error, anyio.NoEventLoopError), repr(error)
    entry = error.__traceback__
    assert entry is not None
    while entry.tb_next is not None:
        entry = entry.tb_next
    assert entry.tb_frame.f_code.co_filename.startswith(HOME), repr(error)
    assert str(error).count(". ") >= 1, repr(error)


def check_elsewhere(case: Case, call: Callable[[Any], Any], place: str, backend: str) -> None:
    """Make sure that a call beside the loop in which tasks wait works, or changes nothing."""

    async def body(made: Any) -> None:
        wanted = made if case.wanted is None else await case.wanted(made)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(patient, made)
            await anyio.sleep(0.5)  # nothing is underway, and they wait
            await settle()
            before = counts(made)
            error = await to_thread.run_sync(PLACES[place], partial(call, wanted))
            check_refusal(error)
            if error is not None:
                assert counts(made) == before

    async def patient(made: Any) -> None:
        with suppress(exceptions.MTAIOError):  # what the other thread has done may end the wait
            await case.wait(made)

    async def main() -> None:
        async with case.around(case.make()) as made:
            await body(made)

    run(main, backend=backend)


def check_without_a_loop(case: Case, call: Callable[[Any], Any], backend: str) -> None:
    """Make sure that a call where no loop runs, before any did and after, works or refuses."""
    if case.wanted is None:
        check_refusal(attempt(partial(call, case.make())))

    async def main() -> None:
        async with case.around(case.make()) as made:
            used.append(made if case.wanted is None else await case.wanted(made))
            await case.wait(made)

    used: list[Any] = []
    run(main, backend=backend)
    check_refusal(attempt(partial(call, used[0])))
