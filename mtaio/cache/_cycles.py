"""
Loads that wait for other loads, and those that would end up waiting for themselves.

Promise: a load that asks, itself or through other loads, for a key whose load waits for it gets an
error instead of waiting for ever. A task that a load only started is not that load.
Cost: nothing for a load that asks for no other.

The context names the load during which code runs, but tasks copy it, also those that the load does
not wait for. So it only gives candidates, and an error takes proof for each: either the coroutine
of the load is running, so the code that asks is part of it; or the load has a task of its own, and
the code runs in a child of that task. Without proof, the code waits like any other caller. If the
load does wait for it, the load ends when its other callers have left: see `is_awaited`.
"""

from __future__ import annotations

import reprlib
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, currentframe
from typing import TYPE_CHECKING, Any, Final

import anyio

from mtaio.cache._load import Load, together

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

__all__ = ["LOADING", "Dependent", "dependent_in", "is_awaited", "own_key_error"]

_AWAITS: Final = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR

LOADING: Final[ContextVar[Load | None]] = ContextVar("mtaio.cache.loading", default=None)
"""The innermost load that the running code may be part of."""


class Dependent:
    """
    A task that waits for a load, perhaps as part of another load, which depends on that.

    Args:
        load: The other load, in whose context it runs.
        running: Whether it is that load's own task.
    """

    __slots__ = ("load", "running", "task")

    def __init__(self, load: Load, *, running: bool) -> None:
        self.load: Load = load
        self.running: bool = running
        self.task: int = 0 if running else anyio.get_current_task().id


def dependent_in(loop: object, owner: object, keys: Iterable[Hashable]) -> Dependent | None:
    """
    Return the running task if it is part of a load, which may come to depend on those of ``keys``.

    Called by a plain function that a coroutine calls: see `_is_part_of`.

    Args:
        loop: The running event loop.
        owner: The cache.
        keys: Those of which values are wanted.

    Returns:
        None if no load around the running code is in progress.

    Raises:
        RuntimeError: A load of one of them waits for that load.
    """
    load = LOADING.get()
    if load is None or load.is_over():
        return None
    dependent = Dependent(load, running=load.loop is loop and _is_part_of(load.call))
    for key in keys:
        same = _same_key(dependent, owner, key)
        if same and _waits(dependent, same):
            del load, dependent, same  # the error's traceback has this frame
            raise own_key_error(owner, key)
    return dependent


def own_key_error(owner: object, key: Hashable) -> RuntimeError:
    """Return what is raised in a load that would wait for itself."""
    return RuntimeError(
        f"the load of key={reprlib.repr(key)} in {owner!r} asked for its own key, directly or "
        f"through the loads of other keys, and would wait for itself. Compute the value without "
        f"asking for that key."
    )


def is_awaited(load: Load) -> bool:
    """Return whether a load is waited for by anything but loads that nothing else waits for."""
    seen: set[Load] = set()
    rest = [load]
    while rest:
        each = rest.pop()
        if each in seen:
            continue
        dependents = each.dependents or ()
        if each.is_over() or (each.in_block and each.kept) or each.waiters > len(dependents):
            return True
        seen.add(each)
        rest.extend(dependent.load for dependent in dependents)
        rest.extend(each.siblings)
    return False


def _is_part_of(call: Any) -> bool:
    """Return whether a coroutine is running, and awaits what runs here."""
    if not getattr(call, "cr_running", False):
        return False
    # A task that was started eagerly runs within the one that started it, but is not awaited by it:
    # then there are the frames of plain functions in between. That is so from Python 3.12 on.
    frame = currentframe()
    for _ in range(3):  # this one, `dependent_in`, and the plain function that called it
        frame = None if frame is None else frame.f_back
    while frame is not None and frame.f_code.co_flags & _AWAITS:  # pragma: no branch - see above
        if frame is call.cr_frame:
            return True
        frame = frame.f_back
    return False


def _same_key(dependent: Dependent, owner: object, key: Hashable) -> set[Load]:
    """Return the loads of ``key`` that may be waiting for the one of ``dependent``."""
    found: set[Load] = set()
    seen: set[Load] = set()
    rest = [dependent]
    while rest:
        for load in together(rest.pop().load):
            if load not in seen and not load.is_over():
                seen.add(load)
                if load.owner is owner and _is_same(load.key, key):
                    found.add(load)
                rest.extend(load.dependents or ())
    return found


def _waits(dependent: Dependent, targets: set[Load]) -> bool:
    """Return whether one of the loads is known to wait for what ``dependent`` does."""
    tasks = {each.id: each for each in anyio.get_running_tasks()}
    seen: set[tuple[int, Load]] = set()
    rest = [(dependent, dependent.load)]
    while rest:
        each, load = rest.pop()
        if (each.task, load) in seen or load.is_over():
            continue
        seen.add((each.task, load))
        if each.running or (load.in_block and _descends(each.task, load, tasks)):
            if not targets.isdisjoint(together(load)):
                return True
            rest.extend((further, further.load) for further in _dependents(load))
        elif not load.in_block:
            # It may be a child of the load around this one, which runs in the same task.
            rest.extend((each, further.load) for further in _dependents(load) if further.running)
    return False


def _dependents(load: Load) -> list[Dependent]:
    """Return the tasks in other loads that may wait for a load, or for those it ends with."""
    return [dependent for each in together(load) for dependent in each.dependents or ()]


def _descends(task: int, load: Load, tasks: dict[int, anyio.TaskInfo]) -> bool:
    """Return whether a task runs in a task group within a load that has a task of its own."""
    info = tasks.get(task)
    while info is not None:
        if _awaits(info.coro, load.call):
            return True
        info = None if info.parent_id is None else tasks.get(info.parent_id)
    return False


def _awaits(coroutine: Any, call: object) -> bool:
    """Return whether a coroutine awaits ``call``, itself or through others."""
    while coroutine is not None:
        if coroutine is call:
            return True
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return False


def _is_same(one: Hashable, other: Hashable) -> bool:
    """Return whether a dict takes two keys for one; not every pair of keys can be compared."""
    return one is other or (hash(one) == hash(other) and one == other)
