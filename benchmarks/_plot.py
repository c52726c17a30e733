"""
Plots as SVG: of hit ratios, a line for each trace and a mark for each policy; of times, as ratios.

They are read on white paper and on black, and without colours too: each mark has its own shape.
Where marks lie on each other, the one that was named first is on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Beside", "Words", "draw", "draw_ratios"]

WIDTH: Final = 760
LEFT: Final = 286
"""Where 0 % is."""
RIGHT: Final = 734
"""Where 100 % is."""
TOP: Final = 82
STEP: Final = 26

SHAPES: Final = (
    '<circle class="a" r="6" {at}/>',
    '<rect class="b" x="-5" y="-5" width="10" height="10" {at}/>',
    '<path class="c" d="M0-6 6 5H-6z" {at}/>',
    '<path class="d" d="M0-6 6 0 0 6-6 0z" {at}/>',
    '<circle class="e" r="5" {at}/>',
)

STYLE: Final = """\
    .paper { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e }
    .grid { stroke: #d0d7de } .line { stroke: #8b949e }
    .a { fill: #3f51b5 } .b { fill: #d9730d } .c { fill: #00796b }
    .d { fill: #ffffff; stroke: #59636e; stroke-width: 1.6 }
    .e { fill: #ffffff; stroke: #b3261e; stroke-width: 1.8 }
    text { font-family: system-ui, "Segoe UI", "Hiragino Sans", "Noto Sans JP", sans-serif }
    .small { font-size: 12px } .bold { font-weight: 600 }
    .mid { text-anchor: middle } .end { text-anchor: end }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #1e2129 } .ink { fill: #e6e9ee } .soft { fill: #a9b1bd }
      .grid { stroke: #3a404c } .line { stroke: #7d8590 }
      .a { fill: #8c9eff } .b { fill: #ffb26b } .c { fill: #4db6ac }
      .d { fill: #1e2129; stroke: #c9d1d9 } .e { fill: #1e2129; stroke: #f2857d }
    }
"""


@dataclass(frozen=True)
class Words:
    """What the plot says, in one language."""

    title: str
    """For those who cannot see it."""
    head: str
    """What the numbers are."""


def draw(words: Words, marks: Sequence[str], rows: Mapping[str, Sequence[float]]) -> str:
    """
    Return the plot.

    Args:
        words: What it says.
        marks: What the marks of each line stand for; five at most.
        rows: For each line its per cents, in the order of ``marks``.
    """
    height = TOP + STEP * len(rows) + 14
    foot = TOP + STEP * len(rows) - STEP // 2 + 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="13"',
        '  role="img" aria-labelledby="title">',
        f'  <title id="title">{escape(words.title)}</title>',
        f"  <style>\n{STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>',
        text(20, 28, words.head, "ink bold"),
    ]
    for number, name in enumerate(marks):
        left = LEFT + number * 92
        lines += [mark(number, left, 24), text(left + 12, 28, name, "ink")]
    for tick in range(0, 101, 20):
        lines += [
            text(across(tick), 56, f"{tick}", "soft small mid"),
            f'  <path class="grid" d="M{across(tick):g} 63V{foot}"/>',
        ]
    for row, (name, cents) in enumerate(rows.items()):
        y = TOP + row * STEP
        low, high = across(min(cents)), across(max(cents))
        lines += [
            text(LEFT - 18, y + 4, name, "ink end"),
            f'  <path class="line" d="M{low:g} {y}H{high:g}"/>',
        ]
        for number, cent in reversed([*enumerate(cents)]):
            lines.append(mark(number, across(cent), y))
    return "\n".join([*lines, "</svg>", ""])


def across(cent: float) -> float:
    """Return how far right so many per cent are."""
    return round(LEFT + (RIGHT - LEFT) * cent / 100, 1)


def mark(number: int, x: float, y: float) -> str:
    return "  " + SHAPES[number].format(at=f'transform="translate({x:g} {y:g})"')


def text(x: float, y: float, said: str, kind: str) -> str:
    return f'  <text class="{kind}" x="{x:g}" y="{y:g}">{escape(said)}</text>'


# ---- ratios --------------------------------------------------------------------------------------

NAMES: Final = 20
RIVALS: Final = 484
"""Where the second column of names ends."""
SCALE: Final = (500, 800)
"""Where the scale begins and ends."""
LINE: Final = 21
RATIO_TOP: Final = 74


@dataclass(frozen=True)
class Beside:
    """What the plot of ratios says, in one language."""

    title: str
    """For those who cannot see it."""
    head: str
    """What the numbers are."""
    quicker: str
    slower: str


def draw_ratios(words: Beside, rows: Sequence[tuple[str, str, float, float, float]]) -> str:
    """
    Return a plot of ratios, on a scale on which twice is as far as half.

    A ratio below 1 is a round mark, one above it a square.

    Args:
        words: What it says.
        rows: What was done, beside whom, the ratio, and between which two most rounds lie. A line
            with the same first word as the one before it belongs to it.
    """
    lowest = math.floor(math.log2(min(row[3] for row in rows)))
    highest = math.ceil(math.log2(max(row[4] for row in rows)))

    def across(ratio: float) -> float:
        left, right = SCALE
        part = (math.log2(ratio) - lowest) / (highest - lowest)
        return round(left + (right - left) * part, 1)

    width = SCALE[1] + 60
    groups = len({row[0] for row in rows})
    height = RATIO_TOP + LINE * len(rows) + 8 * (groups - 1) + 6
    foot = height - 14
    one = across(1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="13"',
        '  role="img" aria-labelledby="title">',
        f'  <title id="title">{escape(words.title)}</title>',
        f"  <style>\n{STYLE}  </style>",
        f'  <rect class="paper" width="{width}" height="{height}" rx="8"/>',
        text(NAMES, 28, words.head, "ink bold"),
        mark(0, one - 12 - 7, 23),
        text(one - 12 - 18, 28, words.quicker, "ink end"),
        mark(1, one + 12 + 7, 23),
        text(one + 12 + 18, 28, words.slower, "ink"),
    ]
    for power in range(lowest, highest + 1):
        label = f"{2**power}" if power >= 0 else f"1/{2**-power}"
        kind = "line" if power == 0 else "grid"
        lines += [
            text(across(2.0**power), 50, label, "soft small mid"),
            f'  <path class="{kind}" d="M{across(2.0**power):g} 56V{foot}"/>',
        ]
    y = RATIO_TOP - LINE
    last = ""
    for name, rival, ratio, low, high in rows:
        y += LINE if name == last or not last else LINE + 8
        if name != last:
            lines.append(text(NAMES, y + 4, name, "ink"))
        last = name
        number = 0 if ratio <= 1 else 1
        lines += [
            text(RIVALS, y + 4, rival, "soft end"),
            f'  <path class="line" stroke-width="2" d="M{across(low):g} {y}H{across(high):g}"/>',
            mark(number, across(ratio), y),
            text(width - 12, y + 4, f"{ratio:.2f}", "ink end small"),
        ]
    return "\n".join([*lines, "</svg>", ""])
