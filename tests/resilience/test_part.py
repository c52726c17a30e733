"""Parts without a pipeline: each calls and decorates functions by itself."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mtaio.exceptions import BreakerOpenError, ConcurrencyLimitError
from mtaio.exceptions import TimeoutError as MTAIOTimeoutError
from mtaio.resilience import (
    AdaptiveLimiter,
    Breaker,
    Fallback,
    Hedge,
    Pipeline,
    Retry,
    StandalonePart,
    Timeout,
)
from tests.resilience.parts import Failing, answer, fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtaio.types import Next


class Own(StandalonePart):
    """A part of one's own."""

    def wrap(self, then: Next) -> Next:
        """Do nothing."""
        return then


PARTS: dict[str, Callable[[], Any]] = {
    "AdaptiveLimiter": AdaptiveLimiter,
    "Breaker": Breaker,
    "Fallback": lambda: Fallback(answer, on=LookupError),
    "Hedge": lambda: Hedge(5),
    "Own": Own,
    "Pipeline": lambda: Pipeline(Timeout(5)),
    "Retry": lambda: Retry(1),
    "Timeout": lambda: Timeout(5),
}


@pytest.fixture(params=PARTS)
def part(request: pytest.FixtureRequest) -> Any:
    """Return each part in turn, the pipeline and the retry among them."""
    return PARTS[request.param]()


async def keep(*args: object, **kwargs: object) -> object:
    """Return what it is given."""
    return args, kwargs


async def test_it_runs_a_function(part: Any) -> None:
    """With its arguments, and those that a partial holds; errors come out as they are."""
    assert await part.run(keep, 1, 2) == ((1, 2), {})
    assert await part.run(partial(keep, name=3), 1) == ((1,), {"name": 3})
    with pytest.raises(ConnectionError):
        await part.run(fail)


async def test_it_decorates_a_function(part: Any) -> None:
    """Which keeps its name and signature; a method has its object."""

    @part  # type: ignore[untyped-decorator] # any of them
    async def fetch(url: str, *, page: int = 0) -> str:
        """Fetch."""
        return f"{url} {page}"

    class Client:
        @part  # type: ignore[untyped-decorator] # any of them
        async def get(self, url: str) -> str:
            return f"{type(self).__name__} {url}"

    assert await fetch("a", page=2) == "a 2"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")
    assert str(inspect.signature(fetch)) == "(url: 'str', *, page: 'int' = 0) -> 'str'"
    assert await Client().get("a") == "Client a"


async def test_keywords_are_its_own(part: Any) -> None:
    """The function's go through a partial, so that an option can be added to ``run`` later."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
        await part.run(keep, 1, name=3)


async def test_what_cannot_be_run_is_refused(part: Any) -> None:
    """A call that is made already, and a function that returns nothing to await."""
    with pytest.raises(TypeError, match=r"^fn=<coroutine object .* (called|callable)"):
        await part.run(answer())
    with pytest.raises(TypeError, match=r"^<class 'int'> returned 0, which cannot be awaited"):
        await part.run(int)
    with pytest.raises(TypeError, match=rf"^@{type(part).__name__} cannot decorate <class 'int'>"):
        part(int)


async def test_state_is_that_of_the_part() -> None:
    """What it counts for ``run`` and ``@`` counts in a pipeline too."""
    breaker = Breaker(1, last=3, min_calls=3)
    for call in (partial(breaker.run, fail), breaker(fail), partial(Pipeline(breaker).run, fail)):
        with pytest.raises(ConnectionError):
            await call()
    with pytest.raises(BreakerOpenError):
        await breaker.run(answer)
    assert (breaker.statistics().failed, breaker.statistics().rejected) == (3, 1)


async def test_part_does_its_work_alone() -> None:
    """A timeout ends a call, a fallback answers for it, a limit refuses it, a hedge repeats it."""
    with pytest.raises(MTAIOTimeoutError, match=r"^the call timed out after 1 s$"):
        await Timeout(1).run(anyio.sleep, 2)
    fallback: Any = Fallback(lambda error, *args: (type(error), args))
    assert await fallback.run(fail, 4) == (ConnectionError, (4,))
    limiter = AdaptiveLimiter(initial=1)
    async with limiter:
        with pytest.raises(ConcurrencyLimitError):
            await limiter.run(answer)
    assert await Hedge(1, max_hedges=1).run(Failing(0, seconds=2.0), 3) == 3


async def test_key_goes_to_the_part() -> None:
    """By hand, or found by the decorator's function; without one a breaker with keys refuses."""
    breaker = Breaker(1, last=1, min_calls=1, max_keys=9)

    @breaker(key=lambda host: host)
    async def fetch(host: str) -> str:
        return host

    with pytest.raises(ConnectionError):
        await breaker.run(fail, key="a")
    assert await fetch("b") == "b"
    with pytest.raises(BreakerOpenError):
        await fetch("a")
    for keyless in (partial(breaker.run, answer), breaker(answer), Pipeline(breaker)(answer)):
        with pytest.raises(ValueError, match=r"^the call of answer has no key, and <Breaker: 2 "):
            await keyless()
