"""
What a deadlock looks like: who waits, and at which line.

Promise: a `Deadlock` names every task of the run and every worker thread that holds the clock,
each with the lines it has got to, outermost first, and survives pickling. The walk costs nothing
until something is stuck.
"""

from __future__ import annotations

import gc
import linecache
import os
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Where one task or thread was when the run was found stuck."""

    kind: Literal["task", "thread"]
    """Whether it is a task of the event loop or a worker thread."""

    name: str
    """The name of the task or of the thread."""

    frames: tuple[str, ...]
    """``file:line in function: source``, outermost first; the last one is where it waits."""

    def __str__(self) -> str:
        lines = "".join(f"\n    {frame}" for frame in self.frames)
        return f"  {self.kind} {self.name!r} is at{lines}"


class _Stuck(AssertionError):  # noqa: N818 - a verdict on the test, like AssertionError
    """A verdict on the whole run, with the stacks."""

    reason: str
    stacks: tuple[Stack, ...]

    def __init__(self, reason: str, stacks: tuple[Stack, ...] = ()) -> None:
        super().__init__(reason, stacks)
        self.reason = reason
        self.stacks = stacks

    def __str__(self) -> str:
        return "\n".join([self.reason, *map(str, self.stacks)])


class Deadlock(_Stuck):
    """
    Nobody in the simulated run can ever wake up, so the test has failed instead of hanging.

    Raised by `run`, and in tests that run on a `virtual_backend`, after the run was cancelled and
    its cleanup is over. If the cleanup blocks as well, ``__cause__`` is the first verdict.

    Args:
        reason: What is stuck, since when, and the way out.
        stacks: Where each task and each worker thread was at that moment.

    Example:
        ```python
        import anyio

        from mtaio.testing import Deadlock, run


        async def take_twice() -> None:
            lock = anyio.Semaphore(1)
            async with lock, lock:
                print("not reached: a semaphore is not re-entrant")


        try:
            run(take_twice)
        except Deadlock as stuck:
            assert "in take_twice" in str(stuck)
        ```
    """


class Livelock(_Stuck):
    """
    The tasks of the simulated run are busy and get nowhere, so the test has failed.

    Raised when the event loop has turned ``max_turns`` times without anybody waiting for something
    that was to come: tasks that spin on ``sleep(0)``, or that wake each other up for ever. Raised
    as `Deadlock` is, after the run was cancelled.

    Args:
        reason: How long, at which time, and the way out.
        stacks: Where each task and each worker thread was at that moment.

    Example:
        ```python
        import anyio

        from mtaio.testing import Livelock, run


        async def spin() -> None:
            while True:
                await anyio.sleep(0)


        try:
            run(spin, max_turns=100)
        except Livelock as stuck:
            assert "in spin" in str(stuck)
        ```
    """


def task_stacks(tasks: Iterable[tuple[str, Any]]) -> tuple[Stack, ...]:
    """
    Return the stack of every task, given as its name and its coroutine.

    The frames that lead to the test's own code and on from it are left out, and so are tasks in
    which there is nothing else, such as the helpers of a test runner, unless there is no other
    task.
    """
    own: list[Stack] = []
    others: list[Stack] = []
    for name, coroutine in tasks:
        frames = list(_await_frames(coroutine))
        theirs = [i for i, frame in enumerate(frames) if not is_machinery(frame[0])]
        shown = frames[theirs[0] : theirs[-1] + 1] if theirs else frames
        lines = tuple(_line(code_file, line, where) for code_file, line, where in shown)
        stack = Stack(kind="task", name=name, frames=lines)
        (own if theirs else others).append(stack)
    return tuple(own or others)


def thread_stack(ident: int, name: str) -> Stack:
    """Return the stack of a running thread; empty if the thread ended meanwhile."""
    frames_of = sys._current_frames  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    frame = frames_of().get(ident)
    frames: list[str] = []
    while frame is not None:
        frames.append(_line(*_place(frame)))
        frame = frame.f_back
    return Stack(kind="thread", name=name, frames=tuple(reversed(frames)))


def _await_frames(awaited: Any) -> Iterator[tuple[str, int, str]]:
    """Follow a suspended coroutine to the await where it waits, outermost first."""
    while awaited is not None:
        frame, awaited = next_await(awaited)
        if frame is not None:
            yield _place(frame)


def next_await(awaited: Any) -> tuple[FrameType | None, Any]:
    """Return the frame of what is awaited, None if it has none, and what that awaits in turn."""
    for frame_of, next_of in _LINKS:
        if hasattr(awaited, frame_of):
            return getattr(awaited, frame_of), getattr(awaited, next_of)
    if isinstance(awaited, Window):
        return None, awaited.behind
    if type(awaited).__name__ in _HIDING:
        return None, next(filter(_leads_on, gc.get_referents(awaited)), None)
    return None, None


class Window:
    """An awaitable that shows, in ``behind``, what it drives."""

    __slots__ = ("behind",)

    behind: Any


_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


_HIDING = {
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""Python's types that hide what they drive from Python, but not from the garbage collector."""


def _leads_on(referent: object) -> bool:
    if type(referent).__name__ in _HIDING:
        return True
    return any(hasattr(referent, frame_of) for frame_of, _ in _LINKS)


def _place(frame: FrameType) -> tuple[str, int, str]:
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname


def _line(file: str, line: int, where: str) -> str:
    source = linecache.getline(file, line).strip()
    return f"{file}:{line} in {where}: {source}"


@cache
def is_machinery(file: str) -> bool:
    """Tell whether a file belongs to Python, to trio, to anyio or to this package."""
    if file.startswith("<frozen "):
        return True
    homes = [__file__, anyio.__file__]
    if "trio" in sys.modules:
        homes.append(str(sys.modules["trio"].__file__))
    if not any(f"{os.sep}{name}{os.sep}" in file for name in ("site-packages", "dist-packages")):
        homes.append(os.__file__)  # Python's own library, in which the packages' folder lies
    return any(file.startswith(os.path.dirname(home) + os.sep) for home in homes)  # noqa: PTH120 - str in, str out
