"""
The values that services put into headers about their limits.

Promise: no value raises, whatever it holds, and none takes more than linear time: what is longer
than a service would send is not looked at. A value that is not understood is None, or no members.

Source: RFC 9651, "Structured Field Values for HTTP", the part that rate limits use; whatever breaks
its rules loses the whole field, as it says.
"""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

from mtaio._internal.retry_after import moment_in

__all__ = ["MOST", "Member", "bounded", "members_of", "number_in", "reset_in"]

_LONGEST: Final = 64
"""Characters of a number, a duration or a date."""

_LONGEST_FIELD: Final = 4096
"""Characters of a list."""

MOST: Final = 32
"""Members of a list that are looked at."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?")

_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?)(ns|us|µs|ms|s|m|h|d)")

_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}

_EPOCH: Final = 1e9
"""A number from here on is a moment, not a duration: seconds since 1970, as of 2001."""

_EPOCH_MS: Final = 1e11
"""A number from here on is a moment in milliseconds: in seconds, it is of the year 5138."""

_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]*")
_BARE: Final = re.compile(
    r'"(?P<string>(?:[ !#-\[\]-~]|\\["\\])*)"'
    r"|(?P<number>-?[0-9]{1,15}(?:\.[0-9]{1,3})?)"
    r"|\?(?P<flag>[01])"
    r"|:(?P<octets>[A-Za-z0-9+/=]*):"
    r"|(?P<token>[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*)"
)
_SPACES: Final = re.compile(r"[ \t]*")


class Member(NamedTuple):
    """A member of a list or dictionary: its key, if it has one, its value, and its parameters."""

    key: str | None
    value: str | float
    parameters: dict[str, str | float]


def number_in(text: str) -> float | None:
    """Return the number, of at least 0, that a value is or a list of values begins with."""
    text = text[: _LONGEST + 1].partition(",")[0].partition(";")[0].strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def reset_in(text: str, now: float) -> float | None:
    """
    Return the seconds from ``now`` until the moment that a value means; None if it means none.

    Services send seconds, seconds or milliseconds since 1970, durations such as ``6m0s``, and dates
    of two kinds.

    Args:
        text: The value.
        now: Seconds since 1970.
    """
    if len(text) > _LONGEST:
        return None
    number = number_in(text)
    if number is not None:
        if number >= _EPOCH_MS:
            return number / 1000 - now
        return number - now if number >= _EPOCH else number
    text = text.strip()
    total, end = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != end:
            break
        total, end = total + float(part[1]) * _UNITS[part[2]], part.end()
    if end and end == len(text):
        return total
    return _until(text, now)


def _until(text: str, now: float) -> float | None:
    """Return the seconds from ``now`` until a date, in the way of RFC 3339 or of HTTP."""
    from datetime import UTC, datetime  # noqa: PLC0415 - few services send a date

    try:
        moment: datetime | None = datetime.fromisoformat(text)
    except ValueError:
        moment = moment_in(text)
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp() - now


def members_of(text: str) -> list[Member]:
    """
    Return the members of a list (``"a";r=5, "b"``) or dictionary (``a=5, b=6``); none if it is bad.

    At most `MOST` are returned; what comes after them is not looked at.
    """
    found: list[Member] = []
    if len(text) > _LONGEST_FIELD:
        return found
    text = text.strip(" \t")
    at = 0
    while at < len(text) and len(found) < MOST:
        member, at = _member(text, at)
        if member is None:
            return []
        found.append(member)
        at = _after_spaces(text, at)
        if at == len(text):
            break
        if text[at] != ",":
            return []
        at = _after_spaces(text, at + 1)
        if at == len(text):  # a comma with nothing behind it
            return []
    return found


def _member(text: str, at: int) -> tuple[Member | None, int]:
    """Return the member that begins at ``at``, and where it ends; None if there is none."""
    key = None
    named = _KEY.match(text, at)
    if named is not None and text[named.end() : named.end() + 1] == "=":
        key, at = named[0], named.end() + 1
    value, at = _bare(text, at)
    if value is None:
        return None, at
    parameters: dict[str, str | float] = {}
    while text[at : at + 1] == ";":
        named = _KEY.match(text, _after_spaces(text, at + 1))
        if named is None:
            return None, at
        at = named.end()
        parameter: str | float | None = 1.0  # which means true
        if text[at : at + 1] == "=":
            parameter, at = _bare(text, at + 1)
        if parameter is None:
            return None, at
        parameters[named[0]] = parameter
    return Member(key, value, parameters), at


def _bare(text: str, at: int) -> tuple[str | float | None, int]:
    """Return the string, token, number or flag that begins at ``at``, and where it ends."""
    found = _BARE.match(text, at)
    if found is None:
        return None, at
    number = found["number"] or found["flag"]
    if number is not None:
        return float(number), found.end()
    string = found["string"]
    if string is not None:
        return re.sub(r"\\(.)", r"\1", string), found.end()
    return found["octets"] or found["token"] or "", found.end()


def _after_spaces(text: str, at: int) -> int:
    spaces = _SPACES.match(text, at)
    assert spaces is not None  # noqa: S101 - it may match nothing
    return spaces.end()


def bounded(value: object, most: float = math.inf) -> float | None:
    """Return ``value`` if it is a number of at least 0, or ``most`` if that is less."""
    return min(value, most) if isinstance(value, float) and value >= 0 else None
