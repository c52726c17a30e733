"""Each planted bug passes plain runs, is found by the tools, and its corrected twin passes all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import mtaio.testing
from mtaio.testing import Victim
from tests.gallery.planted import (
    BUGS,
    HOMES,
    PAGES,
    ROW,
    Bug,
    failures,
    found_in,
    shown,
    with_numbers,
    works_on,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.heavy

REPLAY = re.compile(r"pytest --mtaio-replay (\S+)")


@pytest.fixture(params=BUGS, ids=str)
def bug(request: pytest.FixtureRequest, backend: str) -> Iterator[Bug]:
    """Return each bug in turn, its test told to search on one backend alone."""
    found: Bug = request.param
    found.search.backends = (backend,)
    yield found
    found.search.backends = None


def explored(bug: Bug, kind: type, **told: Any) -> Exception | None:
    """Search as told, or replay a plan; return the failure, None if there is none."""
    with bug.search.told(**told):
        try:
            bug.explored(kind)
        except Exception as error:  # noqa: BLE001 - is the result
            return error
    return None


def replay_line(error: Exception) -> str:
    """Return the plan that the last note of a failure names."""
    (plan,) = REPLAY.findall("\n".join(error.__notes__))
    return str(plan)


def test_gallery_is_complete() -> None:
    """There are all the classics, and none is listed twice."""
    assert len(BUGS) >= 12
    assert len({bug.wrong for bug in BUGS} | {bug.right for bug in BUGS}) == 2 * len(BUGS)


@pytest.mark.parametrize("time", ["real", "virtual"])
def test_plain_run_passes(bug: Bug, backend: str, time: str) -> None:
    """As a plain test, run again and again, the scenario finds nothing: neither bug nor twin."""
    for kind in (bug.wrong, bug.right) * 3:
        test = bug.once(kind, Victim())
        if time == "real":
            anyio.run(test, backend=backend)
        else:
            mtaio.testing.run(test, backend=backend)


def test_search_finds_the_bug(bug: Bug) -> None:
    """The search finds it within 1,000 runs, those that make it smaller included; and again."""
    error = explored(bug, bug.wrong)
    assert error is not None
    assert bug.search.runs <= 1000
    plan = replay_line(error)
    again = explored(bug, bug.wrong, replay=plan)
    assert bug.search.runs == 1
    assert again is not None
    assert (type(again), str(again)) == (type(error), str(error))
    compared = [note for note in error.__notes__ if note.startswith("it passes ")]
    assert again.__notes__ == [note for note in error.__notes__ if note not in compared]
    # A cancelled victim may have taken the same steps as one that was spared, and nothing is shown.
    assert compared or bug.search.inject


def test_search_passes_the_twin(bug: Bug) -> None:
    """The corrected twin passes such a search, to its end: no false alarm."""
    assert explored(bug, bug.right, seeds=50) is None
    assert bug.search.runs > 50


def test_table_names_every_bug() -> None:
    """The guide's table has a row for each bug, in the order of its sections."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        rows = [found["name"] for found in ROW.finditer(text)]
        sections = re.findall(r'^<a id="([\w-]+)"></a>\n\n###? ', text, re.MULTILINE)
        named = [name for name in sections if name.replace("-", "_") in {bug.name for bug in BUGS}]
        assert len(named) == len(BUGS)
        assert rows == named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parts[-3])
def test_table_says_what_is_so(page: Path) -> None:
    """The guide's table has the very numbers of the runs in which each tool finds each bug."""
    text = page.read_text(encoding="utf-8")
    assert text == with_numbers(text)


def test_some_tool_finds_it_alone(bug: Bug, backend: str) -> None:
    """Each bug is found by one of the tools by itself; none needs luck in their combination."""
    tools = [tool for tool in bug.tools if works_on(tool, backend)]
    assert any(found_in(bug, tool, backend) for tool in tools)


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.name)
def test_guide_shows_what_pytest_prints(home: Path) -> None:
    """What the guides show as failures is what pytest prints."""
    assert shown(home)
    assert failures(home) == shown(home)
