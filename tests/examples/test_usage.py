"""What the programs of the guide refuse: in one line that says what to write, with exit code 2."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests.programs import ROOT

PROGRAMS = ROOT / "docs" / "examples" / "programs"

CRAWL = ("crawler.py", "--contact", "me")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*CRAWL, "example.org"), "example.org: write https://example.org/"),
        ((*CRAWL, "http://a/", "https:///b"), "https:///b: write https://example.org/"),
        ((*CRAWL, "http://a/", "--pages", "0"), "--pages 0: write 1 or more"),
        ((*CRAWL, "http://a/", "--delay", "0"), "--delay 0.0: write seconds, more than 0"),
        ((*CRAWL, "http://a/", "--output", "/"), "--output /: "),
        (("links.py", "no-such-file"), "no-such-file: there is no such file"),
        (("links.py", "no-such-file", "--limit", "0"), "--limit 0: write 1 or more"),
        (("gateway.py",), "set GATEWAY_UPSTREAM to the URL of the upstream"),
        (("worker.py", "run"), "set WORKER_QUEUE to the queue's path"),
        (("worker.py", "dead"), "set WORKER_QUEUE to the queue's path"),
        (("worker.py", "put", "a/hook", "{}"), "a/hook: write https://example.org/hook"),
        (("relay.py", "a/lines"), "a/lines: write https://logs.example.org/lines"),
        (("relay.py", "http://a/", "--listen", "foo"), "--listen foo: write HOST:PORT"),
        (("relay.py", "http://a/", "--listen", ":1"), "--listen :1: write HOST:PORT"),
        (("relay.py", "http://a/", "--listen", "b:65536"), "--listen b:65536: write HOST:PORT"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_usage(
    command: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is missing or makes no sense is named before anything is done."""
    if command[0] == "relay.py":
        pytest.importorskip("trio")
    assert refused(command, monkeypatch, capsys).startswith(message)


def refused(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Run a program that ends at once, and return the last line of what it says."""
    for variable in ("GATEWAY_UPSTREAM", "WORKER_QUEUE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "argv", list(command))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(PROGRAMS / command[0]), run_name="__main__")
    assert end.value.code == 2
    *_, line = capsys.readouterr().err.splitlines(keepends=True)
    return line.removeprefix(f"{command[0]}: error: ")
