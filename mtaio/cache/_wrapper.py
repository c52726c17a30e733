"""
What stands in the place of a cached function, and of a cached method of one object.

Promise: calls with equal arguments share one value and one load; the order of keywords does not
matter; methods keep the values of each object apart, by identity, and keep no object alive.
Cost: a hit takes a coroutine, the look-up of a tuple, and the time of day.
Why it is a `functools.partial`: docs/en/design/caching.md.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)
from weakref import WeakKeyDictionary, ref

from mtaio._internal import clock
from mtaio._internal.sentinel import UNSET
from mtaio.cache._owners import Owner, Owners
from mtaio.cache._policy import HOT
from mtaio.cache._storing import NO_TAGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from mtaio.cache._call import Call
    from mtaio.cache._ttl import TTLCache

__all__ = ["Bind", "BoundCached", "Cached"]

Bind: TypeAlias = Literal["object", "class", "nothing"]

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")


def answering(call: Call[R], *, plain: bool) -> Callable[..., Coroutine[Any, Any, R]]:
    """
    Return what answers the calls of a function.

    Args:
        call: How the function is cached.
        plain: Whether the positional arguments of a call are its key.
    """
    answer = (answering_plain if plain else answering_any)(call)
    return update_wrapper(answer, call.fn)  # Trio and others name a partial's task after it


def answering_any(call: Call[R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return what answers calls that have any key."""

    async def answer(*args: Any, **kwargs: Any) -> R:
        key = call.key_of(args, kwargs)
        value: R = call.look(key)
        if value is not UNSET:
            return value
        return await call.load(args, kwargs, key, ())

    return answer


def answering_plain(call: Call[R]) -> Callable[..., Coroutine[Any, Any, R]]:
    """Return what answers calls whose key is their arguments: the same, without the calls."""
    # What a hit needs is in the closure: a name there costs less than an attribute, but each costs
    # something by being there.
    cache = call.cache
    look = cache._lookup  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    async def answer(*args: Any, **kwargs: Any) -> Any:
        key = call.key_of(args, kwargs) if kwargs else args
        try:
            entry = look(key)
        except TypeError:
            entry = None  # who asks for the load is told
        if entry is not None and entry.fresh > clock.read():
            if entry.score < HOT:
                entry.score += 1
            cache._hits += 1.0  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            return entry.value  # after fresh: see Entry
        tags = NO_TAGS if call.tags is None else call.tags_of(args, kwargs, ())
        return await cache._fetch(key, call.fn, args, kwargs, call.ttl, tags)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package

    return answer


class Cached(Generic[P, R], partial[Coroutine[Any, Any, R]]):  # noqa: PYI059 - the ways of Generic
    """
    An async function whose results are cached; what `cached` returns.

    Called as the function is. As a method it is bound to its object, whose values are its own,
    also where it is called on the class, with the object first.

    Args:
        call: How the function is cached.
        shared: Whether the cache may have values of other functions, too.
        bind: To what it is bound as a method: the "object", its "class", or "nothing".
    """

    __slots__ = (
        "_bind",
        "_cache",
        "_call",
        "_owners",
        "_views",
    )

    def __new__(cls, call: Call[R], *, shared: bool, bind: Bind) -> Self:  # noqa: ARG004 - see __init__
        plain = not (shared or call.prefix) and call.key is None
        return super().__new__(cls, answering(call, plain=plain))

    def __init__(self, call: Call[R], *, shared: bool, bind: Bind) -> None:
        if shared and call.key is None:
            call.prefix = (self,)
        self._bind: Bind = bind
        self._call: Call[R] = call
        self._cache: TTLCache[R] = call.cache
        self._owners: Owners = Owners()
        self._views: WeakKeyDictionary[type, Unbound[P, R]] = WeakKeyDictionary()
        update_wrapper(self, call.fn)

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r}>"

    def __reduce__(self) -> str:
        """Have copies be the function itself, and pickles its name, as those of functions are."""
        return str(getattr(self, "__qualname__", repr(self)))

    @property
    def cache(self) -> TTLCache[R]:
        """The cache in which the results are."""
        return self._call.cache

    if TYPE_CHECKING:  # else it is the partial's

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            raise NotImplementedError

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress answers those who wait for it, and is not kept. Not a checkpoint.

        Raises:
            TypeError: The function cannot be called so.
        """
        return self._call.forget(args, kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call anew, as `TTLCache.refresh` does, and return its result."""
        call = self._call
        return await call.anew(args, kwargs, call.key_of(args, kwargs), ())

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
        elif self._bind == "nothing":
            return self
        elif instance is None:
            return self if owner is None else self._of_class(owner)
        return self._of_object(instance)

    def _of_object(self, instance: object) -> BoundCached[..., R]:
        token = self._token(instance) if self._call.key is None else None
        return BoundCached[..., R](self._call, instance, token)

    def _of_class(self, owner: type) -> Unbound[P, R]:
        """Return what a class has, always the same: pickling it relies on that."""
        views = self._views
        found = views.get(owner)
        if found is None:
            made = Unbound[P, R](self._call, self._owners, views, owner)
            found = views.setdefault(owner, made)
        return found

    def _token(self, instance: object) -> Owner:
        """Return what stands for ``instance`` in keys."""
        owners = self._owners
        if owners.late and not self._cache._mute:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            for token in owners.dead():
                self._cache.invalidate_tag_nowait(token)
        found = owners.known(instance)
        if found is not None:
            return found
        try:
            return owners.admit(instance)
        except TypeError as error:
            msg = (
                f"{self!r} cannot tell the objects of {type(instance)!r} apart: {error}. Add "
                f"'__weakref__' to its __slots__, or pass key= to cached()."
            )
            raise TypeError(msg) from error


