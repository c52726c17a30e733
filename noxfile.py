"""
Every check of the house; ``nox`` alone runs what CI runs.

Promise: a session needs nothing but a Python and the package index, and leaves nothing outside
``.nox``. It downloads no Python: those that are on PATH are used, as ``.ci/pythons`` puts some
there. With ``CI=true`` it is a failure, and not a skipped session, if the newest one or a tool is
missing, or there is one Python alone.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import nox

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent
PROJECT: Final = nox.project.load_toml(ROOT / "pyproject.toml")
SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14", "3.15")
IN_CI: Final = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
USERS_PATH: Final = os.environ.get("PATH", os.defpath)

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = True
# Then what failed is the last thing that is printed: where one looks, and all that some keep.
nox.options.stop_on_first_error = IN_CI

os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
# pip trusts what the machine trusts; uv is to do the same.
os.environ.setdefault("UV_SYSTEM_CERTS", "1")

# Images for containers often forbid bytecode, and uv installs none: each of the thousand programs
# that the tests start would compile everything it imports, and that is half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".nox" / "bytecode")


# The Pythons of this machine


@functools.cache
def version_of(python: Path) -> str:
    """Return "3.x" if ``python`` is a CPython that answers, else ""."""
    ask = (
        "import sys, sysconfig; "
        "threads = sysconfig.get_config_var('Py_GIL_DISABLED'); "
        "print('%d.%d' % sys.version_info[:2] "
        "if sys.implementation.name == 'cpython' and not threads else '')"
    )
    try:
        answer = subprocess.run(  # noqa: S603 - a Python found on this machine is asked its version
            [python, "-I", "-c", ask], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def candidates(version: str) -> Iterator[Path]:
    """
    Yield the files that may be Python ``version``, the likeliest first.

    A name on PATH promises nothing: pyenv has shims with names that they refuse to run. So this
    also looks where such managers keep their Pythons: in ``versions``, beside a folder on PATH or
    under the manager's root, and beside the Python that runs nox.
    """
    suffix = ".exe" if sys.platform == "win32" else ""
    yield Path(sys.executable)
    folders = [Path(entry) for entry in USERS_PATH.split(os.pathsep) if entry]
    for name in (f"python{version}", "python3", "python"):
        for folder in folders:
            yield folder / f"{name}{suffix}"
    homes = [folder.parent / "versions" for folder in folders]
    homes.append(Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions")
    homes.append(Path(sys.base_prefix).parent)
    for home in dict.fromkeys(homes):
        for python in sorted(home.glob(f"*{version}*/bin/python{version}"), reverse=True):
            yield python
        for python in sorted(home.glob(f"*{version}*/python.exe"), reverse=True):
            yield python


def find_pythons() -> list[str]:
    """Return the supported versions that are here, after making each answer to its name."""
    found: dict[str, Path] = {}
    for version in SUPPORTED:
        for python in candidates(version):
            if python.is_file() and version_of(python) == version:
                found[version] = python
                break
    folders = [str(python.parent) for python in found.values() if python != Path(sys.executable)]
    # For nox alone and what it starts: the shell that called it keeps its own "python3".
    os.environ["PATH"] = os.pathsep.join([*dict.fromkeys(folders), USERS_PATH])
    return list(found)


PYTHONS: Final = find_pythons()
if not PYTHONS:
    sys.exit(f"mtaio needs CPython {SUPPORTED[0]} or later, and none was found on PATH.")
OLDEST: Final = PYTHONS[0]
NEWEST: Final = PYTHONS[-1]
THIS: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

SECOND: Final = PYTHONS[:2][-1]
"""The oldest but one, if there are more: the oldest dependencies have wheels for it."""

SHARED: Final = next((each for each in reversed(PYTHONS) if each != "3.15"), OLDEST)
"""The newest for which the client of Redis and Valkey has wheels; lines are counted there."""

OTHERS: Final = [each for each in PYTHONS if each not in {THIS, SECOND, SHARED} - {NEWEST}]

MATRIX: Final = [(THIS, ""), *((python, ",trio") for python in OTHERS if python != THIS)]
"""What no other session runs on: this Python with no trio installed, and the others."""

MATRIX_NAMES: Final = [
    f"{python}-asyncio+trio" if extras else f"{python}-asyncio" for python, extras in MATRIX
]


# What the sessions share


def group(name: str) -> list[str]:
    """Return the requirements of one of pyproject.toml's dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, name))


