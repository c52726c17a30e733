"""
What lags behind in Japanese: ``python -m tests.translations``, which reports and never fails.

The Japanese pages follow the English ones before a release, not with each change.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.pages import DOCS
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FENCE = re.compile(r"^( *)(`{3,}).*?\n\1\2$", re.MULTILINE | re.DOTALL)


def outline(page: Path) -> list[str]:
    """Return what a page and its translation have in common: headings, tables and names."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    lines = re.findall(r"^(#+) |^(<!-- reference: .*)$|^(\|.*\|)$", text, re.MULTILINE)
    return [mark or name or f"{row.count('|')} columns" for mark, name, row in lines]


def commits(page: Path, since: str = "") -> list[str]:
    """Return the commits that changed a page, the newest first, or none where there is no git."""
    done = subprocess.run(  # noqa: S603 - of this repository
        ["git", "log", "--format=%H", *([f"{since}..HEAD"] if since else []), "--", str(page)],  # noqa: S607 - wherever it is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def faults(english: Path, japanese: Path) -> Iterator[str]:
    """Yield what a page lacks of the English one, or has that readers see as a fault."""
    if not english.exists():
        yield "is no page in English"
        return
    if not japanese.exists():
        yield "is missing"
        return
    last = commits(japanese)[:1]
    if last and (newer := commits(english, last[0])):
        yield f"{len(newer)} commits behind the English page"
    if outline(english) != outline(japanese):
        yield "has other headings, tables or rows than the English page"
    text = FENCE.sub("", japanese.read_text(encoding="utf-8"))
    if broken := re.findall(r"^.*[\u3000-\uffef]\n *[\u3000-\uffef].*$", text, re.MULTILINE):
        yield f"{len(broken)} paragraphs are broken, where readers see a space"


def main() -> None:
    """Print a line for each fault."""
    names = {
        path.relative_to(DOCS / each)
        for each in ("en", "ja")
        for path in (DOCS / each).rglob("*.md")
    }
    pairs = {
        f"docs/ja/{name.as_posix()}": (DOCS / "en" / name, DOCS / "ja" / name) for name in names
    }
    pairs["README.ja.md"] = ROOT / "README.md", ROOT / "README.ja.md"
    for name, pair in sorted(pairs.items()):
        sys.stdout.writelines(f"{name}: {fault}\n" for fault in faults(*pair))


if __name__ == "__main__":
    main()
