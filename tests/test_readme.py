"""The READMEs say what is so."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from itertools import takewhile
from pathlib import Path

import pytest

import mtaio

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.ja.md")


def fences(name: str, language: str) -> list[str]:
    """Return the contents of a page's code blocks in ``language``, in their order."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)


def test_ci_runs_the_readmes_test_command() -> None:
    """.ci/run first runs the README's test command, to the letter, then every other session."""
    _, command = fences("README.md", "sh")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.endswith(f"\n{command}\n.venv/bin/nox -t ci -j 2\n")


def test_readmes_give_the_same_commands() -> None:
    """Both languages show the same commands, programs and output, in the same order."""
    for language in ("sh", "bat", "python", "text"):
        assert fences("README.md", language) == fences("README.ja.md", language)
        assert fences("README.md", language)


def test_windows_commands_are_the_same_commands() -> None:
    """The commands for Windows differ in how paths are written, and in nothing else."""
    for command, windows in zip(fences("README.md", "sh"), fences("README.md", "bat"), strict=True):
        there = command.replace("python3 -m", "py -m").replace("bin/", "Scripts/")
        assert there.replace("/", "\\").replace("'", "") == windows


def test_commands_name_extras_that_exist() -> None:
    """The extras that the README installs are declared, and so is the command that it runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    demo, _ = fences("README.md", "sh")
    extras = re.search(r"'\.\[(.*)\]'", demo)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert demo.split(" && ")[-1].split("/")[-1].split()[0] in project["scripts"]


@pytest.mark.parametrize("name", READMES)
def test_picture_is_of_a_real_run(name: str) -> None:
    """Each README shows the picture of the demo, which is small, of its own, and names no place."""
    text = (ROOT / name).read_text(encoding="utf-8")
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", text)
    source = (ROOT / picture).read_text(encoding="utf-8")
    assert len(source) < 60_000
    shown = [element.text or "" for element in ET.fromstring(source).iter() if element.text]  # noqa: S314 - ours
    for said in ("mtaio demo", "hashing", "files", "throughput", "0"):
        assert said in shown
    assert re.findall(r"[\"'(](?:https?:|//|data:)[^\"')]*", source) == [
        '"http://www.w3.org/2000/svg'
    ]
    assert not any("/" in line for line in shown if not line.endswith("/s"))


def first_table(path: Path) -> list[str]:
    """Return the lines of a page's first table."""
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    head = next(line for line in lines if line.startswith("|"))
    return [head, *takewhile(lambda line: line.startswith("|"), lines)]


@pytest.mark.parametrize(("name", "language"), [("README.md", "en"), ("README.ja.md", "ja")])
def test_comparison_is_the_pages(name: str, language: str) -> None:
    """The README's one table is the one at the head of the whole comparison."""
    table = first_table(ROOT / name)
    assert len(table) > 8
    assert table == first_table(ROOT / "docs" / language / "comparison.md")


def test_version_is_this_one_or_the_next() -> None:
    """Both READMEs and the comparison say which version they describe, and say the same."""
    pages = [ROOT / name for name in READMES]
    pages += [ROOT / "docs" / language / "comparison.md" for language in ("en", "ja")]
    said = {
        found[1]
        for page in pages
        for found in re.finditer(
            r"(?:version |バージョン|^\| mtaio )(\d+\.\d+\.\d+)",
            page.read_text("utf-8"),
            re.MULTILINE,
        )
    }
    assert len(said) == 1
    described, here = (
        [int(part) for part in version.split(".")] for version in (said.pop(), mtaio.__version__)
    )
    assert described >= here


def test_messages_name_extras_that_exist() -> None:
    """Each extra that a message or a page tells to install is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pages = [*Path(mtaio.__file__).parent.rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    named = {
        extra
        for page in pages
        for extra in re.findall(r"pip install 'mtaio\[(\w+)\]'", page.read_text(encoding="utf-8"))
    }
    assert named >= {"cli", "otel", "trio"}
    assert named <= set(project["optional-dependencies"])


@pytest.mark.parametrize("language", ["en", "ja"])
def test_start_page_lists_the_extras(language: str) -> None:
    """The first page after the README has a row for each extra, with what it brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / language / "start.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \| .* \|$", page, re.MULTILINE))
    assert set(rows) == set(project["optional-dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        for requirement in requirements:
            name = re.match(r"mtaio\[(\w+)\]|([\w-]+)", requirement)
            assert name is not None
            assert (name[1] or name[2]) in rows[extra]