def lacking(session: nox.Session, what: str) -> NoReturn:
    """Give the session up: a failure in CI, a skip elsewhere."""
    if IN_CI:
        session.error(f"{what} is missing, and in CI nothing is skipped")
    session.skip(f"{what} is missing")


SPREAD: Final = ("-n", "logical", "--maxprocesses", "8", "--dist", "worksteal")
"""As many processes as there are cores; one that is done takes over what another has left."""


def pytest(
    session: nox.Session, *args: str, workers: bool = True, env: dict[str, str] | None = None
) -> None:
    """Run pytest, by default in as many processes as there are cores."""
    spread = SPREAD if workers else ()
    session.run("python", "-m", "pytest", *spread, *args, *session.posargs, env=env)


REAL_TIME: Final = "tests/realtime"
"""The tests whose subject is real time have a session, `smoke`, in which nothing else runs."""

LIGHT: Final = ("-m", "not heavy")
"""For sessions that run the suite once more on a Python on which another runs it whole."""

HEAVY: Final = ("-m", "heavy")
"""What is left of the suite on a Python on which the session `coverage` runs the rest."""

QUICK: Final = tuple(f"tests/{room}" for room in ("cache", "core", "events", "resources"))
"""For a Python between others on which most of the suite runs: what is likeliest to differ."""

EXPLORED: Final = "tests/explored"
"""Tests of some thousand runs each; pytest finds them only where they are named, as here."""

FOUND: Final = "tests/found"
"""Tests of defects in pinned versions of other libraries; the suite runs those that it has."""

SITE: Final = "tests/site"
"""Tests of the built documentation, which the session `docs` builds."""

DEPLOYED: Final = "tests/deployed"
"""Tests with what a deployment has beside ours, which the session `deployed` finds installed."""

PACKAGED: Final = (
    *("tests/app", "tests/testing", "tests/typing"),
    *(f"tests/monitoring/test_{name}.py" for name in ("names", "page", "programs")),
    *sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py")),
)
"""Tests of what may differ in a wheel: the command, the plugin, the page, the names."""

SERVICE: Final = "tests/service"
"""Tests of a whole service in a process of its own, which the session `service` runs."""

REDIS: Final = "tests/redis"
"""Tests of what processes share through a server; each starts its own servers."""

SERVERS: Final = ("redis-server", "valkey-server", "openssl")

POOLS: Final = "tests/pools"
"""Tests with process pools and clusters of others, which the session `pools` installs."""

LONG: Final = ("--mtaio-seeds=20000", "--mtaio-delays=3", "--mtaio-max-runs=0", "--timeout=0")
"""For a search of hours: what comes first is overruled by what follows ``--``."""

NO_SOURCE: Final = (".*_cache", ".git", ".hypothesis", ".nox", ".venv", "__pycache__", "site")
"""What a copy of the tree leaves behind."""


# The sessions, the quick ones first


@nox.session(tags=["static"])
def lint(session: nox.Session) -> None:
    """Style and likely mistakes: ruff with every rule, each exception with its reason."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(tags=["static"])
def floors(session: nox.Session) -> None:
    """Imports go down the floors only, and no backend is imported but where it is documented."""
    session.install(*group("floors"), "-e", ".")
    session.run("lint-imports", "--no-cache")


@nox.session(tags=["static"], python=OLDEST)
def types(session: nox.Session) -> None:
    """Types: mypy and pyright, both strict, and every public name typed in full."""
    session.install("-e", ".[app,test,trio,uvloop]", *group("types"))
    session.run("mypy")
    session.run("mypy", "--platform", "win32")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "mtaio", "--ignoreexternal")


@nox.session
def suite(session: nox.Session) -> None:
    """Run the suite on this Python, on both backends: the README's test command."""
    session.install("-e", ".[app,test,trio,uvloop]", *group("test"))
    pytest(session, f"--ignore={REAL_TIME}")


@nox.session(tags=["matrix"])
@nox.parametrize(("python", "extras"), MATRIX, ids=MATRIX_NAMES)
def tests(session: nox.Session, extras: str) -> None:
    """
    Run the suite on the oldest and newest Python, a part on others, and most without trio.

    The oldest but one has the session `lowest`, and the newest that has a client of Redis the
    session `coverage`; both run all but what is marked heavy.
    """
    if IN_CI and (SUPPORTED[-1] != NEWEST or NEWEST == OLDEST):
        needs = f"CI needs Python {SUPPORTED[-1]}, which .ci/pythons fetches, and another"
        session.error(f"Only Python {', '.join(PYTHONS)} was found; {needs}")
    session.install("-e", f".[app,test,uvloop{extras}]", *group("test"))
    installed = "import importlib.util as u, sys; sys.exit((u.find_spec('trio') is None) == {})"
    session.run("python", "-c", installed.format(bool(extras)))
    most = {OLDEST: (), NEWEST: HEAVY if NEWEST == SHARED else ()}
    part = most.get(str(session.python), QUICK) if extras else LIGHT
    pytest(session, f"--ignore={REAL_TIME}", *part)


