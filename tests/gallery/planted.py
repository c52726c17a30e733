"""
The planted bugs of docs/examples/breaking, and what each tool makes of them.

``python -m tests.gallery.planted`` writes again what the guides show of it: the table of which tool
found which bug in which run, and what pytest prints of some.
"""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from mtaio.testing import Schedule, Victim, injections, run
from mtaio.testing._search import at_random
from mtaio.testing.schedules import exhaustive
from tests import pages
from tests.backends import BACKENDS
from tests.programs import ROOT, load, pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

HOME: Final = ROOT / "docs" / "examples" / "breaking"
HOMES: Final = (HOME, ROOT / "docs" / "examples" / "testing")
"""The folders with bugs of which guides show what pytest prints."""

PAGES: Final = [ROOT / "docs" / language / "guides" / "breaking.md" for language in ("en", "ja")]

Tool: TypeAlias = Literal["exhaustive", "seeds", "checkpoint", "step", "native"]

TOOLS: Final[tuple[Tool, ...]] = get_args(Tool)

SEEDS: Final = 200
"""How many schedules at random are tried; as many as `explore` tries unless told otherwise."""


@dataclass(frozen=True)
class Bug:
    """A wrong class, its corrected twin, and the one test for both."""

    name: str
    wrong: type
    right: type
    explored: Callable[[type], None]
    """The test as pytest finds it."""

    def __str__(self) -> str:
        return self.name

    @property
    def search(self) -> Any:
        """What `explore` does with the test."""
        return vars(self.explored)["__mtaio_search__"]

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What `explore` uses: with nobody to strike, schedules alone."""
        return (*TOOLS[:2], *self.search.inject)

    def once(self, kind: type, victim: Victim) -> Callable[[], Coroutine[Any, Any, None]]:
        """Return the test as written, before `explore` made many runs of it."""
        test: Callable[..., Coroutine[Any, Any, None]] = inspect.unwrap(self.explored)
        given = {"victim": victim} if "victim" in inspect.signature(test).parameters else {}

        async def main() -> None:
            await test(kind, **given)

        return main


def _load(source: Path) -> Bug:
    module = load(source, f"docs_example_breaking_{source.stem}")
    (test,) = (value for key, value in vars(module).items() if key.startswith("test_"))
    (wrong,) = (value for key, value in vars(module).items() if key.startswith("Wrong"))
    (right,) = (value for key, value in vars(module).items() if key.startswith("Right"))
    assert issubclass(right, wrong), "the correction is what the twin overrides"
    return Bug(source.stem, wrong, right, test)


BUGS: Final = tuple(_load(source) for source in sorted(HOME.glob("*.py")))


def plans(tool: Tool, choices: int) -> Iterator[tuple[Schedule, Victim]]:
    """
    Yield the runs of which a tool consists, in the order in which `explore` makes them.

    The plain run had that many choices.
    """
    if tool == "exhaustive":
        for schedule in exhaustive(2):
            yield schedule, Victim()
    elif tool == "seeds":
        for number in range(SEEDS):
            yield at_random(number, choices), Victim()
    else:
        for seeded in (False, True):
            for victim in injections(tool):
                yield Schedule(seed=victim.at) if seeded else Schedule(), victim


def works_on(tool: Tool, backend: str) -> bool:
    """Return whether a backend has what a tool needs."""
    return tool != "native" or backend == "asyncio"


@cache
def found_in(bug: Bug, tool: Tool, backend: str) -> int | None:
    """Return in which of its runs a tool by itself finds a bug first; None if in none of them."""
    plain = Schedule()
    run(bug.once(bug.wrong, Victim()), backend=backend, schedule=plain)
    for number, (schedule, victim) in enumerate(plans(tool, max(1, len(plain.log))), 1):
        try:
            run(bug.once(bug.wrong, victim), backend=backend, schedule=schedule)
        except Exception:  # noqa: BLE001 - whatever it is, it is found
            return number
    return None


def cell(bug: Bug) -> str:
    """Return in which runs which tools find a bug; where trio differs, its number comes second."""
    found: list[str] = []
    for tool in bug.tools:
        backends = [backend for backend in ("asyncio", "trio") if works_on(tool, backend)]
        runs = [found_in(bug, tool, backend) for backend in backends]
        if any(runs):
            numbers = "/".join(dict.fromkeys(str(run or "–") for run in runs))  # noqa: RUF001 - typography
            found.append(f"{tool} {numbers}")
    return ", ".join(found)


# ---- what the guides show ------------------------------------------------------------------------

ROW: Final = re.compile(r"^\| \[[^]]+\]\(#(?P<name>[\w-]+)\) \|.*$", re.MULTILINE)
"""A row of the guide's table: which bug, and what finds it."""


def with_numbers(page: str) -> str:
    """Return a page with the numbers in its table as they are, if both backends are here."""
    bugs = {bug.name.replace("_", "-"): bug for bug in BUGS}

    def line(found: re.Match[str]) -> str:
        head = found[0].split(" | ")[0]
        return f"{head} | {cell(bugs[found['name']])} |"

    return ROW.sub(line, page) if "trio" in BACKENDS else page


HIDDEN: Final = "All traceback entries are hidden."


def shown(home: Path) -> dict[str, str]:
    """Return what the guides show as failures of the bugs in a folder, by their names."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(home.glob("*.out"))}


@cache
def failures(home: Path) -> dict[str, str]:
    """Return what pytest prints as the failures of these bugs, less the folder they are in."""
    names = list(shown(home))
    leaks = "ignore::pytest.PytestUnraisableExceptionWarning"  # what a bug leaves open
    done = pytest("-W", leaks, "-k", "Wrong", *(home / f"{name}.py" for name in names))
    assert done.returncode == 1, done.stdout + done.stderr
    _, *sections = re.split(r"^_{3,} .* _{3,}$", done.stdout, flags=re.MULTILINE)
    return {name: _said(home, said) for name, said in zip(names, sections, strict=True)}


def _said(home: Path, section: str) -> str:
    """Return the error that a section of pytest's output ends with."""
    lines = section.splitlines()
    if HIDDEN in section:  # no traceback, of which pytest marks the first line alone
        first = next(at for at, line in enumerate(lines) if line.startswith("E "))
        said = [line[1:].rstrip() for line in lines[first:] if line.startswith(("E ", " "))]
    else:
        said = [line[1:].rstrip() for line in lines if line.startswith("E ")]
    text = inspect.cleandoc("\n".join(said))
    lines = [line.replace(f"{home}{os.sep}", "") for line in text.splitlines() if line.strip()]
    return "\n".join(lines) + "\n"


def rewrite() -> None:
    """Write again what the guides show."""
    for home in HOMES:
        for name, text in failures(home).items():
            (home / f"{name}.out").write_text(text, encoding="utf-8")
    for page in PAGES:
        page.write_text(with_numbers(page.read_text("utf-8")), encoding="utf-8")
    pages.rewrite()


if __name__ == "__main__":
    rewrite()
