"""The command line: what it prints where, what it refuses, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

import mtaio
from mtaio.app._cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Demo = Callable[..., CompletedProcess[str]]


def make(folder: Path, *names: str) -> None:
    """Make files that hold their own names."""
    for name in names:
        (folder / name).write_bytes(name.encode())


def lines_of(*names: str) -> str:
    """Return what ``sha256sum`` would print for such files."""
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    return "".join(f"{d}  ./{name}\n" for d, name in zip(digests, names, strict=True))


def test_table_goes_to_stdout(folder: Path, demo: Demo) -> None:
    """By default the present folder is hashed, and a table says what that came to."""
    make(folder, "a", "bb")
    done = demo()
    assert done.returncode == 0
    assert done.stderr == ""
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [
        *("files", "bytes", "failures", "skipped", "seconds", "throughput", "in", "waits")
    ]
    assert [row[1].rstrip() for row in rows[:4]] == ["2", "3 (3 bytes)", "0", "0"]


def test_digests_go_to_stdout(folder: Path, demo: Demo) -> None:
    """With --digests there is a line for each file, in order; the figures go to stderr."""
    names = [f"{number:04}" for number in range(1000)]
    make(folder, *names)
    done = demo("--digests")
    assert (done.returncode, done.stdout) == (0, lines_of(*names))
    assert done.stderr.startswith("files       1,000\n")
    done = demo("--digests", "--json")
    assert (done.returncode, done.stdout) == (0, lines_of(*names))
    assert json.loads(done.stderr)["files"] == 1000
    done = demo("--digests", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, lines_of(*names), "")


def test_json_goes_to_stdout(folder: Path, demo: Demo, backend: str) -> None:
    """With --json there is JSON and nothing else, --quiet or not."""
    make(folder, "a", "bb")
    for options in (["--json"], ["--json", "--quiet"]):
        done = demo(*options, "--rate", 1000, "--timeout", 60)
        figures = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert figures["path"] == "."
        assert figures["backend"] == backend
        assert (figures["files"], figures["bytes"], figures["failed"]) == (2, 3, 0)
        assert (figures["rate"], figures["timeout"]) == (1000, 60)


def test_quiet_is_quiet(folder: Path, demo: Demo) -> None:
    """With --quiet a run that went well prints nothing."""
    make(folder, "a")
    done = demo("--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_single_file(folder: Path, demo: Demo) -> None:
    """The path may be a file."""
    make(folder, "a", "b")
    assert demo("a", "--digests").stdout == lines_of("a").replace("./", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], r"^mtaio: cannot hash none: .*\. Name a folder or a regular file\.$"),
        (["--limit", "0"], r"^mtaio: .*--limit: '0' is not a whole number above 0"),
        (["--limit", "1_0"], r"^mtaio: .*--limit: '1_0' is not a whole number above 0, in the dig"),
        (
            ["--rate", "\uff15"],
            r"^mtaio: .*--rate: '\uff15' is not a number above 0, in the dig",
        ),
        (["--rate", "0"], r"^mtaio: .*--rate: '0' is not a number above 0"),
        (["--timeout", "nan"], r"^mtaio: .*--timeout: 'nan' is not a number above 0"),
        (["--timeout", "soon"], r"^mtaio: .*--timeout: 'soon' is not a number above 0"),
        ([""], r"^mtaio: .*'' is not a path\. Name a folder or a regular file\.\nTry: mtaio demo"),
        (
            ["--limit", "many"],
            r"^mtaio: .*--limit: 'many' is not a whole number.*\n.*mtaio demo --help$",
        ),
        (
            ["--limit", "1.5"],
            r"^mtaio: .*--limit: '1\.5' is not a whole number.*\n.*mtaio demo --help$",
        ),
        (["--backend", "curio"], r'^mtaio: .*"curio".*asyncio.*\n.*mtaio demo --help$'),
        (["--colour"], r"^mtaio: .*--colour.*\n.*mtaio demo --help$"),
    ],
)
def test_what_cannot_be_done_is_refused(
    folder: Path, demo: Demo, arguments: list[str], message: str
) -> None:
    """Usage errors have exit code 2, one message that names the way out, and touch nothing."""
    make(folder, "a")
    done = demo(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.search(message, done.stderr.rstrip()), done.stderr
    assert [path.read_bytes() for path in folder.iterdir()] == [b"a"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("package", ["trio", "uvloop"])
def test_missing_backend_is_named(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """A backend whose package is not installed is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, package, None)
    done = demo("--backend", package)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"mtaio: backend={package!r} needs {package}, which is not installed. Install it "
        f"with: pip install 'mtaio[{package}]'\n"
    )


def test_help_explains_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every option and fits into 80 columns."""
    assert main(["demo", "--help"]) == 0
    text = capsys.readouterr().out
    options = ("backend", "limit", "rate", "timeout", "digests", "json", "quiet")
    for option in options:
        assert f" --{option} " in text
    assert "Exit status:" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", ["check", "completion", "run"])
def test_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command has a help, which fits into 80 columns."""
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: mtaio {command} ")
    assert max(map(len, text.splitlines())) <= 80


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, the commands are listed."""
    assert main([]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^│ demo +Hash the files under PATH", text, re.MULTILINE)
    assert re.search(r"^│ completion +Print a shell script", text, re.MULTILINE)
    assert re.search(r"^│ run +Run an application", text, re.MULTILINE)


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that does not exist is a usage error."""
    assert main(["dmeo"]) == 2
    assert re.search(r'^mtaio: .*"dmeo".*\nTry: mtaio --help$', capsys.readouterr().err.rstrip())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints name and version."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mtaio {mtaio.__version__}\n"


def test_arguments_default_to_the_process_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called with nothing, it reads what the process was started with."""
    monkeypatch.setattr(sys, "argv", ["mtaio", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("mtaio ")
