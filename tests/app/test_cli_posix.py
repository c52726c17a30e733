"""The command line on a real tree: what cannot be read, what is not a file, names of all kinds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from mtaio.app._demo_command import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Demo = Callable[..., CompletedProcess[str]]

assert sys.platform != "win32"

NOBODY = 65534
ODD_NAMES = [b"back\\slash", b"new\nline", b"[red]", b"\x1b[31m", b" spaces ", "été".encode()]
if sys.platform == "linux":  # other systems take no names but UTF-8
    ODD_NAMES.append(b"caf\xe9")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to read everything, for those who run the tests as root."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def write(path: Path) -> None:
    """Make a file, and its folders, that holds its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(path.name))


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder, the present one, in which everything may go wrong that can."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        monkeypatch.chdir(folder)
        for odd in ODD_NAMES:
            write(folder / "odd" / os.fsdecode(odd))
        for path in ("a", "deep/er/and/deeper/b", "locked/inside", "secret"):
            write(folder / path)
        (folder / "empty").touch()
        (folder / "nothing").mkdir()
        (folder / "broken").symlink_to("nowhere")
        (folder / "link").symlink_to("a")
        os.mkfifo(folder / "fifo")
        (folder / "secret").chmod(0)
        (folder / "locked").chmod(0)
        try:
            yield folder
        finally:
            (folder / "locked").chmod(0o755)
            monkeypatch.chdir("/")


@pytest.fixture
def demo_as_nobody(demo: Demo) -> Demo:
    """Return what ``demo`` is, but without the right to read everything."""

    def run(*args: object) -> CompletedProcess[str]:
        with as_nobody():
            return demo(*args)

    demo("empty")  # what is imported late may be where this user may not read
    return run


def test_everything_at_once(tree: Path, demo_as_nobody: Demo) -> None:
    """What can be read is hashed; what cannot be is named, and makes the exit code 1."""
    done = demo_as_nobody("--json")
    assert done.returncode == 1
    figures = json.loads(done.stdout)
    assert figures["files"] == len(ODD_NAMES) + 3
    assert figures["failed"] == 2
    assert figures["failures"] == [
        {"path": "./locked", "reason": "Permission denied"},
        {"path": "./secret", "reason": "Permission denied"},
    ]
    assert figures["skipped"] == {"symbolic link": 2, "FIFO": 1}
    assert done.stderr.splitlines() == [
        "./fifo: skipped, FIFO",
        "./locked: Permission denied",
        "./secret: Permission denied",
    ]
    assert (tree / "fifo").is_fifo()


def test_digests_are_hashlibs(tree: Path, demo_as_nobody: Demo) -> None:
    """The digest of every file that can be read is printed, whatever its name, on one line."""
    done = demo_as_nobody("--digests", "--quiet")
    assert done.returncode == 1
    files = [tree / "a", tree / "deep/er/and/deeper/b", tree / "empty", *(tree / "odd").iterdir()]
    expected = []
    for path in sorted(files, key=os.fsencode):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        expected.append(f"{digest}  ./{printable(str(path.relative_to(tree)))}")
    assert done.stdout.splitlines() == expected


if shutil.which("sha256sum"):

    def test_sha256sum_agrees(folder: Path, demo: Demo) -> None:
        """The real ``sha256sum --check`` finds each file that was printed unchanged."""
        for name in ("a", " spaces ", "été", "sub/b"):
            write(folder / name)
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet"],  # noqa: S607 - the one of this system
            input=demo("--digests").stdout.encode(),
            check=False,
            capture_output=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_quiet_names_failures_alone(tree: Path, demo_as_nobody: Demo) -> None:
    """With --quiet only what failed is named."""
    done = demo_as_nobody("--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "./locked: Permission denied\n./secret: Permission denied\n"
    assert (tree / "broken").is_symlink()


@pytest.mark.usefixtures("tree")
def test_path_of_another_kind_is_refused(demo: Demo) -> None:
    """A path that is neither a folder nor a regular file is a usage error."""
    done = demo("fifo")
    assert done.returncode == 2
    assert done.stderr == (
        "mtaio: cannot hash fifo: it is a FIFO. Name a folder or a regular file.\n"
    )


def test_names_are_shown_safely(tree: Path, demo: Demo) -> None:
    """A name that would act upon the terminal, or looks like markup, is shown for what it is."""
    os.mkfifo(tree / "odd" / "\x1b[31m\n[bold]")
    done = demo("odd")
    assert done.returncode == 0
    assert done.stderr == r"odd/\x1b[31m\n[bold]: skipped, FIFO" + "\n"


def test_long_names_are_not_broken(tree: Path, demo: Demo) -> None:
    """A path stands on one line however long it is, so that it can be copied."""
    os.mkfifo(tree / "odd" / ("long " * 40))
    assert demo("odd").stderr == f"odd/{'long ' * 40}: skipped, FIFO\n"
