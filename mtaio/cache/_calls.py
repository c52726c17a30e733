"""
How the calls of one function are cached: their keys, their tags, and how long results are kept.

Promise: calls with equal arguments have one key, whatever the order of keywords; a call of a method
has the key of its object; what a user's function for keys, tags or times raises passes through, and
nothing is called then.
Cost: a key by position is the tuple of the arguments, which the call has anyway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from mtaio._internal import checks
from mtaio.cache._config import NO_TAGS, Lifetime, check_tags, lifetime, unhashable

if TYPE_CHECKING:
    from mtaio.cache._store import Store
    from mtaio.cache._ttl import TTLCache

__all__ = ["Call", "Owner", "Request"]

R = TypeVar("R")

Request: TypeAlias = tuple[
    Hashable,
    Callable[..., Any],
    tuple[Any, ...],
    dict[str, Any],
    Lifetime,
    frozenset[Hashable],
]
"""What a fetcher is asked for: key, function, arguments, time to live and tags."""


class _Separator:
    """Stands between positional and keyword arguments in a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "**"


_KEYWORDS: Final = _Separator()


class Owner:
    """Stands for an object in keys, by identity."""

    __slots__ = ("_of",)

    def __init__(self, of: str) -> None:
        self._of = of

    def __repr__(self) -> str:
        return f"<a {self._of}>"


class Call(Generic[R]):
    """
    How the calls of one function are cached.

    Args:
        fn: The function.
        cache: Where its results are kept.
        lasts: For how long, unless there is ``ttl_for``.
        ttl_for: Returns that for the arguments of a call.
        keep: Whether to keep a result.
        key: Returns the key for the arguments of a call.
        bind: Whether equivalent calls have one key.
        per_object: Whether a method keeps the results of each object apart.
        tags: Returns the tags for the arguments of a call.
        shared: Whether the cache may also hold values of other functions.
    """

    __slots__ = (
        "_keep",
        "_prefix",
        "cache",
        "fn",
        "key",
        "lasts",
        "per_object",
        "signature",
        "store",
        "tags",
        "ttl_for",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        cache: TTLCache[R],
        *,
        lasts: Lifetime,
        ttl_for: Callable[..., Any] | None,
        keep: Callable[[Any], bool] | None,
        key: Callable[..., Hashable] | None,
        bind: bool,
        per_object: bool,
        tags: Callable[..., Iterable[Hashable]] | None,
        shared: bool,
    ) -> None:
        self.fn: Callable[..., Any] = fn
        self.cache: TTLCache[R] = cache
        self.store: Store = cache._store  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self.lasts: Lifetime = lasts
        self.ttl_for: Callable[..., Any] | None = ttl_for
        self._keep = keep
        self.key: Callable[..., Hashable] | None = key
        self.signature: inspect.Signature | None = inspect.signature(fn) if bind else None
        self.per_object: bool = per_object
        self.tags: Callable[..., Iterable[Hashable]] | None = tags
        # What tells the keys of this function from those of others in the same cache.
        self._prefix: tuple[Hashable, ...] = (self,) if shared else ()

    def __repr__(self) -> str:
        return f"<cached {self.fn!r}>"

    @property
    def plain(self) -> bool:
        """Whether the positional arguments of a call are its key."""
        return self.key is None and self.signature is None and not self._prefix

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call."""
        if self.key is not None:
            return self.key(*args, **kwargs)
        if self.signature is not None:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            args, kwargs = bound.args, bound.kwargs
        if kwargs:
            try:
                keywords = frozenset(kwargs.items())
            except TypeError as error:
                raise unhashable(tuple(kwargs.items()), error) from error
            return (*self._prefix, *args, _KEYWORDS, keywords)
        return self._prefix + args if self._prefix else args

    def key_in(
        self, instance: object, token: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Hashable:
        """Return the key of a call of a method; ``token`` stands for its object."""
        if self.key is None:
            return self.key_of((token, *args), kwargs)
        key = self.key(instance, *args, **kwargs)
        return (token, key) if self.per_object else key

    def key_to_find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call; raise for one that cannot be made, instead of finding none."""
        self.check(args, kwargs)
        return self.key_of(args, kwargs)

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        """Return what a fetcher is asked for."""
        key, ttl = self.key_of(args, kwargs), self.ttl_of(args, kwargs)
        return key, self.fn, args, kwargs, ttl, self.tags_of(args, kwargs)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ``TypeError`` for a call that cannot be made."""
        if self.key is None:
            inspect.signature(self.fn).bind(*args, **kwargs)

    def tags_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], token: object = None
    ) -> frozenset[Hashable]:
        """Return the tags of the result of a call, that of its object among them."""
        of_object = frozenset((token,)) if isinstance(token, Owner) else NO_TAGS
        if self.tags is None:
            return of_object
        return of_object | check_tags(self.tags(*args, **kwargs))

    def ttl_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lifetime:
        """Return for how long the result of a call is kept."""
        if self.ttl_for is None:
            return self.lasts
        ttl = self.ttl_for(*args, **kwargs)
        if not callable(ttl):
            way_out = f"{self.ttl_for!r} has to return seconds >= 0, or math.inf for no limit."
            checks.at_least("ttl", ttl, 0, way_out=way_out)
        return lifetime(ttl, self._keep, 0)
