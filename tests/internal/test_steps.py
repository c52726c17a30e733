"""Coroutines that are driven by hand."""

from __future__ import annotations

from contextvars import copy_context

import anyio
import pytest

from mtaio._internal.backend import new_waiter
from mtaio._internal.steps import begin, run_in
from mtaio.monitoring import TaskNode, tasks


async def test_what_does_not_suspend_has_ended() -> None:
    """Work that never suspends is over at once, and there is no rest to await."""
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert begin(work()) is None
    assert done == [1]


async def test_the_rest_runs_in_a_scope_entered_after_the_beginning() -> None:
    """A scope around the rest cancels work that began outside of it, which sees that."""
    seen: list[str] = []

    async def work() -> None:
        seen.append("begun")
        try:
            await new_waiter()
        except BaseException:
            seen.append("cancelled")
            raise

    rest = begin(work())
    assert rest is not None
    with anyio.move_on_after(0.5) as scope:
        await rest
    assert scope.cancelled_caught
    assert seen == ["begun", "cancelled"]


async def test_the_rest_goes_on_to_its_end() -> None:
    """What the event loop sends reaches the work, as often as it suspends."""
    times: list[float] = []

    async def work() -> None:
        for _ in range(3):
            await anyio.sleep(1)
            times.append(anyio.current_time())

    before = anyio.current_time()
    rest = begin(work())
    assert rest is not None
    await rest
    assert [moment - before for moment in times] == [1, 2, 3]


def test_an_error_at_the_beginning_is_raised() -> None:
    """Work that fails before it suspends raises where it is begun."""

    async def work() -> None:
        msg = "too early"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="too early"):
        begin(work())


async def test_what_is_driven_can_be_looked_at() -> None:
    """A look at tasks follows the awaits of what is driven by hand, in a context of its own too."""

    async def deep() -> None:
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(run_in, copy_context(), deep())
        await anyio.sleep(0.1)
        stacks = [node.stack for _, node in tasks().walk() if isinstance(node, TaskNode)]
    assert any(line.endswith(".deep") for stack in stacks for line in stack)
