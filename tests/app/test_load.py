"""Finding the application that a command line names."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.app._load import load, load_application, own_traceback
from mtaio.app._usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHOP = """
from types import SimpleNamespace

from mtaio.app import Application


app = Application(name="shop")
nested = SimpleNamespace(inner=SimpleNamespace(app=app))


async def make_later():
    raise AssertionError


def make_app() -> Application:
    return Application(name="made")


def make_for(customer: str) -> Application:
    raise AssertionError


async def asgi(scope, receive, send):
    raise AssertionError
"""


@pytest.fixture
def module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Yield what writes a module into the current folder; none of them stays imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    write("shop_a.py", SHOP)
    write("shop_b/__init__.py", "")
    write("shop_b/web.py", SHOP)
    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("shop_a:app", "shop"),
        ("shop_a:nested.inner.app", "shop"),
        ("shop_a:make_app()", "made"),
        ("shop_b.web:app", "shop"),
    ],
)
def test_application_is_found(target: str, name: str) -> None:
    """A module of the current folder is imported, and a function is called if it says so."""
    assert load_application(target).name == name


@pytest.mark.usefixtures("module")
def test_anything_can_be_found(folder: Path) -> None:
    """What is no application is for others to judge; the folder is put on the path once."""
    assert load("shop_a:asgi").__name__ == "asgi"  # type: ignore[attr-defined] # it is a function
    load("shop_a:app")
    assert sys.path.count(str(folder)) == 1
    assert sys.path[0] == str(folder)


@pytest.mark.usefixtures("module")
def test_asgi_application_is_served() -> None:
    """What is called as ASGI applications are is put into an application."""
    (server,) = load_application("shop_a:asgi").servers
    assert server.bind == "127.0.0.1:8000"


LIFESPANS = """
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from mtaio.app import Application
from mtaio.asgi import AccessLog
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

shop, other = Application(name="shop"), Application(name="other")


@asynccontextmanager
async def opened(app):
    async with shop.lifespan(app):
        yield


@asynccontextmanager
async def unrelated(app):
    print(shop.name)
    yield


@asynccontextmanager
async def both(app):
    async with shop.lifespan(app), other.lifespan(app):
        yield


class Site:
    @asynccontextmanager
    async def lifespan(self, app):
        async with shop.lifespan(app):
            yield


def made():
    service = Application(name="made")

    @asynccontextmanager
    async def lifespan(app):
        async with service.lifespan(app):
            yield

    return Starlette(lifespan=lifespan)


def made_in_part():
    service = Application(name="made in part")

    @asynccontextmanager
    async def lifespan(app):
        async with service.lifespan(app):
            yield later

    return Starlette(lifespan=lifespan)
    later = 1


