"""The event object, its typed name, and the named tiers."""

from __future__ import annotations

import io
import pickle
import pickletools

import pytest

from mtaio.events import Event, EventEmitter, EventKey, EventPriority


def test_event_can_be_made_by_hand() -> None:
    """Name and data suffice, so that a handler can be called in a test."""
    event = Event("user.login", {"id": 1})
    assert (event.name, event.data, event.time, event.stopped) == (
        "user.login",
        {"id": 1},
        0.0,
        False,
    )
    assert dict(event.metadata) == {}
    assert repr(event) == "Event('user.login', {'id': 1})"


def test_event_has_slots() -> None:
    """An attribute that is misspelt is an error, not a new attribute."""
    with pytest.raises(AttributeError):
        Event("a", 1).payload = 2  # type: ignore[attr-defined] # the subject


def test_event_may_be_stopped_twice() -> None:
    """It stays stopped."""
    event = Event("a", None)
    event.stop()
    event.stop()
    assert event.stopped


def test_keys_of_one_name_are_equal() -> None:
    """A key equals another of its name, and no string."""
    key = EventKey[int]("a")
    assert key == EventKey[str]("a")
    assert hash(key) == hash(EventKey[str]("a"))
    assert key != EventKey[int]("b")
    assert (key == "a") is False
    assert key.name == "a"
    assert repr(key) == "EventKey('a')"


def test_key_is_checked_where_it_is_made() -> None:
    """A bad name is refused at once."""
    with pytest.raises(ValueError, match=r"^name='' is empty"):
        EventKey[int]("")
    with pytest.raises(TypeError, match=r"^name=5 is an int, not the name"):
        EventKey[int](5)  # type: ignore[arg-type] # the subject


def test_tiers_are_ints() -> None:
    """The named priorities are in order, with room between them."""
    names = [each.name for each in sorted(EventPriority)]
    assert names == ["LOWEST", "LOW", "NORMAL", "HIGH", "HIGHEST"]
    assert int(EventPriority.NORMAL) == 0


async def test_key_and_name_are_one_event() -> None:
    """Handlers of a key and of its name are the same, whichever is emitted, at any time."""
    emitter = EventEmitter()
    key = EventKey[int]("a")
    seen: list[tuple[str, object]] = []
    await emitter.emit(key, 0)

    @emitter.on(key)
    def by_key(event: Event[int]) -> None:
        seen.append(("key", event.data))

    @emitter.on("a")
    def by_name(event: Event[int]) -> None:
        seen.append(("name", event.data))

    for name in (key, "a", EventKey[int]("a")):
        event = await emitter.emit(name, 1)
        assert event.name == "a"
    assert seen == [("key", 1), ("name", 1)] * 3
    assert emitter.off("a", by_key)
    assert emitter.off(key, by_name)
    await emitter.emit(key, 2)
    assert len(seen) == 6
    assert list(emitter.statistics().names) == ["a"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_key_and_event_can_be_pickled(protocol: int) -> None:
    """A key of another process is the same key, though strings have other hashes there."""
    key = EventKey[int]("a")
    state = pickle.dumps(key, protocol)
    assert pickle.loads(state) == key  # noqa: S301 - our own
    assert str(hash(key)).encode() not in state
    assert repr(hash(key)) not in pickletools_text(state)
    if protocol >= 2:
        event = pickle.loads(pickle.dumps(Event("a", 1), protocol))  # noqa: S301 - our own
        assert (event.name, event.data, dict(event.metadata)) == ("a", 1, {})


def pickletools_text(state: bytes) -> str:
    """Return what is in a pickle, in words."""
    out = io.StringIO()
    pickletools.dis(state, out)
    return out.getvalue()
