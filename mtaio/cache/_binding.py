"""
Cached functions as methods: bound to their objects, whose results are kept apart by identity.

Promise: a cached function keeps its name, docstring, signature and annotations; a method keeps the
results of each object apart, by identity, and keeps no object alive.
Cost: binding a method is a look-up of its object's token.
Why both wrappers are a `functools.partial`: docs/en/design/caching.md.
"""

from __future__ import annotations

import inspect
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial, partialmethod, update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mtaio._internal.callables import name_of
from mtaio._internal.sentinel import UNSET
from mtaio.cache._calls import Call, Owner

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mtaio.cache._calls import Request
    from mtaio.cache._ttl import TTLCache

__all__ = ["Annotations", "Bind", "Binding", "BoundCall", "look_like", "unbound"]

Bind: TypeAlias = Literal["object", "class", "nothing"]


class Annotations(dict[str, Any]):
    """
    What a function's attribute ``__annotations__`` is, for an object that stands for it.

    Before Python 3.14 `update_wrapper` sets it, and this is not asked. Later it sets
    ``__annotate__`` alone: annotations may name what does not exist yet. The class itself has none:
    this is empty, for `typing.get_type_hints`, which takes it out of the ``__dict__`` of the class.
    """

    def __get__(self, function: Any, owner: type | None = None) -> dict[str, Any]:
        annotations: dict[str, Any] = {} if function is None else function._call.fn.__annotations__  # noqa: SLF001 - of a cached function
        return annotations


class Binding:
    """
    What a cached function is bound to as a method, and how the calls of that are answered.

    Args:
        call: How its calls are cached.
        method: What answers the calls of a method, given its object and that object's token.
        bind: What it is bound to: the "object", its "class", or "nothing".
    """

    __slots__ = ("_bind", "_call", "_method", "owners")

    def __init__(self, call: Call[Any], method: Callable[..., Any], bind: Bind) -> None:
        self._call = call
        self._method = update_wrapper(method, call.fn)
        self._bind = bind
        self.owners: Owners = Owners()

    def find(self, instance: object, owner: type | None) -> object:
        """Return what a function is bound to that was found by an attribute, UNSET for nothing."""
        if self._bind == "class":
            return type(instance) if owner is None else owner
        return UNSET if self._bind == "nothing" or instance is None else instance

    def arguments(self, instance: object) -> tuple[Callable[..., Any], object, object]:
        """Return the arguments of the partial that a method is."""
        return self._method, instance, self._token_of(instance)

    def _token_of(self, instance: object) -> object:
        """Return the token of ``instance`` in keys."""
        if not self._call.per_object:
            return None
        owners = self.owners
        if owners.late:
            owners.forget_dead(self._call.cache)
        found = owners.known(instance)
        if found is not None:
            return found
        try:
            return owners.admit(instance)
        except TypeError as error:
            msg = (
                f"{self._call!r} cannot tell the objects of {type(instance)!r} apart: {error}. Add "
                f"'__weakref__' to its __slots__ (a dataclass: weakref_slot=True), or pass key= to "
                f"cached()."
            )
            raise TypeError(msg) from error


class BoundCall:
    """
    How the calls of a method of one object are cached; the same as `Call`, for a bound method.

    Args:
        call: How those of the function are.
        instance: The object.
        token: What stands for it in keys.
    """

    __slots__ = ("_call", "_instance", "_token")

    def __init__(self, call: Call[Any], instance: object, token: object) -> None:
        self._call = call
        self._instance = instance
        self._token = token

    def __repr__(self) -> str:
        return f"<cached {self._call.fn!r} of {self._instance!r}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BoundCall)
            and self._instance is other._instance
            and self._call is other._call
        )

    def __hash__(self) -> int:
        return hash((id(self._instance), self._call))

    def __reduce__(self) -> tuple[Any, ...]:
        """Lead to the bound method, by its object and its name, as methods are pickled."""
        return getattr, (self._instance, self._call.fn.__name__)

    @property
    def fn(self) -> Callable[..., Any]:
        """The uncached method, from which `inspect.signature` takes the signature."""
        return MethodType(self._call.fn, self._instance)

    def key_to_find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call; raise for one that cannot be made, instead of finding none."""
        self._call.check((self._instance, *args), kwargs)
        return self._call.key_in(self._instance, self._token, args, kwargs)

    def request(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
        """Return what a fetcher is asked for."""
        call, instance, token = self._call, self._instance, self._token
        key = call.key_in(instance, token, args, kwargs)
        args = (instance, *args)
        return (
            key,
            call.fn,
            args,
            kwargs,
            call.ttl_of(args, kwargs),
            call.tags_of(args, kwargs, token),
        )


def look_like(function: Any, call: Call[Any]) -> None:
    """Give a cached function the name, the docstring and the signature of the function."""
    update_wrapper(function, call.fn)
    function.__dict__.pop("__signature__", None)  # a method shares these, and has no self


def unbound(given: partialmethod[Any]) -> Callable[..., Any]:
    """Return the function that a `functools.partialmethod` would be bound from."""
    inner: Any = given.func

    def method(self: object, /, *args: Any, **kwargs: Any) -> Any:
        return inner(self, *given.args, *args, **given.keywords | kwargs)

    update_wrapper(method, inner)
    # Its name in the class is another, so pickle has to be told none that leads to what it wraps.
    method.__name__ = method.__qualname__ = f"partialmethod({name_of(inner)})"
    rest = inspect.signature(partial(inner, None, *given.args, **given.keywords))
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    look: Any = method
    look.__signature__ = rest.replace(parameters=[first, *rest.parameters.values()])
    return method


class Owners:
    """The objects that the methods of one function were called on."""

    # Invariants:
    # - _tokens has the token of each living object, by id();
    # - the tokens of those that died are in late until the next call: a weak reference's callback
    #   may come anywhere, also while a cache is being changed.
    __slots__ = ("_tokens", "late")

    def __init__(self) -> None:
        self._tokens: dict[int, tuple[weakref.ref[Any], Owner]] = {}
        self.late: deque[Owner] = deque()
        """The tokens of those that died since the last time."""

    def known(self, instance: object) -> Owner | None:
        """Return the token of an object that has one."""
        found = self._tokens.get(id(instance))
        return found[1] if found is not None and found[0]() is instance else None

    def admit(self, instance: object) -> Owner:
        """Return the token of an object that had none; it has to take weak references."""
        token = Owner(type(instance).__qualname__)
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
