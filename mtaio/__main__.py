"""
``python -m mtaio``, which is the same as ``mtaio``.

Promise: without the extra it needs, it says how to get that.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, and return the exit code."""
    try:
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
