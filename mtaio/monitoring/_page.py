"""
The live status page: one file of HTML, CSS and JavaScript, which shows what ``stats`` returns.

Promise: the page reads ``stats`` beside its own address and asks no other host for anything; names
and messages are shown as text, never as HTML. `content_security_policy` lets a browser hold it to
that.
Cost: the file is read once; each request is answered with the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Final

__all__ = ["content_security_policy", "page"]

_INLINE: Final[re.Pattern[bytes]] = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def page() -> bytes:
    """Return the page, in UTF-8."""
    from importlib.resources import files  # noqa: PLC0415 - only where the page is looked at

    return files("mtaio.monitoring").joinpath("page.html").read_bytes()


@cache
def content_security_policy() -> str:
    """Return the policy to send with the page: its own script and style run, and no other."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text).digest()).decode()
        for kind, text in _INLINE.findall(page())
    }
    return (
        "default-src 'none'; "
        f"script-src 'sha256-{hashes[b'script']}'; "
        f"style-src 'sha256-{hashes[b'style']}'; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    )
