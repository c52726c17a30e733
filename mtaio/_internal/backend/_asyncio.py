"""
asyncio's half of the backend layer, uvloop included: see `mtaio._internal.backend.Backend`.

The token of a loop is the loop itself.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from contextvars import copy_context
from functools import partial
from operator import itemgetter
from types import CoroutineType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

import anyio

from mtaio._internal.backend._here import Scopes, is_guest_of_asyncio
from mtaio._internal.backend._seen import SeenTask
from mtaio._internal.frames import slot
from mtaio._internal.gil import has_gil

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context
    from weakref import ref


_running: Final = asyncio._get_running_loop  # noqa: SLF001 - public in all but its name
_modules: Final = sys.modules


def running_loop() -> object:
    """Return the running loop, or None."""
    # The loop runs while a guest's task does, but that task cannot await the loop's futures. Where
    # nobody has imported trio this is one look into a dict.
    if "trio" in _modules and is_guest_of_asyncio():
        return None
    return _running()


def task_id() -> int:
    """Return what AnyIO takes for the id of a task."""
    return id(asyncio.current_task())


def is_over(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop was closed: one that merely stopped may be run again."""
    return loop.is_closed()


def is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop runs."""
    return loop.is_running()


def count_tasks(loop: asyncio.AbstractEventLoop) -> int:
    """Count the tasks, one by one."""
    return len(asyncio.all_tasks(loop))


def time(loop: asyncio.AbstractEventLoop) -> float:
    """Return the loop's time, from any thread."""
    return loop.time()


