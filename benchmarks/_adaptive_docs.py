"""
What the design page of adaptive limits shows: tables, and a plot of the limits over time.

``python -m benchmarks._adaptive_docs`` rewrites both, in each language: in the page, the rows of
its tables in their order; beside it, the plot. It takes two or three minutes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

from benchmarks._overload import (
    DISTRIBUTIONS,
    LONG,
    OTHERS,
    SECONDS,
    SEEDS,
    best_fixed,
    judge,
    simulate,
)
from benchmarks._plot import STYLE, WIDTH, text
from benchmarks._rivals import RIVALS
from benchmarks.adaptive import OURS, ours

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks._overload import Distribution, Judgement, Limit, Result

DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = "design/adaptive-limit.md"
PLOT: Final = "design/adaptive-limit.svg"

CASES: Final[tuple[tuple[Distribution, int], ...]] = tuple(
    (distribution, clients) for distribution in DISTRIBUTIONS for clients in (1, 4)
)
PLOTTED: Final[tuple[Distribution, int]] = ("exponential", 4)

ALGORITHMS: Final[dict[str, Callable[[], Limit]]] = {OURS: ours, **RIVALS}

ROWS: Final = re.compile(r"(?<=\|\n)(?:\| .*\n)+")
"""What stands below the head of a table."""

LEFT: Final = 56
RIGHT: Final = 640
TOP: Final = 62
FOOT: Final = 330
LOW: Final = 8
HIGH: Final = 800

LINES: Final = {
    OURS: ("a", "2.6", ""),
    "Gradient2": ("b", "1.6", ""),
    "Vegas": ("c", "1.6", ""),
    "AIMD": ("e", "1.6", "7 4"),
    "Envoy": ("d", "1.4", "2 3"),
    "Probe": ("d", "1.6", ""),
}
"""Colour, width and dashes of each."""

LINE_STYLE: Final = """\
    path.a { stroke: #3f51b5 } path.b { stroke: #d9730d } path.c { stroke: #00796b }
    path.d { stroke: #59636e } path.e { stroke: #b3261e }
    path { fill: none !important; stroke-linejoin: round }
    @media (prefers-color-scheme: dark) {
      path.a { stroke: #8c9eff } path.b { stroke: #ffb26b } path.c { stroke: #4db6ac }
      path.d { stroke: #c9d1d9 } path.e { stroke: #f2857d }
    }
"""


@dataclass(frozen=True)
class Words:
    """What plot and tables say, in one language."""

    title: str
    head: str
    seconds: str
    phases: tuple[str, ...]
    cases: tuple[str, ...]
    others: tuple[str, ...]


WORDS: Final = {
    "en": Words(
        "The limits of four clients together over 380 seconds, by algorithm",
        "the limits of 4 clients together, exponential service times, mean of 20 seeds",
        "s",
        ("½", "overload: 2 × what the service can take", "slow", "normal"),  # noqa: RUF001 - typography
        ("gamma, 1 client", "gamma, 4 clients", "exponential, 1 client", "exponential, 4 clients"),
        tuple(OTHERS),
    ),
    "ja": Words(
        "4つのクライアントの上限の合計の380秒間の推移、アルゴリズム別",
        "4クライアントの上限の合計、サービス時間は指数分布、20シードの平均",
        "秒",
        ("½", "過負荷:処理できる量の2倍", "3倍", "平常"),
        (
            "ガンマ、1クライアント",
            "ガンマ、4クライアント",
            "指数、1クライアント",
            "指数、4クライアント",
        ),
        (
            "ワーカーの半分を失う",
            "少しずつ3倍遅くなる",
            "3倍速くなる",
            "過負荷の中で起動する",
        ),
    ),
}


def across(second: float) -> float:
    """Return how far right a second is."""
    return round(LEFT + (RIGHT - LEFT) * second / LONG[-1].until, 1)


def up(limit: float) -> float:
    """Return how far down a limit is, on a logarithmic scale."""
    part = math.log(min(max(limit, LOW), HIGH) / LOW) / math.log(HIGH / LOW)
    return round(FOOT - (FOOT - TOP) * part, 1)


def plot(words: Words, limits: Mapping[str, Sequence[float]]) -> str:
    """Return a line for each algorithm: its limit at the end of each second."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {FOOT + 34}" font-size="13"',
        '  role="img" aria-labelledby="title">',
        f'  <title id="title">{words.title}</title>',
        f"  <style>\n{STYLE}{LINE_STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{FOOT + 34}" rx="8"/>',
        text(20, 26, words.head, "ink bold"),
    ]
    for limit in (10, 20, 50, 100, 200, 400, 800):
        lines += [
            text(LEFT - 8, up(limit) + 4, f"{limit}", "soft small end"),
            f'  <path class="grid" d="M{LEFT} {up(limit)}H{RIGHT}"/>',
        ]
    began = 0.0
    for phase, name in zip(LONG, words.phases, strict=True):
        lines += [
            text(across((began + phase.until) / 2), TOP - 10, name, "soft small mid"),
            f'  <path class="line" stroke-dasharray="3" d="M{across(began):g} {TOP - 4}V{FOOT}"/>',
            text(across(began), FOOT + 20, f"{began:g}", "soft small mid"),
        ]
        began = phase.until
    lines.append(text(RIGHT, FOOT + 20, f"{began:g} {words.seconds}", "soft small mid"))
    taken: list[float] = []
    for name, values in sorted(limits.items(), key=lambda item: -item[1][-1]):
        kind, width, dashes = LINES[name]
        points = "L".join(f"{across(n):g} {up(value):g}" for n, value in enumerate(values, 1))
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        lines.append(f'  <path class="{kind}" stroke-width="{width}"{dashed} d="M{points}"/>')
        y = max(up(values[-1]) + 4, taken[-1] + 16 if taken else 0.0)
        taken.append(y)
        bold = "ink bold" if name == OURS else "ink"
        sample = f"M{RIGHT + 8} {y - 4:g}h22"
        lines += [
            f'  <path class="{kind}" stroke-width="{width}"{dashed} d="{sample}"/>',
            text(RIGHT + 36, y, name, bold),
        ]
    return "\n".join([*lines, "</svg>", ""])


def cell(goodput: float, p99: float) -> str:
    """Return what a table says of one phase; what misses a requirement is in bold."""
    answered = f"{100 * goodput:.1f} %"
    slow = f"{p99:.2f} ×"  # noqa: RUF001 - typography
    return f"{_bold(answered, missed=goodput < 0.95)}, {_bold(slow, missed=p99 > 2)}"  # noqa: PLR2004 - the requirements


def _bold(said: str, *, missed: bool) -> str:
    return f"**{said}**" if missed else said


def row(name: str, judgement: Judgement) -> str:
    """Return a line of the table of a case."""
    cells = [cell(*each) for each in zip(judgement.goodput, judgement.p99, strict=True)]
    drift = _bold(f"{judgement.drift:.2f} ×", missed=judgement.drift > 1.2)  # noqa: RUF001, PLR2004 - typography; the requirement
    return f"| {name} | {' | '.join(cells)} | {judgement.early:.0f}, {drift} |"


def worst_row(case: str, judgement: Judgement) -> str:
    """Return a line of the table of the worst seeds of ours."""
    pairs = zip(judgement.worst_goodput, judgement.worst_p99, strict=True)
    drift = _bold(f"{judgement.worst_drift:.2f} ×", missed=judgement.worst_drift > 1.2)  # noqa: RUF001, PLR2004 - as above
    return f"| {case} | {' | '.join(cell(*each) for each in pairs)} | {drift} |"


def best_row(case: str, distribution: Distribution, clients: int) -> str:
    """Return a line of the table of the best fixed limits."""
    cells = [
        f"{clients} × {best.limit}: {fmean(best.goodput):.0f}/s, {1000 * fmean(best.p99):.0f} ms"  # noqa: RUF001 - typography
        for best in best_fixed(distribution, clients, SEEDS)
    ]
    return f"| {case} | {' | '.join(cells)} |"


@cache
def other_cell(name: str, clients: int) -> str:
    """Return what the table of other overloads says of one: how its last phase went."""
    phases = OTHERS[name]
    last = phases[-1]
    found = [simulate(ours, "exponential", clients, seed, phases) for seed in SEEDS]
    goodput = fmean(each.goodput[-1] for each in found) / last.most
    p99 = fmean(each.p99[-1] for each in found) / (SECONDS * last.slow)
    limit = fmean(fmean(each.limits[-30:]) for each in found)
    return f"{100 * goodput:.0f} %, {p99:.1f} ×, {limit:.0f}"  # noqa: RUF001 - typography


def with_tables(page: str, tables: list[list[str]]) -> str:
    """Return a page with the rows of its first tables replaced."""
    left = iter(tables)
    return ROWS.sub(lambda _: "\n".join([*next(left), ""]), page, count=len(tables))


def rewrite() -> None:
    """Rewrite what the docs show."""
    results: dict[tuple[str, Distribution, int], list[Result]] = {}
    judgements: dict[tuple[str, Distribution, int], Judgement] = {}
    for name, make in ALGORITHMS.items():
        for case in CASES:
            found = [simulate(make, *case, seed) for seed in SEEDS]
            results[name, *case] = found
            judgements[name, *case] = judge(found, *case, SEEDS)
    limits = {
        name: [
            fmean(values)
            for values in zip(*(each.limits for each in results[name, *PLOTTED]), strict=False)
        ]
        for name in ALGORITHMS
    }
    for language, words in WORDS.items():
        tables = [[best_row(said, *case) for said, case in zip(words.cases, CASES, strict=True)]]
        tables += [[row(name, judgements[name, *case]) for name in ALGORITHMS] for case in CASES]
        tables.append(
            [
                worst_row(said, judgements[OURS, *case])
                for said, case in zip(words.cases, CASES, strict=True)
            ]
        )
        tables.append(
            [
                f"| {said} | {other_cell(name, 1)} | {other_cell(name, 4)} |"
                for said, name in zip(words.others, OTHERS, strict=True)
            ]
        )
        path = DOCS / language / PAGE
        page = path.read_text(encoding="utf-8")
        path.write_text(with_tables(page, tables), encoding="utf-8")
        (DOCS / language / PLOT).write_text(plot(words, limits), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
