"""
What the page about memory and growth shows: a table, a plot, the machine; see `growth`.

They are made from `FIGURES` alone, so that the words can change without measuring again, and a test
holds the pages to the figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from benchmarks._figures import remade
from benchmarks._plot import Beside, draw_ratios

__all__ = ["FIGURES", "PAGE", "PLOT", "STEPS", "UNITS", "page_with", "plot", "read", "rewrite"]

DOCS: Final = Path(__file__).parents[1] / "docs"
FIGURES: Final = Path(__file__).parent / "growth.json"
PAGE: Final = "design/growth.md"
PLOT: Final = "design/growth.svg"

STEEP: Final = 1.31
"""A slope above this is shown in bold: `growth.MOST`."""

UNITS: Final = {
    "entries": ("entries of a cache", "キャッシュの項目"),
    "tags": ("entries with two tags", "タグ2つの項目"),
    "limiter_keys": ("keys of a rate limiter", "レートリミッターのキー"),
    "breaker_keys": ("keys of a breaker", "ブレーカーのキー"),
    "for_slots": ("waiting for a slot", "スロット待ち"),
    "for_tokens": ("waiting for a token", "トークン待ち"),
    "for_keys": ("the same, a key each", "同じく、1件ずつ別のキー"),
    "for_adaptive": ("waiting for an adaptive limit", "適応的な制限の待ち"),
    "for_executor": ("calls waiting in an executor", "エグゼキューターで待つ呼び出し"),
    "for_load": ("waiting for one load", "一つの読み込みの待ち"),
    "for_event": ("waiting for one event", "一つのイベントの待ち"),
    "deadlines": ("blocks with a timeout", "時間制限のあるブロック"),
    "semaphore": ("asyncio.Semaphore, for comparison", "比較のため、asyncio.Semaphore"),
    "submitted": ("submitted tasks", "投入したタスク"),
    "group": ("AnyIO's task group, for comparison", "比較のため、AnyIOのタスクグループ"),
    "mapped": ("items of a map", "mapの要素"),
    "gathered": ("calls at once", "同時の呼び出し"),
    "event_names": ("names of events", "イベント名"),
    "event_handlers": ("handlers of one event", "一つのイベントのハンドラー"),
    "event_streams": ("streams of one event", "一つのイベントのストリーム"),
    "watched": ("objects that a monitor watches", "モニターが見る対象"),
    "gauges": ("gauges", "ゲージ"),
    "health_checks": ("health checks", "ヘルスチェック"),
}
"""What each unit is called, in English and Japanese."""

STEPS: Final = {
    "store": ("store", "格納"),
    "hit": ("find", "ヒット"),
    "replace": ("a new one for an old one", "古いものと入れ替え"),
    "delete": ("delete", "削除"),
    "invalidate": ("every second one by its tag", "1件おきにタグで無効化"),
    "all": ("the rest by one tag", "残りを一つのタグで無効化"),
    "new": ("a new one", "新しいもの"),
    "again": ("again", "もう一度"),
    "wait": ("start to wait", "待ち始める"),
    "get": ("get it", "得る"),
    "cancel": ("cancel", "キャンセル"),
    "start": ("start", "開始"),
    "end": ("end", "終了"),
    "map": ("map", "map"),
    "timeout": ("for_each, with a timeout", "for_each、時間制限付き"),
    "stream": ("stream", "stream"),
    "gather": ("gather", "gather"),
    "as_completed": ("as_completed", "as_completed"),
    "race": ("race", "race"),
    "on": ("on", "on"),
    "emit": ("emit", "emit"),
    "off": ("off, the latest first", "off、新しい順"),
    "once": ("emit to once", "onceへのemit"),
    "open": ("enter", "入る"),
    "close": ("leave", "出る"),
    "watch": ("add", "追加"),
    "sample": ("a sample", "サンプル"),
    "report": ("a report", "レポート"),
    "unwatch": ("remove", "削除"),
}
"""What each step is called, in English and Japanese."""

HEADS: Final = {
    "en": ("", "step", "slope", "bytes each"),
    "ja": ("", "操作", "傾き", "1件のバイト数"),
}

PLOT_WORDS: Final = {
    "en": Beside(
        "For each step, its time each at the largest number, divided by that among 1,000",
        "time each ÷ that among 1,000",
        "less",
        "more",
    ),
    "ja": Beside(
        "操作ごとに、最大の個数での1件の時間を、1,000件のときの時間で割ったもの",
        "1件の時間÷1,000件のときの時間",
        "短い",
        "長い",
    ),
}

Figures = dict[str, Any]
"""What `FIGURES` holds."""


def read() -> Figures:
    figures: Figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return figures


def measure() -> None:
    """Measure every unit, and write `FIGURES`."""
    from benchmarks import growth  # noqa: PLC0415 - the words need none of it
    from benchmarks._compare import machine  # noqa: PLC0415 - as above

    rows = []
    for unit in growth.UNITS:
        for row in growth.measure(unit):
            print(f"  {unit:16} {row.step:14} {row.slope:5.2f}", flush=True)
            rows.append(
                {
                    "unit": unit,
                    "step": row.step,
                    "times": {str(size): float(f"{each:.3g}") for size, each in row.times.items()},
                    "bytes": {str(size): round(each) for size, each in row.bytes.items()},
                    "slope": round(row.slope, 2) if len(row.times) > 1 else None,
                }
            )
    figures = {"machine": machine(), "sizes": list(growth.SIZES), "rows": rows}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def named(language: str, words: tuple[str, str]) -> str:
    return words[language == "ja"]


def timed(each: float) -> str:
    return f"{each:,.0f}" if each >= 100 else f"{each:.3g}"  # noqa: PLR2004 - three digits


def table(language: str, figures: Figures) -> str:
    """Return the table, steep slopes in bold."""
    first, step, slope, weight = HEADS[language]
    sizes = figures["sizes"]
    heads = [first, step, *(f"{size:,}" for size in sizes), slope, weight]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * (len(sizes) + 2)]
    last = ""
    for row in figures["rows"]:
        times = [row["times"].get(str(size)) for size in sizes]
        exponent = row["slope"]
        told = "" if exponent is None else f"{exponent:.2f}"
        cells = [
            named(language, UNITS[row["unit"]]) if row["unit"] != last else "",
            named(language, STEPS[row["step"]]),
            *("" if each is None else timed(each) for each in times),
            f"**{told}**" if exponent is not None and exponent > STEEP else told,
            f"{[*row['bytes'].values()][-1]:,}" if row["bytes"] else "",
        ]
        last = row["unit"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def origin(language: str, figures: Figures) -> str:
    """Return where the figures are from."""
    on = figures["machine"]
    parts = (on["processor"], on["cores"], on["system"], on["python"])
    if language == "ja":
        return "測定環境: {}、{}コア、{}、{}。".format(*parts)
    return "Measured on {}, {} cores, {}, {}.".format(*parts)


def page_with(language: str, page: str, figures: Figures) -> str:
    """Return the page with what stands between its markers made again."""

    def make(name: str) -> str:
        return origin(language, figures) if name == "origin" else table(language, figures)

    return remade("growth", page, make)


def plot(language: str, figures: Figures) -> str:
    """Return the plot of the times each, at most beside the least number."""
    rows = []
    for row in figures["rows"]:
        times = [*row["times"].values()]
        ratio = times[-1] / times[0]
        names = UNITS[row["unit"]], STEPS[row["step"]]
        rows.append((*(named(language, each) for each in names), ratio, ratio, ratio))
    return draw_ratios(PLOT_WORDS[language], rows)


def rewrite() -> None:
    """Make the pages and the plots again."""
    figures = read()
    for language in HEADS:
        path = DOCS / language / PAGE
        path.write_text(page_with(language, path.read_text("utf-8"), figures), encoding="utf-8")
        (DOCS / language / PLOT).write_text(plot(language, figures), encoding="utf-8")
