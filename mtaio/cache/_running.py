"""
Running one load, in the task of its caller or in one of the cache's block.

Promise: a loader is called once for each load, and how that ends is noted once, whatever happens;
a cancellation is never shared with those who wait. One load in 64 is a checkpoint, even if its
loader never suspends.
Cost: in the task of its caller one coroutine; in the block a task.
Why there are two ways to run a load, and what each costs: docs/en/design/caching.md.
"""

from __future__ import annotations

import math
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from mtaio._internal import deadlines
from mtaio._internal.callables import close_unstarted
from mtaio._internal.cancellation import raise_failure
from mtaio._internal.checkpoints import FAST_CALLS, checkpoint
from mtaio.cache._config import check_awaitable
from mtaio.cache._cycles import LOADING
from mtaio.cache._load import ABORTED, CLOSED, Load, together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mtaio.cache._cycles import Dependent
    from mtaio.cache._loads import Loads

__all__ = ["Runner"]

# Bound here: Python looks up a method of an imported name again for each call.
_enter_load: Final = LOADING.set
_leave_load: Final = LOADING.reset

_COROUTINE: type = CoroutineType
_NO_DEADLINE: Final = deadlines.Deadline(math.inf, None, alone=True)
"""In place of the first caller's, which does not limit the other callers."""


class Runner:
    """
    Runs the loads of one cache.

    Args:
        loads: Those in flight.
    """

    __slots__ = ("_left", "_loads")

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._left: int = FAST_CALLS - 1
        """How many loads may start in their callers' tasks before one yields."""

    async def run_here(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        dependent: Dependent | None,
    ) -> Any:
        """
        Run a load that has started in the task of its caller; return its value or raise its error.

        With siblings, what is returned is what the loader brought.
        """
        if dependent is not None:
            _note(load, dependent)
        token = _enter_load(load)
        try:
            if self._left:
                self._left -= 1
            else:
                self._left = FAST_CALLS - 1
                await checkpoint()
            call = loader(*args, **kwargs) if kwargs else loader(*args)  # ** makes a dict
            if type(call) is not _COROUTINE:
                check_awaitable(loader, call, several=bool(load.siblings))
            load.call = call
            try:
                value = await call
            except BaseException as error:
                raise_failure(error, loader)
                raise
            if load.siblings:
                self._loads.succeed_many(load, value)
            else:
                self._loads.succeed(load, value)
        except BaseException as error:
            with suppress(ValueError):  # the garbage collector closes it in any context
                _leave_load(token)
            if isinstance(error, Exception):
                self._loads.fail(load, error)
            elif isinstance(error, GeneratorExit):
                self._loads.abandon(load)
            else:
                self._loads.cancel(load, ABORTED)
            del load, token, dependent  # the error's traceback has this frame
            raise
        _leave_load(token)
        return value

    def start(
        self,
        load: Load,
        loader: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """
        Start the task of a load in the block.

        The loader is called here and now: it may be a lambda whose variables have other values
        when that task runs, and by then nobody may be in the call that gave it.
        """
        block = self._loads.block
        assert block is not None  # noqa: S101 - for the type checkers: it is to run there
        token = _enter_load(load)
        try:
            load.loader = loader
            load.call = loader(*args, **kwargs)
            if type(load.call) is not _COROUTINE:
                check_awaitable(loader, load.call, several=bool(load.siblings))
        except BaseException as error:
            if not isinstance(error, Exception):
                self._loads.cancel(load, ABORTED)
                raise
            self._loads.fail(load, error)
        else:
            load.coroutine = self._run(load)
            for each in load.siblings:
                each.call, each.coroutine = load.call, load.coroutine
            block.group.start(_itself, load.coroutine, name="mtaio.cache load")
        finally:
            for each in load.siblings or (load,):  # its caller is about to wait, or has a value
                each.waiters -= each.waiters > 0
            _leave_load(token)
            del load, token  # as in `run_here`

    async def _run(self, load: Load) -> None:
        """Load, in a task of the block."""
        _enter_load(load)
        deadlines.current.set(_NO_DEADLINE)
        call = load.call
        assert call is not None  # noqa: S101 - for the type checkers: it has started
        try:
            with load.scope:
                if not load.scope.cancel_called:
                    try:
                        value = await call
                    except GeneratorExit:  # here: the scope will raise something else for it
                        self._loads.abandon(load)
                        raise
                    except BaseException as error:
                        raise_failure(error, load.loader, own_task=True)
                        raise
                    if load.siblings:
                        self._loads.succeed_many(load, value)
                    else:
                        self._loads.succeed(load, value)
                    return
                close_unstarted(call)
        except Exception as error:  # noqa: BLE001 - raised by those who wait
            self._loads.fail(load, error)
            del load, call  # as in `run_here`
            return
        except BaseException:
            self._loads.cancel(load, CLOSED)
            raise
        self._loads.cancel(load, ABORTED)


def _note(load: Load, dependent: Dependent) -> None:
    """Note that the task that runs a load is part of another one, which so depends on it."""
    for each in together(load):
        each.dependents = {dependent: None}


def _itself(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
    return coroutine
