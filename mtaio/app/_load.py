"""
Loads what a command line names: ``shop:app`` or ``shop:make_app()``.

Promise: a mistake in the name is one `UsageError`, which says what was asked for, why it was not
found, and which applications there are. What the program's own code raises propagates unchanged.
Nothing is entered or started.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from contextlib import suppress
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeGuard

from mtaio._internal.checks import type_of
from mtaio.app._usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType, TracebackType

    from mtaio._internal.asgi import ASGIApp
    from mtaio.app import Application

__all__ = ["is_loading", "load", "load_application", "own_traceback"]

_IMPORTLIB: Final = (import_module.__code__.co_filename, "<frozen importlib")
"""How the names of the files begin that import modules."""

_LOADING: Final[ContextVar[bool]] = ContextVar("loading", default=False)

_MOST_LAYERS: Final = 100
"""Of middleware, one around another: some objects have any attribute."""

_FORM: Final = "Name a module and an application in it, as in shop:app or shop:make_app()."


def load(target: str) -> object:
    """
    Return the object that ``target`` names.

    The module is imported, with the current folder first on the path. A name that ends in ``()`` is
    called, without arguments, and what it returns is meant.

    Args:
        target: ``"module:name"``, where the name may have dots, or ``"module:function()"``.

    Raises:
        UsageError: It is written otherwise, there is no such module or name, or the function needs
            arguments.
        BaseException: What the program's own code raised.
    """
    token = _LOADING.set(True)
    try:
        return _load(target)
    finally:
        _LOADING.reset(token)


def is_loading() -> bool:
    """Return whether a program is being imported, or its factory called, by `load`."""
    return _LOADING.get()


def _load(target: str) -> object:
    name, colon, path = target.partition(":")
    module = _import(target, name)
    if not (colon and path):
        msg = f"{target!r} does not say which application is meant. {_choice(module)}"
        raise UsageError(msg)
    found: object = module
    so_far = name
    for each in path.removesuffix("()").split("."):
        try:
            found = getattr(found, each)
        except AttributeError:
            msg = f"there is no {each!r} in {so_far!r}. {_choice(module)}"
            raise UsageError(msg) from None
        so_far = f"{so_far}{'.' if ':' in so_far else ':'}{each}"
    return _call(target, found) if path.endswith("()") else found


def load_application(target: str) -> Application:
    """
    Return the application that ``target`` names, as `load` finds it.

    An ASGI application is served by the one that its lifespan enters, or else by a new one.

    Raises:
        UsageError: As for `load`; it is something else, or its lifespan enters several.
        BaseException: As for `load`.
    """
    from mtaio.app import Application  # noqa: PLC0415 - most mistakes are found without it

    found = load(target)
    if isinstance(found, Application):
        return found
    if _is_asgi(found):
        app, *others = _behind(found) or [Application()]
        if others:
            msg = (
                f"the lifespan of {target!r} enters {1 + len(others)} applications of mtaio, but "
                f"only one can run it. Let that one serve it, service.serve(app), and pass that "
                f"one."
            )
            raise UsageError(msg)
        served = app._registered.servers  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this package
        if not any(_is_within(each.asgi, found) for each in served):
            app.serve(found)
        return app
    way_out = _choice(sys.modules[target.partition(":")[0]])
    if inspect.isfunction(found):
        way_out = f"If it returns one, write {target}(). {way_out}"
    kind = type_of(found)
    msg = f"{target!r} is {kind}, neither an Application nor an ASGI application. {way_out}"
    raise UsageError(msg)


def _is_asgi(found: object) -> TypeGuard[ASGIApp]:
    """Return whether something can be called as ASGI applications are."""
    if not callable(found):
        return False
    try:
        inspect.signature(found).bind("scope", "receive", "send")
    except TypeError:
        return False
    return True


def _is_within(served: object, asgi: ASGIApp) -> bool:
    """Return whether ``asgi`` is what is served, or is in the middleware that is served."""
    for _ in range(_MOST_LAYERS):
        if served is asgi:
            return True
        served = getattr(served, "app", getattr(served, "_app", None))
    return False


def _behind(asgi: ASGIApp) -> list[Application]:
    """
    Return the applications that a lifespan enters: of Starlette, FastAPI or what is made of them.

    That is ``service.lifespan`` itself, or a function that has this in it. Decorators and routers
    put either into functions of their own.
    """
    from mtaio.app import Application  # noqa: PLC0415 - see `load_application`

    found: dict[Application, None] = {}
    seen: set[object] = set()
    left: list[object] = [getattr(getattr(asgi, "router", None), "lifespan_context", None)]
    while left:
        each = left.pop()
        if isinstance(each, Application):
            found[each] = None
        elif inspect.ismethod(each):
            left += [each.__self__, each.__func__]
        elif inspect.isfunction(each) and each not in seen:
            seen.add(each)
            for cell in each.__closure__ or ():
                with suppress(ValueError):  # the variable has no value, or none yet
                    left.append(cell.cell_contents)
            names = each.__code__.co_names
            if "lifespan" in names:
                used = (each.__globals__.get(name) for name in names)
                left += (value for value in used if isinstance(value, Application))
    return [*found]


def own_traceback(error: BaseException) -> str:
    """Return the traceback of what `load` raised, from the first frame of the program on."""
    frames = list(_frames(error.__traceback__))
    files = [each.tb_frame.f_code.co_filename for each in frames]
    start = 1 + max((place for place, file in enumerate(files) if file == __file__), default=-1)
    while start < len(files) and files[start].startswith(_IMPORTLIB):
        start += 1
    own = frames[start] if start < len(frames) else None
    return "".join(traceback.format_exception(type(error), error, own)).rstrip()


def _frames(tb: TracebackType | None) -> Iterator[TracebackType]:
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _import(target: str, name: str) -> ModuleType:
    """Return the module of that name, imported."""
    if name.endswith(".py"):
        module = name.removesuffix(".py").replace("\\", "/").strip("./").replace("/", ".")
        written = target.replace(name, module, 1)
        msg = f"{target!r} begins with a path, not with a module. Write {written!r} instead."
        raise UsageError(msg)
    if not all(each.isidentifier() for each in name.split(".")):
        msg = f"{target!r} does not begin with the name of a module. {_FORM}"
        raise UsageError(msg)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # A module missing in the program is the program's error, and needs its traceback.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        msg = f"there is no module {error.name!r}, neither in {here} nor installed. {_FORM}"
        raise UsageError(msg) from None


def _call(target: str, function: object) -> object:
    """Return what a factory returns."""
    if not callable(function):
        msg = (
            f"{target!r} calls an object of type {type(function).__name__}, which is not a "
            f"function. Leave out the parentheses."
        )
        raise UsageError(msg)
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        msg = f"{target!r} cannot be called: {error}. Name a function without arguments."
        raise UsageError(msg) from None
    made: object = function()
    if inspect.iscoroutine(made):
        made.close()
        msg = f"{target!r} is an async function. Name a function that returns the application."
        raise UsageError(msg)
    return made


def _choice(module: ModuleType) -> str:
    """Return the way out: which applications there are in a module."""
    from mtaio.app import Application  # noqa: PLC0415 - most mistakes are found without it

    name = module.__name__
    found = [key for key, value in vars(module).items() if isinstance(value, Application)]
    if not found:
        return f"There is no Application in {name!r}. {_FORM}"
    return f"In {name!r} there is: {', '.join(f'{name}:{each}' for each in found)}."
