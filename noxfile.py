"""
Every check of the house; ``nox`` alone runs what CI runs.

Promise: a session needs nothing but a Python and the package index, and leaves nothing outside
``.nox``. It downloads no Python: `uv` finds those that are here, and ``.ci/pythons`` can put the
newest ones on PATH. With ``CI=true`` a tool or a Python that is missing is a failure; elsewhere the
session is skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests.pythons import SUPPORTED, THIS, USERS_PATH, find, find_free

ROOT: Final = Path(__file__).parent
PROJECT: Final = nox.project.load_toml(ROOT / "pyproject.toml")
IN_CI: Final = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

nox.needs_version = ">=2026.10.20"  # for the sessions that run beside others with -j 2
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
# Then what failed is the last thing that is printed: where one looks, and all that some keep.
nox.options.stop_on_first_error = IN_CI

os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # trust what the machine trusts, as pip does

# Images for containers often forbid bytecode, and uv installs none: each of the thousand programs
# that the tests start would compile everything it imports, and that is half of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".nox" / "bytecode")

PYTHONS: Final = find()
OLDEST: Final = PYTHONS[0]
NEWEST: Final = PYTHONS[-1]
SHARED: Final = next((each for each in reversed(PYTHONS) if each != "3.15"), OLDEST)
"""The newest for which Ray and the client of Redis and Valkey have wheels."""

COUNTED: Final = NEWEST if sys.platform == "linux" else ""
"""Where the session `coverage` runs the whole suite; elsewhere nothing counts lines."""

MATRIX: Final = [
    (THIS, "trioless"),
    *((python, "lowest") for python in PYTHONS[:2][-1:]),
    *((python, "plain") for python in (OLDEST, NEWEST) if python not in {THIS, COUNTED}),
]
"""What the session `tests` runs on which Python; on this one, `suite` runs the whole."""

WORKERS: Final = (os.cpu_count() or 1) + 1
"""A process for each core, and one for when a test waits, as many do for what they start."""

QUICK: Final = [f"tests/{room}" for room in ("cache", "core", "events", "resources")]
NAMES: Final = [f"tests/test_{name}.py" for name in ("contracts", "exceptions", "house", "import")]
SHIPPED: Final = (
    "app/test_cli",
    "app/test_main",
    "monitoring/test_page",
    "testing/test_pytest_plugin",
)
PARTS: Final = {
    "whole": ["--ignore=tests/realtime"],
    "plain": ["--ignore=tests/realtime", "-m", "not heavy"],
    "lowest": [*QUICK[1:3], "-m", "not heavy"],  # what is likeliest to differ
    "trioless": [*NAMES, "tests/internal", "tests/testing", "-m", "not heavy"],
    "wheel": [*NAMES, *(f"tests/{name}.py" for name in SHIPPED)],
}

LINES: Final = {"COVERAGE_FILE": str(ROOT / ".nox" / "lines" / "data")}
"""Where the sessions that count lines leave what they have counted."""


# What the sessions share


def install(session: nox.Session, *groups: str, extras: str = "app,test,trio,uvloop") -> None:
    """Install the library from this tree with extras, and dependency groups beside it."""
    wanted = nox.project.dependency_groups(PROJECT, *groups)
    session.install("-e", f".[{extras}]", *wanted)


def pytest(
    session: nox.Session, *args: str, workers: int = WORKERS, count: bool = False, **env: str
) -> None:
    """Run pytest in several processes, with the same examples each time; alone it draws others."""
    runner = ["coverage", "run", "-m"] if count else ["python", "-m"]
    spread = ["-n", str(workers), "--maxprocesses", "8", "--dist", "worksteal"]
    command = [*runner, "pytest", *spread, "--hypothesis-seed=0", *args, *session.posargs]
    session.run(*command, env={**LINES, **env})


def needs(session: nox.Session, *names: str, hint: str) -> None:
    """Give the session up if a program is not installed: a failure in CI, a skip elsewhere."""
    for name in names:
        if not any(shutil.which(each, path=USERS_PATH) for each in name.split("|")):
            give_up = session.error if IN_CI else session.skip
            give_up(f"{name} is missing (on Debian: apt-get install {hint})")


# The sessions, the quick ones first


@nox.session(tags=["ci"], allow_parallel=True)
def lint(session: nox.Session) -> None:
    """Style and likely mistakes, with every rule of ruff; imports go down the floors only."""
    install(session, "lint", "floors", extras="")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session(tags=["ci"], python=OLDEST)
def types(session: nox.Session) -> None:
    """Types: mypy and pyright, both strict; ty, what it finds; every public name typed in full."""
    install(session, "types")
    # But for what is simulated on Linux alone.
    linux = ("--follow-imports", "silent", "--exclude", "/_?network(/|\\.py$)")
    checks = [
        ("mypy",),
        ("mypy", "--platform", "win32", "--cache-dir", ".mypy_cache/win32", *linux),
        ("pyright",),
        ("pyright", "--verifytypes", "mtaio", "--ignoreexternal"),
        ("ty", "check"),
    ]
    session.run("pyright", "--version", silent=True)  # which installs it, once
    with ThreadPoolExecutor(WORKERS - 1) as pool:  # each of them uses one core
        for check in [pool.submit(session.run, *each) for each in checks]:
            check.result()


@nox.session
def suite(session: nox.Session) -> None:
    """Run the suite on this Python, on both backends: the README's test command."""
    install(session, "test")
    pytest(session, *PARTS["whole"])


