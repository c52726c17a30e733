"""Notes on errors: bounded, and never in the way of the error."""

from __future__ import annotations

from dataclasses import dataclass

from mtaio._internal.notes import note


def test_an_error_keeps_the_latest_of_our_notes() -> None:
    """However often the same object is raised; a user's own notes all stay."""
    error = LookupError()
    error.add_note("of the user's")
    for number in range(100):
        note(error, f"in item {number}: price({number})")
        note(error, "gave up after 3 attempts")
    theirs, *ours = error.__notes__
    assert theirs == "of the user's"
    assert len(ours) == 16
    assert ours[-2:] == ["in item 99: price(99)", "gave up after 3 attempts"]
    for number in range(100):
        error.add_note(f"number {number}")
    note(error, "in item 100: price(100)")
    assert len(error.__notes__) == 117
    assert error.__notes__[-1] == "in item 100: price(100)"


def test_an_error_that_takes_no_note_is_left_as_it_is() -> None:
    """Immutable, or with something else where the notes would be."""

    @dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    frozen = FrozenError(3)
    note(frozen, "in item 0: price(0)")
    assert not hasattr(frozen, "__notes__")
    odd = LookupError()
    odd.__notes__ = None  # type: ignore[assignment] # foreign code may do so
    note(odd, "in item 0: price(0)")
    assert odd.__notes__ is None
