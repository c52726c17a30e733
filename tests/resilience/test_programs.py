"""The programs of the guide: httpx, real sockets, and a server that fails as it is told to."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

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


def test_every_program_says_what_it_prints() -> None:
    """Each has its output beside it, but for the server."""
    assert {*PROGRAMS, "unreliable"} == {path.stem for path in HOME.glob("*.py")}
