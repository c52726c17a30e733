"""
What AnyIO does not offer and the event loops do: once for asyncio, once for trio.

Promise: this package and `mtaio.testing` are the only places that import or look for asyncio and
trio. A loop is known by its token, as AnyIO gives it: asyncio's loop itself, or trio's token.
Cost: a backend's module is imported when a loop of it is first met, so a program that runs on one
of them does not load the other.

What both offer is the protocol `Backend`; ``_asyncio`` and ``_trio`` are its two halves; ``_here``
is what can be asked before a loop is known.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast

from mtaio._internal.backend._here import (
    Scopes,
    in_event_loop,
    is_cancelled_natively,
    is_guest_of_asyncio,
    running_clock,
    task_name,
)
from mtaio._internal.backend._seen import SeenTask

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

    from anyio.lowlevel import EventLoopToken

__all__ = [
    "Backend",
    "Scopes",
    "SeenTask",
    "Waiter",
    "current_loop",
    "in_event_loop",
    "innermost_scope",
    "is_asyncio",
    "is_cancelled_natively",
    "known_loop",
    "new_waiter",
    "note_loop",
    "of",
    "running_clock",
    "task_name",
]


class Waiter(Protocol):
    """
    One task that waits to be woken, again and again; used in one event loop.

    Half the price of an ``anyio.Event`` for each wait.
    """

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until `wake`; always suspends."""
        ...

    def wake(self) -> bool:
        """
        Wake the task; nothing happens if it does not wait.

        Returns:
            Whether it will resume, or was woken already; False if its wait was cancelled, or its
            loop was closed.
        """
        ...

    @property
    def woken(self) -> bool:
        """Whether the last wait was ended by `wake`, also if the task was cancelled after that."""
        ...


class Backend(Protocol):
    """What each backend can do; ``loop`` is always one of its own."""

    def running_loop(self) -> object:
        """
        Return the loop of this backend whose task or callback runs here, or None if none does.

        A task of a trio that is a guest of an asyncio loop runs in trio's loop alone. For hot
        paths: nothing is raised where no loop runs.
        """
        ...

    def task_id(self) -> int:
        """
        Return the id of the running task, as AnyIO's ``TaskInfo`` has it.

        A sixth of the time that ``anyio.get_current_task()`` takes, which finds out more.
        """
        ...

    def is_over(self, loop: Any) -> bool:
        """Return whether the loop can never run again. From any thread."""
        ...

    def is_running(self, loop: Any) -> bool:
        """Return whether the loop runs, maybe in another thread."""
        ...

    def count_tasks(self, loop: Any) -> int:
        """Return how many tasks there are in the loop, which is running here."""
        ...

    def time(self, loop: Any) -> float | None:
        """Return the time by which the loop's tasks sleep; None if it does not tell it here."""
        ...

    def runs_in_this_thread(self, loop: Any) -> bool:
        """Return whether the loop runs in this thread, maybe as another's host or guest."""
        ...

    GROUP: Literal["task group", "nursery"]
    """What the backend calls a group of tasks."""

    def loop_name(self, loop: Any) -> Literal["asyncio", "uvloop", "trio"]:
        """Return what the loop is called."""
        ...

    def tasks(self, loop: Any) -> list[SeenTask]:
        """
        Return the loop's tasks, those of a group in the order of their start.

        In another thread than the loop's they may be of several moments, or some of them missing;
        where no lock makes it safe to look at coroutines, these are left out.
        """
        ...

    def group_depth(self, group: Any) -> int:
        """Return a number that is larger the further inside others of the same task it is."""
        ...

    def held_by(self, awaited: Any) -> list[Any]:
        """Return what those who wait for the end of a future refer to."""
        ...

    def may_be_eager(self, loop: Any) -> bool:
        """Return whether a task of the loop may run before the call that starts it returns."""
        ...

    def call_in(self, loop: Any, fn: Callable[[], object]) -> None:
        """Have ``fn`` called in the loop's thread; ``RuntimeError`` if the loop is over."""
        ...

    def call_at(self, loop: Any, moment: float, fn: Callable[[], object]) -> None:
        """Have ``fn`` called at ``moment`` of the loop, which is running here."""
        ...

    def start_task(
        self,
        loop: Any,
        fn: Callable[[], Coroutine[Any, Any, None]],
        context: Context,
        ended: Callable[[], object],
    ) -> None:
        """Start a task of the loop's; see `loops.start_task`."""
        ...

    def mark(self, context: Context) -> None:
        """Let AnyIO see in ``context`` that the backend runs; see `loops.mark`."""
        ...

    def exit_from(self, loop: Any, code: int) -> None:
        """Have the loop end as by `sys.exit`, where that can be; see `loops.exit_from`."""
        ...

    def end_sigint(self, handler: object) -> None:
        """See to it that a handler of SIGINT ends with its loop, if it is the backend's own."""
        ...

    def new_waiter(self, loop: Any) -> Waiter:
        """Return a waiter for the loop, which is running here."""
        ...

    def scopes(self, loop: Any) -> Scopes:
        """Return how cancel scopes are made in the loop, which is running here."""
        ...

    def innermost_scope(self) -> object:
        """Return what stands for the innermost cancel scope of the running task; None for none."""
        ...


