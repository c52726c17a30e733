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
    from collections.abc import Hashable

__all__ = ["LOADING", "Asker", "asker_of", "is_awaited"]

_AWAITS: Final = CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR

LOADING: Final[ContextVar[Load | None]] = ContextVar("mtaio.cache.loading", default=None)
"""The innermost load that the running code may be part of."""


class Asker:
    """
    A task that waits for a load, perhaps as part of another one.

    Args:
        load: The load in whose context it runs.
        running: Whether it is that load's own task.
    """

    __slots__ = ("load", "running", "task")

    def __init__(self, load: Load, *, running: bool) -> None:
        self.load: Load = load
        self.running: bool = running
        self.task: int = 0 if running else anyio.get_current_task().id


def asker_of(loop: object, owner: object, key: Hashable) -> Asker | None:
    """
    Return the task that asks for ``key`` inside a load; None if no load around it is in progress.

    Args:
        loop: The running event loop.
        owner: The cache that is asked.
        key: The key that is asked for.

    Raises:
        RuntimeError: A load of ``key`` waits for that load.
    """
    load = LOADING.get()
    if load is None or load.is_over():
        return None
    asker = Asker(load, running=load.loop is loop and _is_part_of(load.call))
    same = _same_key(asker, owner, key)
    if same and _waits(asker, same):
        del load, asker, same  # the error's traceback has this frame
        msg = (
            f"the load of key={reprlib.repr(key)} in {owner!r} asked for its own key, itself or "
            f"through the loads of other keys, and would wait for itself. Compute the value "
            f"without asking for that key."
        )
        raise RuntimeError(msg)
    return asker


def is_awaited(load: Load) -> bool:
    """Return whether a load is waited for by anything but loads that nothing else waits for."""
    seen: set[Load] = set()
    rest = [load]
    while rest:
        each = rest.pop()
        if each in seen:
            continue
        if each.is_over() or (each.in_block and each.kept) or each.waiters > len(each.askers or ()):
            return True
        seen.add(each)
        rest.extend(asker.load for asker in each.askers or ())
        rest.extend(each.siblings)
    return False


def _is_part_of(call: Any) -> bool:
    """Return whether a coroutine is running, and awaits what runs here."""
    if not getattr(call, "cr_running", False):
        return False
    # A task that was started eagerly runs within the one that started it, but is not awaited by it:
    # then there are the frames of plain functions in between. That is so from Python 3.12 on.
    frame = currentframe()
    for _ in range(2):  # this one, and `asker_of`
        frame = None if frame is None else frame.f_back
    while frame is not None and frame.f_code.co_flags & _AWAITS:  # pragma: no branch - see above
        if frame is call.cr_frame:
            return True
        frame = frame.f_back
    return False


def _same_key(asker: Asker, owner: object, key: Hashable) -> set[Load]:
    """Return the loads of ``key`` that may be waiting for the one of ``asker``."""
    found: set[Load] = set()
    seen: set[Load] = set()
    rest = [asker]
    while rest:
        for load in together(rest.pop().load):
            if load not in seen and not load.is_over():
                seen.add(load)
                if load.owner is owner and _is_same(load.key, key):
                    found.add(load)
                rest.extend(load.askers or ())
    return found


def _waits(asker: Asker, targets: set[Load]) -> bool:
    """Return whether one of the loads is known to wait for what ``asker`` does."""
    tasks = {each.id: each for each in anyio.get_running_tasks()}
    seen: set[tuple[int, Load]] = set()
    rest = [(asker, asker.load)]
    while rest:
        each, load = rest.pop()
        if (each.task, load) in seen or load.is_over():
            continue
        seen.add((each.task, load))
        if each.running or (load.in_block and _descends(each.task, load, tasks)):
            if not targets.isdisjoint(together(load)):
                return True
            rest.extend((further, further.load) for further in _askers(load))
        elif not load.in_block:
            # It may be a child of the load around this one, which runs in the same task.
            rest.extend((each, further.load) for further in _askers(load) if further.running)
    return False


def _askers(load: Load) -> list[Asker]:
    """Return the tasks in other loads that may wait for a load, or for those it ends with."""
    return [asker for each in together(load) for asker in each.askers or ()]


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
