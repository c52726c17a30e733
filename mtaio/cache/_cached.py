"""
Put a cache around an async function.

Promise: what is decorated keeps its signature, and every wrong argument is refused where it is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from mtaio._internal import checks
from mtaio._internal.callables import is_async
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._call import Call
from mtaio.cache._storing import TTL_WAY_OUT
from mtaio.cache._tags import check_tags
from mtaio.cache._ttl import TTLCache
from mtaio.cache._wrapper import Bind, Cached

__all__ = ["cached"]

P = ParamSpec("P")
R = TypeVar("R")

_TAGS = "Pass a set of tags, or a function of the call's arguments that returns one."


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
    was cached for one that died is forgotten when the method is next called. Above ``@classmethod``
    the class is that object; below it, ``invalidate`` and ``refresh`` have to be given the class
    from Python 3.13 on, and must not be before.

    Args:
        fn: The function, when used without parentheses.
        ttl: Seconds for which a result is kept. Default: the cache's, 300 if it is made here.
        max_size: How many results to keep in the cache that is made here; None for no limit.
        key: Called with the arguments of each call, ``self`` included; returns the key. What it
            leaves out of it does not count: a result then belongs to no object, and may outlive it.
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
        checks.at_least("ttl", ttl, 0, way_out=TTL_WAY_OUT)
    if cache is not None and not isinstance(cast("object", cache), TTLCache):
        msg = f"cache={cache!r} is a {type(cache).__name__}, not a TTLCache. Pass one, or None."
        raise TypeError(msg)
    if cache is not None and max_size != 1024:  # noqa: PLR2004 - the default
        msg = f"max_size={max_size!r} is for a cache made here. Give it to the TTLCache instead."
        raise ValueError(msg)
    tags_of = _tags_of(tags)

    def decorate(given: Any, /) -> Any:
        bind: Bind = "object"
        fn = given
        if isinstance(given, classmethod | staticmethod):
            bind = "class" if isinstance(given, classmethod) else "nothing"
            fn = cast("Any", given).__func__
        if not is_async(fn):
            msg = (
                f"@cached cannot decorate {given!r}: it is not an async function. Write it above "
                f"an 'async def', a @classmethod or a @staticmethod."
            )
            raise TypeError(msg)
        where = TTLCache[Any](300.0, max_size) if cache is None else cache
        call = Call[Any](fn, where, ttl=ttl, key=key, tags=tags_of, prefix=())
        return Cached[..., Any](call, shared=cache is not None, bind=bind)

    return decorate if fn is None else decorate(fn)


def _tags_of(tags: Any) -> Callable[..., Iterable[Hashable]] | None:
    """Return a function of a call's arguments that returns its tags; None for no tags."""
    if callable(tags):
        return cast("Callable[..., Iterable[Hashable]]", tags)
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        msg = f"tags={tags!r} is a {type(tags).__name__}. {_TAGS}"
        raise TypeError(msg)
    fixed = check_tags(cast("object", tags))
    return (lambda *_args, **_kwargs: fixed) if fixed else None
