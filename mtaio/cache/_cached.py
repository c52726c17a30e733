"""
Put a cache around an async function or method.

Promise: a decorated function keeps its name, docstring and signature, and remains a coroutine
function; calls with equal arguments share one value and one load, whatever the order of keywords;
methods keep the values of each object apart, by identity, and keep no object alive.
Cost: a hit takes a coroutine, the look-up of a tuple, and the time of day.
Why both wrappers are a `functools.partial`: docs/en/design/caching.md.
"""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable
from functools import partial, update_wrapper
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    final,
    overload,
)

from mtaio._internal import checks
from mtaio._internal.callables import is_async
from mtaio._internal.sentinel import UNSET, Unset
from mtaio.cache._config import NO_TAGS, check_tags, lifetime, unhashable
from mtaio.cache._policy import HOT
from mtaio.cache._ttl import TTLCache

if TYPE_CHECKING:
    from mtaio.cache._config import Lifetime
    from mtaio.cache._store import Store

__all__ = ["BoundCached", "Cached", "cached"]

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")

Bind: TypeAlias = Literal["object", "class", "nothing"]

_TAGS = "Pass a set of tags, or a function of the call's arguments that returns one."


class _Decorator(Protocol):
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...


@overload
def cached(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Cached[P, R]: ...
@overload
def cached(
    *,
    ttl: float | Callable[[Any], float] | Unset = UNSET,
    keep: Callable[[Any], bool] | None = None,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    bind: bool = False,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> _Decorator: ...
def cached(
    fn: Any = None,
    /,
    *,
    ttl: float | Callable[[Any], float] | Unset = UNSET,
    keep: Callable[[Any], bool] | None = None,
    max_size: int | None = 1024,
    key: Callable[..., Hashable] | None = None,
    bind: bool = False,
    tags: Iterable[Hashable] | Callable[..., Iterable[Hashable]] = (),
    cache: TTLCache[Any] | None = None,
) -> Any:
    """
    Decorate an async function or method so that its results are cached, each made once.

    Used as ``@cached`` or ``@cached(ttl=60)``. The decorated function is called as before, and has
    ``cache``, ``await contains(*args)``, ``await invalidate(*args)``, the synchronous forms of
    these two, whose names end in ``_nowait``, and ``await refresh(*args)``. The key is the
    arguments, by position and by name as they were given (see ``bind``); they have to be hashable,
    and 1, 1.0 and True are one key. The key of a method is the identity of its object and the other
    arguments. The object is not kept alive, and the results of one that died are forgotten when the
    method is next called. Above ``@classmethod`` the class is that object; below it, ``invalidate``
    and ``refresh`` have to be given the class from Python 3.13 on, and must not be before.

    Args:
        fn: The function, when used without parentheses.
        ttl: Seconds for which a result is kept, or a plain function of the result that returns
            them. Default: the cache's, 300 if it is made here.
        keep: Called with each result; returns whether to keep it. One that is not kept still
            goes to its callers, and an old result is removed, as with a ``ttl`` of 0.
        max_size: How many results to keep in the cache that is made here; None for no limit.
        key: Called with the arguments of each call, ``self`` included; returns the key. What it
            leaves out does not count: without ``self``, a result may outlive its object.
        bind: Whether equivalent calls have one key: arguments given by position or by name, and
            defaults given or left out. It costs each call some microseconds.
        tags: Names under which `TTLCache.invalidate_tag` finds the results, or a function of the
            call's arguments that returns them.
        cache: The cache to use, which may be shared; without ``key``, the function itself is
            then part of its keys. Default: a new one for this function.

    Raises:
        TypeError: What is decorated is not an async function, or an argument has the wrong type.
        ValueError: A number is out of range, ``max_size`` comes with ``cache``, or ``bind`` with
            ``key``.

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
        way_out = "Pass a function that takes what the decorated one takes and returns the key."
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
    lifetime(ttl, keep, 0)  # to refuse them here and now
    tags_of = _tags_of(tags)

    def decorate(given: Any, /) -> Any:
        to: Bind = "object"
        fn = given
        if isinstance(given, classmethod | staticmethod):
            to = "class" if isinstance(given, classmethod) else "nothing"
            fn = cast("Any", given).__func__
        if not is_async(fn):
            msg = (
                f"@cached cannot decorate {given!r}: it is not an async function. Write it above "
                f"an 'async def', a @classmethod or a @staticmethod; options are named, as in "
                f"@cached(ttl=60)."
            )
            raise TypeError(msg)
        own = 300.0 if ttl is UNSET or callable(ttl) else ttl
        where = TTLCache[Any](own, max_size=max_size) if cache is None else cache
        lasts = lifetime(ttl, keep, where.default_ttl)
        call = _Call[Any](fn, where, ttl=lasts, key=key, bind=bind, tags=tags_of)
        return Cached[..., Any](call, shared=cache is not None, bind=to)

    return decorate if fn is None else decorate(fn)


def _tags_of(tags: Any) -> Callable[..., Iterable[Hashable]] | None:
    """Return a function from a call's arguments to its tags; None for no tags."""
    if callable(tags):
        return cast("Callable[..., Iterable[Hashable]]", tags)
    if isinstance(tags, str | bytes) or not isinstance(tags, Iterable):
        msg = f"tags={tags!r} is {checks.type_of(tags)}, not a set of tags. {_TAGS}"
        raise TypeError(msg)
    fixed = check_tags(cast("object", tags))
    return (lambda *_args, **_kwargs: fixed) if fixed else None


class _Separator:
    """Stands between positional and keyword arguments in a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "**"


_KEYWORDS: Final = _Separator()


class _Call(Generic[R]):
    """How the calls of one function are cached: what `Cached` and `BoundCached` share."""

    __slots__ = ("cache", "fetch", "fn", "key", "prefix", "signature", "store", "tags", "ttl")

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        cache: TTLCache[R],
        *,
        ttl: Lifetime,
        key: Callable[..., Hashable] | None,
        bind: bool,
        tags: Callable[..., Iterable[Hashable]] | None,
    ) -> None:
        self.fn: Callable[..., Coroutine[Any, Any, R]] = fn
        self.cache: TTLCache[R] = cache
        self.store: Store = cache._store  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self.fetch: Final = cache._fetcher.fetch  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        self.ttl: Lifetime = ttl
        self.key: Callable[..., Hashable] | None = key
        self.signature: inspect.Signature | None = inspect.signature(fn) if bind else None
        self.tags: Callable[..., Iterable[Hashable]] | None = tags
        self.prefix: tuple[Hashable, ...] = ()

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
            return (*self.prefix, *args, _KEYWORDS, keywords)
        return self.prefix + args if self.prefix else args

    def tags_of(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], token: object = None
    ) -> frozenset[Hashable]:
        """Return the tags of the result of a call, that of its object among them."""
        of_object = frozenset((token,)) if isinstance(token, _Owner) else NO_TAGS
        if self.tags is None:
            return of_object
        return of_object | check_tags(self.tags(*args, **kwargs))

    def key_to_find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call; raise for one that cannot be made, instead of finding none."""
        if self.key is None:
            inspect.signature(self.fn).bind(*args, **kwargs)
        return self.key_of(args, kwargs)

    def holds(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the result of a call is in the cache."""
        return self.key_to_find(args, kwargs) in self.cache

    def forget(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Forget the result of a call."""
        return self.cache.delete_nowait(self.key_to_find(args, kwargs))


class _Annotations(dict[str, Any]):
    """
    What a function's attribute ``__annotations__`` is, for an object that stands for it.

    Before Python 3.14 `update_wrapper` sets it, and this is not asked. Later it sets
    ``__annotate__`` alone: annotations may name what does not exist yet. The class itself has none:
    this is empty, for `typing.get_type_hints`, which takes it out of the ``__dict__`` of the class.
    """

    def __get__(self, function: Any, owner: type | None = None) -> dict[str, Any]:
        annotations: dict[str, Any] = {} if function is None else function._call.fn.__annotations__  # noqa: SLF001 - of this module
        return annotations


def _function(call: _Call[R], *, plain: bool) -> Callable[..., Coroutine[Any, Any, R]]:
    """
    Return the coroutine function that answers the calls of a function.

    Args:
        call: How they are cached.
        plain: Whether the positional arguments of a call are its key.
    """
    # What a hit needs is in the closure: a name there costs less than an attribute.
    store = call.store
    lookup = store.lookup
    fetch = call.fetch

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
        tags = NO_TAGS if call.tags is None else call.tags_of(args, kwargs)
        return await fetch(key, call.fn, args, kwargs, call.ttl, tags, False)  # noqa: FBT003 - all given cost less

    return update_wrapper(answer, call.fn)  # trio and others name a partial's task after it


def _method(call: _Call[R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return the same for a method, called with its object and the object's token in keys."""
    store = call.store
    lookup = store.lookup

    async def answer(instance: object, token: object, *args: Any, **kwargs: Any) -> Any:
        key = call.key_of((token, *args), kwargs)
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
        tags = call.tags_of(args, kwargs, token)
        return await call.fetch(key, call.fn, args, kwargs, call.ttl, tags)

    return update_wrapper(answer, call.fn)


@final
class Cached(Generic[P, R], partial[Coroutine[Any, Any, R]]):  # noqa: PYI059 - the ways of Generic
    """
    An async function whose results are cached; what `cached` returns.

    Called like the function. As a method it is bound to its object, and each object has values of
    its own. Call it on the object: on the class it is the function, and the object an argument like
    any other.

    Args:
        call: How its calls are cached.
        shared: Whether the cache may also hold values of other functions.
        bind: What it is bound to as a method: the "object", its "class", or "nothing".
    """

    __slots__ = ("_bind", "_call", "_method", "_owners")

    def __new__(cls, call: _Call[R], *, shared: bool, bind: Bind) -> Self:  # noqa: ARG004 - see __init__
        plain = call.key is None and call.signature is None and not shared
        return super().__new__(cls, _function(call, plain=plain))

    def __init__(self, call: _Call[R], *, shared: bool, bind: Bind) -> None:
        if shared and call.key is None:
            call.prefix = (self,)
        self._bind: Bind = bind
        self._call: _Call[R] = call
        self._method = _method(call)
        self._owners = _Owners()
        update_wrapper(self, call.fn)

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r}>"

    def __reduce__(self) -> str:
        """Make copies the function itself, and pickles its name, as for functions."""
        return str(getattr(self, "__qualname__", repr(self)))

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results."""
        return self._call.cache

    if TYPE_CHECKING:  # else it is the partial's

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            raise NotImplementedError

    else:
        __annotations__ = _Annotations()

    def contains_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        It does not count as a read, and the result may be gone the next moment: to use it, call the
        function.

        Raises:
            TypeError: The function cannot be called with them.
        """
        return self._call.holds(args, kwargs)

    async def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        Not a checkpoint. It is `contains_nowait`.
        """
        return self._call.holds(args, kwargs)

    def invalidate_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress still answers its callers, but its result is not kept.

        Raises:
            TypeError: The function cannot be called with them.
        """
        return self._call.forget(args, kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        Not a checkpoint. It is `invalidate_nowait`.
        """
        return self._call.forget(args, kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again, as `TTLCache.refresh` does, and return its result."""
        call = self._call
        key, tags = call.key_of(args, kwargs), call.tags_of(args, kwargs)
        fetch = call.fetch
        result: R = await fetch(key, call.fn, args, kwargs, call.ttl, tags, refresh=True)
        return result

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Cached[P, R]: ...
    @overload
    def __get__(
        self: Cached[Concatenate[Any, Rest], R], instance: object, owner: type | None = None
    ) -> BoundCached[Rest, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the method of ``instance``, or of its class if that is what the function is."""
        if self._bind == "class":
            instance = type(instance) if owner is None else owner
        elif self._bind == "nothing" or instance is None:
            return self
        return BoundCached[..., R](self, instance)

    def _bound_to(self, instance: object) -> tuple[Any, object, object]:
        """Return what `BoundCached` calls, and with what."""
        return self._method, instance, self._token_of(instance)

    def _token_of(self, instance: object) -> object:
        """Return the token of ``instance`` in keys."""
        if self._call.key is not None:
            return instance
        owners = self._owners
        if owners.late:
            owners.forget_dead(self._call.cache)
        found = owners.known(instance)
        if found is not None:
            return found
        try:
            return owners.admit(instance)
        except TypeError as error:
            msg = (
                f"{self!r} cannot tell the objects of {type(instance)!r} apart: {error}. Add "
                f"'__weakref__' to its __slots__ (a dataclass: weakref_slot=True), or pass key= to "
                f"cached()."
            )
            raise TypeError(msg) from error


@final
class BoundCached(Generic[P, R], partial[Coroutine[Any, Any, R]]):  # noqa: PYI059 - as above
    """
    A cached method of one object.

    It has the name, docstring and signature of the method, and equals any other bound method made
    from the same function and object.
    """

    __slots__ = ("__func__", "__self__")

    if TYPE_CHECKING:
        __func__: Any  # a Cached: declared so, it would be bound
        __self__: object

    def __new__(cls, function: Cached[..., R], instance: object) -> Self:
        bound = super().__new__(cls, *function._bound_to(instance))  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
        bound.__func__ = function
        bound.__self__ = instance
        bound.__dict__ = function.__dict__  # its name, and what else a function has
        return bound

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r} of {self.__self__!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it as methods are: by its object and its name."""
        return getattr, (self.__self__, self._call.fn.__name__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BoundCached):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), self.__func__))

    @property
    def __wrapped__(self) -> Callable[..., Coroutine[Any, Any, R]]:
        """The uncached method, from which `inspect.signature` takes the signature."""
        return MethodType(self._call.fn, self.__self__)

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results, those of all objects."""
        return self._call.cache

    if TYPE_CHECKING:  # else it is the partial's

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            raise NotImplementedError

    else:
        __annotations__ = _Annotations()

        def __get__(self, instance: object, owner: type | None = None) -> Self:
            """Stay bound, as methods do; a partial is bound again from Python 3.14 on."""
            return self

    def contains_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of a call is in the cache; see `Cached.contains_nowait`."""
        return self._call.holds((self.args[1], *args), kwargs)

    async def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of a call is in the cache. Not a checkpoint."""
        return self._call.holds((self.args[1], *args), kwargs)

    def invalidate_nowait(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; see `Cached.invalidate_nowait`."""
        return self._call.forget((self.args[1], *args), kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call, and return whether there was one. Not a checkpoint."""
        return self._call.forget((self.args[1], *args), kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again, as `TTLCache.refresh` does, and return its result."""
        call = self._call
        instance, token = self.args
        key = call.key_of((token, *args), kwargs)
        given = (instance, *args)
        tags = call.tags_of(given, kwargs, token)
        fetch = call.fetch
        result: R = await fetch(key, call.fn, given, kwargs, call.ttl, tags, refresh=True)
        return result

    @property
    def _call(self) -> _Call[R]:
        call: _Call[R] = self.__func__._call  # noqa: SLF001 - of this module
        return call


class _Owner:
    """Stands for an object in keys, by identity."""

    __slots__ = ("_of",)

    def __init__(self, of: str) -> None:
        self._of = of

    def __repr__(self) -> str:
        return f"<a {self._of}>"


class _Owners:
    """The objects that the methods of one function were called on."""

    # Invariants:
    # - _tokens has the token of each living object, by id();
    # - the tokens of those that died are in late until the next call: a weak reference's callback
    #   may come anywhere, also while a cache is being changed.
    __slots__ = ("_tokens", "late")

    def __init__(self) -> None:
        self._tokens: dict[int, tuple[weakref.ref[Any], _Owner]] = {}
        self.late: deque[_Owner] = deque()
        """The tokens of those that died since the last time."""

    def known(self, instance: object) -> _Owner | None:
        """Return the token of an object that has one."""
        found = self._tokens.get(id(instance))
        return found[1] if found is not None and found[0]() is instance else None

    def admit(self, instance: object) -> _Owner:
        """Return the token of an object that had none; it has to take weak references."""
        token = _Owner(type(instance).__qualname__)
        number, tokens, dead = id(instance), self._tokens, self.late

        def gone(_: weakref.ref[Any]) -> None:
            dead.append(token)
            tokens.pop(number, None)

        # Another thread may have been faster; then that token is the one.
        return tokens.setdefault(number, (weakref.ref(instance, gone), token))[1]

    def forget_dead(self, cache: TTLCache[Any]) -> None:
        """Remove what was cached for objects that died, if the cache can be changed now."""
        notifier, lock = cache._notifier, cache._lock  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        if lock.changing or (notifier is not None and notifier.mute):
            return
        while True:
            try:
                token = self.late.popleft()
            except IndexError:  # none is left; another thread may do the same
                return
            cache.invalidate_tag_nowait(token)
