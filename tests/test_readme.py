"""The READMEs say what is so."""

from __future__ import annotations

import re
import tomllib
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
    assert script.endswith(f"\n{command}\n.venv/bin/nox -t static matrix docs\n")


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
def test_links_lead_somewhere(name: str) -> None:
    """Each link to a file of the repository finds it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links
    assert missing == []


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
