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
    Return the tasks of an event loop as a tree, with what each of them waits for.

    Tasks are below the task group or nursery in which they were started. Tasks from
    ``asyncio.create_task`` and ``asyncio.gather`` are below the task that awaits them, if it is
    only one, and otherwise among the roots.

    In the loop's own thread, the tree is exact. From another thread, the loop is asked to read its
    own tasks. If it is blocked and does not answer within ``timeout``, the tasks are read from this
    thread, and the tree is not ``complete``, because the loop may go on meanwhile. On free-threaded
    Python, there are then only the names of asyncio's tasks, and none of trio's.

    Not a checkpoint. It can be called in a signal handler.

    Args:
        loop: What ``anyio.lowlevel.current_token()`` returns in a task of the event loop; None for
            the loop that is running here.
        timeout: Seconds to wait for an event loop in another thread; 0 to read its tasks without
            asking it.

    Raises:
        RuntimeError: No event loop is running here, and none was given.
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
    Return a tree of tasks as text: deadlocks first, then what is waited for, then the tree.

    Equal siblings are shown in one line with their number. The tree has at most 1,000 lines; the
    rest is counted. The text contains names of tasks, files and functions, but no values.

    Args:
        tree: The result of `tasks`.
        stacks: Whether to show the stack of each task.

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
    Return a tree of tasks as JSON, like ``/tasks?format=json`` of `Probes`.

    Args:
        tree: The result of `tasks`.
    """
    return b"".join(json_pieces(document(tree))).decode()
