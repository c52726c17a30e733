"""
Checks of arguments that several classes of this package take.

Promise: as in `mtaio._internal.checks`: the value is returned, or refused with the argument, the
value, the reason and the way out.
"""

from __future__ import annotations

import math

from mtaio._internal import checks

__all__ = ["between", "check_key", "check_store", "name", "positive", "sendable"]


def check_key(key: object) -> None:
    """
    Refuse what cannot be the key of a limit: later it would end the store's block.

    Raises:
        TypeError: It is not a str.
        ValueError: It is empty, or cannot be encoded.
    """
    name("key", key, way_out="Pass a str that all processes share.")


def check_store(store: object) -> None:
    """Raise ``TypeError`` if it is no store."""
    if not hasattr(store, "subscribe"):
        msg = f"store={store!r} is {checks.type_of(store)}, not a store. Pass a RedisStore."
        raise TypeError(msg)


def name(argument: str, value: object, *, way_out: str) -> str:
    """Return ``value`` if it is `sendable` and not empty."""
    accepted = sendable(argument, value, way_out=way_out)
    if not accepted:
        msg = f"{argument}={value!r} is empty. {way_out}"
        raise ValueError(msg)
    return accepted


def sendable(argument: str, value: object, *, way_out: str) -> str:
    """Return ``value`` if it is a str that can be sent."""
    if not isinstance(value, str):
        msg = f"{argument}={value!r} is {checks.type_of(value)}, not a str. {way_out}"
        raise TypeError(msg)
    try:
        value.encode()
    except UnicodeEncodeError:
        msg = (
            f"{argument}={value!r:.100} has half of a surrogate pair, which cannot be sent. "
            f"{way_out}"
        )
        raise ValueError(msg) from None
    return value


def positive(name: str, value: object, *, way_out: str) -> float:
    """Return ``value`` if it is a number greater than 0 and less than infinity."""
    accepted = checks.number(name, value, way_out=way_out)
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
