"""Names and patterns: what matches what, and what is refused."""

from __future__ import annotations

import pytest

from mtaio.events import EventKey
from mtaio.events._event import name_in
from mtaio.events._patterns import check_name, check_pattern, is_wild, wider


@pytest.mark.parametrize(
    "name", ["user", "user.login", "a.b.c", "a.", ".a", "a..b", "ユーザー.登録", "a b"]
)
def test_any_other_string_is_a_name(name: str) -> None:
    """A name is any string that has something in it and no star."""
    assert check_name(name) == name
    assert not is_wild(name)


@pytest.mark.parametrize("pattern", ["*", "user.*", "a.b.*"])
def test_patterns_can_be_listened_to_and_not_emitted(pattern: str) -> None:
    """A pattern names no single event."""
    assert check_pattern(pattern) == pattern
    assert is_wild(pattern)
    with pytest.raises(ValueError, match=r"^name='.*\*' is a pattern: it can be listened to, not "):
        check_name(pattern)


@pytest.mark.parametrize("pattern", ["*.a", "a.*.b", "**", "a.**", "*a*", "*.*"])
def test_star_in_the_middle_is_refused(pattern: str) -> None:
    """A star stands at the end or nowhere."""
    with pytest.raises(ValueError, match=r"^name='.*' has a '\*' where none matches\. Pass '\*' "):
        check_pattern(pattern)


def test_star_that_is_part_of_a_segment_is_refused() -> None:
    """``user*`` is not what the one who wrote it thinks."""
    message = r"^name='user\*' has a '\*' that is no segment of its own\. Pass 'user\.\*' for all"
    with pytest.raises(ValueError, match=message):
        check_pattern("user*")


def test_nothing_before_the_dot_is_refused() -> None:
    """``.*`` has no namespace."""
    with pytest.raises(ValueError, match=r"^name='\.\*' has nothing before its dot"):
        check_pattern(".*")


def test_empty_name_is_refused() -> None:
    """An empty string is nobody's name."""
    with pytest.raises(ValueError, match=r"^name='' is empty\. Pass the name of an event"):
        check_name("")


@pytest.mark.parametrize("name", [None, 5, b"user", ["user"]])
def test_what_is_no_string_is_refused(name: object) -> None:
    """The message names the value and its type."""
    with pytest.raises(TypeError, match=r"^name=.* is a (NoneType|int|bytes|list), not the name"):
        check_name(name)


def test_wider_patterns_of_a_name() -> None:
    """One for everything, and one for each segment that has another below it."""
    assert list(wider("a")) == ["*"]
    assert list(wider("a.b.c")) == ["*", "a.*", "a.b.*"]
    assert list(wider(".a.b")) == ["*", ".a.*"]


def test_key_stands_for_its_name() -> None:
    """A key is looked through, and anything else left as it is."""
    assert name_in(EventKey[int]("a.b")) == "a.b"
    assert name_in("a.b") == "a.b"
    assert name_in(5) == 5
