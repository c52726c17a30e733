"""A block: how its task group ended is returned, and who may enter, leave and use it is checked."""

from __future__ import annotations

import os
import re
from typing import NoReturn

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mtaio._internal.block import Blocks, OwnedBlock


async def fail(error: Exception) -> NoReturn:
    """Raise, once it has begun."""
    await checkpoint()
    raise error


async def enter() -> OwnedBlock:
    """Return a group that was entered here."""
    group = OwnedBlock("<owner>")
    await group.enter()
    return group


async def test_nothing_happened() -> None:
    """A group that ends well has raised nothing."""
    group = await enter()
    group.start(checkpoint)
    assert group.is_current()
    assert not group.is_over()
    assert await group.leave(None) == (False, None, ())


async def test_errors_of_tasks() -> None:
    """What a task raises comes in the group that it was put in, and by itself."""
    group = await enter()
    error = LookupError()
    group.start(fail, error)
    end = await group.leave(None)
    assert not end.swallowed
    assert isinstance(end.raised, ExceptionGroup)
    assert end.errors == end.raised.exceptions == (error,)


async def test_own_cancellation_is_swallowed() -> None:
    """The cancellation of the group's scope ends with the group."""
    group = await enter()
    group.cancel()
    with pytest.raises(anyio.get_cancelled_exc_class()) as caught:
        await checkpoint()
    assert await group.leave(caught.value) == (True, None, ())


async def test_cancellation_from_outside_goes_on() -> None:
    """A cancellation that is not the group's is what it raises, for the caller to raise again."""
    with anyio.CancelScope() as scope:
        group = await enter()
        group.start(anyio.sleep_forever)
        scope.cancel()
        end = await group.leave(None)
        assert isinstance(end.raised, anyio.get_cancelled_exc_class())
        assert end.errors == ()
        raise end.raised
    assert scope.cancelled_caught


async def test_leaving_in_another_task_is_refused() -> None:
    """Only the task that entered may leave, and the message names the owner."""
    group = await enter()

    async def leave() -> None:
        with pytest.raises(RuntimeError, match=f"^{re.escape(repr('<owner>'))} was entered in ano"):
            group.check_task()

    async with anyio.create_task_group() as others:
        others.start_soon(leave)
    group.check_task()
    assert await group.leave(None) == (False, None, ())


def test_a_finished_loop_is_over(backend: str) -> None:
    """A block whose event loop has finished can no longer be left."""
    groups: list[OwnedBlock] = []

    async def main() -> None:
        groups.append(OwnedBlock("<owner>"))

    anyio.run(main, backend=backend)
    assert groups[0].is_over()
    assert not groups[0].is_current()


async def test_a_forked_child_enters_its_own_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was entered before the fork is the parent's: there it is current, and left."""
    blocks: Blocks[OwnedBlock] = Blocks()
    blocks.current = before = OwnedBlock("<owner>")
    other = os.getpid() + 1
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: other)
        assert before.is_over()
        assert not before.is_current()
        with pytest.raises(RuntimeError, match=r"^'<owner>' is not entered, and call\(\) works"):
            blocks.entered("<owner>", "call()")
        assert blocks.vacate("<owner>") is before
        blocks.current = OwnedBlock("<owner>")
        assert blocks.entered("<owner>", "call()") is blocks.leaving(None) is blocks.current
    assert not before.is_over()
    assert before.is_current()


async def test_a_block_that_is_over_is_left_without_a_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is for its owner to forget it, in whatever task that is."""
    blocks: Blocks[OwnedBlock] = Blocks()
    blocks.current = before = OwnedBlock("<owner>")
    other = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: other)

    async def leave() -> None:
        assert blocks.leaving(GeneratorExit()) is before

    async with anyio.create_task_group() as group:
        group.start_soon(leave)
