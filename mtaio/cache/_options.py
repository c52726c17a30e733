"""
The arguments of a cache, checked before there is a cache.

Promise: each error names the argument, the value, the reason and the way out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mtaio._internal import checks
from mtaio.cache._listeners import Listener, Notices, listener_of
from mtaio.cache._policies import POLICIES, EvictionPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.cache._policy import Policy

__all__ = ["Options"]


class Options:
    """The arguments of `TTLCache`, of which those that mean "none" have become numbers."""

    __slots__ = (
        "default_ttl",
        "error_ttl",
        "idle_ttl",
        "jitter",
        "max_size",
        "name",
        "on_removed",
        "policy_name",
        "refresh_ahead",
        "stale_while_revalidate",
        "weigher",
    )

    def __init__(
        self,
        *,
        default_ttl: float,
        max_size: float | None,
        policy: str,
        weigher: Callable[[Any, Any], float] | None,
        idle_ttl: float | None,
        jitter: float,
        stale_while_revalidate: float,
        refresh_ahead: float | None,
        error_ttl: float,
        on_removed: Listener | None,
        name: str | None,
    ) -> None:
        seconds = "Pass seconds >= 0, or math.inf for values that never expire."
        self.default_ttl: float = checks.at_least("default_ttl", default_ttl, 0, way_out=seconds)
        self.max_size: float = math.inf if max_size is None else _size(max_size, weigher)
        self.policy_name: EvictionPolicy = _policy(policy)
        if weigher is not None:
            way_out = "Pass a function of (key, value) that returns a number >= 0."
            checks.callable_("weigher", weigher, way_out=way_out)
        self.weigher: Callable[[Any, Any], float] | None = weigher
        self.idle_ttl: float = math.inf if idle_ttl is None else _positive("idle_ttl", idle_ttl)
        self.jitter: float = checks.at_least("jitter", jitter, 0, way_out=_FRACTION)
        if jitter >= 1:
            msg = f"jitter={jitter!r} leaves nothing of a time to live. {_FRACTION}"
            raise ValueError(msg)
        self.stale_while_revalidate: float = _seconds(
            "stale_while_revalidate", stale_while_revalidate
        )
        self.refresh_ahead: float = math.inf if refresh_ahead is None else _ahead(refresh_ahead)
        self.error_ttl: float = _seconds("error_ttl", error_ttl)
        self.on_removed: Listener | None = on_removed
        self.name: str | None = name

    @property
    def laden(self) -> bool:
        """Whether entries have to remember more than their value and when it expires."""
        return (
            self.weigher is not None
            or self.idle_ttl != math.inf
            or self.stale_while_revalidate > 0
            or self.refresh_ahead != math.inf
        )

    @property
    def refreshing(self) -> bool:
        """Whether loads begin that no caller waits for."""
        return self.stale_while_revalidate > 0 or self.refresh_ahead != math.inf

    def policy(self) -> Policy:
        """Return a new policy; without a limit any will do, and the cheapest does."""
        name = EvictionPolicy.FIFO if self.max_size == math.inf else self.policy_name
        return POLICIES[name]()

    def listener(self, owner: object) -> Notices | None:
        """Return what tells the listener of ``owner``."""
        return listener_of(self.on_removed, owner)


_FRACTION = "Pass a fraction of the time to live: 0 for none, 0.1 for up to a tenth less."


def _size(value: object, weigher: object) -> float:
    if weigher is None:
        way_out = "Pass how many entries may be held, or None for no limit."
        return checks.count("max_size", value, way_out=way_out)
    way_out = "Pass what the entries may weigh together, or None for no limit."
    return checks.at_least("max_size", value, 1, way_out=way_out)


def _policy(value: object) -> EvictionPolicy:
    try:
        return EvictionPolicy(value)  # type: ignore[arg-type] # whatever it is, it is looked up
    except ValueError:
        known = ", ".join(repr(str(each)) for each in EvictionPolicy)
        msg = f"policy={value!r} is unknown. Pass one of {known}."
        raise ValueError(msg) from None


def _seconds(name: str, value: object) -> float:
    return checks.at_least(name, value, 0, way_out="Pass seconds >= 0; 0 turns it off.")


def _positive(name: str, value: object) -> float:
    way_out = "Pass seconds > 0, or None for no limit."
    if checks.at_least(name, value, 0, way_out=way_out) == 0:
        msg = f"{name}={value!r} would keep nothing. {way_out}"
        raise ValueError(msg)
    return float(value)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # checked


def _ahead(value: object) -> float:
    way_out = "Pass a fraction of the time to live, such as 0.8, or None to turn it off."
    accepted = checks.at_least("refresh_ahead", value, 0, way_out=way_out)
    if not 0 < accepted < 1:
        msg = f"refresh_ahead={value!r} is not between 0 and 1. {way_out}"
        raise ValueError(msg)
    return accepted
