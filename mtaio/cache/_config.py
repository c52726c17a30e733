"""
The arguments of a cache, checked before there is a cache, and those of its operations.

Promise: each error names the argument, the value, the reason and the way out; what a key's own code
raises passes through unchanged.
"""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mtaio._internal import checks
from mtaio._internal.callables import close_unstarted, is_async
from mtaio._internal.sentinel import UNSET
from mtaio.cache._policy import POLICIES, EvictionPolicy, Policy, new_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = [
    "NO_TAGS",
    "Config",
    "Lifetime",
    "check_awaitable",
    "check_hashable",
    "check_loaded",
    "check_loader",
    "check_many",
    "check_plain",
    "check_tags",
    "check_ttl",
    "lifetime",
    "seconds_for",
    "unhashable",
]

NO_TAGS: Final[frozenset[Hashable]] = frozenset()


class Config:
    """The arguments of `TTLCache`, with each None replaced by the number that means the same."""

    __slots__ = (
        "default_ttl",
        "error_ttl",
        "idle_ttl",
        "jitter",
        "max_size",
        "name",
        "policy",
        "refresh_ahead",
        "stale_if_error",
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
        stale_if_error: float,
        refresh_ahead: float | None,
        error_ttl: float,
        name: str | None,
    ) -> None:
        seconds = "Pass seconds >= 0, or math.inf for values that never expire."
        self.default_ttl: float = checks.at_least("default_ttl", default_ttl, 0, way_out=seconds)
        self.max_size: float = math.inf if max_size is None else _size(max_size, weigher)
        self.policy: EvictionPolicy = _policy(policy)
        if weigher is not None:
            way_out = "Pass a function of (key, value) that returns a number >= 0."
            checks.callable_("weigher", weigher, way_out=way_out)
        self.weigher: Callable[[Any, Any], float] | None = weigher
        self.idle_ttl: float = math.inf if idle_ttl is None else _positive("idle_ttl", idle_ttl)
        self.jitter: float = checks.at_least("jitter", jitter, 0, way_out=_FRACTION)
        if jitter >= 1:
            msg = f"jitter={jitter!r} would leave nothing of a time to live. {_FRACTION}"
            raise ValueError(msg)
        self.stale_while_revalidate: float = _seconds(
            "stale_while_revalidate", stale_while_revalidate
        )
        self.stale_if_error: float = _seconds("stale_if_error", stale_if_error)
        self.refresh_ahead: float = math.inf if refresh_ahead is None else _ahead(refresh_ahead)
        self.error_ttl: float = _seconds("error_ttl", error_ttl)
        self.name: str | None = name

    @property
    def detailed(self) -> bool:
        """Whether entries have to remember more than their value and when it expires."""
        return (
            self.weigher is not None
            or self.idle_ttl != math.inf
            or self.stale_while_revalidate > 0
            or self.stale_if_error > 0
            or self.refresh_ahead != math.inf
        )

    @property
    def refreshing(self) -> bool:
        """Whether there are loads that no caller waits for."""
        return self.stale_while_revalidate > 0 or self.refresh_ahead != math.inf

    def new_policy(self) -> Policy:
        """Return a new policy; without a limit any will do, and the cheapest does."""
        return new_policy("fifo" if self.max_size == math.inf else self.policy)


_FRACTION = "Pass a fraction of the time to live: 0 for none, 0.1 for up to a tenth less."


def _size(value: object, weigher: object) -> float:
    if weigher is None:
        way_out = "Pass how many entries may be held, or None for no limit."
        return checks.count("max_size", value, way_out=way_out)
    way_out = "Pass what the entries may weigh together, or None for no limit."
    return checks.at_least("max_size", value, 1, way_out=way_out)


def _policy(value: object) -> EvictionPolicy:
    for known in POLICIES:
        if value == known:
            return known
    msg = f"policy={value!r} is unknown. Pass one of {', '.join(map(repr, POLICIES))}."
    raise ValueError(msg)


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


# Arguments of operations.

TTL: Final = "Pass seconds >= 0, math.inf for no limit, or leave it out for the default."
ONE: Final = "Pass an async function of no arguments, such as lambda: fetch(key)."
MANY: Final = "Pass an async function that takes a list of keys and returns a dict of values."


def check_ttl(ttl: object) -> float:
    """Return ``ttl`` if it is a number of seconds."""
    return checks.at_least("ttl", ttl, 0, way_out=TTL)


