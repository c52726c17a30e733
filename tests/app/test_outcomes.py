"""How outcomes are put into words."""

from __future__ import annotations

import os
import stat

import pytest

from mtaio.app._outcomes import kind_of, printable, reason_of


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        (stat.S_IFBLK, "block device"),
        (stat.S_IFCHR, "character device"),
        (stat.S_IFDIR, "folder"),
        (stat.S_IFIFO, "FIFO"),
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFSOCK, "socket"),
        (0, "special file"),
    ],
)
def test_kinds_have_names(mode: int, kind: str) -> None:
    """Each kind of file has a name, whatever its permissions; an unknown kind has one too."""
    assert kind_of(mode | 0o644) == kind


def test_reason_is_the_systems() -> None:
    """An error of the system is given in the system's words, any other as it is."""
    assert reason_of(FileNotFoundError(2, "No such file", "x")) == "No such file"
    assert reason_of(OSError("odd")) == "odd"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("plain/été 🐍", "plain/été 🐍"),
        ("new\nline\ttab", r"new\nline\ttab"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("right\u202eleft", r"right\u202eleft"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_printable_is_one_harmless_line(path: str, shown: str) -> None:
    """What a terminal would act upon, and bytes that are no text, are escaped; text is kept."""
    assert printable(path) == shown
