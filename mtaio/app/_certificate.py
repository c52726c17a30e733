"""
The certificate of a server: two files, tried before anything listens, and until when they are good.

Promise: a file that is missing, cannot be read, or does not go with the other is named, with the
way out; a key with a password is refused rather than asked for on the terminal.

Why the dates are read here: ``ssl`` shows those of a peer's certificate that it has verified, which
one that has run out is not. They are at a fixed place of the DER form (RFC 5280, 4.1).
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from mtaio._internal import checks

__all__ = ["Certificate", "Validity"]

_FILES: Final = (
    "Pass PEM files that this user can read, with --certfile and --keyfile, or MTAIO_CERTFILE and "
    "MTAIO_KEYFILE."
)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG: Final = 0x80
_THIS_CENTURY: Final = "50"
"""The first year of two digits that belongs to the last one."""


class Validity(NamedTuple):
    """From when until when a certificate is good."""

    since: datetime
    until: datetime


class Certificate(NamedTuple):
    """A certificate and its private key, in files."""

    certfile: str
    keyfile: str
    password: str | None = None

    def check(self) -> None:
        """
        Raise what keeps it from being used.

        Raises:
            OSError: A file cannot be read.
            ValueError: It is no certificate, no key, or they do not go together.
        """
        self._read("certificate", self.certfile)
        self._read("private key", self.keyfile)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certfile, self.keyfile, self._password)
        except ssl.SSLError as error:
            why = (error.reason or "not in PEM").lower().replace("_", " ")
            reason = (
                f"the certificate {self.certfile!r} with the private key {self.keyfile!r} cannot "
                f"be used: {why}"
            )
            way_out = "Both must be in PEM format, and the key must belong to the certificate."
            raise checks.refusal(ValueError, reason, way_out) from None

    def validity(self) -> Validity:
        """Return when all certificates of the file are good, those that have signed it included."""
        text = Path(self.certfile).read_text(encoding="ascii", errors="replace")
        found = [
            _validity(f"{_BEGIN}{each.partition(_END)[0]}{_END}") for each in text.split(_BEGIN)[1:]
        ]
        return Validity(max(each.since for each in found), min(each.until for each in found))

    def _read(self, what: str, path: str) -> None:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except OSError as error:
            reason = f"cannot read the {what} {path!r}: {error.strerror}"
            raise checks.refusal(OSError, reason, _FILES) from None

    def _password(self) -> str:
        if self.password is None:
            reason = f"the private key {self.keyfile!r} has a password"
            way_out = (
                "Store it without a password, readable by this user only, or pass hypercorn's "
                "config= with keyfile_password."
            )
            raise checks.refusal(ValueError, reason, way_out)
        return self.password


def _validity(pem: str) -> Validity:
    """Return when one certificate is good."""
    ((_, whole),) = _elements(ssl.PEM_cert_to_DER_cert(pem))
    _, signed = _elements(whole)[0]
    # The version, which may be left out; then serial number, algorithm, issuer, validity.
    fields = [each for each in _elements(signed) if each[0] != _VERSION]
    since, until = map(_time, _elements(fields[3][1]))
    return Validity(since, until)


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return the elements of DER in ``data``, each with its tag and its content."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        tag, length = data[at : at + 2]
        at += 2
        if length & _LONG:
            size = length & ~_LONG
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _time(element: tuple[int, bytes]) -> datetime:
    tag, content = element
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'20' if text < _THIS_CENTURY else '19'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
