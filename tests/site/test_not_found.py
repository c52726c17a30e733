"""What the site shows where it has no page. The session `docs` runs this."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

SITE = Path(os.environ["MTAIO_SITE"])


def test_not_found() -> None:
    """It speaks the language of the address, at any depth: its links are absolute, and lead on."""
    text = (SITE / "404.html").read_text(encoding="utf-8")
    assert text.startswith('<!doctype html>\n<html lang="en">')
    root = "/mtaio/"
    assert all(f'<section lang="{language}">' in text for language in ("en", "ja"))
    assert f'location.pathname.startsWith("{root}ja/")' in text
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert links == [f"{root}index.html", f"{root}ja/index.html"]
    for link in links:
        assert (SITE / urlsplit(link).path.removeprefix(root)).is_file()
