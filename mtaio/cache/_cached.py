"""
Put a cache around a function or method, async or plain.

Promise: a decorated function keeps its name, docstring and signature, and is called as before: an
async one remains a coroutine function, a plain one remains plain. Calls with equal arguments share
one value and one load, whatever the order of keywords.
Cost: a hit of an async function takes a coroutine, the look-up of a tuple, and the time of day.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable
from functools import partial, partialmethod, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    final,
    overload,
)

from mtaio._internal import checks
from mtaio._internal.callables import is_async, is_async_generator, is_generator
from mtaio._internal.sentinel import UNSET, Unset
from mtaio._internal.signature import check_takes, check_takes_calls_of
from mtaio.cache._binding import Annotations, Bind, Binding, BoundCall, look_like, unbound
from mtaio.cache._calls import Call
from mtaio.cache._config import NO_TAGS, check_plain, check_tags, lifetime
from mtaio.cache._policy import HOT
from mtaio.cache._ttl import TTLCache

if TYPE_CHECKING:
    from mtaio.cache._plain import PlainCached

__all__ = ["BoundCached", "Cached", "cached"]

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")

_TAGS = "Pass a set of tags, or a function of the call's arguments that returns one."
_TTL_FOR = (
    "Pass a plain function that takes the arguments of the decorated one and returns seconds."
)


class CachedDecorator(Protocol):
    """What `cached` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload] # async ones first
    @overload
    def __call__(self, fn: Callable[P, R], /) -> PlainCached[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload] # async ones first
        self, fn: partialmethod[Coroutine[Any, Any, R]], /
    ) -> Cached[Concatenate[Any, ...], R]: ...
    @overload
    def __call__(self, fn: partialmethod[R], /) -> PlainCached[Concatenate[Any, ...], R]: ...


