"""The page that compares mtaio with other libraries says what was measured, in both languages."""

from __future__ import annotations

import re
from html import escape

import pytest

from benchmarks import _figures
from tests.pages import DOCS

FIGURES = _figures.read()
FIRST = FIGURES[_figures.PYTHONS[0]]


def ratio(what: str, rival: str) -> float:
    """Return how long mtaio takes beside a rival, as the page shows it."""
    (row,) = (row for row in FIRST["rows"] if (row["what"], row["rival"]) == (what, rival))
    return float(row["ratio"])


@pytest.mark.parametrize("language", ["en", "ja"])
def test_page_shows_the_figures(language: str) -> None:
    """Tables and plot are made of the figures: ``python -m benchmarks docs --only words``."""
    page = (DOCS / language / _figures.PAGE).read_text(encoding="utf-8")
    assert _figures.page_with(language, page, FIGURES) == page
    shown = (DOCS / language / _figures.PLOT).read_text(encoding="utf-8")
    assert shown == _figures.plot(language, FIGURES)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_figure_is_shown(language: str) -> None:
    """Everything that is measured is named and in the plot; the page has the main tables."""
    page = (DOCS / language / _figures.PAGE).read_text(encoding="utf-8")
    plot = (DOCS / language / _figures.PLOT).read_text(encoding="utf-8")
    assert {row["what"] for row in FIRST["rows"]} == set(_figures.WHATS)
    for row in FIRST["rows"]:
        rival = _figures.rival(language, row["rival"])
        assert escape(rival) in plot
        table = _figures.WHATS[row["what"]].table
        assert (f"| {rival} |" in page) or table in {"waiting", "growth"}
    for version in FIRST["versions"].values():
        assert version in page


def test_both_pythons_run_the_same() -> None:
    """On the second what was measured on the first, but for rivals that do not run there."""
    first, second = (
        {(row["what"], row["rival"]) for row in FIGURES.get(python, {"rows": []})["rows"]}
        for python in _figures.PYTHONS
    )
    assert second <= first


def test_losses_are_bold() -> None:
    """Whatever mtaio takes more of, on either Python, stands out."""
    row = {"what": "rate", "rival": "x", "ours": 2, "theirs": 1, "unit": "µs"}
    ratio = {"ratio": 2.0, "low": 1.9, "high": 2.1}
    one, other = _figures.PYTHONS
    figures = {one: {"rows": [row | ratio]}, other: {"rows": [row | ratio | {"ratio": 3.0}]}}
    shown = _figures.table("en", "limits", figures).splitlines()[-1]
    assert shown.endswith("| **2.00**/**3.00** |")
    shown = _figures.table("en", "limits", {one: figures[one]}).splitlines()[-1]
    assert shown.endswith(f"| **2.00**/{_figures.NONE} |")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_lines_of_code_are_those_counted(language: str) -> None:
    """The page says how large each library is, mtaio in its present state, to within 5 %."""
    page = (DOCS / language / _figures.PAGE).read_text(encoding="utf-8")
    said = dict(
        re.findall(r"^\| ([\w-]+) [\d.]+ \| \d{4} \| ([\d,]+)", page, re.MULTILINE),
    )
    counted = FIRST["code"] | {"mtaio": _figures.code_here()}
    assert said.keys() >= {"mtaio", "aiometer", "AnyIO", "async-lru"}
    for name, lines in said.items():
        assert int(lines.replace(",", "")) == pytest.approx(counted[name.lower()], rel=0.05)


def test_what_is_said_of_speed_was_measured() -> None:
    """The fractions in the READMEs and in the text of the page are those of the figures."""
    assert 1 / 16 < ratio("map", "aiometer.run_on_each") < 1 / 7  # a tenth
    assert 1 / 8 < ratio("map", "gather + Semaphore") < 1 / 4  # a fifth, in the executor's guide
    assert 1 / 8 < ratio("hit", "cachetools.TTLCache, with a lock") < 1 / 4  # a fifth
    assert ratio("slot", "anyio.CapacityLimiter") < 1 / 10  # less than a tenth, in the design notes
    for what, quicker in [
        ("map", "raw asyncio pool"),
        ("block", "asyncio.timeout"),
        ("async", "await handler(event)"),
        ("hit", "dict, which knows no time"),
    ]:
        assert ratio(what, quicker) > 1
    assert round(ratio("large-on", "pyee's emit")) == 51  # times as long
    assert 2.7 < ratio("load-entered", "async_lru") < 4.5  # three to four times
    for what in ("hit", "store"):
        assert 1.8 < ratio(what, "cachebox.TTLCache (Rust)") < 9  # two to eight times
