"""
``python -m mtaio``, which is the same as ``mtaio``.

Promise: without the extra it needs, it says how to get that. ``mtaio check`` needs none. A reader
that has read enough, as in ``mtaio check | head``, ends it without a word.
"""

from __future__ import annotations

import os
import sys
from typing import Final

BROKEN_PIPE: Final = 141
"""What a shell says of a program that SIGPIPE has ended."""


def main() -> int:
    """Run the command line, and return the exit code."""
    try:
        code = _main()
        print(end="", flush=True)  # noqa: T201 - what is not written yet fails here, not at the exit
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again
        return BROKEN_PIPE
    return code


def _main() -> int:
    command, *rest = sys.argv[1:] or [""]
    words = [word for word in rest if word not in {"--json", "--strict"}]
    try:
        if command == "check" and len(words) <= 1 and not "".join(words).startswith("-"):
            # Plain enough to be read here: the parser loads longer than the checks take.
            from mtaio.app.check import check_command  # noqa: PLC0415 - most commands are others

            return check_command(*words, json="--json" in rest, strict="--strict" in rest)
        from mtaio.app import cli  # noqa: PLC0415 - it needs what only the extra brings
    except ModuleNotFoundError as error:
        missing, _, _ = (error.name or "").partition(".")
        if missing != "cyclopts":
            raise
        message = "mtaio: the command needs cyclopts. Install it with: pip install 'mtaio[cli]'"
        print(message, file=sys.stderr)  # noqa: T201 - where a command complains
        return 2
    except KeyboardInterrupt:  # while it loads; later it is `cli.main` that sees to it
        print("mtaio: interrupted", file=sys.stderr)  # noqa: T201 - ditto
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
