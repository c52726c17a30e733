"""``mtaio check``: what it prints, and how it ends."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from mtaio.app._check_command import check_command
from mtaio.app._cli import main
from mtaio.app.check import CheckItem, run_checks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = {
    "MTAIO_DEFAULT_TIMEOUT": "5",
    "MTAIO_DRAIN_DELAY": "1",
    "MTAIO_SHUTDOWN_TIMEOUT": "9",
}


@pytest.fixture(autouse=True)
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in an empty folder, with good variables, and forget what is imported from there."""
    for name in os.environ:
        if name.startswith(("MTAIO_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    with socket.socket() as probe:  # the usual port may be another program's
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MTAIO_HEALTH_BIND", "{}:{}".format(*probe.getsockname()))
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def program(folder: Path, text: str) -> None:
    """Write a program into the current folder."""
    (folder / "shop_check.py").write_text(text, encoding="utf-8")


SHOP = """
from mtaio.app import Application

app = Application(name="shop")
app.health.add("database", lambda: None)
"""


def check(
    capsys: pytest.CaptureFixture[str], target: str | None = None, **options: bool
) -> tuple[int, str, str]:
    """Run the command, and return its exit code and what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])
        code = check_command(target, **options)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_report_for_people(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item has a line in its section, the remedy stands below, and the end sums up."""
    program(folder, SHOP)
    monkeypatch.setenv("MTAIO_RATE_LIMIT", "inf")
    code, out, err = check(capsys, "shop_check:app")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "checklist of shop_check:app"
    headings = [line for line in lines if line and not line.startswith(" ")][1:-1]
    assert headings == ["configuration", "monitoring", "errors", "performance", "security"]
    place = lines.index("  warn  rate               MTAIO_RATE_LIMIT=inf: no limit")
    assert lines[place + 1] == f"{'':27}Set MTAIO_RATE_LIMIT to what the service can take."
    assert "\x1b" not in out
    assert " ok, " in lines[-1]


def test_report_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has every item with its five texts, the counts, and nothing that JSON lacks."""
    program(folder, SHOP)
    code, out, _ = check(capsys, "shop_check:app", json=True)
    report = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert set(report) == {"application", "counts", "items"}
    assert report["application"] == "shop_check:app"
    assert sum(report["counts"].values()) == len(report["items"])
    assert set(report["counts"]) == {"ok", "ask", "warn", "fail"}
    for each in report["items"]:
        assert set(each) == {"name", "section", "status", "message", "remedy"}
        assert all(isinstance(text, str) for text in each.values())


@pytest.mark.parametrize("json_wanted", [True, False])
def test_secrets_are_not_shown(
    *,
    json_wanted: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token is in no report, however it is set and whatever is wrong with it."""
    for code, text in ((1, "hunter2"), (0, "correct horse battery staple")):
        monkeypatch.setenv("MTAIO_HEALTH_TOKEN", text)
        found, out, _ = check(capsys, json=json_wanted)
        assert text not in out
        assert found == code  # the first is too short


@pytest.mark.parametrize(
    ("changes", "strict", "code"),
    [
        ({}, False, 0),
        ({"MTAIO_RATE_LIMIT": "inf"}, False, 0),
        ({"MTAIO_RATE_LIMIT": "inf"}, True, 1),
        ({"MTAIO_RATE_LIMIT": "0"}, False, 1),
        ({"MTAIO_RATE_LIMIT": "many"}, False, 1),
    ],
)
def test_exit_code(
    *,
    changes: dict[str, str],
    strict: bool,
    code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fails is 1; what warns is 1 if the caller is strict."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert check(capsys, strict=strict)[0] == code


def test_no_such_application(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in the name is 2, with one line on stderr and no report."""
    code, out, err = check(capsys, "shop_nowhere:app")
    assert (code, out) == (2, "")
    assert err.startswith("mtaio: there is no module 'shop_nowhere'")


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero", "Fix the program: "),
        ("raise SystemExit", "SystemExit: ", "Put app.run() under "),
        (
            f"{SHOP}\napp.run()",
            (
                "RuntimeError: app.run() was called while the program was being imported by the "
                'mtaio command. Put it under if __name__ == "__main__".'
            ),
            "Fix the program: ",
        ),
    ],
)
def test_program_that_cannot_be_imported(
    text: str, message: str, remedy: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an item that fails; its traceback is on stderr, and the rest is checked."""
    program(folder, text)
    code, out, err = check(capsys, "shop_check:app", json=True)
    first, *others = json.loads(out)["items"]
    assert (code, first["name"], first["status"]) == (1, "application", "fail")
    assert first["message"] == f"importing shop_check:app raised {message}"
    assert first["remedy"].startswith(remedy)
    assert {"workers", "rate"} < {each["name"] for each in others}
    assert "application" not in {each["name"] for each in others}
    assert text.splitlines()[-1] in err


def test_misspelt_variable_is_said_once(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Also a program that reads its settings while it is imported does not warn."""
    monkeypatch.setenv("MTAIO_RATE_LIMITS", "1")
    program(folder, f"{SHOP}\napp.settings\n")
    out = check(capsys, "shop_check:app")[1]
    assert "MTAIO_RATE_LIMITS (did you mean MTAIO_RATE_LIMIT?)" in out
    assert recwarn.list == []


class Terminal(StringIO):
    """A terminal of some width."""

    def isatty(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return some number."""
        return 7


@pytest.mark.parametrize(("columns", "used"), [(40, 60), (80, 80), (300, 120)])
def test_terminal(
    columns: int,
    used: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines are as wide as a terminal, within reason; colours there mean what the words say."""
    terminal, other = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    monkeypatch.setenv("MTAIO_RATE_LIMIT", "0")
    check(capsys)
    coloured = terminal.getvalue()
    assert "\x1b[1;31mFAIL\x1b[0m" in coloured
    monkeypatch.setattr(sys, "stdout", other)
    monkeypatch.setenv("NO_COLOR", "1")
    check(capsys)
    plain = other.getvalue()
    assert "\x1b" not in plain
    assert used - 25 < max(map(len, plain.splitlines())) <= used


def test_nothing_that_a_terminal_acts_upon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path with an escape, or with bytes that are not text, is printed harmlessly."""
    monkeypatch.setenv("MTAIO_LOG_FILE", "/nowhere/\x1b[31m\udcff.log")
    code, out, _ = check(capsys)
    assert code == 1
    assert r"/nowhere/\x1b[31m\udcff.log" in out


@pytest.mark.parametrize("name", [None, "shop_check:app"])
def test_loads_neither_server_nor_backends(name: str | None, folder: Path) -> None:
    """A check in a process of its own imports no server, no backend and no command line."""
    program(folder, SHOP)
    code = (
        "import sys\n"
        "from mtaio.app._check_command import check_command\n"
        f"check_command({name!r}, json=True)\n"
        "loaded = {each.partition('.')[0] for each in sys.modules}\n"
        "loaded |= {each for each in sys.modules if each.startswith('mtaio.')}\n"
        "unwanted = {'hypercorn', 'trio', 'uvloop', 'cyclopts', 'rich', 'mtaio.app._server'}\n"
        "print(*sorted(loaded & (unwanted | {'mtaio.logging'})), file=sys.stderr)\n"
    )
    done = subprocess.run(  # noqa: S603 - this very Python, with words written here
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["application"] == name
    assert done.stderr.strip() == ""


def test_whole_check_costs_a_few_imports_of_anyio(folder: Path) -> None:
    """From the start of Python on, it takes six times a program that imports anyio, at most."""
    program(folder, SHOP)
    checks = "from mtaio.app._check_command import check_command; check_command('shop_check:app')"
    # As installed: compiled. The first run of each does that. Noise only ever adds.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}

    def seconds(code: str) -> float:
        done = subprocess.run(  # noqa: S603 - this very Python, with words written here
            [
                *(sys.executable, "-c"),
                f"import sys, time; {code}; print(time.process_time(), file=sys.stderr)",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=os.environ | bytecode,
        )
        return float(done.stderr)

    ours = theirs = float("inf")
    for runs in range(1, 21):
        ours = min(ours, seconds(checks))
        theirs = min(theirs, seconds("import asyncio, anyio"))
        if runs >= 3 and ours <= 6 * theirs:
            break
    assert ours <= 6 * theirs, f"{ours:.2f} s against {theirs:.2f} s"


def test_items_are_for_programs_too() -> None:
    """A test of a service can go through the checklist itself."""
    items = run_checks()
    assert all(isinstance(each, CheckItem) for each in items)


@pytest.mark.parametrize("strict", [True, False])
def test_command_line(*, strict: bool, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """The parser of the command line hands on the name and the options."""
    program(folder, f"{SHOP}\napp.service(name='fragile')(app.stop)\n")
    code = main(["check", "shop_check:app", "--json", *(["--strict"] if strict else [])])
    report = json.loads(capsys.readouterr().out)
    assert report["application"] == "shop_check:app"
    assert report["counts"]["warn"] > 0
    assert code == strict
