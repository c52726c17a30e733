"""The certificate of a server: what is refused, and how long it is good."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypercorn.config import Config

from mtaio.app._certificate import Certificate, _elements, _time
from mtaio.app._server_options import ServerOptions
from mtaio.config import Settings
from tests.app.certificates import LOCALHOST, LOCKED, OTHER, PASSWORD, dated

if TYPE_CHECKING:
    from collections.abc import Callable


def written(folder: Path, text: str) -> str:
    """Write a file, and return its path."""
    path = folder / "key.pem"
    path.write_text(text, encoding="ascii")
    return str(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Certificate(str(folder / "no.pem"), "k"), "cannot read the certificate '"),
        (lambda folder: Certificate(str(folder), "k"), "cannot read the certificate '"),
        (
            lambda folder: Certificate(str(LOCALHOST), str(folder / "no.pem")),
            "cannot read the private key '",
        ),
        (
            lambda folder: Certificate(str(LOCALHOST), written(folder, OTHER)),
            ".*with the private key '.*cannot be used: key values mismatch. Both must be in PEM",
        ),
        (
            lambda folder: Certificate(str(LOCALHOST), written(folder, "none")),
            ".*with the private key '.*cannot be used: ",
        ),
        (
            lambda folder: Certificate(str(LOCALHOST), written(folder, LOCKED)),
            "the private key '.*' has a password. Store it without",
        ),
        (
            lambda folder: Certificate(str(LOCALHOST), written(folder, LOCKED), "guessed"),
            ".*with the private key '.*cannot be used: ",
        ),
    ],
)
def test_refused(make: Callable[[Path], Certificate], message: str, tmp_path: Path) -> None:
    """What keeps a certificate from being used is said with the file, and nobody is asked."""
    with pytest.raises((OSError, ValueError), match=f"^{message}"):
        make(tmp_path).check()


def test_good(tmp_path: Path) -> None:
    """One file may have both; a password that is given is used."""
    Certificate(str(LOCALHOST), str(LOCALHOST)).check()
    Certificate(str(LOCALHOST), written(tmp_path, LOCKED), PASSWORD).check()


def test_validity(tmp_path: Path) -> None:
    """Of several certificates in a file the one counts that runs out first."""
    since, until = Certificate(str(LOCALHOST), "").validity()
    assert f"{since:%c} {until:%c}" == "Fri Nov 27 18:03:05 2026 Sun Nov  3 18:03:05 2126"
    short = dated(tmp_path / "short.pem", -3, 5)
    both = tmp_path / "both.pem"
    both.write_text(LOCALHOST.read_text("ascii") + short.read_text("ascii"), encoding="ascii")
    since, until = Certificate(str(both), "").validity()
    assert (since, until) == (
        max(since, Certificate(str(short), "").validity().since),
        Certificate(str(short), "").validity().until,
    )
    assert (until - datetime.now(UTC)).days == 4


def test_der() -> None:
    """Lengths of one byte and of several; years of two digits in two centuries."""
    long = bytes(300)
    assert _elements(b"\x02\x01\x07\x30\x82\x01\x2c" + long) == [(2, b"\x07"), (0x30, long)]
    assert _time((0x17, b"491231235959Z")).year == 2049
    assert _time((0x17, b"500101000000Z")).year == 1950
    assert _time((0x18, b"20500101000000Z")).year == 2050


# ---- which one counts ----------------------------------------------------------------------------


def test_options_that_make_no_sense() -> None:
    """They are refused where they are given."""
    with pytest.raises(ValueError, match=r"^keyfile='k' is given without a certificate\. Pass c"):
        ServerOptions(keyfile="k")
    with pytest.raises(TypeError, match=r"^certfile=3 is an int, not a path"):
        ServerOptions(certfile=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^trusted_proxies='\*' is not a list of addresses"):
        ServerOptions(trusted_proxies="*")
    with pytest.raises(ValueError, match=r"^max_in_flight=0 is less than 1\. Pass a whole number"):
        ServerOptions(max_in_flight=0)
    with pytest.raises(ValueError, match=r"^body_timeout=0 is not more than 0\. Pass a number of"):
        ServerOptions(body_timeout=0)
    with pytest.raises(TypeError, match=r"^access_log='no' is a str, not a bool\. Pass True or"):
        ServerOptions(access_log="no")  # type: ignore[arg-type]


def test_which_options_count() -> None:
    """The command line is before the program, the program before hypercorn's and the settings."""
    config = Config()
    config.certfile, config.keyfile, config.keyfile_password = "c.pem", "c.key", PASSWORD
    settings = Settings(certfile=Path("s.pem"), max_in_flight=9, trusted_proxies="10.0.0.1")
    none, program = ServerOptions(), ServerOptions(certfile="p.pem", keyfile="p.key")
    command = ServerOptions(certfile="o.pem", max_in_flight=3)
    assert none.certificate(None, Settings()) is None
    assert none.certificate(Config(), settings) == ("s.pem", "s.pem", None)
    assert none.certificate(config, settings) == ("c.pem", "c.key", PASSWORD)
    assert program.certificate(config, settings) == ("p.pem", "p.key", None)
    both = command.over(program)
    assert both.certificate(config, settings) == ("o.pem", "o.pem", None)  # a key goes with its own
    assert ServerOptions().over(program) == program
    assert ServerOptions(certfile="").over(program).certificate(None, settings) is None
    assert (none.most(settings), both.most(settings)) == (9, 3)
    silent = ServerOptions(access_log=False).over(ServerOptions(access_log=True))
    assert (none.logs(settings), silent.logs(settings), both.over(silent).logs(settings)) == (
        True,
        False,
        False,
    )
    assert none.proxies(settings) is not None
    assert ServerOptions(trusted_proxies="").proxies(settings) is None
    assert (bool(none), bool(command)) == (False, True)