@overload
def cached(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload] # async ones first
@overload
def cached(fn: Callable[P, R], /) -> PlainCached[P, R]: ...
@overload
def cached(fn: partialmethod[Coroutine[Any, Any, R]], /) -> Cached[Concatenate[Any, ...], R]: ...  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload] # async ones first
@overload
def cached(fn: partialmethod[R], /) -> PlainCached[Concatenate[Any, ...], R]: ...
@overload
def cached(
    *,
    ttl: float | Callable[[Any], float] | Unset = UNSET,
    ttl_for: Callable[..., float | Callable[[Any], float]] | None = None,
    keep: Callable[[Any], bool] | None = None,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    bind: bool = False,
    per_object: bool | None = None,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> CachedDecorator: ...
def cached(
    fn: Any = None,
    /,
    *,
    ttl: float | Callable[[Any], float] | Unset = UNSET,
    ttl_for: Callable[..., float | Callable[[Any], float]] | None = None,
    keep: Callable[[Any], bool] | None = None,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    bind: bool = False,
    per_object: bool | None = None,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> Any:
    """
    Decorate a function or method so that its results are cached.

    Use it as ``@cached`` or ``@cached(ttl=60)``, on async and plain functions. Calls with the same
    arguments that find no result share one call of the function. The decorated function is called
    as before, and has the attributes ``cache``, ``contains(*args)``, ``is_loading(*args)``,
    ``invalidate(*args)`` and ``refresh(*args)``; see `Cached`, and `PlainCached` for plain
    functions, which threads may call at the same time.

    The key of a call is its arguments, by position and by name as they were given (see ``bind``).
    They must be hashable; 1, 1.0 and True are the same key. For a method, the key is the identity
    of its object and the other arguments. The object is not kept alive, and the results of an
    object that was deleted are forgotten the next time the method is called.

    If ``@cached`` is placed above ``@classmethod``, the class plays the role of the object. If it
    is placed below, ``invalidate`` and ``refresh`` must be passed the class on Python 3.13 and
    later, and must not be before. A `functools.partialmethod` works like any other method.

    Args:
        fn: The function, if the decorator is used without parentheses.
        ttl: Seconds to keep a result, or a plain function that returns them for a result. Default:
            that of the cache, which is 300 for a cache that is created here.
        ttl_for: A function that is called with the arguments, including ``self``, of each call that
            has to load, before it does, and returns a ``ttl`` for that call. Errors that it raises
            go to the caller.
        keep: A function that is called with each result and returns whether to keep it. If not,
            callers still get it, and an old result is removed, as with a ``ttl`` of 0.
        max_size: Maximum number of results in the cache that is created here; None for no limit.
        key: A function that is called with the arguments of each call, including ``self``, and
            returns the key. Arguments that it leaves out do not count: without ``self``, a result
            may outlive its object.
        bind: Whether equivalent calls have the same key, whether arguments are given by position or
            by name, and whether defaults are given or left out. This makes each call a little
            slower.
        per_object: Whether a method keeps separate results for each object. If False, all objects
            share results. Default: True; False with ``key``, which then decides by itself.
        tags: Names with which `TTLCache.invalidate_tag` finds the results, or a function that
            returns them for the arguments of a call.
        cache: The cache to use, which may be shared; unless ``key`` is given, the function is then
            part of its keys. Default: a new cache for this function.

    Raises:
        TypeError: What is decorated is not a function, or is a generator function; an argument has
            the wrong type; or ``ttl_for`` cannot take the function's arguments.
        ValueError: A number is out of range; ``max_size`` is combined with ``cache``, ``bind`` with
            ``key``, or ``ttl_for`` with ``ttl``; or ``cache`` refreshes in the background, and the
            function is plain.

    Example:
        ```python
        import anyio

        from mtaio import cached


        @cached(ttl=60)
        async def price(item: str) -> float:
            print(f"asking for {item}")
            return 9.5


        async def main() -> None:
            print(await price("tea"), await price("tea"))
            await price.invalidate("tea")
            print(await price("tea"))


        if __name__ == "__main__":
            anyio.run(main)
        ```
    """
    if key is not None:
        way_out = (
            "Pass a plain function that takes the arguments of the decorated one and returns the "
            "key."
        )
        checks.callable_("key", key, way_out=way_out)
    if cache is not None and not isinstance(cast("object", cache), TTLCache):
        msg = f"cache={cache!r} is {checks.type_of(cache)}, not a TTLCache. Pass one, or None."
        raise TypeError(msg)
    if cache is not None and max_size != 1024:  # noqa: PLR2004 - the default
        msg = f"max_size={max_size!r} is for a cache made here. Pass it to the TTLCache instead."
        raise ValueError(msg)
    if checks.flag("bind", bind) and key is not None:
        msg = f"bind=True is for the default keys, and key={key!r} replaces them. Leave one out."
        raise ValueError(msg)
    apart = key is None if per_object is None else checks.flag("per_object", per_object)
    _check_times(ttl, ttl_for, keep)
    tags_of = _tags_of(tags)

    def decorate(given: Any, /) -> Any:
        fn, to = _function_in(given)
        if ttl_for is not None:
            check_takes_calls_of(fn, "ttl_for", ttl_for, way_out=_TTL_FOR)
        own = 300.0 if ttl is UNSET or callable(ttl) else ttl
        where = TTLCache[Any](own, max_size=max_size) if cache is None else cache
        call = Call[Any](
            fn,
            where,
            lasts=lifetime(ttl, keep, where.default_ttl),
            ttl_for=ttl_for,
            keep=keep,
            key=key,
            bind=bind,
            per_object=apart,
            tags=tags_of,
            shared=cache is not None and key is None,
        )
        if is_async(given.func if isinstance(given, partialmethod) else fn):
            return Cached[..., Any](call, bind=to)
        from mtaio.cache._plain import PlainCached  # noqa: PLC0415 - most programs have none

        return PlainCached[..., Any](call, bind=to)

    return decorate if fn is None else decorate(fn)


def _check_times(ttl: Any, ttl_for: Any, keep: Any) -> None:
    """Refuse here and now what cannot say for how long a result is kept."""
    if callable(ttl):
        way_out = "Pass a function of the result; one of the call's arguments is ttl_for=."
        check_takes("ttl", ttl, "result", way_out=way_out)
    lifetime(ttl, keep, 0)
    if ttl_for is None:
        return
    checks.callable_("ttl_for", ttl_for, way_out=_TTL_FOR)
    check_plain("ttl_for", ttl_for, _TTL_FOR)
    if ttl is not UNSET:
        msg = f"ttl={ttl!r} and ttl_for={ttl_for!r} both say how long. Leave one out."
        raise ValueError(msg)


def _tags_of(tags: Any) -> Callable[..., Iterable[Hashable]] | None:
    """Return a function from a call's arguments to its tags; None for no tags."""
    if callable(tags):
        return cast("Callable[..., Iterable[Hashable]]", tags)
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        msg = f"tags={tags!r} is {checks.type_of(tags)}, not a set of tags. {_TAGS}"
        raise TypeError(msg)
    fixed = check_tags(cast("object", tags))
    return (lambda *_args, **_kwargs: fixed) if fixed else None


def _function_in(given: Any) -> tuple[Callable[..., Any], Bind]:
    """Return the function that is to be cached, and to what it is bound as a method."""
    to: Bind = "object"
    fn = given
    if isinstance(given, classmethod | staticmethod):
        to = "class" if isinstance(given, classmethod) else "nothing"
        fn = cast("Any", given).__func__
    elif isinstance(given, partialmethod):
        fn = cast("Any", given).func
    if not callable(fn):
        reason = "it is not a function. Write it above a 'def', an 'async def'"
    elif is_generator(fn) or is_async_generator(fn):
        reason = (
            "what it returns can be iterated only once, and would be empty for the second caller. "
            "Return a list; or write it above a 'def', an 'async def'"
        )
    else:
        if isinstance(given, partialmethod):
            fn = unbound(cast("Any", given))
        return fn, to
    msg = (
        f"@cached cannot decorate {given!r}: {reason}, a @classmethod or a @staticmethod; options "
        f"are named, as in @cached(ttl=60)."
    )
    raise TypeError(msg)


def _answers(call: Call[R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return the coroutine function that answers the calls of a function."""
    # What a hit needs is in the closure: a name there costs less than an attribute.
    store = call.store
    lookup = store.lookup
    fetch = call.cache._fetcher.fetch  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
    plain = call.plain

    async def answer(*args: Any, **kwargs: Any) -> Any:
        key = args if plain and not kwargs else call.key_of(args, kwargs)
        try:
            entry = lookup(key)
        except TypeError:
            entry = None  # the load says what is wrong
        if entry is not None and store.tells() < entry.fresh:
            if entry.score < HOT:
                entry.score += 1
            store.hits += 1.0
            return entry.value  # after fresh: see Entry
        ttl = call.lasts if call.ttl_for is None else call.ttl_of(args, kwargs)
        tags = NO_TAGS if call.tags is None else call.tags_of(args, kwargs)
        return await fetch(key, call.fn, args, kwargs, ttl, tags, False)  # noqa: FBT003 - all given cost less

    return answer


def _answers_method(call: Call[R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return the same for a method, called with its object and that object's token."""
    store = call.store
    lookup = store.lookup
    fetch = call.cache._fetcher.fetch  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
    plain = call.plain

    async def answer(instance: object, token: object, /, *args: Any, **kwargs: Any) -> Any:
        key = (token, *args) if plain and not kwargs else call.key_in(instance, token, args, kwargs)
        try:
            entry = lookup(key)
        except TypeError:
            entry = None  # as above
        if entry is not None and store.tells() < entry.fresh:
            if entry.score < HOT:
                entry.score += 1
            store.hits += 1.0
            return entry.value  # as above
        args = (instance, *args)
        ttl, tags = call.ttl_of(args, kwargs), call.tags_of(args, kwargs, token)
        return await fetch(key, call.fn, args, kwargs, ttl, tags)

    return answer


@final
class BoundCached(Generic[P, R], partial[Coroutine[Any, Any, R]]):  # noqa: PYI059 - the ways of Generic
    """
    A cached method bound to its object.

    It has the name, docstring and signature of the method, and equals any other bound method made
    from the same function and object.
    """

    __slots__ = ("__func__", "__self__")

    if TYPE_CHECKING:  # else it is the partial's
        __func__: Any  # a Cached: declared so, it would be bound
        __self__: object

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            raise NotImplementedError

    else:
        __annotations__ = Annotations()

        def __get__(self, instance: object, owner: type | None = None) -> Self:
            """Stay bound, as methods do; a partial is bound again from Python 3.14 on."""
            return self

    def __new__(cls, function: Cached[..., R], instance: object) -> Self:
        bound = super().__new__(cls, *function._binding.arguments(instance))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        bound.__func__ = function
        bound.__self__ = instance
        bound.__dict__ = function.__dict__  # its name, and what else a function has
        return bound

    def __repr__(self) -> str:
        return repr(self._call)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it like a method, by its object and its name."""
        return self._call.__reduce__()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCached):
            return NotImplemented
        return self._call == other._call

    def __hash__(self) -> int:
        return hash(self._call)

    @property
    def __wrapped__(self) -> Callable[..., Coroutine[Any, Any, R]]:
        """The uncached method, from which `inspect.signature` takes the signature."""
        return self._call.fn

    @property
    def _call(self) -> BoundCall:
        instance, token = self.args
        return BoundCall(self.__func__._call, instance, token)  # noqa: SLF001 - of this module

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results of all objects."""
        cache: TTLCache[R] = self.__func__.cache
        return cache

    def contains_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of a call is in the cache; see `Cached.contains_nowait`."""
        return self._call.key_to_find(args, kwargs) in self.cache

    async def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call is in the cache.

        Not a checkpoint.
        """
        return self._call.key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether a call is in progress; see `Cached.is_loading`."""
        return self.cache.is_loading(self._call.key_to_find(args, kwargs))

    def invalidate_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; see `Cached.invalidate_nowait`."""
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call, and return whether there was one.

        Not a checkpoint.
        """
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again, as `TTLCache.refresh` does, and return its result."""
        fetch = self.cache._fetcher.fetch  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        result: R = await fetch(*self._call.request(args, kwargs), refresh=True)
        return result


@final
class Cached(Generic[P, R], partial[Coroutine[Any, Any, R]]):  # noqa: PYI059 - as above
    """
    An async function whose results are cached, as returned by `cached`.

    It is called like the function. A method is bound to its object, and keeps separate results for
    each object. Accessed on the class, it is an ordinary cached function, and the object is an
    argument like any other.
    """

    __slots__ = ("_binding", "_call")

    if TYPE_CHECKING:  # else it is the partial's

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            raise NotImplementedError

    else:
        __annotations__ = Annotations()

    def __new__(cls, call: Call[R], *, bind: Bind) -> Self:  # noqa: ARG004 - see __init__
        # Named as the function, after which trio and others name a partial's task.
        return super().__new__(cls, update_wrapper(_answers(call), call.fn))

    def __init__(self, call: Call[R], *, bind: Bind) -> None:
        self._call: Call[R] = call
        self._binding = Binding(call, _answers_method(call), bind)
        look_like(self, call)

    def __repr__(self) -> str:
        return repr(self._call)

    def __reduce__(self) -> str:
        """Copy it as itself and pickle it by name, like a function."""
        return str(getattr(self, "__qualname__", repr(self)))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Cached[P, R]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Rest], R], instance: object, owner: type | None = None
    ) -> BoundCached[Rest, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the method of ``instance``, or of its class if that is what the function is."""
        found = self._binding.find(instance, owner)
        return self if found is UNSET else BoundCached[..., R](self, found)

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results."""
        return self._call.cache

    def contains_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        A call that is still in progress has no result; see `is_loading`. The result may be gone the
        next moment, so to use it, call the function. This does not count as a read.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self._call.key_to_find(args, kwargs) in self.cache

    async def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        The same as `contains_nowait`. Not a checkpoint.
        """
        return self._call.key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether a call with these arguments is in progress, as `TTLCache.is_loading` does.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self.cache.is_loading(self._call.key_to_find(args, kwargs))

    def invalidate_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress still answers its callers, but its result is not kept.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        The same as `invalidate_nowait`. Not a checkpoint.
        """
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again, as `TTLCache.refresh` does, and return its result."""
        fetch = self.cache._fetcher.fetch  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        result: R = await fetch(*self._call.request(args, kwargs), refresh=True)
        return result
