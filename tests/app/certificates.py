"""Certificates for tests: that of ``localhost``, with other dates, other keys, and a password."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

LOCALHOST: Final = Path(__file__).parents[1] / "realtime" / "localhost.pem"
"""A certificate with its key, good for a hundred years."""

PASSWORD: Final = "sesame"  # noqa: S105 - of a key that is on the next lines

LOCKED: Final = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHzMF4GCSqGSIb3DQEFDTBRMDAGCSqGSIb3DQEFDDAjBBDv4g4BKlgeJCXTT6BI
9x6/AgEKMAwGCCqGSIb3DQIJBQAwHQYJYIZIAWUDBAECBBBRvWwgXhwklyqUWQIt
yebLBIGQJLcCIVZacEPneINYrjM0qqL9CbysqHepf/rYHUqFa1h9qwSrgHdLFB3P
Kr/9Dfn1lJBbbkZxd5eLFTGXchrTsTohCEpNV92o8asJYgSBQhgUl0jpWYMJCH0+
/vE0yaBrLr25cFYj/9W1GpkMj4gb+tFv31nIR3xRXWr324oDo3D5s+6xdp4rCN8L
dfXz74L1
-----END ENCRYPTED PRIVATE KEY-----
"""
"""The key of the certificate, with a password."""

OTHER: Final = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgm/4mOOiiK+ZIW5bP
2K4H0J1k/0CkgUIKyHO5HPeK4uKhRANCAATJjSH9y0YBVa6OhRVrGULixmMmWb3l
hwgOQUF9PPlicX1iO9SazMLG5ec4X5li8Z3HSUP/Y9YBwiJI1ZyYyi9u
-----END PRIVATE KEY-----
"""
"""The key of another certificate."""

_SINCE: Final = b"261127180305Z"
_UNTIL: Final = b"21261103180305Z"


def dated(path: Path, since: float, until: float) -> Path:
    """Write the certificate to a file, good from so many days from now to so many."""
    now = datetime.now(UTC)
    first, last = (now + timedelta(days=each) for each in (since, until))
    pem = LOCALHOST.read_text(encoding="ascii")
    at = pem.index("-----BEGIN CERTIFICATE")
    der = ssl.PEM_cert_to_DER_cert(pem[at:])  # nobody looks at the signature
    for old, new in ((_SINCE, f"{first:%y%m%d%H%M%SZ}"), (_UNTIL, f"{last:%Y%m%d%H%M%SZ}")):
        assert der.count(old) == 1
        der = der.replace(old, new.encode("ascii"))
    path.write_text(pem[:at] + ssl.DER_cert_to_PEM_cert(der), encoding="ascii")
    return path
