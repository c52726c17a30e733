"""
Put a cache around a plain function or method, which threads may call.

Promise: a decorated function is called as before, in any thread, with or without an event loop;
threads that make the same call at the same time share one load, and wait for it.
Cost: a hit takes a call, the look-up of a tuple, and the time of day; it takes no lock.
`mtaio.cache._threads` has the loads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    final,
    overload,
)

from mtaio._internal.sentinel import UNSET
from mtaio.cache._binding import Annotations, Bind, Binding, BoundCall, look_like
from mtaio.cache._config import NO_TAGS
from mtaio.cache._policy import HOT
from mtaio.cache._threads import ThreadFetcher

if TYPE_CHECKING:
    from mtaio.cache._calls import Call
    from mtaio.cache._ttl import TTLCache

__all__ = ["BoundPlainCached", "PlainCached"]

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")


def _fetcher_of(cache: TTLCache[Any]) -> ThreadFetcher:
    return ThreadFetcher(cache._fetcher)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package


def _answers(call: Call[R]) -> Callable[..., R]:
    """Return the function that answers the calls of a function."""
    # What a hit needs is in the closure: a name there costs less than an attribute.
    store = call.store
    lookup = store.lookup
    fetch = _fetcher_of(call.cache).fetch
    plain = call.plain

    def answer(*args: Any, **kwargs: Any) -> Any:
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
        return fetch(key, call.fn, args, kwargs, ttl, tags)

    return answer


def _answers_method(call: Call[R]) -> Callable[..., R]:
    """Return the same for a method, called with its object and that object's token."""
    store = call.store
    lookup = store.lookup
    fetch = _fetcher_of(call.cache).fetch
    plain = call.plain

    def answer(instance: object, token: object, /, *args: Any, **kwargs: Any) -> Any:
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
        return fetch(key, call.fn, args, kwargs, ttl, tags)

    return answer


@final
class BoundPlainCached(Generic[P, R], partial[R]):  # noqa: PYI059 - the ways of Generic
    """
    A cached plain method bound to its object.

    It has the name, docstring and signature of the method, and equals any other bound method made
    from the same function and object.
    """

    __slots__ = ("__func__", "__self__")

    if TYPE_CHECKING:  # else it is the partial's
        __func__: Any  # a PlainCached: declared so, it would be bound
        __self__: object

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            ...

    else:
        __annotations__ = Annotations()

        def __get__(self, instance: object, owner: type | None = None) -> Self:
            """Stay bound, as methods do; a partial is bound again from Python 3.14 on."""
            return self

    def __new__(cls, function: PlainCached[..., R], instance: object) -> Self:
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
        if not isinstance(other, BoundPlainCached):
            return NotImplemented
        return self._call == other._call

    def __hash__(self) -> int:
        return hash(self._call)

    @property
    def __wrapped__(self) -> Callable[..., R]:
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

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of a call is in the cache; see `PlainCached.contains`."""
        return self._call.key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether a call is in progress; see `PlainCached.is_loading`."""
        return self.cache.is_loading(self._call.key_to_find(args, kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; see `PlainCached.invalidate`."""
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again; see `PlainCached.refresh`."""
        fetch = _fetcher_of(self.cache).fetch
        result: R = fetch(*self._call.request(args, kwargs), refresh=True)
        return result


@final
class PlainCached(Generic[P, R], partial[R]):  # noqa: PYI059 - as above
    """
    A plain function whose results are cached, as returned by `cached`.

    Any thread may call it at any time, with or without an event loop. If there is no result, the
    function is called in the caller's thread. Other threads that make the same call meanwhile wait
    for its result or error; if the call is interrupted, as by a ``KeyboardInterrupt``, one of them
    makes it again.

    In the thread of an event loop, a call blocks the loop; unless it is certain to be short, run it
    in a worker thread with `anyio.to_thread.run_sync`. A function that waits for an event loop must
    not be called in that loop's thread. A function that calls itself with the same arguments,
    directly or through other cached functions and threads, gets a ``RuntimeError``, since it would
    wait for itself.

    After a fork, the child process has the results, but not the calls that other threads had in
    progress.

    A method is bound to its object, and keeps separate results for each object. Accessed on the
    class, it is an ordinary cached function, and the object is an argument like any other.
    """

    __slots__ = ("_binding", "_call")

    if TYPE_CHECKING:  # else it is the partial's

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            ...

    else:
        __annotations__ = Annotations()

    def __new__(cls, call: Call[R], *, bind: Bind) -> Self:  # noqa: ARG004 - see __init__
        # Named as the function, after which trio and others name a partial's task.
        return super().__new__(cls, update_wrapper(_answers(call), call.fn))

    def __init__(self, call: Call[R], *, bind: Bind) -> None:
        if call.cache._loads.refreshing:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            msg = (
                f"cache={call.cache!r} refreshes in the background, which needs an event loop, and "
                f"{call.fn!r} is a plain function. Leave out stale_while_revalidate and "
                f"refresh_ahead, or make it async."
            )
            raise ValueError(msg)
        self._call: Call[R] = call
        self._binding = Binding(call, _answers_method(call), bind)
        look_like(self, call)

    def __repr__(self) -> str:
        return repr(self._call)

    def __reduce__(self) -> str:
        """Copy it as itself and pickle it by name, like a function."""
        return str(getattr(self, "__qualname__", repr(self)))

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> PlainCached[P, R]: ...
    @overload
    def __get__(
        self: PlainCached[Concatenate[Any, Rest], R],
        instance: object,
        owner: type | None = None,
    ) -> BoundPlainCached[Rest, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the method of ``instance``, or of its class if that is what the function is."""
        found = self._binding.find(instance, owner)
        return self if found is UNSET else BoundPlainCached[..., R](self, found)

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results."""
        return self._call.cache

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        A call that is still in progress has no result; see `is_loading`. The result may be gone the
        next moment, so to use it, call the function. This does not count as a read.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self._call.key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether a call with these arguments is in progress, as `TTLCache.is_loading` does.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self.cache.is_loading(self._call.key_to_find(args, kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress still answers its callers, but its result is not kept.

        Raises:
            TypeError: The function cannot be called with these arguments.
        """
        return self.cache.delete_nowait(self._call.key_to_find(args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """
        Make the call again, and return its result.

        Until it has returned, other callers get the old result, which is kept if the call fails. An
        earlier call in progress still answers its callers, but its result is not kept.
        """
        fetch = _fetcher_of(self.cache).fetch
        result: R = fetch(*self._call.request(args, kwargs), refresh=True)
        return result
