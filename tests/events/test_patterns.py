"""Names and patterns: what matches what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mtaio.events import EventEmitter, EventKey

BAD = [
    *[(star, ValueError, r"has a '\*' where it matches nothing\. Pass '\*' ")
      for star in ("*.a", "a.*.b", "**", "a.**", "*a*", "*.*")],
    ("user*", ValueError, r"has a '\*' that is not a segment of its own\. Pass 'user\.\*' for all"),
    (".*", ValueError, r"has nothing before its dot"),
    ("", ValueError, r"is empty\. Pass the name of an event"),
    *[(name, TypeError, r"is an? (NoneType|int|bytes|list), not the name of an event")
      for name in (None, 5, b"user", ["user"])],
]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["user.login", "a.b.c", "a.", ".a", "a..b", "ユーザー.登録", "a b"]
)
async def test_any_other_string_is_a_name(emitter: EventEmitter, name: str) -> None:
    """A name is any string that is not empty and has no star."""
    seen: list[str] = []
    emitter.on(name, lambda event: seen.append(event.name))
    await emitter.emit(name)
    await emitter.emit(EventKey[None](name))
    assert seen == [name] * 2


@pytest.mark.parametrize("pattern", ["*", "user.*", "a.b.*"])
async def test_patterns_can_be_listened_to_and_not_emitted(
    emitter: EventEmitter, pattern: str
) -> None:
    """A pattern is not the name of one event."""
    assert emitter.on(pattern, print) is print
    message = r"^name='.*\*' is a pattern: it can be listened to, not emitted\. Pass the full name"
    with pytest.raises(ValueError, match=message):
        await emitter.emit(pattern)
    with pytest.raises(ValueError, match=message):
        await emitter.emit(EventKey[None](pattern))


@pytest.mark.parametrize(("name", "error", "message"), BAD)
async def test_bad_names_are_refused(
    emitter: EventEmitter, name: Any, error: type[Exception], message: str
) -> None:
    """Wherever they are written; nothing is registered."""
    for refuses in (emitter.on, emitter.once, emitter.stream, emitter.listeners, EventKey):
        with pytest.raises(error, match=f"^name=.* {message}"):
            refuses(name)
    with pytest.raises(error, match=f"^name=.* {message}"):
        emitter.off(name, print)
    with pytest.raises(error, match=f"^name=.* {message}"):
        await emitter.wait_for(name)
    assert emitter.listener_count() == 0


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("a", ["*"]),
        ("a.b.c", ["*", "a.*", "a.b.*"]),
        (".a.b", ["*", ".a.*"]),
        ("a.", ["*", "a.*"]),
        ("ab", ["*"]),
    ],
)
async def test_patterns_that_match(emitter: EventEmitter, name: str, patterns: list[str]) -> None:
    """``*`` matches every name, ``ns.*`` those with a segment below ns."""
    seen: list[str] = []
    for pattern in ("*", "a.*", "a.b.*", ".a.*", "b.*"):
        emitter.on(pattern, lambda _, pattern=pattern: seen.append(pattern))
    await emitter.emit(name)
    assert seen == patterns
