"""
What stands in the place of a cached function, and of a cached method of one object.

Promise: calls with equal arguments share one value and one load; the order of keywords does not
matter; methods keep the values of each object apart, by identity, and keep no object alive.
Cost: a hit takes a coroutine, the look-up of a tuple, and the time of day.
"""

from __future__ import annotations

import inspect
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from mtaio._internal import clock
from mtaio._internal.unset import UNSET, Unset
from mtaio.cache._owners import Owner, Owners
from mtaio.cache._policy import HOT
from mtaio.cache._table import unhashable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterable

    from mtaio.cache._ttl import TTLCache

__all__ = ["BoundCached", "Cached", "Call"]

P = ParamSpec("P")
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
        self.fn = fn
        self.cache = cache
        self.ttl = ttl
        self.key = key
        self.tags = tags
        self.prefix = prefix
        self.look = cache._look  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call of a function."""
        if self.key is not None:
            return self.key(*args, **kwargs)
        if kwargs:
            return (*self.prefix, *args, _KEYWORDS, frozenset(kwargs.items()))
        return self.prefix + args if self.prefix else args

    def load(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable, more: Any
    ) -> Coroutine[Any, Any, R]:
        """Return the awaitable of a look-up that loads."""
        tags = (*more, *self.tags(*args, **kwargs)) if self.tags is not None else more
        call = partial(self.fn, *args, **kwargs)
        return self.cache.get_or_set(key, call, ttl=self.ttl, tags=tags)

    def anew(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Hashable, more: Any
    ) -> Coroutine[Any, Any, R]:
        """Return the awaitable of a refresh."""
        tags = (*more, *self.tags(*args, **kwargs)) if self.tags is not None else more
        call = partial(self.fn, *args, **kwargs)
        return self.cache.refresh(key, call, ttl=self.ttl, tags=tags)


class Cached(Generic[P, R]):
    """
    An async function whose results are cached; what `cached` returns.

    Called as the function is. As a method it is bound to its object, whose values are its own.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_cache",
        "_call",
        "_lookup",
        "_owners",
        "_plain",
    )

    def __init__(self, call: Call[R], *, shared: bool) -> None:
        if shared and call.key is None:
            call.prefix = (self,)
        self._call = call
        self._plain: bool = not call.prefix and call.key is None
        self._cache = call.cache
        self._lookup = call.cache._lookup  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self._owners = Owners()
        update_wrapper(self, call.fn)
        mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
        if mark is not None:
            mark(self)

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r}>"

    @property
    def cache(self) -> TTLCache[R]:
        """The cache in which the results are."""
        return self._call.cache

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of the call, from the cache or by making it."""
        key = args if self._plain and not kwargs else self._call.key_of(args, kwargs)
        try:
            entry = self._lookup(key)
        except TypeError as error:
            raise unhashable(key, error) from error
        if entry is not None and entry.fresh > clock.read():
            value: R = entry.value  # after fresh: see Entry
            if entry.score < HOT:
                entry.score += 1
            self._cache._hits += 1  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            return value
        return await self._call.load(args, kwargs, key, ())

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress answers those who wait for it, and is not kept.
        """
        return self.cache.delete_nowait(self._call.key_of(args, kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call anew, as `TTLCache.refresh` does, and return its result."""
        call = self._call
        return await call.anew(args, kwargs, call.key_of(args, kwargs), ())

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Cached[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> BoundCached[R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Cached[P, R] | BoundCached[R]:
        """Return the method of ``instance``."""
        if instance is None:
            return self
        return BoundCached(self._call, instance, self._token(instance))

    def _token(self, instance: object) -> Owner:
        """Return what stands for ``instance`` in keys."""
        found = self._owners.known(instance)
        if found is not None:
            return found
        for token in self._owners.dead():
            self.cache.invalidate_tag_nowait(token)
        try:
            return self._owners.admit(instance)
        except TypeError as error:
            msg = (
                f"{self!r} cannot tell the objects of {type(instance)!r} apart: {error}. Add "
                f"'__weakref__' to its __slots__, or pass key= to cached()."
            )
            raise TypeError(msg) from error


class BoundCached(Generic[R]):
    """
    A cached method of one object.

    Args:
        call: How the function is cached.
        instance: The object.
        token: What stands for it in keys.
    """

    __slots__ = ("__self__", "_call", "_token")

    def __init__(self, call: Call[R], instance: object, token: Owner) -> None:
        self._call = call
        self.__self__ = instance
        self._token = token

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r} of {self.__self__!r}>"

    @property
    def cache(self) -> TTLCache[R]:
        """The cache in which the results are, of all objects."""
        return self._call.cache

    async def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Return the result of the call, from the cache or by making it."""
        call = self._call
        key = self._key(args, kwargs)
        value: R = call.look(key)
        if value is not UNSET:
            return value
        return await call.load((self.__self__, *args), kwargs, key, (self._token,))

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call with these arguments, as `Cached.invalidate` does."""
        return self.cache.delete_nowait(self._key(args, kwargs))

    async def refresh(self, *args: Any, **kwargs: Any) -> R:
        """Make the call anew, as `TTLCache.refresh` does, and return its result."""
        key = self._key(args, kwargs)
        call = self._call
        return await call.anew((self.__self__, *args), kwargs, key, (self._token,))

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        call = self._call
        first = self.__self__ if call.key is not None else self._token
        return call.key_of((first, *args), kwargs)