Lifetime: TypeAlias = "float | Callable[[Any], float]"
"""For how long what is loaded is kept: seconds, or a function of it that returns them."""


def lifetime(ttl: object, keep: object, default: float) -> Lifetime:
    """
    Return for how long what is loaded is kept.

    Args:
        ttl: Seconds, a function of the value that returns them, or UNSET for the default.
        keep: A function of the value that returns whether to keep it; None to keep each.
        default: The cache's own, in seconds.
    """
    lasts: Any = ttl
    if ttl is UNSET:
        lasts = float(default)
    elif callable(ttl):
        check_plain("ttl", ttl, "Pass seconds, or a plain function of the value.")
    else:
        lasts = float(check_ttl(ttl))
    if keep is None:
        return cast("Lifetime", lasts)
    way_out = "Pass a plain function of the value that returns whether to keep it."
    checks.callable_("keep", keep, way_out=way_out)
    check_plain("keep", keep, way_out)
    return lambda value: seconds_for(lasts, value) if cast("Any", keep)(value) else 0.0


def seconds_for(lasts: Lifetime, value: object) -> float:
    """Return for how many seconds ``value`` is kept."""
    if not callable(lasts):
        return lasts
    way_out = f"{lasts!r} has to return seconds >= 0, or math.inf for no limit."
    return float(checks.at_least("ttl", lasts(value), 0, way_out=way_out))


def check_plain(name: str, fn: Any, way_out: str) -> None:
    """Raise ``TypeError`` for an async function: it is called in the middle of storing."""
    if is_async(fn):
        msg = f"{name}={fn!r} is an async function, and cannot be awaited here. {way_out}"
        raise TypeError(msg)


def check_many(keys: object) -> None:
    """Raise ``TypeError`` unless ``keys`` is a collection; a str would silently be split up."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        msg = (
            f"keys={reprlib.repr(keys)} is {checks.type_of(keys)}, not a collection of keys. Pass "
            f"a list of keys, even for one."
        )
        raise TypeError(msg)


def check_hashable(key: Hashable) -> None:
    """Raise ``TypeError`` if ``key`` cannot be hashed."""
    try:
        hash(key)
    except TypeError as error:
        raise unhashable(key, error) from error


def unhashable(key: object, error: TypeError) -> TypeError:
    """Return the error for a key that a dict refused; its own, if the hash was not the reason."""
    try:
        hash(key)
    except TypeError:
        return TypeError(
            f"key={reprlib.repr(key)} cannot be hashed: {error}. Pass a key that can, such as a "
            f"str, an int, or a tuple of those; for a cached function, make one from its "
            f"arguments with key= of cached()."
        )
    return error


def check_tags(tags: object) -> frozenset[Hashable]:
    """Return ``tags`` as a set, or raise ``TypeError``."""
    way_out = 'Pass them as a set: tags={"user:7"}.'
    if isinstance(tags, str | bytes):
        msg = f"tags={tags!r} is {checks.type_of(tags)}, not a set of tags. {way_out}"
        raise TypeError(msg)
    try:
        return frozenset(cast("Iterable[Hashable]", tags))
    except TypeError as error:
        msg = f"tags={tags!r} is not a set of hashable tags: {error}. {way_out}"
        raise TypeError(msg) from error


def check_loader(loader: object, *, several: bool = False) -> None:
    """Raise ``TypeError`` unless a loader can be called; a coroutine in its place is closed."""
    if not callable(loader):
        close_unstarted(loader)
        checks.callable_("loader", loader, way_out=MANY if several else ONE)


def check_awaitable(loader: object, call: object, *, several: bool = False) -> None:
    """Raise ``TypeError`` unless what a loader returned is awaitable."""
    if not inspect.isawaitable(call):
        way_out = MANY if several else ONE
        msg = f"loader={loader!r} returned {call!r}, which cannot be awaited. {way_out}"
        raise TypeError(msg)


def check_loaded(values: object) -> Mapping[Hashable, Any]:
    """Return what a loader of several keys brought, or raise ``TypeError``."""
    if not isinstance(values, Mapping):
        msg = (
            f"the loader returned {reprlib.repr(values)}, which is {checks.type_of(values)}, not a "
            f"mapping of keys to values. To make one of a list in the order of the keys, "
            f"return dict(zip(keys, values, strict=True))."
        )
        raise TypeError(msg)
    return cast("Mapping[Hashable, Any]", values)
