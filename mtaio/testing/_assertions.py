"""
Assertions that nothing is left over, and on whether a block is a checkpoint.

Promise: `assert_quiescent` reads only statistics, and refuses an object whose statistics show
neither waiters nor tokens, rather than passing it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

import anyio

from mtaio.testing._world import world_here

BUSY: Final = frozenset(
    {
        # mtaio's
        "active",
        "in_flight",
        "in_use",
        "open",
        "pending",
        "processes_in_use",
        "processes_waiting",
        "running",
        "services",
        "submitted",
        "threads_in_use",
        "threads_waiting",
        "up",
        "wait_fors",
        "waiting",
        # anyio's
        "borrowed_tokens",
        "current_buffer_used",
        "locked",
        "tasks_waiting",
        "tasks_waiting_receive",
        "tasks_waiting_send",
        "open_receive_streams",
        "open_send_streams",
    }
)
"""The fields of ``statistics()`` that are 0 or False when the object is not in use."""


def assert_quiescent(*objects: Any) -> None:
    """
    Raise ``AssertionError`` if one of ``objects`` is still in use.

    It looks at the fields of ``statistics()`` that count waiters, running tasks and held slots,
    also in nested statistics. The primitives of mtaio and AnyIO have that method. An
    ``anyio.Semaphore`` shows held slots only if it was created with ``max_value``. Not a
    checkpoint.

    Args:
        objects: The objects that should not be in use.

    Raises:
        AssertionError: One is in use. The message names it and the fields that show it.
        TypeError: No object was given, or one has no such statistics.

    Example:
        ```python
        import anyio

        from mtaio.testing import assert_quiescent, run


        async def main() -> None:
            lock = anyio.Lock()
            async with lock:
                try:
                    assert_quiescent(lock)
                except AssertionError as error:
                    assert "locked=True" in str(error)
            assert_quiescent(lock)


        run(main)
        ```
    """
    if not objects:
        msg = "assert_quiescent() was given nothing to look at. Pass the objects under test."
        raise TypeError(msg)
    left: list[str] = []
    for each in objects:
        statistics = getattr(each, "statistics", None)
        looked_at = list(_counts(statistics())) if callable(statistics) else []
        if isinstance(each, anyio.Semaphore) and each.max_value is not None:
            looked_at.append(("taken", each.max_value - each.value))
        if not looked_at:
            msg = (
                f"assert_quiescent() cannot tell about {each!r}: it has no statistics() with a "
                f"field such as 'waiting' or 'tasks_waiting'. Assert what should hold yourself."
            )
            raise TypeError(msg)
        busy = [f"{name}={value!r}" for name, value in looked_at if value]
        if busy:
            left.append(f"{each!r} has {', '.join(busy)}")
    if left:
        raise AssertionError("not quiescent: " + "; ".join(left))


def _counts(statistics: object) -> Iterator[tuple[str, Any]]:
    """Yield the telling fields of statistics, and those of the statistics among them."""
    if isinstance(statistics, type):
        return
    if isinstance(statistics, Mapping):  # the parts of a pipeline
        for value in cast("Mapping[Any, object]", statistics).values():
            yield from _counts(value)
        return
    names: Iterable[str] = getattr(statistics, "_fields", ())  # of a named tuple
    if is_dataclass(statistics):
        names = [field.name for field in fields(statistics)]
    for name in names:
        value = getattr(statistics, name)
        if name in BUSY:
            yield name, value
        else:
            yield from _counts(value)


@contextmanager
def assert_checkpoints() -> Generator[None]:
    """
    Raise ``AssertionError`` if the block does not let other tasks run.

    It counts the steps of the current task, so only a real turn of the event loop counts; an
    ``anyio.lowlevel.checkpoint_if_cancelled`` does not. A block that raises is not checked.

    Raises:
        AssertionError: The block was not a checkpoint.
        RuntimeError: No simulation is running, or the backend's version does not show its steps.

    Example:
        ```python
        import anyio

        from mtaio.testing import assert_checkpoints, assert_no_checkpoints, run


        async def main() -> None:
            with assert_checkpoints():
                await anyio.sleep(0)
            with assert_no_checkpoints():
                anyio.Event().set()


        run(main)
        ```
    """
    __tracebackhide__ = True
    before = _steps_taken("assert_checkpoints")
    yield
    if _steps_taken("assert_checkpoints") == before:
        msg = "the block should be a checkpoint, but the event loop did not turn in it"
        raise AssertionError(msg)


@contextmanager
def assert_no_checkpoints() -> Generator[None]:
    """
    Raise ``AssertionError`` if the block lets other tasks run.

    This is the opposite of `assert_checkpoints`.

    Raises:
        AssertionError: The block was a checkpoint.
        RuntimeError: As for `assert_checkpoints`.
    """
    __tracebackhide__ = True
    before = _steps_taken("assert_no_checkpoints")
    yield
    if _steps_taken("assert_no_checkpoints") != before:
        msg = "the block should not be a checkpoint, but the event loop turned in it"
        raise AssertionError(msg)


def _steps_taken(caller: str) -> int:
    """Return how many steps tasks have taken; none can take one without this one letting go."""
    world = world_here()
    if world is None or world.scope is None:
        msg = (
            f"{caller}() cannot count: no simulation is running. Start one with "
            f"mtaio.testing.run(), or give the test a virtual_backend()."
        )
        raise RuntimeError(msg)
    return world.observed().number
