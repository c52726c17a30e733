"""
Refusals: one wording for every bad argument.

Promise: each check returns the value it accepts, or raises ``TypeError`` or ``ValueError`` that
names the argument, the value, the reason and the way out. ``bool`` is never a number here: a flag
passed in the wrong place is a mistake, not a limit of 1.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeVar, cast

if TYPE_CHECKING:
    from pathlib import Path

E = TypeVar("E", ValueError, TypeError, OSError)

ONE_THING: Final[tuple[type, ...]] = (str, bytes, bytearray, memoryview, Mapping)
"""What can be iterated, but is hardly ever meant to be."""


def refusal(kind: type[E], reason: str, way_out: str) -> E:
    """
    Return an error that says what is wrong, and then what to do.

    Args:
        kind: Its type.
        reason: What is wrong, without a full stop.
        way_out: What to do.
    """
    error = kind(f"{reason}. {way_out}")
    error.__dict__[_PARTS] = reason, way_out
    return error


_PARTS: Final = "_mtaio_refusal"


def parts_of(error: Exception) -> tuple[str, str]:
    """Return what is wrong, and what to do, as `refusal` was told; for others all and nothing."""
    parts: tuple[str, str] = error.__dict__.get(_PARTS, (str(error), ""))
    return parts


def type_of(value: object) -> str:
    """Return the name of the type of ``value`` with its article: "an int", "a str"."""
    return with_article(type(value).__name__)


def with_article(name: str) -> str:
    """Return a name with its article: "an int", "a str"."""
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def number(name: str, value: object, *, way_out: str) -> float:
    """Return ``value`` as it is if it is an int or a float other than NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        reason = f"{name}={value!r} is {type_of(value)}, not a number"
        raise refusal(TypeError, reason, way_out)
    try:
        nan = math.isnan(value)
    except OverflowError:
        reason = f"{name} is an int too large for a float"
        raise refusal(ValueError, reason, way_out) from None
    if nan:
        reason = f"{name}={value!r} is not a number"
        raise refusal(ValueError, reason, way_out)
    return value


def at_least(name: str, value: object, least: float, *, way_out: str) -> float:
    """Return ``value`` if it is a number of at least ``least``."""
    accepted = number(name, value, way_out=way_out)
    if accepted < least:
        reason = f"{name}={value!r} is less than {least!r}"
        raise refusal(ValueError, reason, way_out)
    return accepted


def more_than_0(name: str, value: object, *, way_out: str) -> float:
    """Return ``value`` if it is a number greater than 0, infinity included."""
    accepted = number(name, value, way_out=way_out)
    if accepted <= 0:
        reason = f"{name}={value!r} is not more than 0"
        raise refusal(ValueError, reason, way_out)
    return accepted


def positive(name: str, value: object, *, way_out: str) -> float:
    """Return ``value`` if it is a number greater than 0 and less than infinity."""
    accepted = number(name, value, way_out=way_out)
    if not 0 < accepted < math.inf:
        msg = f"{name}={value!r} is not a finite number greater than 0. {way_out}"
        raise ValueError(msg)
    return accepted


def between(name: str, value: object, least: float, most: float, *, way_out: str) -> float:
    """Return ``value`` if it is a number from ``least`` to ``most``."""
    accepted = positive(name, value, way_out=way_out)
    if not least <= accepted <= most:
        msg = f"{name}={value!r} is not between {least!r} and {most!r}. {way_out}"
        raise ValueError(msg)
    return accepted


def count(name: str, value: object, *, least: int = 1, way_out: str) -> int:
    """Return ``value`` if it is an int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        reason = f"{name}={value!r} is {type_of(value)}, not an int"
        raise refusal(TypeError, reason, way_out)
    if value < least:
        reason = f"{name}={value!r} is less than {least!r}"
        raise refusal(ValueError, reason, way_out)
    return value


def most(name: str, value: object, *, way_out: str) -> float:
    """Return ``value`` if it is a whole number of at least 1, or infinity."""
    accepted = at_least(name, value, 1, way_out=way_out)
    if accepted != math.inf and accepted != int(accepted):
        reason = f"{name}={value!r} is not a whole number"
        raise refusal(ValueError, reason, way_out)
    return accepted


def timeout(name: str, value: object) -> float | None:
    """Return ``value`` if it is None or a duration in seconds, 0 and ``inf`` included."""
    if value is None:
        return None
    return at_least(name, value, 0, way_out="Pass seconds >= 0, or None for no limit.")


def callable_(name: str, value: object, *, way_out: str) -> None:
    """Raise ``TypeError`` if ``value`` cannot be called."""
    if not callable(value):
        reason = f"{name}={value!r} is {type_of(value)}, which is not callable"
        raise refusal(TypeError, reason, way_out)


def flag(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool."""
    if not isinstance(value, bool):
        reason = f"{name}={value!r} is {type_of(value)}, not a bool"
        raise refusal(TypeError, reason, "Pass True or False.")
    return value


def one_of(name: str, value: object, known: tuple[str, ...]) -> str:
    """Return ``value``, in lower case, if it is one of ``known`` in any case."""
    if not isinstance(value, str) or value.lower() not in known:
        reason = f"{name}={value!r} is unknown"
        raise refusal(ValueError, reason, f"Pass {' or '.join(map(repr, known))}.")
    return value.lower()


def when(name: str, value: object) -> str:
    """Return ``value``, in lower case, if a log file may be rotated then."""
    if not isinstance(value, str) or not re.fullmatch("midnight|[dhms]|w[0-6]", value.lower()):
        reason = f"{name}={value!r} is unknown"
        way_out = "Pass 'midnight', 'D', 'H', 'M', 'S', or 'W0' (Monday) to 'W6'."
        raise refusal(ValueError, reason, way_out)
    return value.lower()


def path(name: str, value: object) -> Path:
    """Return ``value`` as a path, if there may be a file of that name."""
    from pathlib import Path  # noqa: PLC0415 - dear, and few objects take a path

    try:
        accepted = Path(cast("str", value))
    except TypeError:
        reason = f"{name}={value!r} is {type_of(value)}, not a path"
        raise refusal(TypeError, reason, "Pass a str or an os.PathLike.") from None
    try:
        encoded = os.fsencode(accepted)
    except ValueError as error:
        reason = f"{name}={value!r} cannot be used: {error}"
        raise refusal(ValueError, reason, "Pass a valid file name.") from None
    if b"\0" in encoded:
        reason = f"{name}={value!r} contains a NUL character, which a path cannot have"
        raise refusal(ValueError, reason, "Leave it out.")
    return accepted


def title(name: str, value: object) -> str | None:
    """Return ``value`` if it is a text to show, or None."""
    if value is not None and not isinstance(value, str):
        reason = f"{name}={value!r} is {type_of(value)}, not a str"
        raise refusal(TypeError, reason, "Pass a short name, or None.")
    return value


def token(name: str, value: object) -> str:
    """Return ``value`` if it can be sent in a header field. No message shows it."""
    if not isinstance(value, str):
        reason = f"{name} is {type_of(value)}, not a str"
        raise refusal(TypeError, reason, "Pass a long random string.")
    if not value.strip():
        reason = f"{name} is empty"
        raise refusal(ValueError, reason, "Pass a long random string, or None for local use only.")
    if value != value.strip() or not value.isprintable():
        reason = f"{name} begins or ends with whitespace, or contains unprintable characters"
        raise refusal(ValueError, reason, "Remove them: a file often ends with a line break.")
    return value
