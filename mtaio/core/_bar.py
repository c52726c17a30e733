"""
The progress bar that `mtaio.core.progress` shows.

Promise: reporting progress stores a tuple; everything else happens when the display is drawn,
by rich's own thread, which ends with the block.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from rich.console import RenderableType

    from mtaio.core.progress import _OnProgress  # pyright: ignore[reportPrivateUsage] - its other half


def make_bar(
    description: str, *, console: Console | None, transient: bool
) -> AbstractContextManager[_OnProgress]:
    """Return the bar; without a terminal, a callback that shows nothing."""
    if console is None:
        console = Console(stderr=True)
    # Colours can be forced without a terminal; a bar makes no sense there.
    if console.is_interactive and console.file.isatty():
        return Bar(description, console=console, transient=transient)
    return nullcontext(_show_nothing)


def _show_nothing(done: int, total: int | None, detail: str = "") -> None:
    pass


class Bar(Progress):
    """
    A progress bar that is called with the progress so far.

    Args:
        description: What is being done.
        console: The terminal to show it on.
        transient: Whether it vanishes at the end.
    """

    def __init__(self, description: str, *, console: Console, transient: bool) -> None:
        self._latest: tuple[int, int | None, str] = (0, None, "")
        self._over = False
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            _TimeLeft(),
            console=console,
            transient=transient,
            # What the program prints appears above the bar, unless it goes to a file.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self.add_task(description, total=None, count="", detail="")

    def __call__(self, done: int, total: int | None, detail: str = "") -> None:
        """Report the progress."""
        self._latest = (done, total, detail)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Read the progress and draw it (rich calls this, a few times a second)."""
        done, total, detail = self._latest
        count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
        if total is None and self._over:
            total = done  # for the bar, which is full now
        for only in self.task_ids:  # none yet while rich draws for the first time
            self.update(only, completed=done, total=total, count=count, detail=detail)
        return super().get_renderables()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Draw the bar for the last time: as full, if the block ended without an error."""
        self._over = exc_type is None
        super().__exit__(exc_type, exc_val, exc_tb)


class _TimeLeft(TimeRemainingColumn):
    """The time left, as long as there is work left."""

    def render(self, task: Task) -> Text:
        return Text() if task.finished else super().render(task)