class Unbound(Cached[P, R]):
    """
    A cached method as its class has it: given one of its objects first, it is the method of that.

    Given anything else first, it is the function: not all that a class has is a method.

    Args:
        call: How the function is cached.
        owners: The objects that it was called on.
        views: What the classes have.
        owner: The class, which is not kept alive.
    """

    __slots__ = ("_owner",)

    def __new__(  # the arguments of __init__
        cls,
        call: Call[R],
        owners: Owners,  # noqa: ARG004 - see above
        views: WeakKeyDictionary[type, Unbound[P, R]],  # noqa: ARG004 - see above
        owner: type,  # noqa: ARG004 - see above
    ) -> Self:
        return super().__new__(cls, call, shared=False, bind="object")

    def __init__(
        self,
        call: Call[R],
        owners: Owners,
        views: WeakKeyDictionary[type, Unbound[P, R]],
        owner: type,
    ) -> None:
        super().__init__(call, shared=False, bind="object")
        self._owners = owners
        self._views = views
        self._owner: ref[type] = ref(owner)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of the call, from the cache or by making it."""
        bound = self._bound(args)
        if bound is None:
            return await super().__call__(*args, **kwargs)
        return await bound(*args[1:], **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call with these arguments, as `Cached.invalidate` does."""
        bound = self._bound(args)
        if bound is None:
            return super().invalidate(*args, **kwargs)
        return bound.invalidate(*args[1:], **kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call anew, as `TTLCache.refresh` does, and return its result."""
        bound = self._bound(args)
        if bound is None:
            return await super().refresh(*args, **kwargs)
        return await bound.refresh(*args[1:], **kwargs)

    def _bound(self, args: tuple[Any, ...]) -> BoundCached[..., R] | None:
        """Return the method of the first argument, if that is an object of the class."""
        owner = self._owner()
        if owner is None or not args or not isinstance(args[0], owner):
            return None
        return self._of_object(args[0])


class BoundCached(Generic[P, R]):
    """
    A cached method of one object.

    Args:
        call: How the function is cached.
        instance: The object.
        token: What stands for it in keys; None if a function of the user's makes them.
    """

    __slots__ = ("__self__", "_call", "_tags", "_token")

    def __init__(self, call: Call[R], instance: object, token: Owner | None) -> None:
        self._call: Call[R] = call
        self.__self__: object = instance
        self._token: object = instance if token is None else token
        self._tags: tuple[Owner, ...] = () if token is None else (token,)

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r} of {self.__self__!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Have it pickled as methods are: by its object and its name."""
        return getattr, (self.__self__, self._call.fn.__name__)

    @property
    def cache(self) -> TTLCache[R]:
        """The cache in which the results are, of all objects."""
        return self._call.cache

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of the call, from the cache or by making it."""
        call = self._call
        key = call.key_of((self._token, *args), kwargs)
        value: R = call.look(key)
        if value is not UNSET:
            return value
        return await call.load((self.__self__, *args), kwargs, key, self._tags)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call with these arguments, as `Cached.invalidate` does."""
        return self._call.forget((self._token, *args), kwargs)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call anew, as `TTLCache.refresh` does, and return its result."""
        call = self._call
        key = call.key_of((self._token, *args), kwargs)
        return await call.anew((self.__self__, *args), kwargs, key, self._tags)
