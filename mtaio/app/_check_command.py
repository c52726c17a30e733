"""
``mtaio check`` as the command-line parser sees it: for help and completion.

The work is done in `mtaio.app.check`, which ``python -m mtaio`` calls directly where the arguments
are plain, because loading the parser takes longer than the checks.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import Parameter

from mtaio.app.check import check_command

__all__ = ["check"]

_Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]


def check(target: str | None = None, /, *, json: _Flag = False, strict: _Flag = False) -> int:
    """
    Go through the checklist of the deployment guide: settings, machine, log, limits, secrets.

    TARGET is written MODULE:NAME, or MODULE:FUNCTION() for a function that returns it; without it
    only the settings and the machine are checked. The application is imported, and not started.
    Run this where the service will run, as the user that it will run as.

    Exit status: 0 nothing fails, 1 something does, 2 usage.

    Args:
        target: The application, as in shop:app or shop:make_app().
        json: Print JSON instead of text.
        strict: Fail on warnings too.
    """
    return check_command(target, json=json, strict=strict)
