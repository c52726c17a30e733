"""Every program in the pages and in the public docstrings does what they say."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from textwrap import dedent
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import mtaio.testing
from benchmarks._traces import TRACES
from tests.backends import BACKENDS
from tests.loggers import reset_loggers
from tests.pages import DOCS, EXAMPLES, READMES, SHOWN
from tests.programs import ROOT, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

ROOMS = (
    "cache",
    "config",
    "core",
    "events",
    "exceptions",
    "logging",
    "monitoring",
    "resilience",
    "resources",
    "testing",
)


PAGES = sorted(path.relative_to(DOCS / "en").as_posix() for path in DOCS.glob("en/**/*.md"))
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py"))
LONG = {"testing.check_cache", "testing.check_limiter", "monitoring_alerts"}
"""Whose programs take seconds: each checks a whole contract, or lives for an hour."""

FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>`{3,})(?P<language>\w*)[^\n`]*\n(?P<body>.*?)\n(?P=indent)(?P=mark)$",
    re.MULTILINE | re.DOTALL,
)


def fences(text: str) -> list[tuple[str, str]]:
    """Return the language and the contents of a page's code blocks, in their order."""
    return [(found["language"], dedent(found["body"])) for found in FENCE.finditer(text)]


def test_navigation_leads_to_every_page() -> None:
    """mkdocs.yml lists each page once, and no page that is not there."""
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"^ +- (\S+\.md)$", nav.partition("\n\n")[0], re.MULTILINE)
    assert sorted(listed) == PAGES


GUIDES = [DOCS / "en" / "tutorial.md", *DOCS.glob("en/guides/**/*.md")]


def test_guides_are_short() -> None:
    """Nobody has to read more than 3,000 words of one page, programs included."""
    words = {page.stem: len(page.read_text(encoding="utf-8").split()) for page in GUIDES}
    assert {page: count for page, count in words.items() if count > 3000} == {}


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_topic_has_one_name(language: str) -> None:
    """The list of the guides calls each by its title."""
    guides = DOCS / language / "guides"
    listed = re.findall(
        r"^- \[(.+?)\]\((\S+\.md)\)", (guides / "index.md").read_text("utf-8"), re.MULTILINE
    )
    titles = [(guides / page).read_text("utf-8").partition("# ")[2] for _, page in listed]
    assert [name for name, _ in listed] == [title.partition("\n")[0] for title in titles]


def test_python_in_pages_is_an_example() -> None:
    """
    Python in a page is a program of docs/examples, so that what is read is what is run.

    The reference has its programs from the docstrings, and they run below.
    """
    loose = [
        (page, body)
        for page in PAGES
        if not page.startswith("reference/")
        for language, body in fences(SHOWN.sub("", (DOCS / "en" / page).read_text("utf-8")))
        if language in {"python", "py"}
    ]
    assert loose == [], "write it to docs/examples, and name it above the block"


@pytest.mark.parametrize("name", READMES)
def test_readme_shows_a_program_and_its_output(name: str) -> None:
    """Python in a README is a copy of a program in docs/examples, with what that prints."""
    blocks = fences((ROOT / name).read_text(encoding="utf-8"))
    sources = {
        path.read_text(encoding="utf-8").rstrip("\n"): path for path in EXAMPLES.rglob("*.py")
    }
    shown = [number for number, (language, _) in enumerate(blocks) if language == "python"]
    assert shown
    for number in shown:
        output = sources[blocks[number][1]].with_suffix(".out").read_text(encoding="utf-8")
        assert blocks[number + 1] == ("text", output.rstrip("\n"))


def test_every_program_is_shown() -> None:
    """
    No program lies in docs/examples that no page shows, or without what it prints.

    Those in its folders print nothing: they are tests, which tests/gallery runs.
    """
    texts = [(DOCS / "en" / page).read_text(encoding="utf-8") for page in PAGES]
    texts.append((ROOT / "README.md").read_text(encoding="utf-8"))
    shown = {found["name"].partition(":")[0] for text in texts for found in SHOWN.finditer(text)}
    there = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")}
    assert PROGRAMS
    assert {name for name in shown if name.endswith(".py")} == there
    assert sorted(path.stem for path in EXAMPLES.glob("*.out")) == PROGRAMS


