"""
What the page "Compared with other libraries" shows of its figures: tables, a plot, the machine.

It is made from `FIGURES` alone, which `_compare` writes: the words can change without measuring
again, and a test holds the pages to the figures.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mtaio
from benchmarks._plot import Beside, draw_ratios

__all__ = [
    "FIGURES",
    "LIBRARIES",
    "PAGE",
    "PLOT",
    "code_here",
    "count",
    "page_with",
    "plot",
    "read",
]

DOCS: Final = Path(__file__).parents[1] / "docs"
FIGURES: Final = Path(__file__).parent / "figures.json"

PAGE: Final = "comparison.md"
PLOT: Final = "comparison.svg"

LIBRARIES: Final = (
    "mtaio",
    "anyio",
    "trio",
    "aiometer",
    "aiolimiter",
    "async-lru",
    "cachetools",
    "theine",
    "cachebox",
    "pyee",
    "blinker",
    "aiomisc",
)
"""Whose versions the page names."""


@dataclass(frozen=True)
class What:
    """Something measured: in which table it stands, and what it is called."""

    table: str
    en: str
    ja: str


WHATS: Final = {
    "map": What(
        "executor",
        "`map`, 100 at once, each call",
        "`map`、同時に100、1件あたり",
    ),
    "map-trio": What("executor", "the same on trio", "同じくtrioで"),
    "thread": What("executor", "a call in a worker thread", "ワーカースレッドでの呼び出し"),
    "rate": What("limits", "a token that is there", "すぐに得られるトークン"),
    "slot": What("limits", "a free slot, `async with`", "空いているスロット、`async with`"),
    "queue": What(
        "limits",
        "10,000 tasks through 10 slots, each",
        "10,000タスクが10スロットを通る、1件",
    ),
    "block": What("limits", "a block with a timeout", "時間制限のあるブロック"),
    "hit": What("cache", "a hit", "ヒット"),
    "decorated": What("cache", "a hit of an async function", "非同期関数のヒット"),
    "store": What("cache", "a new key, cache full", "満杯のとき新しいキー"),
    "load": What(
        "cache",
        "a miss and its load, not entered",
        "ミスと読み込み、`async with`なし",
    ),
    "load-entered": What(
        "cache",
        "a miss and its load, entered",
        "ミスと読み込み、`async with`の中",
    ),
    "plain": What("events", "`emit`, one sync handler", "`emit`、同期ハンドラー1個"),
    "async": What("events", "`emit`, one async handler", "`emit`、非同期ハンドラー1個"),
    "tasks": What("events", "`emit`, ten that suspend", "`emit`、中断するハンドラー10個"),
    "stream": What("events", "an event through a stream", "ストリームを通るイベント"),
    "record": What("logging", "a record, to its caller", "レコード、呼び出し側にとって"),
    "written": What("logging", "a record, until written", "レコード、書き込まれるまで"),
}

RIVALS: Final = {
    "raw asyncio pool": ("100 tasks over one iterator", "一つのイテレーターを分け合う100タスク"),
    "gather + Semaphore": ("asyncio.gather, Semaphore", "asyncio.gather、Semaphore"),
    "anyio.amap, no limit": ("anyio.amap, no limit", "anyio.amap、制限なし"),
    "aiolimiter": ("aiolimiter", "aiolimiter"),
    "cachetools.TTLCache, with a lock": ("cachetools, with a lock", "cachetools、ロック付き"),
    "cachetools.TTLCache, without": ("cachetools, no lock", "cachetools、ロックなし"),
    "cachebox.TTLCache (Rust)": ("cachebox (Rust)", "cachebox(Rust)"),
    "dict, which knows no time": ("dict, no expiry", "dict、期限なし"),
    "async_lru": ("async-lru", "async-lru"),
    "pyee + wait_for_complete": ("pyee, waiting for its handlers", "pyee、ハンドラーを待つ"),
    "await handler(event)": ("await handler(event)", "await handler(event)"),
    "anyio task group per emit": ("an AnyIO task group", "AnyIOのタスクグループ"),
    "anyio memory object stream": ("AnyIO's memory stream", "AnyIOのメモリストリーム"),
    "QueueHandler+QueueListener": ("QueueHandler, QueueListener", "QueueHandler、QueueListener"),
}
"""What a rival is called where the name in the benchmarks does not do, in English and Japanese."""

HEADS: Final = {
    "en": ("", "mtaio", "compared with", "its time", "mtaio ÷ it", "middle half of the rounds"),
    "ja": ("", "mtaio", "比較対象", "比較対象の時間", "mtaio÷比較対象", "中央半分のラウンド"),
}

PLOT_WORDS: Final = {
    "en": Beside(
        "For each thing measured, how long mtaio takes, divided by how long another library takes",
        "mtaio's time ÷ the other's",
        "mtaio is quicker",
        "mtaio is slower",
    ),
    "ja": Beside(
        "測ったものごとに、mtaioの時間をほかのライブラリの時間で割ったもの",
        "mtaioの時間÷相手の時間",
        "mtaioのほうが速い",
        "mtaioのほうが遅い",
    ),
}

Figures = dict[str, Any]
"""What `FIGURES` holds."""


def read() -> Figures:
    figures: Figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return figures


def count(path: Path) -> int:
    """Return how many lines a module has, comments and docstrings included."""
    return len(path.read_text(encoding="utf-8").splitlines())


def code_here() -> int:
    """Return how many lines of Python the library has as it is installed."""
    return sum(map(count, Path(mtaio.__file__).parent.rglob("*.py")))


def rival(language: str, name: str) -> str:
    english, japanese = RIVALS.get(name, (name, name))
    return japanese if language == "ja" else english


def what(language: str, row: Figures) -> str:
    named = WHATS[row["what"]]
    return named.ja if language == "ja" else named.en


def said(figure: float) -> str:
    """Return a figure with as many digits as it deserves."""
    return f"{figure:.2f}" if figure < 10 else f"{figure:.0f}"  # noqa: PLR2004 - two digits


def timed(figure: float, unit: str) -> str:
    if figure >= 100:  # noqa: PLR2004 - three digits
        return f"{figure:,.0f} {unit}"
    return f"{figure:.3g} {unit}" if figure < 10 else f"{figure:.1f} {unit}"  # noqa: PLR2004 - three digits


def table(language: str, name: str, figures: Figures) -> str:
    """Return a table, the ratios at which mtaio is slower in bold."""
    heads = HEADS[language]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|---|--:|--:|--:|"]
    last = ""
    for row in figures["rows"]:
        if WHATS[row["what"]].table != name:
            continue
        first = row["what"] != last
        last = row["what"]
        ratio = said(row["ratio"])
        cells = [
            what(language, row) if first else "",
            timed(row["ours"], row["unit"]) if first else "",
            rival(language, row["rival"]),
            timed(row["theirs"], row["unit"]),
            f"**{ratio}**" if row["ratio"] > 1 else ratio,
            f"{said(row['low'])} – {said(row['high'])}",  # noqa: RUF001 - as it is printed
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def origin(language: str, figures: Figures) -> str:
    """Return where the figures are from."""
    on = figures["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    if language == "ja":
        versions = versions.replace(", ", "、")
        return (
            f"測定環境: {on['processor']}、{on['cores']}コア、{on['system']}、{on['python']}。"
            f"{figures['rounds']}ラウンドの中央値。{versions}。"
        )
    return (
        f"Measured on {on['processor']}, {on['cores']} cores, {on['system']}, {on['python']}; "
        f"medians of {figures['rounds']} rounds. {versions}."
    )


def page_with(language: str, page: str, figures: Figures) -> str:
    """Return the page with what stands between its markers made again."""

    def made(found: re.Match[str]) -> str:
        name = found["name"]
        text = origin(language, figures) if name == "origin" else table(language, name, figures)
        return f"{found['top']}\n\n{text}\n\n{found['end']}"

    marked = re.compile(
        r"(?P<top><!-- figures: (?P<name>\w+) -->)\n.*?\n(?P<end><!-- end of figures -->)",
        re.DOTALL,
    )
    return marked.sub(made, page)


def plot(language: str, figures: Figures) -> str:
    """Return the plot of all ratios."""
    rows = [
        (
            what(language, row).replace("`", ""),
            rival(language, row["rival"]),
            row["ratio"],
            row["low"],
            row["high"],
        )
        for row in figures["rows"]
    ]
    return draw_ratios(PLOT_WORDS[language], rows)


def rewrite() -> None:
    """Make the pages and the plots again."""
    figures = read()
    for language in HEADS:
        path = DOCS / language / PAGE
        path.write_text(page_with(language, path.read_text("utf-8"), figures), encoding="utf-8")
        (DOCS / language / PLOT).write_text(plot(language, figures), encoding="utf-8")
