"""
Environment variables: one reading for all that mtaio takes from them.

Promise: names are exact, in upper case; a variable that is empty or blank counts as not set; a
value that cannot be read raises ``ValueError`` that names the variable, the value and the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PREFIX: Final = "MTAIO_"
"""How the variables begin that are read as settings."""

WORKER: Final = f"{PREFIX}WORKER"
"""The variable with a worker's number, from 1 on, which its supervisor sets; its own is 0."""

FLAGS: Final = {
    **dict.fromkeys(("1", "yes", "true", "on"), True),
    **dict.fromkeys(("0", "no", "false", "off"), False),
}
"""What yes and no are called, in any case. Nothing else is either."""


def text(environ: Mapping[str, object], variable: str) -> str | None:
    """Return what a variable says, without blanks around it; None if it is not set."""
    value = environ.get(variable, "")
    if not isinstance(value, str):  # of a mapping that a program has made
        reason = f"{variable} is {checks.type_of(value)}, not a str"
        raise checks.refusal(TypeError, reason, "Environment variables are text: pass a str.")
    return value.strip() or None


def whole_number(variable: str, value: str, *, way_out: str = "Set it to one, or unset it.") -> int:
    """Return the int that ``value`` writes in the digits 0 to 9."""
    try:
        whole = int(value)
    except ValueError:
        reason = f"{variable}={value!r} is not a whole number"
        raise checks.refusal(ValueError, reason, way_out) from None
    refuse_unusual_digits(variable, value, way_out=way_out)
    return whole


def number(variable: str, value: str, *, way_out: str = "Set it to one, or unset it.") -> float:
    """Return the float that ``value`` writes in the digits 0 to 9: ``0.5``, ``1e-3``, ``inf``."""
    try:
        accepted = float(value)
    except ValueError:
        reason = f"{variable}={value!r} is not a number"
        raise checks.refusal(ValueError, reason, way_out) from None
    refuse_unusual_digits(variable, value, way_out=way_out)
    return accepted


def refuse_unusual_digits(variable: str, value: str, *, way_out: str) -> None:
    """
    Raise ``ValueError`` if a number is written as only Python would read it.

    With an underscore, or in the digits of another script, it is a slip of the keyboard, and the
    next program that reads the same variable sees another number or none.
    """
    if "_" in value or not value.isascii():
        reason = f"{variable}={value!r} has an underscore or a digit other than 0 to 9"
        raise checks.refusal(ValueError, reason, way_out)


def flag(variable: str, value: str, *, way_out: str = "Set it to 1 or 0, or unset it.") -> bool:
    """Return whether ``value`` says yes; see `FLAGS`."""
    known = FLAGS.get(value.lower())
    if known is None:
        reason = f"{variable}={value!r} is neither yes nor no"
        raise checks.refusal(ValueError, reason, way_out)
    return known


def unknown(environ: Mapping[str, str], known: Collection[str]) -> dict[str, str | None]:
    """
    Return the variables that look like settings but are not, with the names probably meant.

    These begin with `PREFIX`, in any case, and are not empty.

    Args:
        environ: The variables.
        known: The names of those that are settings.

    Returns:
        For each of them, the most similar name that is known, or None.
    """
    return {
        variable: closest(variable.upper(), known)
        for variable in sorted(environ)
        if variable.upper().startswith(PREFIX) and variable not in known and text(environ, variable)
    }


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the name that was probably meant; None if none is similar."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for mistakes

    return next(iter(get_close_matches(name, known, n=1)), None)
