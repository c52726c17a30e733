"""
``python -m mtaio``, which is the same as ``mtaio``.

Promise: if the extra it needs is missing, it says how to install it; ``mtaio check`` needs none. It
ends silently when the reader of its output has gone, as in ``mtaio check | head``.
"""

from __future__ import annotations

import os
import sys
from typing import Final

BROKEN_PIPE: Final = 141
"""The exit code that a shell gives a program ended by SIGPIPE."""


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
            from mtaio.app._check_command import check_command  # noqa: PLC0415 - most commands are others

            return check_command(*words, json="--json" in rest, strict="--strict" in rest)
        from mtaio.app import _cli  # noqa: PLC0415 - it needs what only the extra brings
    except ModuleNotFoundError as error:
        missing, _, _ = (error.name or "").partition(".")
        if missing != "cyclopts":
            raise
        message = "mtaio: the command needs cyclopts. Install it with: pip install 'mtaio[cli]'"
        print(message, file=sys.stderr)  # noqa: T201 - where a command complains
        return 2
    except KeyboardInterrupt:  # while it loads; later it is `_cli.main` that sees to it
        print("mtaio: interrupted", file=sys.stderr)  # noqa: T201 - ditto
        return 130
    return _cli.main()


if __name__ == "__main__":
    sys.exit(main())
