"""What the ``limit`` decorators have in common, seen through RateLimiter's."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, assert_type

import pytest

from mtaio.resources import RateLimiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

LIMITER = RateLimiter(1000, burst=1000)
"""Made with no event loop running, and shared by every test and backend here."""


@LIMITER
async def fetch(url: str, /, *, size: int = 1) -> list[str]:
    """Return the url some times."""
    return [url] * size


class Client:
    """A class whose methods are limited, with the decorators in either order."""

    def __init__(self, name: str) -> None:
        self.name = name

    @LIMITER
    async def method(self, number: int) -> str:
        """Return the name and the number."""
        return f"{self.name} {number}"

    @LIMITER(tokens=2)
    async def costly(self, number: int) -> str:
        """Return the name and the number, for two tokens."""
        return f"{self.name} {number}"

    @LIMITER
    @staticmethod
    async def static_inside(number: int) -> str:
        """Return the number; limited from outside."""
        return f"static {number}"

    @staticmethod
    @LIMITER
    async def static_outside(number: int) -> str:
        """Return the number; limited from inside."""
        return f"static {number}"

    @LIMITER
    @classmethod
    async def class_inside(cls, number: int) -> str:
        """Return the class and the number; limited from outside."""
        return f"{cls.__name__} {number}"

    @classmethod
    @LIMITER(tokens=2)
    async def class_outside(cls, number: int) -> str:
        """Return the class and the number; limited from inside."""
        return f"{cls.__name__} {number}"

    async def __call__(self, number: int) -> str:
        """Return the number."""
        return f"call {number}"


class Sub(Client):
    """Inherits the limited methods."""

    async def method(self, number: int) -> str:
        """Return what the parent does, and say so."""
        return "subclass of " + await super().method(number)


async def granted(call: Coroutine[Any, Any, object], result: object) -> int:
    """Check what ``call`` returns, and tell how many requests it made."""
    before = LIMITER.statistics().acquired
    assert await call == result
    return LIMITER.statistics().acquired - before


async def test_function_keeps_types_and_result() -> None:
    """A decorated function takes and returns what it did, and acquires once for each call."""
    assert_type(await fetch("a", size=2), list[str])
    assert await granted(fetch("a", size=2), ["a", "a"]) == 1


def test_function_keeps_its_face() -> None:
    """Name, docstring, signature, module and annotations are those of the function."""
    assert fetch.__name__ == "fetch"
    assert fetch.__qualname__ == "fetch"
    assert fetch.__module__ == __name__
    assert fetch.__doc__ == "Return the url some times."
    assert str(inspect.signature(fetch)) == "(url: 'str', /, *, size: 'int' = 1) -> 'list[str]'"
    assert inspect.iscoroutinefunction(fetch)
    assert inspect.iscoroutinefunction(inspect.unwrap(fetch))
    assert inspect.unwrap(fetch) is not fetch


async def test_methods() -> None:
    """Methods are bound as ever, looked up on the instance, the class or a subclass."""
    client = Client("client")
    assert_type(await client.method(1), str)
    assert await granted(client.method(1), "client 1") == 1
    assert await granted(Client.method(client, 2), "client 2") == 1
    assert await granted(client.costly(3), "client 3") == 1
    assert await granted(Sub("x").method(4), "subclass of x 4") == 1
    assert client.method.__name__ == "method"
    assert client.method.__doc__ == "Return the name and the number."


@pytest.mark.parametrize("name", ["static_inside", "static_outside"])
async def test_static_methods(name: str) -> None:
    """A static method stays one, whichever decorator comes first."""
    assert await granted(getattr(Client, name)(1), "static 1") == 1
    assert await granted(getattr(Client("x"), name)(2), "static 2") == 1
    assert isinstance(inspect.getattr_static(Client, name), staticmethod)


@pytest.mark.parametrize("name", ["class_inside", "class_outside"])
async def test_class_methods(name: str) -> None:
    """A class method stays one, whichever decorator comes first, and knows the subclass."""
    assert await granted(getattr(Client, name)(1), "Client 1") == 1
    assert await granted(getattr(Sub("x"), name)(2), "Sub 2") == 1
    assert isinstance(inspect.getattr_static(Client, name), classmethod)


async def test_partials_and_callable_objects() -> None:
    """Whatever makes a coroutine when called can be limited."""
    partial = LIMITER(functools.partial(Client("p").method, 5))
    assert await granted(partial(), "p 5") == 2  # the method inside is limited too
    assert await granted(LIMITER(Client("object"))(6), "call 6") == 1
    assert await granted(LIMITER(Client("bound").method)(7), "bound 7") == 2


async def test_error_of_the_function_travels() -> None:
    """An error raised inside comes out untouched."""
    error = KeyError("x")

    @LIMITER
    async def fail() -> None:
        raise error

    with pytest.raises(KeyError) as caught:
        await fail()
    assert caught.value is error


async def test_wrong_arguments_are_the_functions_own_error() -> None:
    """A call with wrong arguments fails as it would without the decorator."""
    with pytest.raises(TypeError, match=r"^fetch\(\) got an unexpected keyword argument 'colour'$"):
        await fetch("a", colour="red")  # type: ignore[call-arg] # what is refused


def plain() -> None:
    """Do nothing, and not even asynchronously."""


def generator() -> Generator[int]:
    """Yield once."""
    yield 1


async def async_generator() -> AsyncGenerator[int]:
    """Yield once."""
    yield 1


class Yielding:
    """An object whose call is an async generator."""

    async def __call__(self) -> AsyncGenerator[int]:
        """Yield once."""
        yield 1

    def __repr__(self) -> str:
        return "Yielding()"


NOT_ASYNC = r"it is not an async function, and only an async function can wait\. Make it"
GENERATOR = r"it is an async generator function, .* For a stream, use @Pipeline"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (plain, rf"<function plain at \w+>: {NOT_ASYNC}"),
        (generator, rf"<function generator at \w+>: {NOT_ASYNC}"),
        (lambda: fetch("x"), rf"<function <lambda> at \w+>: {NOT_ASYNC}"),
        (functools.partial(plain), rf"functools\.partial\(.*: {NOT_ASYNC}"),
        (Client, rf"<class .*Client'>: {NOT_ASYNC}"),
        (staticmethod(plain), rf"<function plain at \w+>: {NOT_ASYNC}"),
        (len, rf"<built-in function len>: {NOT_ASYNC}"),
        (async_generator, rf"<function async_generator at \w+>: {GENERATOR}"),
        (Yielding(), rf"Yielding\(\): {GENERATOR}"),
        (
            3,
            r"3: it is of type 'int', not a function\. Write the decorator above",
        ),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],  # the same in every process
)
@pytest.mark.parametrize("options", [{}, {"tokens": 2}], ids=["bare", "options"])
def test_what_cannot_wait_is_refused(wrong: Any, reason: str, options: dict[str, Any]) -> None:
    """What makes no coroutine is refused when it is decorated, with the reason and the way out."""
    decorator: Callable[[Any], object] = LIMITER(**options) if options else LIMITER
    with pytest.raises(TypeError, match=rf"^@RateLimiter cannot decorate {reason}"):
        decorator(wrong)
