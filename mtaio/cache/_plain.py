"""
Put a cache around a plain function or method, which threads may call.

Promise: a decorated function is called as before, in any thread, with or without an event loop;
threads that make the same call at the same time share one load, and wait for it.
Cost: a hit takes a call, the look-up of a tuple, and the time of day; it takes no lock.
`mtaio.cache._threads` has the loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, final, overload

from mtaio.cache._binding import Bind, Bound, Function
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


def _fetcher_of(call: Call[Any]) -> ThreadFetcher:
    return ThreadFetcher(call.cache._fetcher)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package


def _answers(call: Call[R]) -> Callable[..., R]:
    """Return the function that answers the calls of a function."""
    # What a hit needs is in the closure: a name there costs less than an attribute.
    store = call.store
    lookup = store.lookup
    fetch = _fetcher_of(call).fetch
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
    fetch = _fetcher_of(call).fetch
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
class BoundPlainCached(Bound[P, R]):
    """
    A cached plain method of one object.

    It has the name, docstring and signature of the method, and equals any other bound method made
    from the same function and object.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # else it is the partial's

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            ...

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results, those of all objects."""
        return self._call.cache

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether the result of a call is in the cache; see `PlainCached.contains`."""
        return self._key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Return whether a call is in progress; see `PlainCached.is_loading`."""
        return self.cache.is_loading(self._key_to_find(args, kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call; see `PlainCached.invalidate`."""
        return self.cache.delete_nowait(self._key_to_find(args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make the call again; see `PlainCached.refresh`."""
        call, given = self._call, (self.__self__, *args)
        ttl, tags = call.ttl_of(given, kwargs), call.tags_of(given, kwargs, self.args[1])
        key = self._key_of(args, kwargs)
        result: R = _fetcher_of(call).fetch(key, call.fn, given, kwargs, ttl, tags, refresh=True)
        return result


@final
class PlainCached(Function[P, R]):
    """
    A plain function whose results are cached; what `cached` returns for one.

    Any thread may call it at any time, with or without an event loop. A call that finds no result
    runs the function, in its thread; other threads that make the same call meanwhile wait, and get
    its result or its error. If it is interrupted, as by a ``KeyboardInterrupt``, one of them makes
    the call itself. In the thread of an event loop a call stops the loop for as long as it takes:
    unless it is sure to be short, hand it to a worker thread with `anyio.to_thread.run_sync`. A
    function that itself waits for an event loop must not be called in the thread of that loop.

    A function that calls itself with the same arguments, directly or through other cached
    functions and threads, gets a ``RuntimeError``, since it would wait for itself. After a fork,
    the child process has the results, and none of the calls in progress in other threads.

    As a method it is bound to its object, and each object has values of its own. Call it on the
    object: on the class it is the function, and the object an argument like any other.

    Args:
        call: How its calls are cached.
        bind: What it is bound to as a method: the "object", its "class", or "nothing".
    """

    __slots__ = ()

    _bound = BoundPlainCached
    _answers = staticmethod(_answers)
    _answers_method = staticmethod(_answers_method)

    def __init__(self, call: Call[R], *, bind: Bind) -> None:
        if call.cache._loads.refreshing:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
            msg = (
                f"cache={call.cache!r} refreshes in the background, which takes an event loop, and "
                f"{call.fn!r} is a plain function. Leave out stale_while_revalidate and "
                f"refresh_ahead, or make it async."
            )
            raise ValueError(msg)
        super().__init__(call, bind=bind)

    if TYPE_CHECKING:  # else they are the partial's, and the base's

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Return the result of the call, from the cache or by making it."""
            ...

        @overload
        def __get__(self, instance: None, owner: type | None = None) -> PlainCached[P, R]: ...
        @overload
        def __get__(
            self: PlainCached[Concatenate[Any, Rest], R],
            instance: object,
            owner: type | None = None,
        ) -> BoundPlainCached[Rest, R]: ...
        def __get__(self, instance: object, owner: type | None = None) -> Any:
            """Return the method of ``instance``."""
            ...

    @property
    def cache(self) -> TTLCache[R]:
        """The cache that holds the results."""
        return self._call.cache

    def contains(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether the result of a call with these arguments is in the cache.

        It does not count as a read, and the result may be gone the next moment: to use it, call the
        function. Of a call that is still in progress there is no result: see `is_loading`.

        Raises:
            TypeError: The function cannot be called with them.
        """
        return self._key_to_find(args, kwargs) in self.cache

    def is_loading(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Return whether a call with these arguments is in progress, as `TTLCache.is_loading` does.

        Raises:
            TypeError: The function cannot be called with them.
        """
        return self.cache.is_loading(self._key_to_find(args, kwargs))

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """
        Forget the result of a call with these arguments, and return whether there was one.

        A call in progress still answers its callers, but its result is not kept.

        Raises:
            TypeError: The function cannot be called with them.
        """
        return self.cache.delete_nowait(self._key_to_find(args, kwargs))

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """
        Make the call again, and return its result.

        Until it is there, other callers get the old one, and if the call fails that stays. A call
        in progress still answers its callers, but its result is not kept.
        """
        call = self._call
        ttl, tags = call.ttl_of(args, kwargs), call.tags_of(args, kwargs)
        key = call.key_of(args, kwargs)
        result: R = _fetcher_of(call).fetch(key, call.fn, args, kwargs, ttl, tags, refresh=True)
        return result
