"""Every message of mtaio stands on a page on troubleshooting, and none there is out of date."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Final

import pytest

from tests.messages import VALUE, Messages
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LANGUAGES: Final = ("en", "ja")
HEADS: Final = ("| message |", "| メッセージ |")

ANY: Final = r"(?:(?!(?<!\.)\. ).)*?"
"""What a value in an entry may stand for: anything within one sentence."""


@dataclass(frozen=True)
class Entry:
    """The beginning of messages, as a page shows it."""

    text: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"

    @cached_property
    def _parts(self) -> list[str]:
        return self.text.split(VALUE)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(ANY.join(map(re.escape, self._parts)))

    def covers(self, message: str) -> bool:
        """Return whether a message begins in this way."""
        maybe = all(part in message for part in self._parts)  # which is faster
        return maybe and self._pattern.match(message) is not None


def rows(language: str) -> Iterator[tuple[str, str, str]]:
    """Yield the rows of the tables of messages: the place, the messages, what is to be done."""
    folder = ROOT / "docs" / language / "guides" / "troubleshooting"
    for page in sorted(folder.glob("*.md")):
        is_table = False
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            if not line.startswith("|"):
                is_table = False
            elif line.startswith(HEADS):
                is_table = True
            elif is_table and not line.startswith("|--"):
                first, second = line.strip("| ").split(" | ")
                yield f"{page.relative_to(ROOT).as_posix()}:{number}", first, second


@cache
def entries(language: str) -> tuple[Entry, ...]:
    """Return the entries of all pages in one language."""
    return tuple(
        Entry(text, place)
        for place, cell, _ in rows(language)
        for text in re.findall(r"`([^`]+)`", cell)
    )


@cache
def library() -> Messages:
    """Return the messages of the library."""
    return Messages()


def listed(what: str, things: list[str]) -> str:
    """Return the text of a failure, with every line of it."""
    return "\n".join([f"{what}:", *things])


def test_every_message_has_an_entry() -> None:
    """A message that is new or reworded is explained before it is released."""
    missing = [
        str(message)
        for message in library().all()
        if not any(entry.covers(message.text) for entry in entries("en"))
    ]
    assert missing == [], listed("not in docs/*/guides/troubleshooting", missing)


PASSED_ON: Final = {
    "RemoteTraceback(text)": "a traceback",
    "SystemExit(NOT_STARTED if life.never_ran else FAILED)": "a number",
    "SystemExit(0)": "a number",
    "SystemExit(code)": "a number",
    "super().__init__(message)": "what the class was made with",
    "super().__init__(reason, stacks)": "what the class was made with",
    "self._fail(answer, seconds)": "what a check of the user's returned",
    "text(200, 'ok')": "one word",
    "text(503, 'unavailable')": "one word, which the index explains",
}
"""What is told and is no message of mtaio's own, besides errors that are passed on, and why."""


def test_every_message_can_be_read() -> None:
    """Wherever something is told, the words are found, or are known to be somebody else's."""
    unread = [
        str(place)
        for place in library().unread()
        if place.text not in PASSED_ON
        and not re.search(r"\b(error|problems|strerror)\b", place.text)
    ]
    assert unread == [], listed("neither a text nor in PASSED_ON", unread)


def test_every_entry_is_a_message() -> None:
    """What mtaio no longer says is no longer explained."""
    texts = [message.text for message in library().all()]
    stale = [str(entry) for entry in entries("en") if not any(map(entry.covers, texts))]
    assert stale == [], listed("no such message in mtaio", stale)


def test_both_languages_have_the_same_entries() -> None:
    """Messages are not translated, and their order is the same."""
    english, japanese = ([entry.text for entry in entries(each)] for each in LANGUAGES)
    assert english == japanese
    assert english


def test_entries_are_told_apart() -> None:
    """An entry has two words or more, and stands in one place."""
    texts = Counter(entry.text for entry in entries("en"))
    assert [text for text, times in texts.items() if times > 1] == []
    assert [text for text in texts if len(re.findall(r"\w+", text)) < 2] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_row_says_what_to_do(language: str) -> None:
    """No row is left empty, and no two say the same."""
    remedies = Counter(remedy for _, _, remedy in rows(language))
    assert [remedy for remedy, times in remedies.items() if times > 1 or len(remedy) < 10] == []