@nox.session(tags=["ci"])
@nox.parametrize(("python", "part"), MATRIX, ids=map("-".join, MATRIX))
def tests(session: nox.Session, part: str) -> None:
    """Run the suite on the oldest Python, parts on others; one has the lowest dependencies."""
    if IN_CI and (SUPPORTED[-1] != NEWEST or NEWEST == OLDEST):
        session.error(f"CI needs {SUPPORTED[-1]}, as .ci/pythons fetches, and another: {PYTHONS}")
    if part == "lowest":
        session.env["UV_RESOLUTION"] = "lowest-direct"
    install(session, "test", extras="app,test,uvloop" + ",trio" * (part != "trioless"))
    has_trio = "import importlib.util as u, sys; sys.exit(bool(u.find_spec('trio')) is not {})"
    session.run("python", "-c", has_trio.format(part != "trioless"))
    pytest(session, *PARTS[part])


@nox.session(tags=["ci"], python=SHARED, allow_parallel=True)
def redis(session: nox.Session) -> None:
    """Share limits, a cache and events through Redis and Valkey, and count the lines run."""
    needs(session, "redis-server", "valkey-server", "openssl", hint="redis-server valkey openssl")
    install(session, "coverage", "redis")
    session.run("coverage", "erase", env=LINES)
    shared = ("tests/redis", "tests/test_contracts.py")
    pytest(session, *shared, workers=4, count=True)  # most of it waits for a lease to end


@nox.session(tags=["ci"], python=NEWEST, requires=["redis"])
def coverage(session: nox.Session) -> None:
    """Run the suite on the newest Python; with `redis`, every line and every branch is run."""
    install(session, "coverage")
    pytest(session, *PARTS["plain"], count=True)
    # What needs real time: a thread that is too slow, the one that answers probes, another loop.
    names = ("demo", "health", "listener", "probes", "server", "tasks")
    alone = [f"tests/realtime/test_{name}.py" for name in names]
    once = ("-k", "not eager and not uvloop and (not trio or tasks)")
    pytest(session, *alone, *once, workers=0, count=True)
    session.run("coverage", "combine", "--quiet", env=LINES)
    session.run("coverage", "report", env=LINES)


@nox.session(tags=["ci"], python=NEWEST)
def smoke(session: nox.Session) -> None:
    """Run a few things in real time: asyncio, uvloop, eager tasks (Python 3.12+), trio."""
    install(session, "test")
    pytest(session, "tests/realtime")


@nox.session(tags=["ci"], python=NEWEST)
def explored(session: nox.Session) -> None:
    """Try schedules of at most two delays, random ones, and a cancellation at every moment."""
    install(session, "test")
    pytest(session, "tests/explored")


@nox.session(tags=["ci"], python=OLDEST, allow_parallel=True)
def found(session: nox.Session) -> None:
    """Find in pinned versions of other libraries what found.md says; run rivals' examples."""
    install(session, "found", extras="app,test,trio")
    pytest(session, "tests/found", "tests/rivals", MTAIO_FOUND="1")


