"""The programs of the guide: httpx, real sockets, and a server that fails as it is told to."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module

import httpx
import pytest

from mtaio.exceptions import BreakerOpenError
from mtaio.resilience import Breaker, Hedge, Pipeline, Retry, Timeout
from mtaio.testing import run
from tests.pages import EXAMPLES

HOME = EXAMPLES / "resilience"
PROGRAMS = sorted(path.stem for path in HOME.glob("*.out"))


@pytest.fixture(autouse=True)
def _beside_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a program import the server that stands beside it, as it can when it is run as a file."""
    monkeypatch.syspath_prepend(str(HOME))
    for name in (*PROGRAMS, "unreliable"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("name", PROGRAMS)
def test_prints_what_the_page_says(
    name: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the server has seen, and when, is to the letter what the guide says."""
    run(import_module(name).main, backend=backend)
    assert capsys.readouterr().out == (HOME / f"{name}.out").read_text(encoding="utf-8")


async def ask(path: str, pipeline: Pipeline, times: int) -> int:
    """Make calls one after another, with three connections; return how many were answered."""
    answered = 0
    unreliable = import_module("unreliable").unreliable
    limits = httpx.Limits(max_connections=3)
    async with (
        unreliable() as server,
        httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client,  # noqa: S113 - of the pipeline
    ):
        for number in range(times):
            with suppress(httpx.TransportError, TimeoutError, BreakerOpenError):
                answered += (await pipeline.run(client.get, f"{path}/{number}")).is_success
    return answered


def test_losers_give_their_connections_back(backend: str) -> None:
    """However many attempts hang and lose, the pool of the client is not used up."""
    assert run(ask, "/hang,ok", Pipeline(Hedge(0.1), Timeout(5)), 20, backend=backend) == 20


def test_breaker_opens_for_what_hangs_and_what_breaks_off(backend: str) -> None:
    """A timeout inside of a breaker makes a failure of what hangs."""
    for path in "/hang", "/reset":
        breaker = Breaker(0.5, last=10, min_calls=4)
        pipeline = Pipeline(Retry(2, wait_initial=0.01), breaker, Timeout(1))
        assert run(ask, path, pipeline, 5, backend=backend) == 0
        now = breaker.statistics()
        assert (now.calls, now.failed, now.rejected) == (4, 4, 3)


def test_every_program_says_what_it_prints() -> None:
    """Each has its output beside it, but for the server."""
    assert {*PROGRAMS, "unreliable"} == {path.stem for path in HOME.glob("*.py")}
