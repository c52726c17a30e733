"""The tree of tasks, for everyone: `tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import NoEventLoopError

from mtaio._internal import checks, loops, task_tree

if TYPE_CHECKING:
    from anyio.lowlevel import EventLoopToken

    from mtaio._internal.task_tree import TaskTree

__all__ = ["tasks"]


def tasks(loop: EventLoopToken | None = None, *, timeout: float = 0.25) -> TaskTree:
    """
    Return the tasks of an event loop: which started which, where each is, and what it waits for.

    Tasks are below the task group or nursery in which they were started. asyncio records nothing of
    a task from ``asyncio.create_task``: it is below the task that awaits it, if that is one alone,
    and else among the roots. So are those of ``asyncio.gather``.

    In the loop's own thread it is exact. From another thread the loop is asked to read its own
    tasks. If it is blocked and does not answer within ``timeout``, they are read from here, and
    the tree is not ``complete``: the loop may run on meanwhile. This raises nothing, and takes no
    longer than to look at each task once. On Python without the interpreter's lock there are then
    only the names of asyncio's tasks, and nothing of trio's.

    Not a checkpoint. It may be called in a signal handler.

    Args:
        loop: The event loop, as ``anyio.lowlevel.current_token()`` returns it in one of its tasks;
            by default the one that runs here.
        timeout: Seconds to wait for a loop of another thread; 0 does not ask it.

    Raises:
        RuntimeError: No event loop runs here, and none is given.
        TypeError: ``loop`` is not what ``current_token()`` returns.
        ValueError: ``timeout`` is negative, infinite or not a number.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import tasks


        async def main() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 1, name="nap")
                await anyio.sleep(0)
                for depth, node in tasks().walk():
                    print("  " * depth, node.where)
                group.cancel_scope.cancel()


        anyio.run(main)
        ```
    """
    seconds = checks.at_least(
        "timeout", timeout, 0, way_out="Give the seconds to wait for a loop of another thread."
    )
    if loop is not None:
        native = getattr(loop, "native_token", None)
        if native is None:
            raise checks.refusal(
                TypeError,
                f"loop={loop!r} is not the token of an event loop",
                "Pass anyio.lowlevel.current_token(), taken in one of its tasks.",
            )
        return task_tree.read_from_anywhere(native, seconds)
    try:
        here = loops.current_loop()
    except NoEventLoopError:
        msg = (
            "tasks() was called where no event loop runs. Call it in a task, or give it the loop: "
            "anyio.lowlevel.current_token(), taken in one of its tasks."
        )
        raise RuntimeError(msg) from None
    return task_tree.read(here)
