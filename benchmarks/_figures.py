"""
What the page "Compared with other libraries" shows of its figures: tables, a plot, the machine.

It is made from `FIGURES` alone, which `_compare` writes: the words can change without measuring
again, and a test holds the pages to the figures. `FIGURES` holds a run on each Python of
`PYTHONS`: the times are those of the first, and the last column has the ratios on both.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import mtaio
from benchmarks._plot import Beside, draw_ratios

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FIGURES",
    "LIBRARIES",
    "PAGE",
    "PLOT",
    "PYTHONS",
    "beside",
    "code_here",
    "count",
    "page_with",
    "plot",
    "read",
]

DOCS: Final = Path(__file__).parents[1] / "docs"
FIGURES: Final = Path(__file__).parent / "figures.json"

PYTHONS: Final = ("3.13", "3.15")
"""The one whose times are shown, and the one whose ratios stand beside them."""

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
    "aiojobs",
    "stamina",
    "tenacity",
    "hyx",
    "purgatory",
    "aiobreaker",
)
"""Whose versions the page names."""


@dataclass(frozen=True)
class What:
    """Something measured: in which table it stands, and what it is called."""

    table: str
    en: str
    ja: str


WHATS: Final = {
    "gather": What("few", "`gather` of two", "2件の`gather`"),
    "race": What("few", "`race` of two", "2件の`race`"),
    "submit": What("few", "`submit` and its result", "`submit`とその結果"),
    "map": What(
        "executor",
        "`map`, 100 at once, each call",
        "`map`(同時に100件)、1件あたり",
    ),
    "map-trio": What("executor", "the same on trio", "同上(trio)"),
    "thread": What("executor", "a call in a worker thread", "ワーカースレッドでの呼び出し"),
    "thread-map": What(
        "executor",
        "`map` of short functions in threads, each",
        "短い関数をスレッドで`map`、1件あたり",
    ),
    "rate": What("limits", "a token that is there", "トークンの取得(待ちなし)"),
    "slot": What("limits", "a free slot, `async with`", "スロットの取得(待ちなし)"),
    "queue": What(
        "limits",
        "10,000 tasks through 10 slots, each",
        "10スロットで1万タスク、1件あたり",
    ),
    "block": What("limits", "a block with a timeout", "タイムアウト付きのブロック"),
    "wait-slot": What("waiting", "a task that waits for a slot", "スロットを待つタスク"),
    "wait-slot-cancel": What("waiting", "cancelling it", "同上のキャンセル"),
    "wait-token": What("waiting", "a task that waits for a token", "トークンを待つタスク"),
    "wait-token-cancel": What("waiting", "cancelling it", "同上のキャンセル"),
    "wait-load": What(
        "waiting", "a task that waits for another's load", "ほかの読み込みを待つタスク"
    ),
    "wait-load-cancel": What("waiting", "cancelling it", "同上のキャンセル"),
    "retry": What("resilience", "a call with retries", "リトライ付きの呼び出し"),
    "breaker": What(
        "resilience", "a call through a circuit breaker", "サーキットブレーカー付きの呼び出し"
    ),
    "timeout": What("resilience", "a call with a timeout", "タイムアウト付きの呼び出し"),
    "weight-entry": What("memory", "an entry of a cache, bytes", "キャッシュ1件のバイト数"),
    "weight-slot": What(
        "memory", "a task waiting for a slot, bytes", "スロットを待つタスクのバイト数"
    ),
    "weight-token": What(
        "memory", "a task waiting for a token, bytes", "トークンを待つタスクのバイト数"
    ),
    "large-hit": What("growth", "a hit among 300,000", "30万件のキャッシュのヒット"),
    "large-store": What("growth", "storing 300,000, each", "30万件の格納、1件あたり"),
    "large-emit": What(
        "growth", "an event to 10,000 handlers, each", "1万個のハンドラーの呼び出し、1個あたり"
    ),
    "large-on": What(
        "growth",
        "adding and removing 2,000 handlers, each",
        "2,000個のハンドラーの追加と削除、1個あたり",
    ),
    "large-wake": What(
        "growth", "letting 10,000 waiters go, each", "1万個の待機タスクの再開、1個あたり"
    ),
    "hit": What("cache", "a hit", "ヒット"),
    "decorated": What("cache", "a hit of an async function", "非同期関数のヒット"),
    "store": What("cache", "a new key, cache full", "新しいキーの格納(満杯時)"),
    "load": What(
        "cache",
        "a miss and its load, not entered",
        "ミスと読み込み(`async with`なし)",
    ),
    "load-entered": What(
        "cache",
        "a miss and its load, entered",
        "ミスと読み込み(`async with`の中)",
    ),
    "plain": What("events", "`emit`, one sync handler", "`emit`(同期ハンドラー1個)"),
    "async": What("events", "`emit`, one async handler", "`emit`(非同期ハンドラー1個)"),
    "tasks": What("events", "`emit`, ten that suspend", "`emit`(待つハンドラー10個)"),
    "stream": What("events", "an event through a stream", "ストリームのイベント1件"),
    "record": What("logging", "a record, to its caller", "レコードの記録(呼び出し側の時間)"),
    "written": What("logging", "a record, until written", "レコードの書き込み完了まで"),
}

RIVALS: Final = {
    "anyio task group": ("an AnyIO task group", "AnyIOのタスクグループ"),
    "tasks of asyncio's": ("asyncio.wait, cancel", "asyncio.wait、cancel"),
    "aiojobs": ("aiojobs, Scheduler.spawn", "aiojobs、Scheduler.spawn"),
    "ThreadPoolExecutor.map": ("ThreadPoolExecutor.map", "ThreadPoolExecutor.map"),
    "dict": ("dict, no expiry", "dict(期限なし)"),
    "raw asyncio pool": ("100 tasks over one iterator", "100タスクで一つのイテレーターを処理"),
    "gather + Semaphore": ("asyncio.gather, Semaphore", "asyncio.gather + Semaphore"),
    "anyio.amap, no limit": ("anyio.amap, no limit", "anyio.amap(制限なし)"),
    "aiolimiter": ("aiolimiter", "aiolimiter"),
    "cachetools.TTLCache, with a lock": ("cachetools, with a lock", "cachetools(ロックあり)"),
    "cachetools.TTLCache, without": ("cachetools, no lock", "cachetools(ロックなし)"),
    "cachebox.TTLCache (Rust)": ("cachebox (Rust)", "cachebox(Rust)"),
    "dict, which knows no time": ("dict, no expiry", "dict(期限なし)"),
    "async_lru": ("async-lru", "async-lru"),
    "pyee + wait_for_complete": ("pyee, waiting for its handlers", "pyee(ハンドラーを待つ)"),
    "await handler(event)": ("await handler(event)", "await handler(event)"),
    "anyio task group per emit": ("an AnyIO task group", "AnyIOのタスクグループ"),
    "anyio memory object stream": ("AnyIO's memory stream", "AnyIOのメモリストリーム"),
    "QueueHandler+QueueListener": ("QueueHandler, QueueListener", "QueueHandler、QueueListener"),
}
"""What a rival is called where the name in the benchmarks does not do, in English and Japanese."""

HEADS: Final = {
    "en": ("", "mtaio", "compared with", f"mtaio ÷ it, on {PYTHONS[0]}/{PYTHONS[1]}"),
    "ja": ("", "mtaio", "比較対象", f"mtaio÷比較対象、{PYTHONS[0]}/{PYTHONS[1]}"),
}

NONE: Final = "–"  # noqa: RUF001 - a dash, as it is printed
"""Shown where a rival does not run on a Python."""

PLOT_WORDS: Final = {
    "en": Beside(
        "For each thing measured, the time or memory that mtaio takes, divided by another's",
        "mtaio's time or bytes ÷ the other's",
        "mtaio takes less",
        "mtaio takes more",
    ),
    "ja": Beside(
        "測定項目ごとに、mtaioの時間またはメモリとほかのライブラリの値との比",
        "mtaioの時間またはバイト数÷相手の値",
        "mtaioのほうが少ない",
        "mtaioのほうが多い",
    ),
}

Figures = dict[str, Any]
"""What `FIGURES` holds: for each Python the machine, the versions, and a row for each rival."""


def read() -> Figures:
    figures: Figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return figures


def beside(figures: Figures, row: Figures) -> Figures | None:
    """Return the same row as it is on the other Python; None if it was not measured there."""
    rows = figures.get(PYTHONS[1], {"rows": []})["rows"]
    same = (each for each in rows if all(each[key] == row[key] for key in ("what", "rival")))
    return next(same, None)


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


def emphasised(figure: float) -> str:
    """Return a ratio, in bold if mtaio is slower or larger."""
    return f"**{said(figure)}**" if figure > 1 else said(figure)


def timed(figure: float, unit: str) -> str:
    if figure >= 100:  # noqa: PLR2004 - three digits
        return f"{figure:,.0f} {unit}"
    return f"{figure:.3g} {unit}" if figure < 10 else f"{figure:.1f} {unit}"  # noqa: PLR2004 - three digits


def table(language: str, name: str, figures: Figures) -> str:
    """Return a table, the ratios at which mtaio takes more in bold."""
    heads = HEADS[language]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|---|--:|"]
    last = ""
    for row in figures[PYTHONS[0]]["rows"]:
        if WHATS[row["what"]].table != name:
            continue
        first = row["what"] != last
        last = row["what"]
        other = beside(figures, row)
        cells = [
            what(language, row) if first else "",
            timed(row["ours"], row["unit"]) if first else "",
            rival(language, row["rival"]),
            f"{emphasised(row['ratio'])}/{NONE if other is None else emphasised(other['ratio'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def origin(language: str, figures: Figures) -> str:
    """Return where the figures are from."""
    first = figures[PYTHONS[0]]
    on = first["machine"]
    pythons = [figures[each]["machine"]["python"] for each in PYTHONS if each in figures]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    if language == "ja":
        versions = versions.replace(", ", "、")
        return (
            f"測定環境: {on['processor']}、{on['cores']}コア、{on['system']}、"
            f"{'、'.join(pythons)}。{first['rounds']}ラウンドの中央値。{versions}。"
        )
    return (
        f"Measured on {on['processor']}, {on['cores']} cores, {on['system']}, "
        f"{' and '.join(pythons)}; medians of {first['rounds']} rounds. {versions}."
    )


def page_with(language: str, page: str, figures: Figures) -> str:
    """Return the page with what stands between its markers made again."""

    def make(name: str) -> str:
        return origin(language, figures) if name == "origin" else table(language, name, figures)

    return remade("figures", page, make)


def remade(kind: str, page: str, make: Callable[[str], str]) -> str:
    """Return a page with what stands between its markers of a kind made again, from their names."""

    def made(found: re.Match[str]) -> str:
        return f"{found['top']}\n\n{make(found['name'])}\n\n{found['end']}"

    marked = re.compile(
        rf"(?P<top><!-- {kind}: (?P<name>\w+) -->)\n.*?\n(?P<end><!-- end of {kind} -->)",
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
        for row in figures[PYTHONS[0]]["rows"]
    ]
    return draw_ratios(PLOT_WORDS[language], rows)


def rewrite() -> None:
    """Make the pages and the plots again."""
    figures = read()
    for language in HEADS:
        path = DOCS / language / PAGE
        path.write_text(page_with(language, path.read_text("utf-8"), figures), encoding="utf-8")
        (DOCS / language / PLOT).write_text(plot(language, figures), encoding="utf-8")
