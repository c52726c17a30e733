"""
The command line of mtaio.

Promise: `main` returns the exit code, whatever happens. Digests, tables and JSON go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from cyclopts import App, CycloptsError

from mtaio import __version__
from mtaio.app._checksums import OutputError
from mtaio.app._job import UsageError, run
from mtaio.app._options import DEFAULTS, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

app: Final[App] = App(
    name="mtaio",
    help="Structured concurrency for real work, under limits, on asyncio or trio.",
    version=f"mtaio {__version__}",
    suppress_keyboard_interrupt=False,
)


@app.command
def demo(path: str = ".", /, *, options: Options = DEFAULTS) -> int:
    """
    Hash every file under PATH with SHA-256, many at once: mtaio's main job on real files.

    Regular files are hashed. Symbolic links are not followed; they, FIFOs, sockets and devices are
    skipped and counted. What cannot be read (no permission, gone meanwhile, too slow) is reported
    and does not stop the rest.

    Exit status: 0 all was read, 1 something could not be read, 2 usage, 130 interrupted.

    Args:
        path: A folder, or a single file.
        options: How to do it.
    """
    return run(path, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        arguments: Without the program's name; ``sys.argv``'s if None.

    Returns:
        The exit code.
    """
    code = INTERRUPTED
    try:
        code = _main(arguments)
    except* KeyboardInterrupt:
        _say("interrupted")
    return code


def _main(arguments: Sequence[str] | None) -> int:
    tokens = sys.argv[1:] if arguments is None else list(arguments)
    try:
        result = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        command = " ".join(["mtaio", *(error.command_chain or ())])
        _say(f"{error}\nTry: {command} --help")
        return USAGE
    except UsageError as error:
        _say(str(error))
        return USAGE
    except OutputError as error:
        _say(str(error))
        return FAILED
    return result or 0


def _say(message: str) -> None:
    print(f"mtaio: {message}", file=sys.stderr)  # noqa: T201 - where a command complains
