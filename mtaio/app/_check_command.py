"""
``mtaio check``: the checklist of the deployment guide, executed, before a deployment.

Promise: the application is imported, and never entered or started. The report goes to stdout, one
line for each item with its remedy below, or as JSON; the traceback of a failed import goes to
stderr.
Cost: what importing the application costs, and some 50 ms.
"""

from __future__ import annotations

import json as json_format
import os
import sys
import textwrap
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from mtaio.app._checklist import SECTIONS, CheckItem, Status, run_checks
from mtaio.app._load import load_application, own_traceback
from mtaio.app._usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtaio.app import Application

__all__ = ["check_command"]

_FAILED: Final = 1

_SIGNS: Final[dict[Status, tuple[str, str, str]]] = {
    "ok": ("ok", "32", "ok"),
    "ask": ("ask", "36", "to answer"),
    "warn": ("warn", "33", "to look at"),
    "fail": ("FAIL", "1;31", "failed"),
}
"""How each status is shown, in which colour of a terminal, and how it is counted."""

_INDENT: Final = "  "
_NARROWEST: Final = 60
_WIDEST: Final = 120


def check_command(target: str | None = None, *, json: bool = False, strict: bool = False) -> int:
    """
    Go through the checklist, print it, and return the exit code.

    Args:
        target: The application, as in ``"shop:app"``; None to check the settings and the machine
            alone.
        json: Whether to print JSON.
        strict: Whether a warning counts as a failure.

    Returns:
        0 if nothing failed, 1 if something did, 2 if there is no such application.
    """
    app: Application | None = None
    broken: CheckItem | None = None
    if target is not None:
        try:
            app = _loaded(target)
        except UsageError as error:
            print(f"mtaio: {error}", file=sys.stderr)  # noqa: T201 - where a command complains
            return error.exit_code
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of the program, which is told
            print(own_traceback(error), file=sys.stderr)  # noqa: T201 - ditto
            broken = _broken(target, error)
    items = run_checks(app)
    if broken is not None:
        items = [broken, *(each for each in items if each.name != broken.name)]
    print(_as_json(target, items) if json else _as_text(target, items))  # noqa: T201 - the report
    bad = {"fail", "warn"} if strict else {"fail"}
    return _FAILED if any(each.status in bad for each in items) else 0


def _loaded(target: str) -> Application:
    with warnings.catch_warnings():
        # Modules read settings while they are imported; the list has an item for this warning.
        warnings.filterwarnings("ignore", "variables that mtaio does not read", UserWarning)
        return load_application(target)


def _broken(target: str, error: BaseException) -> CheckItem:
    """Return the item for an application that cannot be imported."""
    if isinstance(error, SystemExit):
        remedy = 'Put app.run() under if __name__ == "__main__", so that an import does not run it.'
    else:
        remedy = (
            "Fix the program: its traceback is on standard error. The rest was checked without it."
        )
    reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return CheckItem(
        name="application",
        section="configuration",
        status="fail",
        message=f"importing {target} raised {reason}",
        remedy=remedy,
    )


# ---- the report ----------------------------------------------------------------------------------


def _counts(items: Sequence[CheckItem]) -> dict[Status, int]:
    return {status: sum(each.status == status for each in items) for status in _SIGNS}


def _as_json(target: str | None, items: Sequence[CheckItem]) -> str:
    """Return the report as one JSON object, in ASCII."""
    report = {
        "application": target,
        "counts": _counts(items),
        "items": [asdict(each) for each in items],
    }
    return json_format.dumps(report, indent=2)


def _as_text(target: str | None, items: Sequence[CheckItem]) -> str:
    """Return the report for people: a block for each section, and how many there are of each."""
    width = _width()
    name_width = max(len(_title(each)) for each in items)
    colour = _wants_colour()
    lines = [f"checklist of {target or 'the settings and the machine'}"]
    for section in SECTIONS:
        found = [each for each in items if each.section == section]
        lines += ["", section] if found else []
        for each in found:
            lines += _item_lines(each, name_width, width, colour=colour)
    return "\n".join([*lines, "", _summary(items)])


def _item_lines(item: CheckItem, name_width: int, width: int, *, colour: bool) -> list[str]:
    sign, code, _ = _SIGNS[item.status]
    head = f"{_INDENT}{sign:<4}  {_title(item):<{name_width}}  "
    indent = " " * len(head)
    wrapped = textwrap.TextWrapper(
        width=width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )
    lines = wrapped.wrap(head + _printable(item.message))
    if item.remedy:
        wrapped.initial_indent = indent
        lines += wrapped.wrap(_printable(item.remedy))
    if colour:
        lines[0] = lines[0].replace(sign, f"\x1b[{code}m{sign}\x1b[0m", 1)
    return lines


def _title(item: CheckItem) -> str:
    return item.name.replace("_", " ")


def _summary(items: Sequence[CheckItem]) -> str:
    return ", ".join(
        f"{count} {_SIGNS[status][2]}" for status, count in _counts(items).items() if count
    )


def _printable(text: str) -> str:
    """Return a text with nothing in it that a terminal would act upon, or that UTF-8 lacks."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _width() -> int:
    """Return how wide lines may be: as the terminal is, within reason."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):  # not a terminal, or not even a file
        return _WIDEST
    return min(max(columns, _NARROWEST), _WIDEST)


def _wants_colour() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
