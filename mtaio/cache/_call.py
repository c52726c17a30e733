"""
How one function is cached: the keys, tags and time of its calls.

Promise: calls with equal arguments have one key; the order of keywords does not matter.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._keys import unhashable
from mtaio.cache._storing import NO_TAGS
from mtaio.cache._tags import check_tags

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable

    from mtaio.cache._owners import Owner
    from mtaio.cache._ttl import TTLCache

__all__ = ["Call"]

R = TypeVar("R")


class _Mark:
    """Stands between positional and keyword arguments in a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "**"


_KEYWORDS = _Mark()


class Call(Generic[R]):
    """How one function is cached: what `Cached` and `BoundCached` have in common."""

    __slots__ = ("cache", "fn", "key", "look", "prefix", "tags", "ttl")

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        cache: TTLCache[R],
        *,
        ttl: float | Unset,
        key: Callable[..., Hashable] | None,
        tags: Callable[..., Iterable[Hashable]] | None,
        prefix: tuple[Hashable, ...],
    ) -> None:
        self.fn: Callable[..., Coroutine[Any, Any, R]] = fn
        self.cache: TTLCache[R] = cache
        self.ttl: float = cache.default_ttl if ttl is UNSET else ttl
        self.key: Callable[..., Hashable] | None = key
        self.tags: Callable[..., Iterable[Hashable]] | None = tags
        self.prefix: tuple[Hashable, ...] = prefix
        self.look: Callable[[Hashable], Any] = cache._look  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call of a function."""
        if self.key is not None:
            return self.key(*args, **kwargs)
        if kwargs:
            try:
                keywords = frozenset(kwargs.items())
            except TypeError as error:
                raise unhashable(tuple(kwargs.items()), error) from error
            return (*self.prefix, *args, _KEYWORDS, keywords)
        return self.prefix + args if self.prefix else args

    def forget(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Forget the result of a call; refuse one that cannot be made, instead of finding none."""
        if self.key is None:
            inspect.signature(self.fn).bind(*args, **kwargs)
        return self.cache.delete_nowait(self.key_of(args, kwargs))

    def load(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable, more: tuple[Owner, ...]
    ) -> Coroutine[Any, Any, R]:
        """Return the awaitable of a look-up that loads."""
        tags = self.tags_of(args, kwargs, more)
        return self.cache._fetch(key, self.fn, args, kwargs, self.ttl, tags)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    def anew(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable, more: tuple[Owner, ...]
    ) -> Coroutine[Any, Any, R]:
        """Return the awaitable of a refresh."""
        tags = self.tags_of(args, kwargs, more)
        return self.cache._fetch(key, self.fn, args, kwargs, self.ttl, tags, anew=True)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    def tags_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], more: tuple[Owner, ...]
    ) -> frozenset[Hashable]:
        """Return the tags of the result of a call, those of its object among them."""
        if self.tags is None:
            return frozenset(more) if more else NO_TAGS
        return frozenset(more) | check_tags(self.tags(*args, **kwargs))
