"""
A cache around an async function.

Promise: calls with equal arguments share one value and one load; the order of keywords does not
matter; methods keep the values of each object apart, by identity, and keep no object alive.
Cost: a hit takes a coroutine, the look-up of a tuple, and the time of day.
"""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable
from functools import partial, update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from mtaio._internal import checks, clock
from mtaio._internal.unset import UNSET, Unset
from mtaio.cache._policies import HOT
from mtaio.cache._store import unhashable
from mtaio.cache._ttl import TTLCache

__all__ = ["BoundCached", "Cached", "cached"]

P = ParamSpec("P")
R = TypeVar("R")

_TAGS = "Pass a set of tags, or a function of the call's arguments that returns one."


class _Mark:
    """Stands between positional and keyword arguments in a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "**"


_KEYWORDS = _Mark()


class _Call(Generic[R]):
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

    # Invariants:
    # - _owners has the token of each living object that a method was called on, by id();
    # - the tokens of those that died are in _dead until somebody loads: a weak reference's callback
    #   may come anywhere, also while the cache is being changed.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_cache",
        "_call",
        "_dead",
        "_lookup",
        "_owners",
        "_plain",
    )

    def __init__(self, call: _Call[R], *, shared: bool) -> None:
        if shared and call.key is None:
            call.prefix = (self,)
        self._call = call
        self._plain: bool = not call.prefix and call.key is None
        self._cache = call.cache
        self._lookup = call.cache._lookup  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self._owners: dict[int, tuple[weakref.ref[Any], _Owner]] = {}
        self._dead: deque[_Owner] = deque()
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

    def _token(self, instance: object) -> _Owner:
        """Return what stands for ``instance`` in keys."""
        found = self._owners.get(id(instance))
        if found is not None and found[0]() is instance:
            return found[1]
        while self._dead:
            self.cache.invalidate_tag_nowait(self._dead.popleft())
        token = _Owner(type(instance).__qualname__)
        number, owners, dead = id(instance), self._owners, self._dead

        def gone(ref: weakref.ref[Any]) -> None:
            dead.append(token)
            if owners.get(number, (None,))[0] is ref:
                del owners[number]

        try:
            ref = weakref.ref(instance, gone)
        except TypeError as error:
            msg = (
                f"{self!r} cannot tell the objects of {type(instance)!r} apart: {error}. Add "
                f"'__weakref__' to its __slots__, or pass key= to cached()."
            )
            raise TypeError(msg) from error
        owners[number] = ref, token
        return token


class _Owner:
    """Stands for an object whose method is cached, without keeping it alive."""

    __slots__ = ("_of",)

    def __init__(self, of: str) -> None:
        self._of = of

    def __repr__(self) -> str:
        return f"<a {self._of}>"


class BoundCached(Generic[R]):
    """
    A cached method of one object.

    Args:
        call: How the function is cached.
        instance: The object.
        token: What stands for it in keys.
    """

    __slots__ = ("__self__", "_call", "_token")

    def __init__(self, call: _Call[R], instance: object, token: _Owner) -> None:
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


class _Decorator(Protocol):
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...


@overload
def cached(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...
@overload
def cached(
    *,
    ttl: float | Unset = UNSET,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> _Decorator: ...
def cached(
    fn: Any = None,
    /,
    *,
    ttl: float | Unset = UNSET,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> Any:
    """
    Decorate an async function or method so that its results are cached, each made once.

    Used as ``@cached`` or ``@cached(ttl=60)``. The result is called as before, and has ``cache``,
    ``invalidate(*args)`` and ``await refresh(*args)``. The arguments are the key, by position and
    by name as they were given, and have to be hashable; 1, 1.0 and True are one key. The key of a
    method is its object's identity and the other arguments; the object is not kept alive, and what
    was cached for one that died is forgotten.

    Args:
        fn: The function, when used without parentheses.
        ttl: Seconds for which a result is kept. Default: the cache's, 300 if it is made here.
        max_size: How many results to keep in the cache that is made here; None for no limit.
        key: Called with the arguments of each call, ``self`` included; returns the key. What it
            leaves out of it does not count.
        tags: Names under which `TTLCache.invalidate_tag` finds the results, or a function of the
            call's arguments that returns them.
        cache: The cache to use, which others may share; without ``key``, the function itself is
            then part of its keys. Default: one for this function.

    Raises:
        TypeError: What is decorated is not an async function, or an argument has the wrong type.
        ValueError: A number is out of range, or ``max_size`` comes with ``cache``.

    Example:
        ```python
        import anyio

        from mtaio.cache import cached


        @cached(ttl=60)
        async def price(item: str) -> float:
            print(f"asking for {item}")
            return 9.5


        async def main() -> None:
            print(await price("tea"), await price("tea"))
            price.invalidate("tea")
            print(await price("tea"))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    if key is not None:
        way_out = "Pass a function that takes what the decorated one takes and returns the key."
        checks.callable_("key", key, way_out=way_out)
    if ttl is not UNSET:
        checks.at_least("ttl", ttl, 0, way_out="Pass seconds >= 0, or math.inf for no limit.")
    if cache is not None and not isinstance(cast("object", cache), TTLCache):
        msg = f"cache={cache!r} is a {type(cache).__name__}, not a TTLCache. Pass one, or None."
        raise TypeError(msg)
    if cache is not None and max_size != 1024:  # noqa: PLR2004 - the default
        msg = f"max_size={max_size!r} is for a cache made here. Give it to the TTLCache instead."
        raise ValueError(msg)
    tags_of = _tags_of(tags)

    def decorate(fn: Any, /) -> Any:
        if not inspect.iscoroutinefunction(fn):
            msg = (
                f"@cached cannot decorate {fn!r}: it is not an async function. Write it above an "
                f"'async def', below @staticmethod or @classmethod."
            )
            raise TypeError(msg)
        where = TTLCache[Any](300.0, max_size) if cache is None else cache
        call = _Call[Any](fn, where, ttl=ttl, key=key, tags=tags_of, prefix=())
        return Cached[..., Any](call, shared=cache is not None)

    return decorate if fn is None else decorate(fn)


def _tags_of(tags: Any) -> Callable[..., Iterable[Hashable]] | None:
    """Return a function of a call's arguments that returns its tags; None for no tags."""
    if callable(tags):
        return cast("Callable[..., Iterable[Hashable]]", tags)
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        msg = f"tags={tags!r} is a {type(tags).__name__}. {_TAGS}"
        raise TypeError(msg)
    fixed = frozenset(cast("Iterable[Hashable]", tags))
    return (lambda *_args, **_kwargs: fixed) if fixed else None