@pytest.fixture
def _own_loggers() -> Iterator[None]:
    """Set the loggers back: a program sets them as if the process were its own."""
    yield
    reset_loggers()


@pytest.mark.usefixtures("_own_loggers")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.heavy] * (name in LONG)) for name in PROGRAMS]
)
def test_program_prints_what_the_page_says(
    name: str, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each program prints the same on each backend, and the page shows it."""
    source = EXAMPLES / f"{name}.py"
    module = load(source, f"docs_example_{source.stem}")
    # Pools start processes in real time, and a machine may be slow: patience costs nothing else.
    mtaio.testing.run(module.main, backend=backend, grace=30.0)
    printed = capsys.readouterr()
    assert printed.out == source.with_suffix(".out").read_text(encoding="utf-8")
    assert printed.err == ""


def documented() -> dict[str, str]:
    """Return the docstrings of what the rooms show, and of its methods, by full name."""
    found: dict[str, str] = {}
    for room in ROOMS:
        module = import_module(f"mtaio.{room}")
        for name in module.__all__:
            thing = getattr(module, name)
            members = vars(thing) if inspect.isclass(thing) else {}
            own = {
                f"{name}.{key}": value for key, value in members.items() if not key.startswith("_")
            }
            for key, value in {name: thing, **own}.items():
                found[f"{room}.{key}"] = inspect.getdoc(value) or ""
    return found


def docstring_programs() -> list[Any]:
    """Return the Python blocks of the public docstrings, each under its owner's name."""
    return [
        pytest.param(body, id=f"{name}-{number}", marks=[pytest.mark.heavy] * (name in LONG))
        for name, text in documented().items()
        for number, (language, body) in enumerate(fences(text))
        if language == "python"
    ]


def test_docstring_programs_are_fenced() -> None:
    """Code in a public docstring stands in a fence: the reference shows it, and it is run here."""
    loose = [
        (name, found)
        for name, text in documented().items()
        for found in re.findall(r"^.*(?:::$|>>> .*)", FENCE.sub("", text), re.MULTILINE)
    ]
    assert loose == []


@pytest.mark.usefixtures("_own_loggers")
@pytest.mark.parametrize("source", docstring_programs())
def test_docstring_program_runs(source: str) -> None:
    """Each program in a public docstring is whole, and its ``main`` runs on each backend."""
    code = compile(source, "docstring", "exec")
    for backend in BACKENDS:
        module = ModuleType("docstring_example")
        exec(code, vars(module))  # noqa: S102 - our own docstring
        main: Callable[[], Coroutine[Any, Any, object]] | None = getattr(module, "main", None)
        if main is None:
            break  # once is enough: it needs no event loop, or starts its own
        mtaio.testing.run(main, backend=backend)


def shown_ratios(language: str, page: str) -> dict[str, dict[str, str]]:
    """Return what the tables of a page say of each trace, by the head of the column."""
    rows = [
        [cell.strip(" *") for cell in row.strip("|").split("|")]
        for row in (DOCS / language / page).read_text("utf-8").splitlines()
        if row.startswith("|")
    ]
    (heads,) = (row for row in rows if row[0] in {"trace", "トレース"})
    first = rows.index(heads) + 2
    return {
        trace.name: dict(zip(heads[1:], row[1:], strict=True))
        for trace, row in zip(TRACES, rows[first : first + len(TRACES)], strict=True)
        if row[0] in {trace.ja, trace.name.replace(" x ", " × ")}  # noqa: RUF001 - as it is shown
    }


def test_hit_ratios_are_of_one_making() -> None:
    """The design notes show the same figures of the cache in both languages, for each trace."""
    english, japanese = (shown_ratios(language, "design/caching.md") for language in ("en", "ja"))
    assert list(english) == [trace.name for trace in TRACES]
    assert english == japanese