@nox.session(tags=["matrix"], python=NEWEST)
def smoke(session: nox.Session) -> None:
    """Run a few things in real time: asyncio, uvloop, eager tasks (Python 3.12+), trio."""
    if NEWEST == "3.11":
        lacking(session, "A Python with eager tasks (3.12+)")
    session.install("-e", ".[app,test,trio,uvloop]", *group("test"))
    pytest(session, REAL_TIME, workers=False)


@nox.session(tags=["matrix"], python=NEWEST)
def explored(session: nox.Session) -> None:
    """Try schedules of at most two delays, random ones, and a cancellation at every moment."""
    session.install("-e", ".[app,test,trio]", *group("test"))
    pytest(session, EXPLORED)


@nox.session(tags=["matrix"], python=OLDEST)
def found(session: nox.Session) -> None:
    """Find in the pinned versions of other libraries what the guide found.md says is there."""
    session.install("-e", ".[app,test,trio]", *group("found"))
    pytest(session, FOUND, workers=False, env={"MTAIO_FOUND": "1"})


@nox.session(tags=["matrix"], python=NEWEST)
def deployed(session: nox.Session) -> None:
    """Have a real Prometheus read the metrics, and a real Chromium show the status page."""
    for names in (
        ("prometheus",),
        ("promtool",),
        ("chromium", "chromium-browser", "google-chrome"),
    ):
        if not any(shutil.which(name, path=USERS_PATH) for name in names):
            lacking(session, f"{names[0]} (on Debian: apt-get install prometheus chromium)")
    session.install("-e", ".[app,test,trio,uvloop]", *group("test"))
    pytest(session, DEPLOYED)


@nox.session(tags=["matrix"], python=[OLDEST, NEWEST])
def service(session: nox.Session) -> None:
    """Run a whole service on each loop: its limits, its end, and what goes wrong with it."""
    session.install("-e", ".[app,test,trio,uvloop]", *group("test"))
    pytest(session, SERVICE)


@nox.session(tags=["matrix"], python=NEWEST)
def pools(session: nox.Session) -> None:
    """Have the standard library's process pool, loky and a dask cluster make calls."""
    session.install("-e", ".[test,trio]", *group("pools"))
    pytest(session, POOLS, workers=False)


def needs_servers(session: nox.Session) -> None:
    """Give the session up where the servers that processes share are not installed."""
    for name in SERVERS:
        if not shutil.which(name, path=USERS_PATH):
            lacking(session, f"{name} (on Debian: apt-get install redis-server valkey openssl)")


@nox.session(default=False, python=list(dict.fromkeys([OLDEST, SHARED])))
def redis(session: nox.Session) -> None:
    """Share limits, a cache and events through Redis and Valkey; `coverage` does so as well."""
    needs_servers(session)
    session.install("-e", ".[app,test,trio,uvloop]", *group("redis"))
    pytest(session, REDIS)


@nox.session(tags=["matrix"], python=SHARED)
def coverage(session: nox.Session) -> None:
    """Every line and every branch of mtaio/ is run by a test, those with servers included."""
    needs_servers(session)
    session.install("-e", ".[app,test,trio,uvloop]", *group("coverage"), *group("redis"))
    data = Path(session.create_tmp()).resolve()
    environment = {"COVERAGE_FILE": str(data / "coverage")}
    session.run("coverage", "erase", env=environment)
    suite = ("pytest", f"--ignore={REAL_TIME}", *LIGHT, *SPREAD, *session.posargs)
    session.run("coverage", "run", "-m", *suite, env=environment)
    # What needs real time: a thread that is too slow, and the thread that answers probes.
    demo = (f"{REAL_TIME}/test_demo.py",)
    probes = [f"{REAL_TIME}/test_{name}.py" for name in ("health", "listener", "probes", "server")]
    shared = (REDIS, "-n", "4")  # most of it waits for a lease to end
    for alone in (demo, (*probes, "-k", "not eager and not uvloop and not trio"), shared):
        session.run("coverage", "run", "-m", "pytest", *alone, env=environment)
    session.run("coverage", "combine", "--quiet", env=environment)
    session.run("coverage", "report", env=environment)


