"""The pictures in the built site are there. The session `docs` runs this."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

SITE = Path(os.environ["MTAIO_SITE"])
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_there(page: str) -> None:
    """A page shows no picture that the site has not, in either language."""
    path = SITE / page
    sources = re.findall(r'<img[^>]* src="([^":#]+)[#"]', path.read_text(encoding="utf-8"))
    assert [source for source in sources if not (path.parent / source).is_file()] == []
