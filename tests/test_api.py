"""The public API, which is written down."""

from __future__ import annotations

import re
from pathlib import Path

import mtaio
from tests import api

LIBRARY = Path(mtaio.__file__).parent
NAME = re.compile(r"(?<![.\w])[A-Z_]\w*")
HYPERCORN = "Config"
"""A name in our signatures that is another library's, and one of ours elsewhere."""


def test_api_is_written_down() -> None:
    """A change of the API is a change of tests/api.txt: ``python -m tests.api`` writes it."""
    written = api.FILE.read_text(encoding="utf-8").splitlines()
    assert api.text().splitlines() == written


def test_names_in_signatures_can_be_imported() -> None:
    """
    What a signature names and mtaio defines is a public name.

    Not so in constructors: what has private parts is made by methods.
    """
    lines = api.FILE.read_text(encoding="utf-8").splitlines()
    public = {m[1] for line in lines if (m := re.match(r" {4}(?:(?:async )?\w+ )?(\w+)", line))}
    signatures = [line for line in lines if re.match(r" +(async )?def (?!__init__)", line)]
    named = {name for line in signatures for name in NAME.findall(re.sub(r"'[^']*'", "", line))}
    defined: set[str] = set()
    for path in LIBRARY.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        defined |= {*re.findall(r"^(?:class )?(\w+)(?=[(:]| = (?:Call|Lit))", code, re.MULTILINE)}
    assert "Returned" in named & public
    assert named & defined - public == {HYPERCORN}