own = Starlette(lifespan=shop.lifespan)
books = Application(name="books")
logged = Starlette(lifespan=books.lifespan)
books.serve(AccessLog(CORSMiddleware(logged)))
with_routes = FastAPI(lifespan=shop.lifespan)
with_routes.include_router(APIRouter())
with_routes.include_router(APIRouter())
around = FastAPI(lifespan=opened)
around.include_router(APIRouter())
method = Starlette(lifespan=Site().lifespan)
without = Starlette()
not_entered = Starlette(lifespan=unrelated)
two = Starlette(lifespan=both)
"""


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("own", "shop"),
        ("logged", "books"),
        ("with_routes", "shop"),
        ("around", "shop"),
        ("method", "shop"),
        ("made()", "made"),
        ("made_in_part()", "made in part"),
        ("without", None),
        ("not_entered", None),
    ],
)
def test_application_behind_a_lifespan(
    module: Callable[[str, str], None], target: str, name: str | None
) -> None:
    """It serves what it is the lifespan of; where there is none, a new one does."""
    module("shop_e.py", LIFESPANS)
    app = load_application(f"shop_e:{target}")
    assert app.name == name
    assert len(app.servers) == 1
    if target == "own":  # it is served already, and so not once more
        assert len(load_application("shop_e:own").servers) == 1


def test_application_that_serves_something_else_too(module: Callable[[str, str], None]) -> None:
    """What is named is one more server; what is in a middleware is served by that one."""
    module("shop_e.py", LIFESPANS + "also = FastAPI(lifespan=books.lifespan)")
    assert len(load_application("shop_e:logged").servers) == 1
    assert len(load_application("shop_e:also").servers) == 2


def test_several_applications_behind_a_lifespan(module: Callable[[str, str], None]) -> None:
    """They are refused, as one alone can run the program."""
    module("shop_e.py", LIFESPANS)
    with pytest.raises(UsageError, match=r"'shop_e:two' enters 2 applications of mtaio, but"):
        load_application("shop_e:two")


IN_SHOP = r"In 'shop_a' there is: shop_a:app\."
FORM = r"Name a module and an application in it, as in shop:app or shop:make_app\(\)\."


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shop_a", f"'shop_a' does not say which application is meant. {IN_SHOP}"),
        ("shop_a:", f"'shop_a:' does not say which application is meant. {IN_SHOP}"),
        ("json", rf"'json' does not say .* There is no Application in 'json'\. {FORM}"),
        ("shop_a:nix", f"there is no 'nix' in 'shop_a'. {IN_SHOP}"),
        ("shop_a:nested.inner.nix", f"there is no 'nix' in 'shop_a:nested.inner'. {IN_SHOP}"),
        ("shop_nix:app", f"there is no module 'shop_nix', neither in .* nor installed. {FORM}"),
        ("shop_a.web:app", f"there is no module 'shop_a.web', neither in .* nor installed. {FORM}"),
        ("shop_a.py:app", "'shop_a.py:app' begins with a path.* Write 'shop_a:app' instead."),
        ("./shop_b/web.py:app", ".* begins with a path.* Write 'shop_b.web:app' instead."),
        ("", f"'' does not begin with the name of a module. {FORM}"),
        (":app", f"':app' does not begin with the name of a module. {FORM}"),
        ("shop-a:app", f"'shop-a:app' does not begin with the name of a module. {FORM}"),
        ("shop_a:nested", f"'shop_a:nested' is a SimpleNamespace, neither an .* nor .* {IN_SHOP}"),
        ("shop_a:make_app", rf".* If it returns one, write shop_a:make_app\(\)\. {IN_SHOP}"),
        ("shop_a:Application", f"'shop_a:Application' is a type, neither an .* nor .* {IN_SHOP}"),
        (
            "shop_a:make_later()",
            r"'shop_a:make_later\(\)' is an async function\. Name a function .*",
        ),
        ("shop_a:make_for()", ".* cannot be called: missing a required argument: 'customer'. .*"),
        ("shop_a:app()", ".* of type Application, .*Leave out the parentheses."),
    ],
)
def test_mistakes_say_what_there_is(target: str, message: str) -> None:
    """A mistake in the name is one message: what was asked for, why not, and the way out."""
    with pytest.raises(UsageError) as caught:
        load_application(target)
    assert re.fullmatch(message, str(caught.value))


@pytest.mark.parametrize(
    ("text", "error", "shown"),
    [
        ("import shop_missing", ModuleNotFoundError, "import shop_missing"),
        ("1 / 0", ZeroDivisionError, "1 / 0"),
        ("def (", SyntaxError, "def ("),
        ("raise SystemExit(3)", SystemExit, "raise SystemExit(3)"),
        ("def app(): 1 / 0", ZeroDivisionError, "1 / 0"),
    ],
)
def test_what_the_program_raises_travels_untouched(
    text: str, error: type[BaseException], shown: str, module: Callable[[str, str], None]
) -> None:
    """An error of the program's own is its own, and its traceback begins in its own file."""
    module("shop_c.py", text)
    with pytest.raises(error) as caught:
        load("shop_c:app()")
    told = own_traceback(caught.value)
    assert shown in told
    assert "importlib" not in told
    assert "_load.py" not in told
