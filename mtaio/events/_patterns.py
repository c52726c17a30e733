"""
Names of events, and the patterns that match them.

Promise: a name that can never be emitted, or a pattern that can never match, is refused where it
is written. ``"*"`` matches every name; ``"ns.*"`` every name with at least one segment below
``ns``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mtaio._internal import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_name", "check_pattern", "is_pattern", "patterns_matching"]

EVERYTHING: Final = "*"
_BELOW: Final = ".*"


def check_pattern(pattern: object) -> str:
    """Return ``pattern`` if it can be listened to: a name, ``"*"``, or ``"ns.*"``."""
    if not isinstance(pattern, str):
        msg = (
            f"name={pattern!r} is {checks.type_of(pattern)}, not the name of an event. Pass a "
            f"string such as 'user.login', or an EventKey."
        )
        raise TypeError(msg)
    if not pattern:
        raise ValueError("name='' is empty. Pass the name of an event, such as 'user.login'.")
    if is_pattern(pattern) and "*" in pattern.removesuffix("*").removesuffix("."):
        msg = (
            f"name={pattern!r} has a '*' where it matches nothing. Pass '*' for every event, "
            f"'ns.*' for all below ns, or a name without '*'."
        )
        raise ValueError(msg)
    if is_pattern(pattern) and pattern != EVERYTHING and not pattern.endswith(_BELOW):
        msg = (
            f"name={pattern!r} has a '*' that is not a segment of its own. Pass "
            f"'{pattern.rstrip('*')}.*' for all below it, or a name without '*'."
        )
        raise ValueError(msg)
    if pattern == _BELOW:
        raise ValueError("name='.*' has nothing before its dot. Pass '*' for every event.")
    return str.__str__(pattern)  # of a subclass the plain string: it is what is kept and shown


def check_name(name: object) -> str:
    """Return ``name`` if it can be emitted."""
    if isinstance(name, str) and is_pattern(name):
        msg = (
            f"name={name!r} is a pattern: it can be listened to, not emitted. Pass the full name "
            f"of one event."
        )
        raise ValueError(msg)
    return check_pattern(name)


def is_pattern(name: str) -> bool:
    """Return whether ``name`` matches more than one name."""
    return "*" in name


def patterns_matching(name: str) -> Iterator[str]:
    """Yield the patterns with a ``*`` that match ``name``."""
    yield EVERYTHING
    at = name.find(".")
    while at != -1:
        if at:
            yield name[:at] + _BELOW
        at = name.find(".", at + 1)