@nox.session(tags=["matrix"], python=SECOND)
def lowest(session: nox.Session) -> None:
    """Run the suite's quick part against the oldest dependencies that pyproject.toml allows."""
    session.install("uv")
    session.run(
        *("uv", "pip", "install", "--quiet", "--python", session.virtualenv.location),
        *("--resolution", "lowest-direct", "-e", ".[app,test,trio,uvloop]", *group("test")),
    )
    session.run("uv", "pip", "list", "--python", session.virtualenv.location)
    pytest(session, *QUICK, *LIGHT)


@nox.session(tags=["matrix"], python=NEWEST)
def package(session: nox.Session) -> None:
    """Build the sdist and the wheel, and run tests of the sdist against the wheel alone."""
    session.install(*group("package"))
    away = Path(session.create_tmp()).resolve()
    shutil.rmtree(away)
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(away), ".")
    (wheel,) = away.glob("*.whl")
    (sdist,) = away.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        strangers = [
            name for name in archive.namelist() if not re.match(r"mtaio(-[^/]*\.dist-info)?/", name)
        ]
        if strangers:
            session.error(f"The wheel holds files that are not the library: {strangers}")
        for name in ("mtaio/py.typed", "mtaio/__init__.py"):
            archive.getinfo(name)
    with tarfile.open(sdist) as archive:
        archive.extractall(away, filter="data")
    unpacked = away / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(unpacked / "mtaio")
    session.install(f"{wheel}[app,test,trio,uvloop]", *group("test"))
    session.chdir(unpacked)
    where = "import mtaio, sys; sys.exit('site-packages' not in mtaio.__file__ and mtaio.__file__)"
    session.run("python", "-c", where)
    pytest(session, *PACKAGED, *LIGHT)


@nox.session(tags=["docs"], python=NEWEST)
def docs(session: nox.Session) -> None:
    """Build the docs with no warning, and find every public name in them."""
    session.install("-e", ".[app,test,trio,uvloop]", *group("docs"), *group("test"))
    site = Path(session.create_tmp()).resolve() / "site"
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement for a successor of MkDocs
    session.run("mkdocs", "build", "--strict", "--site-dir", str(site), env=quiet)
    pytest(session, SITE, workers=False, env={"MTAIO_SITE": str(site)})


@nox.session(tags=["docs"], venv_backend="none")
def demo(session: nox.Session) -> None:
    """Do in a copy of this tree, outside any environment, what the README's first command does."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shell, language = ("cmd", "bat") if sys.platform == "win32" else ("sh", "sh")
    fence = re.search(rf"^```{language}\n(?P<command>.*mtaio demo.*)\n```$", readme, re.MULTILINE)
    if fence is None:
        session.error(f"README.md shows no command in a ```{language} block that runs the demo.")
    if shutil.which("python3" if shell == "sh" else "py", path=USERS_PATH) is None:
        lacking(session, "A Python that answers to the README's name for it")
    copy = Path(session.create_tmp()).resolve() / "mtaio"
    shutil.rmtree(copy, ignore_errors=True)
    leave = shutil.ignore_patterns(
        ".*_cache", ".git", ".hypothesis", ".nox", ".venv", "__pycache__"
    )
    shutil.copytree(ROOT, copy, ignore=leave)
    session.chdir(copy)
    command = fence["command"]
    session.log(command)
    option = ["/c", command] if shell == "cmd" else ["-ec", command]
    session.run(shell, *option, external=True, env={"PATH": USERS_PATH, "VIRTUAL_ENV": None})


@nox.session(default=False, python=NEWEST)
def explore(session: nox.Session) -> None:
    """Do what `explored` does for hours: more delays, many more seeds; or as told after ``--``."""
    session.install("-e", ".[app,test,trio]", *group("test"))
    pytest(session, EXPLORED, *LONG)


@nox.session(default=False, python=NEWEST)
def stalls(session: nox.Session) -> None:
    """Run the suite, in real time too, while its processes stand still for 0.4 s now and then."""
    session.install("-e", ".[app,test,trio,uvloop]", *group("test"))
    session.run("python", "-m", "tests.stalls", *SPREAD, *session.posargs)


@nox.session(default=False, python=NEWEST)
def bench(session: nox.Session) -> None:
    """Measure ours beside rivals in one run, against the targets; CI's machines are too noisy."""
    session.install("-e", ".[app,trio,uvloop]", *group("bench"), *group("bench-alone"))
    session.run("python", "-m", "benchmarks", *(session.posargs or ["--check"]))
