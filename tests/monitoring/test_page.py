"""The status page as a file; tests/deployed looks at it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from mtaio.monitoring._page import content_security_policy, page


@pytest.fixture(scope="module")
def text() -> str:
    """Return the page as text."""
    return page().decode()


LOOKED_UP = {"gil", "not_running", "passing", "failing", "degraded", "unknown"}
"""What the page looks up by the name that ``stats`` gives."""


def part(text: str, tag: str) -> str:
    """Return what stands in the only element with this tag."""
    (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return str(found)


def test_the_file_is_read_once() -> None:
    """Every request is answered with the same bytes."""
    assert page() is page()
    assert page().startswith(b"<!doctype html>")


@pytest.mark.parametrize("tag", ["script", "style"])
def test_the_policy_allows_what_the_page_holds(text: str, tag: str) -> None:
    """The policy names the hash of the page's own script and of its own style."""
    digest = base64.b64encode(hashlib.sha256(part(text, tag).encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{digest}'" in content_security_policy().split("; ")


def test_the_policy_allows_nothing_else() -> None:
    """What the page does not need, a browser refuses it."""
    assert re.sub(r"sha256-[^']{44}", "sha256-…", content_security_policy()) == (
        "default-src 'none'; script-src 'sha256-…'; style-src 'sha256-…'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
    )


def test_the_page_is_one_file(text: str) -> None:
    """It names no other host, and nothing in it that its own policy would refuse."""
    assert set(re.findall(r"https?://[^'\"\s]+", text)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"<[^>]*\s(?:src|style|on\w+)=", text) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text) == []
    )


def test_the_page_is_small() -> None:
    """It is smaller than many a picture."""
    assert len(page()) < 72 * 1024


def test_every_text_is_in_both_languages(text: str) -> None:
    """Each text that the script asks for is there in English and in Japanese, and no other."""
    script = part(text, "script")
    table, rest = re.split(r"\n\};\n", script.partition("const WORDS = {")[2], maxsplit=1)
    rows = re.findall(r"^ +(\w+): \[(['\"].*?['\"]), (['\"].*['\"])\],$", table, re.MULTILINE)
    assert len(rows) == table.count("\n") == len({name for name, _, _ in rows})
    for name, english, japanese in rows:
        assert sorted(re.findall(r"\{\d\}", english)) == sorted(re.findall(r"\{\d\}", japanese)), (
            name
        )
        assert english.isascii() or "·" in english or "“" in english, name
        assert re.search(f"'{name}'", rest) or name in LOOKED_UP, name
    asked = set(re.findall(r"\bt\('(\w+)'", rest))
    assert asked <= {name for name, _, _ in rows}
