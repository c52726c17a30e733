"""The tree of tasks for users: `tasks` reads it, and it can be shown as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import NoEventLoopError

from mtaio._internal import checks, loops, task_tree
from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_text import text_pieces

if TYPE_CHECKING:
    from anyio.lowlevel import EventLoopToken

    from mtaio._internal.task_tree import TaskTree

__all__ = ["tasks", "tasks_to_json", "tasks_to_text"]


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


def tasks_to_text(tree: TaskTree, *, stacks: bool = False) -> str:
    """
    Return a tree of tasks as text: tasks that wait for each other, what is waited for, the tree.

    Equal siblings are one line with their number. There are at most 1,000 lines of the tree; what
    they leave out is counted. It has names of tasks, files, functions and lines, and no values.

    Args:
        tree: What `tasks` has returned.
        stacks: Whether each task's stack is below it.

    Example:
        ```python
        import anyio

        from mtaio.monitoring import tasks, tasks_to_text


        async def main() -> None:
            print(tasks_to_text(tasks()))


        anyio.run(main)
        ```
    """
    return b"".join(text_pieces(document(tree), stacks=stacks)).decode()


def tasks_to_json(tree: TaskTree) -> str:
    """
    Return the same as JSON, which ``/tasks?format=json`` of the probes answers with.

    Args:
        tree: What `tasks` has returned.
    """
    return b"".join(json_pieces(document(tree))).decode()
