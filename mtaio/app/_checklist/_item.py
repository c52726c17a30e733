"""
One item of the checklist: the function that looks, and what it finds.

Adding an item is one function in the module of its section, decorated with `check`: its name is the
item's, and its place in the file the item's place in the list. It returns `ok`, `warn`, `fail` or
`ask` with what it saw, or None where there is nothing to look at::

    @check("performance")
    def uvloop(look: Look) -> Finding:
        if find_spec("uvloop") is None:
            return warn("not installed", "Install it with: pip install 'mtaio[uvloop]'")
        return ok("installed")

The deployment guide's table and the reference of the command name each item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.app._checklist._look import Look

    Check = Callable[[Look], "Finding | None"]

__all__ = [
    "ROWS",
    "SECTIONS",
    "CheckItem",
    "Finding",
    "Section",
    "Status",
    "ask",
    "check",
    "fail",
    "made",
    "ok",
    "warn",
]

Status: TypeAlias = Literal["ok", "warn", "fail", "ask"]
"""All is well; may be intended; does not work or is unsafe; only a person can tell."""

Section: TypeAlias = Literal["configuration", "monitoring", "errors", "performance", "security"]

SECTIONS: Final[tuple[Section, ...]] = (
    "configuration",
    "monitoring",
    "errors",
    "performance",
    "security",
)
"""The sections of the guide's checklist, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckItem:
    """One item of the checklist, and its status."""

    name: str
    """What is checked; always the same for the same item."""
    section: Section
    """The section of the guide's checklist."""
    status: Status
    """``"ok"``; ``"warn"``: look at it, it may be intended; ``"fail"``: it does not work, or is not
    safe; ``"ask"``: only a person can tell."""
    message: str
    """What was seen."""
    remedy: str
    """What to do; empty if there is nothing to do."""


class Finding(NamedTuple):
    """How an item stands."""

    status: Status
    message: str
    remedy: str = ""


def ok(message: str) -> Finding:
    return Finding("ok", message)


def warn(message: str, remedy: str) -> Finding:
    return Finding("warn", message, remedy)


def fail(message: str, remedy: str) -> Finding:
    return Finding("fail", message, remedy)


def ask(message: str, remedy: str) -> Finding:
    return Finding("ask", message, remedy)


class Row(NamedTuple):
    """One item of the checklist, and who looks at it."""

    name: str
    section: Section
    look: Check
    needs_settings: bool


ROWS: Final[list[Row]] = []
"""The checklist, in its order: each module of a section adds its own as it is imported."""


def check(section: Section, *, needs_settings: bool = True) -> Callable[[Check], Check]:
    """
    Put a function on the checklist, under its own name.

    Args:
        section: The section of the guide.
        needs_settings: Whether it is left out where the settings are refused.
    """

    def put(look: Check) -> Check:
        ROWS.append(Row(look.__name__, section, look, needs_settings))
        return look

    return put


def made(name: str, section: Section, found: Finding) -> CheckItem:
    """Return the item that a finding makes."""
    return CheckItem(
        name=name,
        section=section,
        status=found.status,
        message=found.message,
        remedy=found.remedy,
    )