def of(loop: object) -> Backend:
    """Return the backend of a loop."""
    if is_asyncio(loop):
        from mtaio._internal.backend import _asyncio  # noqa: PLC0415 - see the module's cost

        return cast("Backend", _asyncio)
    from mtaio._internal.backend import _trio  # noqa: PLC0415 - likewise

    return cast("Backend", _trio)


def new_waiter() -> Waiter:
    """Return a waiter for the running event loop."""
    loop = _current_token().native_token
    return of(loop).new_waiter(loop)


def current_loop() -> object:
    """Return the loop whose task runs here; ``NoEventLoopError`` if none does."""
    return _current_token().native_token


def _first_token() -> EventLoopToken:
    """Return AnyIO's token, and have that answer from here on."""
    global _current_token  # noqa: PLW0603 - AnyIO's module is dear, and loaded in every event loop
    from anyio.lowlevel import current_token  # noqa: PLC0415 - likewise

    _current_token = current_token
    return current_token()


_current_token: Callable[[], EventLoopToken] = _first_token


def innermost_scope() -> object:
    """
    Return what stands for the innermost cancel scope of the running task; None if there is none.

    Only good for ``is``: whether scopes have been entered and not left meanwhile.
    """
    return of(current_loop()).innermost_scope()


def is_asyncio(loop: object) -> bool:
    """Return whether a loop is asyncio's, or uvloop's, not trio's."""
    return hasattr(loop, "is_closed")


# ---- the loop of a context ----

_modules: Final[dict[str, Any]] = sys.modules

_known: Final[ContextVar[tuple[object, Callable[[], object], bool] | None]] = ContextVar(
    "mtaio.loop", default=None
)
"""A loop that ran in this context, a function that returns it if it runs, whether it is trio's."""

_known_here: Final = _known.get


def known_loop() -> object:
    """Return the loop that runs here if it was noted in this context, else None. For hot paths."""
    known = _known_here()
    if known is not None:
        loop, ask, is_trio = known
        # Without trio nobody is its guest: that costs one look into a dict.
        if ask() is loop and (is_trio or "trio" not in _modules or not is_guest_of_asyncio()):
            return loop
    return None


def note_loop(loop: object) -> None:
    """Note the loop that runs here, for `known_loop`."""
    if hasattr(loop, "is_closed"):
        _known.set((loop, _modules["asyncio"]._get_running_loop, False))  # noqa: SLF001 - as `_asyncio` does
    else:
        _known.set((loop, of(loop).running_loop, True))
