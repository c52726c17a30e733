"""
The files that TLS needs.

Promise: what cannot be read or is no certificate is refused when the store is made. glide would
ignore it, and connect to nothing.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_files"]


def read_files(files: dict[str, Path]) -> dict[str, bytes]:
    """
    Return what is in the files.

    Args:
        files: By the names of the arguments: ``ca_file``, ``cert_file`` and ``key_file``.

    Raises:
        ValueError: A file cannot be read, or is not what it should be.
    """
    if not files:
        return {}
    used = " and ".join(f"{name}={str(path)!r}" for name, path in files.items())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if "ca_file" in files:
            context.load_verify_locations(files["ca_file"])
        if "cert_file" in files:
            password = ""  # else OpenSSL asks for that of an encrypted key
            context.load_cert_chain(files["cert_file"], files["key_file"], password)
        return {name: path.read_bytes() for name, path in files.items()}
    except OSError as error:  # an ssl.SSLError is one too
        msg = (
            f"{used} cannot be used: {error}. Pass readable PEM files, the key without a password."
        )
        raise ValueError(msg) from error
