"""The tree of tasks as text and as JSON, for everyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtaio._internal.task_document import document, json_pieces
from mtaio._internal.task_text import text_pieces

if TYPE_CHECKING:
    from mtaio._internal.task_tree import TaskTree

__all__ = ["tasks_to_json", "tasks_to_text"]


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
