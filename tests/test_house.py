"""The rules of the house that no other tool holds."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import mtaio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[1]
LIBRARY = Path(mtaio.__file__).parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = (
    *("app", "asgi", "cache", "clients", "config", "core", "events", "logging", "monitoring"),
    *("resilience", "resources", "testing"),
)
EXAMPLES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "docs" / "examples").rglob("*")
    if path.suffix in {".py", ".toml", ".txt"} or path.name == "Dockerfile"
)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md"))
)


def read(name: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def assigned(tree: ast.Module, name: str) -> Any:
    """Return the literal that a module gives to ``name``."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            assert node.value is not None
            return ast.literal_eval(node.value)
    raise AssertionError(name)


def sessions() -> dict[str, bool]:
    """Return noxfile.py's sessions, and whether each is part of the default run."""
    found = {}
    for node in ast.parse(read("noxfile.py")).body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                if text.startswith("nox.session"):
                    found[node.name] = "default=False" not in text
    return found


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of each module, or name in a module, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_one_version() -> None:
    """The version is the same wherever it is written."""
    version = PROJECT["project"]["version"]
    assert mtaio.__version__ == version
    assert importlib.metadata.version("mtaio") == version


def test_changelog_has_this_version() -> None:
    """The changelog begins with what is unreleased, and then has this version with its date."""
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(mtaio.__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_wheel_in_the_docs_is_of_this_version() -> None:
    """Where a page names the wheel, it is the one that this tree builds."""
    named = {found for page in PAGES for found in re.findall(r"mtaio-(\d[\d.]*)-py3", read(page))}
    assert named == {mtaio.__version__}


def test_addresses_agree() -> None:
    """The site links to the source that the package names, and both have one address."""
    urls = PROJECT["project"]["urls"]
    site = dict(re.findall(r"^(\w+_ur[il]): (.*)$", read("mkdocs.yml"), re.MULTILINE))
    source = urls["Source"]
    assert site == {
        "site_url": urls["Documentation"],
        "repo_url": source,
        "edit_uri": "edit/main/docs/",
    }
    assert urls["Issues"] == f"{source}/issues"
    assert urls["Changelog"] == f"{source}/blob/main/CHANGELOG.md"


ABOUT_THE_OTHER = ("start.md", "guides/troubleshooting/common.md")
"""Pages whose text says what such a command does: where mtaio is installed, it keeps it."""


def test_install_lines_are_true() -> None:
    """Nothing installs mtaio by its name alone, which on PyPI is another library's."""
    by_name = r"(?:pip install|uv add)\b[^#\n]*[ '\"]mtaio\b.*|^dependencies = .*\"mtaio\".*"
    faults = []
    for path in [*PAGES, *EXAMPLES]:
        text = read(path)
        if path.endswith(ABOUT_THE_OTHER):
            text = "".join(re.findall(r"^```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        faults += [(path, found) for found in re.findall(by_name, text, re.MULTILINE)]
    assert faults == []


def test_pythons_agree() -> None:
    """The Pythons that are promised are the ones that nox and the workflow test."""
    supported = assigned(ast.parse(read("tests/pythons.py")), "SUPPORTED")
    classifiers = PROJECT["project"]["classifiers"]
    promised = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE
    )
    assert tuple(promised) == supported
    assert PROJECT["project"]["requires-python"] == f">={supported[0]}"
    installed = re.findall(
        r"python-version: \|\n((?: +3\.\d+\n)+)", read(".github/workflows/ci.yml")
    )
    assert len(installed) == 2
    assert {tuple(sorted(each.split())) for each in installed} == {supported}


def test_pythons_without_the_gil_agree() -> None:
    """Those that the workflow tests are supported ones, which nox finds; and it is said so."""
    module = ast.parse(read("tests/pythons.py"))
    found, supported = assigned(module, "FREE"), assigned(module, "SUPPORTED")
    (tested,) = re.findall(r"^ +python: \[(.*)\]$", read(".github/workflows/ci.yml"), re.MULTILINE)
    assert sorted(tested.split(", "), reverse=True) == list(found[:-1])
    assert all(each.removesuffix("t") in supported for each in found)
    (built,) = re.findall(r"^package=python(3\.\d+)$", read(".ci/free-threaded"), re.MULTILINE)
    assert found[-1] == f"{built}t"
    classifier = "Programming Language :: Python :: Free Threading :: "
    assert sum(each.startswith(classifier) for each in PROJECT["project"]["classifiers"]) == 1


def test_a_page_names_every_session() -> None:
    """The page of the checks explains each session of the noxfile and no other, in its order."""
    page = read("docs/en/design/checks.md")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(sessions())


def test_workflow_runs_the_default_run() -> None:
    """The sessions of the workflow are those that nox runs when it is given none."""
    rows = re.findall(r"^ +session: \[(.*)\]$", read(".github/workflows/ci.yml"), re.MULTILINE)
    default = {name for name, is_default in sessions().items() if is_default}
    # `coverage` runs `redis` before it.
    assert {name for row in rows for name in row.split(", ")} == default - {"redis"}


def reaches_into(path: Path) -> Iterator[str]:
    """Yield what a module imports of another room that is not one of its public names."""
    here = path.relative_to(LIBRARY).with_suffix("").parts
    for name in imports(path):
        top, *parts = name.split(".")
        if top != "mtaio" or not parts or parts[0] in {here[0], "_internal", "__version__"}:
            continue
        into_private = any(part.startswith("_") for part in parts)
        from_top = not (LIBRARY / parts[0]).is_dir() and not (LIBRARY / f"{parts[0]}.py").is_file()
        if into_private or from_top:
            yield name


def test_rooms_meet_at_their_doors() -> None:
    """A room imports another room's public names alone, and never the curated ones of mtaio."""
    # __main__ is the command, whose modules in mtaio.app are no library.
    names = ("__init__.py", "__main__.py", "statistics.py", "types.py")
    doors = {LIBRARY / name for name in names}
    paths = [path for path in LIBRARY.rglob("*.py") if path not in doors]
    assert {path: found for path in paths if (found := [*reaches_into(path)])} == {}


COLLECTED = ("statistics", "types")
"""Public modules that show what the rooms have of one kind."""


def public_modules() -> list[ModuleType]:
    """Return the modules whose names are promised to users."""
    return [importlib.import_module(f"mtaio.{name}") for name in (*ROOMS, "exceptions", *COLLECTED)]


@pytest.mark.parametrize("module", [mtaio, *public_modules()], ids=lambda module: module.__name__)
def test_all_is_complete(module: ModuleType) -> None:
    """Each name in ``__all__`` is there, once, and is found by ``dir()`` and ``import *``."""
    names: list[str] = module.__all__
    assert len(set(names)) == len(names)
    for name in names:
        assert hasattr(module, name)
    assert set(names) <= set(dir(module))


def test_curated_names_are_the_rooms_own() -> None:
    """What mtaio re-exports is the very object that a room's door shows."""
    doors = {name: getattr(module, name) for module in public_modules() for name in module.__all__}
    for name in mtaio.__all__:
        if not name.startswith("__"):
            assert getattr(mtaio, name) is doors[name]


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_reference_shows_every_public_module(module: ModuleType) -> None:
    """Each public module has its page in the reference."""
    page = read(f"docs/en/reference/{module.__name__.rpartition('.')[2]}.md")
    assert f"<!-- reference: {module.__name__} -->\n" in page


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_public_classes_inherit_no_private_part(module: ModuleType) -> None:
    """One class, one file: what a public class inherits from mtaio is public too."""
    public = {getattr(each, name) for each in public_modules() for name in each.__all__}
    private = {
        f"{cls.__name__} < {base.__name__}"
        for cls in (getattr(module, name) for name in module.__all__)
        if isinstance(cls, type) and cls.__module__.startswith("mtaio.")
        for base in cls.__mro__
        if base.__module__.startswith("mtaio.") and base not in public
        if not issubclass(base, BaseException)  # errors share what they are made of
    }
    assert private == set()
