"""The progress bar: what it shows on a terminal, that it shows nothing elsewhere, what it needs."""

from __future__ import annotations

import importlib
import io
import re
import sys
from textwrap import dedent
from types import ModuleType

import anyio
import pytest
from rich.console import Console

import mtaio.testing
from mtaio.core import TaskExecutor, progress


class Terminal(io.StringIO):
    """A terminal that remembers what was written to it."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True

    def lines(self) -> list[str]:
        """Return what was written, without colours and movements of the cursor."""
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())
        return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture(autouse=True)
def terminal_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what in the environment would change how rich draws."""
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


async def work(number: int) -> None:
    """Take some time."""
    await anyio.sleep(number)


async def test_bar_follows_a_call() -> None:
    """Passed as ``on_progress``, the bar ends at the number of items in all."""
    terminal = Terminal()
    with progress.bar("working", console=Console(file=terminal, width=80)) as on_progress:
        await TaskExecutor(2).for_each(work, range(1200), on_progress=on_progress)
    assert re.fullmatch(r"working ━{24} 1,200/1,200 +\d:\d\d:\d\d", terminal.lines()[-1])


async def test_bar_without_a_total() -> None:
    """While the total is not known the bar counts; at the end of the block it is full."""
    terminal = Terminal()
    with progress.bar("working", console=Console(file=terminal, width=80)) as on_progress:
        await TaskExecutor(2).for_each(work, (n for n in range(5)), on_progress=on_progress)
        assert "/" not in terminal.lines()[-1]
    assert re.match(r"working ━{24} 5 ", terminal.lines()[-1])


def test_bar_of_a_block_that_failed() -> None:
    """A block that raises leaves the bar where it was, and the error alone."""
    terminal = Terminal()
    console = Console(file=terminal, width=80)

    def fail() -> None:
        with progress.bar("working", console=console) as on_progress:
            on_progress(3, None)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert re.match(r"working ━{24} 3 +\d", terminal.lines()[-1])


def test_bar_shows_details() -> None:
    """Details are shown after the number, and nothing in them is markup."""
    terminal = Terminal()
    with progress.bar("[red]", console=Console(file=terminal, width=80)) as on_progress:
        on_progress(2, 7, "[bold] files")
    assert re.match(r"\[red\] ━{24} 2/7 \[bold\] files ", terminal.lines()[-1].replace("╸", "━"))


def test_transient_bar_vanishes() -> None:
    """A transient bar is wiped off at the end: the last thing that is written clears its line."""
    terminal = Terminal()
    with progress.bar(
        "working", console=Console(file=terminal, width=80), transient=True
    ) as on_progress:
        on_progress(1, 1)
    assert terminal.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize("force", [None, "1"])
def test_no_bar_without_a_terminal(monkeypatch: pytest.MonkeyPatch, force: str | None) -> None:
    """Where there is no terminal nothing is shown, whether or not colours are forced upon it."""
    if force is not None:
        monkeypatch.setenv("FORCE_COLOR", force)
    file = io.StringIO()
    with progress.bar("working", console=Console(file=file)) as on_progress:
        on_progress(1, 2)
    assert file.getvalue() == ""


def test_bar_stands_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a console of its own the bar writes to stderr, which is not a terminal here."""
    with progress.bar("working") as on_progress:
        on_progress(1, 2)
        print("result")  # noqa: T201 - what a program prints meanwhile
    assert capsys.readouterr() == ("result\n", "")


def test_missing_rich_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rich the error says what to install."""
    monkeypatch.delitem(sys.modules, "mtaio.core.progress")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(
        ImportError,
        match=r"^mtaio\.core\.progress needs rich\. Install it with: pip install 'mtaio\[cli\]'$",
    ):
        importlib.import_module("mtaio.core.progress")


def test_docstring_program_runs(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The program in the docstring runs on each backend."""
    fence = re.search(r"```python\n(.*?)```", progress.bar.__doc__ or "", re.DOTALL)
    assert fence is not None
    program = ModuleType("docstring_example")
    source = dedent(fence[1].replace("anyio.run(main)\n", ""))
    exec(compile(source, "docstring", "exec"), vars(program))  # noqa: S102 - our own docstring
    mtaio.testing.run(program.main, backend=backend)
    assert capsys.readouterr() == ("", "")
