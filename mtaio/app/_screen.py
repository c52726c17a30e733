"""
What people see of the demo while it works: a bar, and a line for each path that was not hashed.

Promise: all of it goes to stderr, one line a path whatever its name holds. Where stderr is no
terminal there is no bar.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from mtaio.app._outcomes import LINK, Failed, Skipped, printable
from mtaio.core import progress

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mtaio.app._outcomes import Outcome
    from mtaio.core.progress import OnProgress


class Screen:
    """
    Shows how the work goes on. Enter it with ``with``.

    Args:
        quiet: Whether to show failures alone.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._open = ExitStack()
        self._on_progress: OnProgress | None = None

    def __enter__(self) -> Self:
        if not self._quiet:
            bar = progress.bar("hashing", console=self._console, transient=True)
            self._on_progress = self._open.enter_context(bar)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._open.close()

    def show(self, outcome: Outcome) -> None:
        """Say what is unusual about an outcome; symbolic links by the thousand are not."""
        if isinstance(outcome, Failed):
            self._say(f"{printable(outcome.path)}: {outcome.reason}", "red")
        elif isinstance(outcome, Skipped) and outcome.kind != LINK and not self._quiet:
            self._say(f"{printable(outcome.path)}: skipped, {outcome.kind}", "yellow")

    def count(self, files: int, size: int) -> None:
        """Move the bar."""
        if self._on_progress is not None:
            self._on_progress(files, None, f"files, {decimal(size)}")

    def _say(self, line: str, style: str) -> None:
        # A path is to be copied from the screen as it is: no wrapping, no markup.
        self._console.print(Text(line, style), soft_wrap=True)
