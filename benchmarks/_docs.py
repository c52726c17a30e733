"""
What the docs show of measurements: ``python -m benchmarks docs`` makes it again, in half an hour.

Of the hit ratios of caches: in each page named below, the rows of the tables that begin with a
column of traces or of capacities, as their other columns ask for, and beside the guide its plot.
They are the same on each machine. Of the times of other libraries: `_compare` measures them on the
Python that runs this, in ten minutes, beside what is there of another one, and `_figures` shows
them. Of growth: `growth` measures it, and `_growth_figures` shows it. ``--only`` takes one of the
three; ``--only words`` measures nothing, and shows the figures that are there. ``--only times
--lines load map`` measures these lines again, with the same libraries on the same machine, and
keeps the others.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from benchmarks import _figures, _growth_figures
from benchmarks._plot import Words, draw
from benchmarks._ratios import CACHES, ratio
from benchmarks._traces import CAPACITY, TRACES, Trace

DOCS: Final = Path(__file__).parents[1] / "docs"

PAGES: Final = ("guides/caching.md", "design/caching.md")

PLOT: Final = "guides/caching-ratios.svg"

COLUMNS: Final = {
    "S3-FIFO": "mtaio s3fifo",
    "LRU": "mtaio lru",
    "LFU": "mtaio lfu",
    "FIFO": "mtaio fifo",
    **{name: name for name in CACHES if not name.startswith("mtaio")},
}
"""What may stand at the head of a table, and which cache that is."""

BEYOND: Final = "S3-FIFO − LRU"  # noqa: RUF001 - a minus sign, as it is printed
"""The head of a column that tells in points how far the default is from LRU."""

PLOTTED: Final = ("S3-FIFO", "LRU", "LFU", "FIFO", "theine")

TABLES: Final = {
    language: re.compile(
        rf"^(?P<top>\| (?P<first>{first}) \|(?P<heads>.*)\|\n\|[-:|]+\|)\n(?:\|.*\n)*",
        re.MULTILINE,
    )
    for language, first in (("en", "trace|entries"), ("ja", "トレース|件数"))
}
"""A table of traces or capacities, known by the head of its first column."""

CAPACITIES: Final = (100, 300, 1_000, 3_000, 10_000, 30_000)
SIZED: Final = "Zipf 1.0"
"""The trace on which capacities are compared."""

WORDS: Final = {
    "en": Words(
        "For each trace, how many per cent of the requests each policy answers",
        f"hit ratio, %, {CAPACITY:,} entries",
    ),
    "ja": Words(
        "トレースごとに、各ポリシーが要求の何パーセントに答えられたか",
        f"ヒット率(%)、{CAPACITY:,}件",
    ),
}


def name_in(language: str, trace: Trace) -> str:
    return trace.ja if language == "ja" else trace.name.replace(" x ", " × ")  # noqa: RUF001 - typography


def row(language: str, trace: Trace, heads: list[str]) -> str:
    """Return a line of a table, with what is best in bold."""
    percents = {head: ratio(COLUMNS[head], trace.name) for head in heads if head in COLUMNS}
    best = f"{max(percents.values()):.1f}"
    cells = [name_in(language, trace)]
    for head in heads:
        if head == BEYOND:
            points = ratio(COLUMNS["S3-FIFO"], trace.name) - ratio(COLUMNS["LRU"], trace.name)
            cells.append(f"{points:+.1f}".replace("-", "−"))  # noqa: RUF001 - as above
        else:
            said = f"{percents[head]:.1f}"
            cells.append(f"**{said}**" if said == best else said)
    return f"| {' | '.join(cells)} |"


def sized_row(capacity: int, heads: list[str]) -> str:
    """Return a line of a table of capacities."""
    percents = [ratio(COLUMNS[head], SIZED, capacity) for head in heads]
    return f"| {capacity:,} | {' | '.join(f'{percent:.1f}' for percent in percents)} |"


def with_ratios(language: str, page: str) -> str:
    """Return a page with the rows of its tables of traces filled again."""

    def table(found: re.Match[str]) -> str:
        heads = [cell.strip() for cell in found["heads"].split("|")]
        if found["first"] in {"entries", "件数"}:
            rows = [sized_row(capacity, heads) for capacity in CAPACITIES]
        else:
            rows = [row(language, trace, heads) for trace in TRACES]
        return "\n".join([found["top"], *rows, ""])

    return TABLES[language].sub(table, page)


def plot(language: str) -> str:
    rows = {
        name_in(language, trace): [ratio(COLUMNS[head], trace.name) for head in PLOTTED]
        for trace in TRACES
    }
    return draw(WORDS[language], PLOTTED, rows)


def rewrite() -> None:
    """Rewrite what the docs show of hit ratios; the pages are read when everything is computed."""
    for trace in TRACES:
        for name in COLUMNS.values():
            ratio(name, trace.name)
    for capacity in CAPACITIES:
        for head in ("S3-FIFO", "LRU"):
            ratio(COLUMNS[head], SIZED, capacity)
    for language in WORDS:
        (DOCS / language / PLOT).write_text(plot(language), encoding="utf-8")
        for path in (DOCS / language / page for page in PAGES):
            path.write_text(with_ratios(language, path.read_text("utf-8")), encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks docs", description=__doc__)
    parser.add_argument(
        "--only", choices=["ratios", "times", "growth", "words"], help="one part of it"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns each library takes")
    lines = "what to measure again, the other times being kept"
    parser.add_argument("--lines", nargs="*", default=(), choices=_figures.WHATS, help=lines)
    options = parser.parse_args(arguments)
    if options.only in {None, "times"}:
        from benchmarks import _compare  # noqa: PLC0415 - it needs every rival to be there

        _compare.measure(options.rounds, options.lines)
    if options.only in {None, "growth"}:
        _growth_figures.measure()
    if options.only != "ratios":
        _figures.rewrite()
        _growth_figures.rewrite()
    if options.only in {None, "ratios"}:
        rewrite()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