def runs_in_this_thread(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether it is the thread's running loop, also while a guest's task runs."""
    return _running() is loop


# ---- who started whom ----
#
# asyncio keeps no record of it. But the end of a task is waited for, by a callback of the group in
# which it was started or of the task that awaits it: so the callbacks lead there.


GROUP: Final = "task group"
"""AnyIO and asyncio use the same words."""


def loop_name(loop: asyncio.AbstractEventLoop) -> Literal["asyncio", "uvloop"]:
    """Return the name of the library."""
    return "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"


def tasks(loop: asyncio.AbstractEventLoop) -> list[SeenTask]:
    """Return the tasks that are not done, eager ones included."""
    every = _in_order(asyncio.all_tasks(loop))
    if not has_gil() and _running() is not loop:
        return [
            SeenTask(
                id(task),
                _name_of(task),
                None,
                "waiting",
                waits=True,
                awaited=None,
                starter=None,
                group=None,
            )
            for task in every
        ]
    awaited: Any
    waiting: dict[int, asyncio.Task[Any] | None] = {}
    for task in every:
        awaited = getattr(task, "_fut_waiter", None)
        if awaited is not None:
            waiting[id(awaited)] = None if id(awaited) in waiting else task
    starters = _Starters(waiting)
    seen: list[SeenTask] = []
    for task in every:
        if task.done():
            continue
        awaited = getattr(task, "_fut_waiter", None)
        coroutine: Any = task.get_coro()
        waits = awaited is not None and not _is_done(awaited)
        state: Literal["running", "ready", "waiting", "cancelled"] = "waiting"
        is_usual = type(coroutine) is CoroutineType
        if coroutine.cr_running if is_usual else slot(coroutine, "cr_running") is True:
            state = "running"
            waits = False
        elif task.cancelling():
            state = "cancelled"
        elif not waits:
            state = "ready"
        starter, group = starters.find(task)
        name = _name_of(task)
        seen.append(SeenTask(id(task), name, coroutine, state, waits, awaited, starter, group))
    return seen


def _name_of(task: asyncio.Task[Any]) -> str:
    """Return a task's name, of bounded length."""
    return task.get_name()[:_LONGEST]


_LONGEST: Final = 1000
"""Characters of a name."""


_future_done: Final[Any] = cast("Any", asyncio.Future).done


def _is_done(future: Any) -> bool:
    """Return whether a future is done; one of the program's own kind is asked as asyncio's are."""
    try:
        return bool(_future_done(future))
    except TypeError:  # it is none of asyncio's: what waits for it, waits
        return False


def _anyio(name: str) -> Any:
    """Return what AnyIO has under a name that is private; None if it has that no more."""
    return getattr(_modules.get("anyio._backends._asyncio"), name, None)


_numbered: Final = re.compile(r"Task-(\d+)").fullmatch


def _in_order(every: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Sort by the start: AnyIO's own table has that order, and so have asyncio's own names."""
    states = _anyio("_task_states")
    refs: list[ref[asyncio.Task[Any]]] = [] if states is None else states.keyrefs()
    started = (ref() for ref in refs)
    ordered = [task for task in started if task is not None and task in every]
    numbers: list[tuple[int, asyncio.Task[Any]]] = []
    for task in every.difference(ordered):
        number = _numbered(task.get_name())
        numbers.append((sys.maxsize if number is None else int(number[1]), task))
    numbers.sort(key=itemgetter(0))
    return ordered + [task for _, task in numbers]


_UNKNOWN: Final = object()


class _Starters:
    """
    Finds out who has started a task, or who awaits it.

    Args:
        waiting: The only task that waits for a future, by the id of that; None if several do.
    """

    __slots__ = ("_group", "_hosts", "_spawned", "_waiting")

    def __init__(self, waiting: dict[int, asyncio.Task[Any] | None]) -> None:
        self._waiting = waiting
        self._group = _anyio("TaskGroup")
        self._hosts: dict[int, int] = {}
        """The ids of the tasks that opened a group, by the group's, which is alive meanwhile."""
        self._spawned: tuple[object, int] = (_UNKNOWN, 0)
        """The code of the callback that AnyIO's groups add, and where its closure has the group."""

    def find(self, task: asyncio.Task[Any]) -> tuple[int | None, object]:
        """Return the id of the task that has opened the group, and the group; or who awaits it."""
        callbacks = getattr(task, "_callbacks", None) or ()
        code, at = self._spawned
        group: Any
        for callback, _ in callbacks:
            if getattr(callback, "__code__", None) is code:
                group = callback.__closure__[at].cell_contents
                return self._host(group, group.cancel_scope, "_host_task"), group
        awaiting: set[asyncio.Task[Any] | None] = set()
        if id(task) in self._waiting:
            awaiting.add(self._waiting[id(task)])
        for callback, _ in callbacks:
            held = _held(callback)
            for index, group in enumerate(held):
                if type(group) is self._group:
                    self._spawned = callback.__code__, index
                    return self._host(group, group.cancel_scope, "_host_task"), group
                if issubclass(type(group), asyncio.TaskGroup):
                    return self._host(group, group, "_parent_task"), group
                # gather, wait, wait_for and shield have a future in between.
                if id(group) in self._waiting and group is not task:
                    awaiting.add(self._waiting[id(group)])
        only = awaiting.pop() if len(awaiting) == 1 else None
        return None if only is None or only is task else id(only), None

    def _host(self, group: object, holder: object, name: str) -> int | None:
        host = self._hosts.get(id(group))
        if host is None:
            host = self._hosts[id(group)] = id(getattr(holder, name, None))
        return host


def held_by(awaited: Any) -> list[Any]:
    """Return what the callbacks of a future refer to."""
    callbacks = getattr(awaited, "_callbacks", None) or ()
    return [each for callback, _ in callbacks for each in _held(callback)]


def _held(callback: object) -> list[Any]:
    """Return what a callback refers to: by its closure, its object or its arguments."""
    if type(callback) is FunctionType:
        try:
            return [cell.cell_contents for cell in callback.__closure__ or ()]
        except ValueError:  # one is empty
            return []
    if type(callback) is MethodType:
        return [callback.__self__]
    return [*callback.args] if isinstance(callback, partial) else []


def group_depth(group: Any) -> int:
    """Count the scopes around that of AnyIO's group; asyncio's own have none."""
    depth = 0
    scope = getattr(group, "cancel_scope", None)
    while scope is not None:
        scope = getattr(scope, "_parent_scope", None)
        depth += 1
    return depth


def may_be_eager(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether it has a factory of its own: ``asyncio.eager_task_factory`` is one."""
    return loop.get_task_factory() is not None


def call_in(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    """Schedule ``fn`` from any thread."""
    loop.call_soon_threadsafe(fn)


def call_at(loop: asyncio.AbstractEventLoop, moment: float, fn: Callable[[], object]) -> None:
    """Use a timer of the loop's."""
    context = copy_context()
    mark(context)
    loop.call_at(moment, fn, context=context)


def start_task(
    loop: asyncio.AbstractEventLoop,
    fn: Callable[[], Coroutine[Any, Any, None]],
    context: Context,
    ended: Callable[[], object],
) -> None:
    """Start a task, and keep it alive: asyncio itself holds its tasks weakly."""

    def done(task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        ended()

    task = context.run(loop.create_task, fn())  # not every task factory takes a context
    _tasks.add(task)
    task.add_done_callback(done)


_tasks: Final[set[asyncio.Task[Any]]] = set()


def mark(context: Context) -> None:
    """Tell sniffio, which AnyIO asks where it is installed: it knows tasks alone by itself."""
    sniffio = _modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, "asyncio")


def exit_from(loop: asyncio.AbstractEventLoop, code: int) -> None:
    """Raise ``SystemExit`` in a callback: `asyncio.run` then cancels all tasks."""

    def leave() -> NoReturn:
        raise SystemExit(code)

    loop.call_soon(leave)


def end_sigint(handler: object) -> None:
    """
    Have Python's own handler follow that of `asyncio.run` when its main task ends.

    asyncio sees to that itself, but not if another handler stands in the place of its own when the
    loop stops: as when `sys.exit` stops it, and an application puts the handler back only when its
    tasks are cancelled. The next `asyncio.run` would find it there, and handle no Ctrl-C.
    """
    main_task: asyncio.Task[object] | None = getattr(handler, "keywords", {}).get("main_task")

    def end(_: object) -> None:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if main_task is not None:
        main_task.add_done_callback(end)


class Waiter:
    """A task that waits on one future after another."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until `wake`."""
        self._future = future = self._loop.create_future()
        return future.__await__()

    def wake(self) -> bool:
        """Wake the task."""
        future = self._future
        if future is None:
            return True
        if future.done():
            return not future.cancelled()
        try:
            future.set_result(None)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._future = None  # the task never resumes: it was not woken
            return False
        return True

    @property
    def woken(self) -> bool:
        """Whether `wake` came first."""
        future = self._future
        return future is not None and future.done() and not future.cancelled()


new_waiter: Final = Waiter


def scopes(loop: asyncio.AbstractEventLoop) -> Scopes:
    """Return AnyIO's own class, which it does not name: asyncio has no cancel scopes."""

    def is_here() -> bool:
        return running_loop() is loop

    return Scopes(type(anyio.CancelScope()), loop.time, is_here)


def innermost_scope() -> object:
    """Look it up in AnyIO's own table, which is private; None where AnyIO has none any more."""
    states: Any = getattr(_modules["anyio._backends._asyncio"], "_task_states", {})
    return getattr(states.get(asyncio.current_task()), "cancel_scope", None)
