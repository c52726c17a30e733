"""
A progress bar for every call that takes ``on_progress=``.

Promise: a bar on a terminal, and nothing elsewhere.
Cost: one store for each item, since the display reads it a few times a second. This module needs
rich, and refuses to be imported without it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

try:
    from rich.console import Console
except ImportError as _error:
    msg = "mtaio.core.progress needs rich. Install it with: pip install 'mtaio[cli]'"
    raise ImportError(msg, name=_error.name) from _error

__all__ = ["bar"]


class _OnProgress(Protocol):
    """What ``on_progress=`` takes, and can also be called with something else to show."""

    def __call__(self, done: int, total: int | None, detail: str = "") -> object:
        """
        Report the progress. Not a checkpoint.

        Args:
            done: Items that have ended.
            total: Items in all; None if not known.
            detail: What else to show after the number.
        """
        ...


def bar(
    description: str = "", *, console: Console | None = None, transient: bool = False
) -> AbstractContextManager[_OnProgress]:
    """
    Return a context manager that shows a progress bar and yields an ``on_progress=`` callback.

    The bar is drawn on stderr, so the program's output can be redirected. If the total is unknown,
    the bar moves without filling. If stderr is not a terminal, nothing is shown. Not a checkpoint.

    Example:
        ```python
        import anyio

        from mtaio import TaskExecutor
        from mtaio.core import progress

        executor = TaskExecutor(max_workers=10)


        async def work(number: int) -> None:
            await anyio.sleep(0.01)


        async def main() -> None:
            with progress.bar("working") as on_progress:
                await executor.for_each(work, range(100), on_progress=on_progress)


        anyio.run(main)
        ```

    Args:
        description: A word or two about what is being done.
        console: The ``rich`` console to draw on; print to the same one to write above the bar.
        transient: Whether the bar disappears at the end of the block.
    """
    from mtaio.core._bar import make_bar  # noqa: PLC0415 - loaded when a bar is made

    return make_bar(description, console=console, transient=transient)
