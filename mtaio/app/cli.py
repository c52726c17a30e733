"""
The command line of mtaio: its commands, and their exit codes.

Promise: `main` returns the exit code, or raises it in a `SystemExit`, as an application does. A
mistake in the command gives a message without a traceback, and the exit code 2.
Cost: a command is imported only when it is called.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Literal

from cyclopts import App, CycloptsError

from mtaio import __version__
from mtaio.app._usage import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

INTERRUPTED: Final = 130

app: Final[App] = App(
    name="mtaio",
    help="Structured concurrency for real work, under limits, on asyncio or trio.",
    version=f"mtaio {__version__}",
    version_format="plaintext",  # the default loads a parser of Markdown, for one line
    suppress_keyboard_interrupt=False,
)
app.command("mtaio.app._check_command:check", name="check")
app.command("mtaio.app._demo_command:demo", name="demo")
app.command("mtaio.app._run_command:run", name="run")


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """
    Print the script that makes a shell complete mtaio's commands and options.

    Write it to where the shell looks for such scripts: for bash to
    ~/.local/share/bash-completion/completions/mtaio, for zsh to _cyclopts_mtaio in a folder of
    $fpath, for fish to ~/.config/fish/completions/mtaio.fish.

    Args:
        shell: The shell to write it for.
    """
    print(app.generate_completion(shell=shell))  # noqa: T201 - this is what the command is asked for


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: Without the program's name; ``sys.argv``'s if None.

    Returns:
        The exit code.

    Raises:
        SystemExit: The application that was run ended with a code other than 0.
    """
    code = INTERRUPTED
    try:
        code = _main(arguments)
    except* KeyboardInterrupt:
        _say("interrupted")
    return code


def _main(arguments: Sequence[str] | None) -> int:
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    if tokens[:1] in ([], ["--help"], ["-h"]):
        app.resolved_commands()  # whose first lines are in the list of commands
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["mtaio", *(error.command_chain or ())])
        _say(f"{error}\nTry: {command} --help")
        return UsageError.exit_code
    except CommandError as error:
        _say(str(error))
        return error.exit_code
    return result or 0


def _say(message: str) -> None:
    print(f"mtaio: {message}", file=sys.stderr)  # noqa: T201 - where a command complains
