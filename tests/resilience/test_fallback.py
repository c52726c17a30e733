"""Fallback: an answer for a call that has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.resilience import Fallback, Pipeline, Retry, Timeout
from tests.resilience.parts import answer, fail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def test_it_answers_with_the_error_and_the_arguments() -> None:
    """A plain function or an async one."""

    async def slow(error: Exception, *args: int) -> object:
        await anyio.sleep(1)
        return (type(error), args)

    assert await Pipeline(Fallback(lambda _, value: value * 2)).run(fail, 4) == 8
    answered: object = await Pipeline(Fallback(slow)).run(fail, 4, 5)
    assert answered == (ConnectionError, (4, 5))
    assert anyio.current_time() == 1


async def test_success_needs_none() -> None:
    """And is not counted."""
    fallback = Fallback(lambda _: 0)
    assert await Pipeline(fallback).run(answer) == 1
    assert (fallback.statistics().used, fallback.statistics().failed) == (0, 0)


@pytest.mark.parametrize(
    "on",
    [LookupError, (LookupError, ValueError), lambda error: "x" in str(error)],
    ids=["class", "tuple", "function"],
)
async def test_other_errors_pass(on: Any) -> None:
    """As they are."""
    with pytest.raises(ConnectionError):
        await Pipeline(Fallback(answer, on=on)).run(fail)


async def test_fallback_that_fails_is_counted() -> None:
    """Its error comes out, with the first as its context."""

    def broken(_: Exception) -> None:
        raise LookupError

    fallback = Fallback(broken, name="cache")
    with pytest.raises(LookupError) as caught:
        await Pipeline(fallback).run(fail)
    assert isinstance(caught.value.__context__, ConnectionError)
    assert (fallback.statistics().used, fallback.statistics().failed) == (0, 1)


async def test_cancellation_is_never_answered() -> None:
    """Neither that of the call nor that of the fallback itself."""
    asked: list[Exception] = []

    async def slow(error: Exception) -> None:
        asked.append(error)
        await anyio.sleep(5)

    fallback = Fallback(slow)
    with anyio.move_on_after(1) as scope:
        await Pipeline(fallback).run(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert asked == []
    with anyio.move_on_after(1) as scope:
        await Pipeline(fallback).run(fail)
    assert scope.cancelled_caught
    assert len(asked) == 1
    assert (fallback.statistics().used, fallback.statistics().failed) == (0, 0)


async def test_it_answers_for_a_timeout() -> None:
    """Which is an error, other than a cancellation from outside."""
    api = Pipeline(Fallback(lambda error, _: str(error)), Timeout(1, name="api"))
    call: Any = api.run
    assert await call(anyio.sleep, 2) == "api: the call timed out after 1 s"


def test_printed() -> None:
    """By its function, or by its name."""
    assert repr(Fallback(answer)) == "<Fallback to answer: used 0 times>"
    named = Fallback(answer, on=OSError, name="cache")
    assert (repr(named), str(named)) == (
        "<Fallback 'cache' to answer: used 0 times>",
        "Fallback(cache)",
    )
    assert (named.name, named.on) == ("cache", OSError)


@pytest.mark.parametrize(
    ("fn", "on", "message"),
    [
        (3, Exception, "^fn=3 is an int, which is not callable"),
        (answer, BaseException, "^on=<class 'BaseException'> holds <class 'BaseException'>"),
        (answer, 3, "^on=3 is an int, which is not callable"),
    ],
)
def test_senseless_arguments_are_refused(fn: Any, on: Any, message: str) -> None:
    """With the way out."""
    with pytest.raises(TypeError, match=message):
        Fallback(fn, on=on)


async def test_answers_for_results() -> None:
    """With failed= it gets a result that is a failure in place of the error, and the arguments."""
    statuses = {"a": 200, "b": 503}

    async def fetch(path: str) -> object:
        return statuses[path]

    def stale(failure: object, path: str) -> str:
        return f"{failure!r} for {path}"

    fallback = Fallback(stale, failed=lambda status: status >= 500, name="stale")
    api = Pipeline(fallback, Retry(2, on=OSError))
    assert await api.run(fetch, "a") == 200
    assert await api.run(fetch, "b") == "503 for b"
    assert await Pipeline(fallback).run(fetch, "b") == "503 for b"
    assert await fallback.run(fetch, "c") == "KeyError('c') for c"
    assert fallback.statistics().used == 3


async def test_result_that_comes_with_a_cancellation_is_kept() -> None:
    """Nobody waits for an answer in a task that is being cancelled."""
    answered: list[object] = []
    fallback = Fallback(answered.append, failed=bool)
    with anyio.CancelScope() as scope:

        async def fetch() -> str:
            scope.cancel()
            return "bad"

        assert await fallback.run(fetch) == "bad"
    assert answered == []


async def test_streams_are_not_judged() -> None:
    """failed= is for results: a stream goes through as it is."""

    async def numbers() -> AsyncGenerator[int]:
        yield 1

    def failed(result: object) -> bool:
        raise AssertionError(result)

    async with Pipeline(Fallback(lambda _: 0, failed=failed)).stream(numbers) as items:
        assert [item async for item in items] == [1]


def test_failed_must_be_a_plain_function() -> None:
    """An async function would be true for every result."""

    async def failed(_: object) -> bool:
        return False

    with pytest.raises(TypeError, match=r"^failed=.* is an async function, whose coroutine is"):
        Fallback(lambda _: 0, failed=failed)
