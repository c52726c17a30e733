"""Each defect on the pages is in the version that they name, with mtaio and without."""

from __future__ import annotations

import os
import re
from typing import Final

import pytest

from tests.backends import BACKENDS
from tests.found.findings import FINDINGS, HOME, PAGES, PINNED, Finding

HERE: Final = [finding for finding in FINDINGS if finding.here]
"""In an environment with other libraries or a newer Python there are fewer, and nothing to skip."""


def test_all_are_here() -> None:
    """All of them are tested where the session "found" has installed the very versions."""
    missing = [str(finding) for finding in FINDINGS if finding not in HERE]
    if "MTAIO_FOUND" in os.environ:
        assert missing == []
    assert {finding.package for finding in FINDINGS} - {None} <= set(PINNED)
    programs = {path.stem.removesuffix("_plain") for path in HOME.glob("*.py")}
    assert programs == {str(finding) for finding in FINDINGS} | {"patience"}


def without_passing_run(said: str) -> str:
    """Leave out the comparison with a run that passes, which a replay does not make."""
    return re.sub(r"(?m)^it passes .*\n(?:  (?:here|there) .*\n)*", "", said)


@pytest.mark.parametrize("finding", HERE, ids=str)
def test_search_finds_it(finding: Finding) -> None:
    """The search ends as the page says, and the replay that it names fails in the same way."""
    error = finding.fails()
    assert error is not None
    assert finding.summary(error) == finding.shown(str(finding))
    (plan,) = re.findall(r"--mtaio-replay (\S+)", "\n".join(error.__notes__))
    again = finding.fails(replay=plan)
    assert again is not None
    assert finding.said(again) == without_passing_run(finding.said(error))


@pytest.mark.parametrize("finding", HERE, ids=str)
def test_program_without_mtaio_shows_it(finding: Finding) -> None:
    """A program that does not know of mtaio prints what the page says, in real time."""
    plain = f"{finding}_plain"
    assert "mtaio" not in (HOME / f"{plain}.py").read_text(encoding="utf-8")
    assert finding.prints() == finding.shown(plain)


@pytest.mark.parametrize("finding", HERE, ids=str)
def test_pages_say_what_finds_it(finding: Finding) -> None:
    """They name the version and the modes that find it, in the table and where it is told."""
    modes = finding.found_by(finding.plain)
    version = "" if finding.package is None else f" {PINNED[finding.package]}"
    anchor = finding.name.replace("_", "-")
    for page in PAGES:
        table = page.read_text(encoding="utf-8")
        ((library, link),) = re.findall(
            rf"^\| (.*) \| \[.*\]\((.*\.md)#{anchor}\) \| .* \|$", table, re.MULTILINE
        )
        text = (page.parent / link).read_text(encoding="utf-8")
        (line,) = re.findall(rf'^<a id="{anchor}"></a>\n\n## .*\n\n(.*)$', text, re.MULTILINE)
        assert set(re.findall(r'"(\w+)"', line)) == modes
        assert library.endswith(version)
        assert f"{library}," in line or f"{library}、" in line
        for name in (f"{finding}.py:test", f"{finding}_plain.py", f"{finding}.out"):
            assert f"<!-- example: found/{name} -->" in text


@pytest.mark.skipif("trio" not in BACKENDS, reason="needs trio")
@pytest.mark.parametrize(
    "finding", [finding for finding in HERE if finding.trio is not None], ids=str
)
def test_trio_is_as_the_pages_say(finding: Finding) -> None:
    """What is due to ``Task.cancel()`` is not there on trio, which has no such thing."""
    assert finding.found_by("trio") == ({"checkpoint", "step"} if finding.trio else set())
    if finding.always:
        assert finding.fails("trio", seeds=0, delays=0) is not None
