"""
A resource: opened before an application serves, and closed after.

Promise: its value is available while the application is up, and at no other time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, final

from mtaio._internal.callables import is_async, is_async_generator, name_of, unwrap
from mtaio._internal.checks import type_of
from mtaio._internal.sentinel import UNSET, Unset

if TYPE_CHECKING:
    from mtaio.app._application import Application

__all__ = ["Opening", "Resource", "bind_app"]

T = TypeVar("T")

_WAY_OUT: Final = (
    "Write an async function that yields the value once, as for contextlib.asynccontextmanager, or "
    "return an object for async with."
)


class Opening(Generic[T]):
    """
    How a resource is opened, and its value while it is open.

    Args:
        fn: What was registered.

    Attributes:
        name: The function's name.
        value: The value; `UNSET` while it is not open.
    """

    __slots__ = ("_fn", "name", "value")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.name: Final = name_of(fn)
        kind = (
            "an async function without yield"
            if is_async(fn)
            else "a generator that is not async"
            if inspect.isgeneratorfunction(unwrap(fn))
            else None
        )
        if kind is not None:
            msg = f"the resource {self.name!r} is {kind}, which cannot be opened. {_WAY_OUT}"
            raise TypeError(msg)
        self._fn: Final = asynccontextmanager(fn) if is_async_generator(fn) else fn
        self.value: T | Unset = UNSET

    def open(self, app: Application) -> AbstractAsyncContextManager[T]:
        """Return the context manager that opens and closes it."""
        opened = bind_app(self._fn, app)()
        if not isinstance(opened, AbstractAsyncContextManager):
            if inspect.iscoroutine(opened):
                opened.close()
            msg = (
                f"the resource {self.name!r} returned {type_of(opened)}, not an async context "
                f"manager. {_WAY_OUT}"
            )
            raise TypeError(msg)
        return cast("AbstractAsyncContextManager[T]", opened)


@final
class Resource(Generic[T]):
    """What `Application.resource` makes of a function."""

    __slots__ = ("_opening",)

    def __init__(self, opening: Opening[T]) -> None:
        self._opening: Final = opening

    def __repr__(self) -> str:
        return f"<Resource {self.name!r}>"

    @property
    def name(self) -> str:
        """The function's name."""
        return self._opening.name

    def get(self) -> T:
        """
        Return the value.

        Not a checkpoint. It can be called from any thread.

        Raises:
            RuntimeError: The resource is not open, because the application is not up.
        """
        value = self._opening.value
        if value is UNSET:
            msg = (
                f"the resource {self.name!r} is not open. Ask for it while the application is up: "
                f"in a service, in a request, or in a resource that is registered after it."
            )
            raise RuntimeError(msg)
        return value


def bind_app(fn: Callable[..., Any], app: Application) -> Callable[[], Any]:
    """Return ``fn`` as a function of no arguments: it takes the application, or nothing."""
    signature = inspect.signature(fn)
    try:
        signature.bind()
    except TypeError:
        pass
    else:
        return fn
    try:
        signature.bind(app)
    except TypeError:
        msg = (
            f"{name_of(fn)}{signature} can be called neither with the application nor without "
            f"arguments. Give it one parameter, the application, or none."
        )
        raise TypeError(msg) from None
    return lambda: fn(app)