# On the oldest Python, for which the pinned aiohttp has wheels.
@nox.session(tags=["ci"], python=OLDEST, allow_parallel=True)
def ports(session: nox.Session) -> None:
    """Run the tests of taskiq and parfive on engines of ours, which tests/rivals holds."""
    pinned = nox.project.dependency_groups(PROJECT, "ports")
    session.install("-e", ".[trio]", *pinned)
    (taskiq,) = [
        each.split("[")[0] + "==" + each.split("==")[1]
        for each in pinned
        if each.startswith("taskiq")
    ]
    away = Path(session.create_tmp()).resolve()
    shutil.rmtree(away)
    # Its wheel has no tests.
    session.run(
        *("python", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
        *("--dest", str(away), taskiq),
    )
    (sdist,) = away.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(away, filter="data")
    source = away / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(source / "taskiq")  # the one that is installed is meant
    env = {**LINES, "PYTHONPATH": str(ROOT / "tests" / "rivals")}
    quiet = ("-q", "-p", "no:warnings", "-p", "no:cacheprovider", "--timeout", "60")
    with session.chdir(source):
        rooms = (f"tests/{room}" for room in ("api", "brokers", "middlewares", "receiver"))
        session.run("python", "-m", "pytest", *quiet, "-p", "taskiq_port", *rooms, env=env)
    with session.chdir(away):
        parfive = ("--pyargs", "parfive", "--allow-hosts=127.0.0.1,::1")
        session.run("python", "-m", "pytest", *quiet, "-p", "parfive_port", *parfive, env=env)


@nox.session(tags=["ci"], python=NEWEST)
def service(session: nox.Session) -> None:
    """Run whole services on each loop, beside a real Prometheus and a real Chromium."""
    browser = "chromium|chromium-browser|google-chrome"
    needs(session, "prometheus", "promtool", browser, hint="prometheus chromium")
    install(session, "test", "browser", "litestar")
    pytest(session, "tests/service", "tests/deployed")


@nox.session(tags=["ci"], python=SHARED, allow_parallel=True)
def pools(session: nox.Session) -> None:
    """Run the executor's calls in process pools, on a dask cluster and on a Ray cluster."""
    install(session, "pools")
    pytest(session, "tests/pools", workers=0)


@nox.session(tags=["ci"], python=NEWEST, allow_parallel=True)
def package(session: nox.Session) -> None:
    """Build sdist and wheel; do what the README says in one, and run tests on the other."""
    session.install(*nox.project.dependency_groups(PROJECT, "package"))
    away = Path(session.create_tmp()).resolve()
    shutil.rmtree(away)
    session.run("python", "-m", "build", "--installer", "uv", "--outdir", str(away), ".")
    (wheel,), (sdist,) = away.glob("*.whl"), away.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", str(wheel))
    for python in sorted({OLDEST, NEWEST}):  # with no extra
        alone = away / python
        session.run("uv", "venv", "--quiet", "--python", python, str(alone))
        session.run("uv", "pip", "install", "--quiet", "--python", str(alone), str(wheel))
        own = alone / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        session.run(str(own), "-I", str(ROOT / "tests" / "installed.py"), external=True)
    names = zipfile.ZipFile(wheel).namelist()
    strangers = [name for name in names if not re.match(r"mtaio(-[^/]*\.dist-info)?/", name)]
    if strangers or "mtaio/py.typed" not in names:
        session.error(f"The wheel lacks py.typed, or holds what is not the library: {strangers}")
    with tarfile.open(sdist) as archive:
        archive.extractall(away, filter="data")
    session.chdir(away / sdist.name.removesuffix(".tar.gz"))
    readme = Path("README.md").read_text("utf-8")
    shell, language = (("cmd", "/c"), "bat") if sys.platform == "win32" else (("sh", "-ec"), "sh")
    (demo,) = re.findall(rf"^```{language}\n(.*mtaio demo.*)\n```$", readme, re.MULTILINE)
    # Not by session.run, which has the session's Python on PATH before the user's.
    subprocess.run([*shell, demo], env={**os.environ, "PATH": USERS_PATH}, check=True)  # noqa: S603 - ours
    shutil.rmtree("mtaio")
    test = nox.project.dependency_groups(PROJECT, "test")
    session.install(f"{wheel}[app,test,trio,uvloop]", *test)
    where = "import mtaio, sys; sys.exit('site-packages' not in mtaio.__file__ and mtaio.__file__)"
    session.run("python", "-c", where)
    pytest(session, *PARTS["wheel"])


@nox.session(tags=["ci"], python=NEWEST, allow_parallel=True)
def docs(session: nox.Session) -> None:
    """Build the docs with no warning, find every public name in them, list what Japanese lacks."""
    install(session, "docs", "test")
    site = str(Path(session.create_tmp()).resolve() / "site")
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement for a successor of MkDocs
    session.run("mkdocs", "build", "--strict", "--site-dir", site, env=quiet)
    pytest(session, "tests/site", MTAIO_SITE=site)
    session.run("python", "-m", "tests.translations")


@nox.session(default=False, python=find_free())
def free_threaded(session: nox.Session) -> None:
    """Run the suite, and the hammer for longer, on a Python without the GIL."""
    has_uvloop = "3.13t" not in str(session.python)  # for which it has no wheel
    extras = "app,test,trio" + ",uvloop" * has_uvloop
    wanted = nox.project.dependency_groups(PROJECT, "test")
    # Where the newest version of these has no wheel for such a Python, an older one serves.
    wheels = [f"--only-binary={name}" for name in ("hypothesis", "pydantic-core")]
    session.install("-e", f".[{extras}]", *wanted, *wheels)
    which = [] if has_uvloop else ["-k", "not uvloop"]
    pytest(session, *PARTS["whole"], *which)
    pytest(session, "tests/hammer", workers=0, MTAIO_HAMMER="20")


@nox.session(default=False, python=NEWEST)
def bench(session: nox.Session) -> None:
    """Measure ours beside rivals in one run, against the targets; CI's machines are too noisy."""
    install(session, "bench", "bench-alone", extras="app,trio,uvloop")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["--check"]))
