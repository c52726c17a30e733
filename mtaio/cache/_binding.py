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
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
)

from mtaio._internal.callables import name_of
from mtaio.cache._calls import Call, Owner

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mtaio.cache._ttl import TTLCache

__all__ = ["Bind", "Bound", "Function", "unbound"]

P = ParamSpec("P")
R = TypeVar("R")

Bind: TypeAlias = Literal["object", "class", "nothing"]


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


class Function(Generic[P, R], partial[Any]):  # noqa: PYI059 - the ways of Generic
    """
    What every cached function is; its kinds say how calls are answered, and in what they are bound.

    Args:
        call: How its calls are cached.
        bind: What it is bound to as a method: the "object", its "class", or "nothing".
    """

    __slots__ = ("_bind", "_call", "_method", "_owners")

    if TYPE_CHECKING:
        _bound: ClassVar[type[Bound[..., Any]]]
        """What it is as a method of an object."""

        @staticmethod
        def _answers(call: Call[Any]) -> Callable[..., Any]:
            """Return the function that answers the calls of a function."""
            ...

        @staticmethod
        def _answers_method(call: Call[Any]) -> Callable[..., Any]:
            """Return the same for a method, called with its object and that object's token."""
            ...

    else:
        __annotations__ = _Annotations()

    def __new__(cls, call: Call[R], *, bind: Bind) -> Self:  # noqa: ARG004 - see __init__
        # Named as the function, after which trio and others name a partial's task.
        return super().__new__(cls, update_wrapper(cls._answers(call), call.fn))

    def __init__(self, call: Call[R], *, bind: Bind) -> None:
        self._bind: Bind = bind
        self._call: Call[R] = call
        self._method = update_wrapper(self._answers_method(call), call.fn)
        self._owners = _Owners()
        update_wrapper(self, call.fn)
        self.__dict__.pop("__signature__", None)  # a method shares these: it would have a self

    def __repr__(self) -> str:
        return repr(self._call)

    def __reduce__(self) -> str:
        """Make copies the function itself, and pickles its name, as for functions."""
        return str(getattr(self, "__qualname__", repr(self)))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Return the method of ``instance``, or of its class if that is what the function is."""
        if self._bind == "class":
            instance = type(instance) if owner is None else owner
        elif self._bind == "nothing" or instance is None:
            return self
        return self._bound(self, instance)

    def _key_to_find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call; raise for one that cannot be made, instead of finding none."""
        self._call.check(args, kwargs)
        return self._call.key_of(args, kwargs)

    def _bound_to(self, instance: object) -> tuple[Any, object, object]:
        """Return what a method calls, and with what."""
        return self._method, instance, self._token_of(instance)

    def _token_of(self, instance: object) -> object:
        """Return the token of ``instance`` in keys."""
        if not self._call.per_object:
            return None
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


class Bound(Generic[P, R], partial[Any]):  # noqa: PYI059 - as above
    """
    What every cached method of one object is.

    It has the name, docstring and signature of the method, and equals any other bound method made
    from the same function and object.
    """

    __slots__ = ("__func__", "__self__")

    if TYPE_CHECKING:
        __func__: Any  # a Function: declared so, it would be bound
        __self__: object
    else:
        __annotations__ = _Annotations()

        def __get__(self, instance: object, owner: type | None = None) -> Self:
            """Stay bound, as methods do; a partial is bound again from Python 3.14 on."""
            return self

    def __new__(cls, function: Function[..., R], instance: object) -> Self:
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
        if not isinstance(other, Bound):
            return NotImplemented
        return self.__self__ is other.__self__ and self.__func__ is other.__func__

    def __hash__(self) -> int:
        return hash((id(self.__self__), self.__func__))

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The uncached method, from which `inspect.signature` takes the signature."""
        return MethodType(self._call.fn, self.__self__)

    @property
    def _call(self) -> Call[R]:
        call: Call[R] = self.__func__._call  # noqa: SLF001 - of this module
        return call

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call."""
        instance, token = self.args
        return self._call.key_in(instance, token, args, kwargs)

    def _key_to_find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
        """Return the key of a call; raise for one that cannot be made, instead of finding none."""
        self._call.check((self.__self__, *args), kwargs)
        return self._key_of(args, kwargs)


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


class _Owners:
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
