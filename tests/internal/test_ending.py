"""What is known of the end of a process."""

from __future__ import annotations

from mtaio._internal import ending


def test_patience_at_the_exit() -> None:
    """What waits there has half of what is left, if it wants more, unless the time is over."""
    assert ending.patience(5) == 5
    try:
        ending.expect(8, lambda: None)
        assert 3.9 < ending.patience(5) <= 4
        assert ending.patience(1) == 1
        ending.expect(-1, lambda: None)  # somebody has let the program go on
        assert ending.patience(5) == 5
        ending.expect(8, lambda: None)
    finally:
        ending.call_off()
    assert ending.patience(5) == 5


def test_one_thing_watches_over_the_end() -> None:
    """What did so before is dismissed, once."""
    dismissed: list[str] = []
    ending.call_off()
    ending.expect(8, lambda: dismissed.append("one"))
    ending.expect(8, lambda: dismissed.append("two"))
    assert dismissed == ["one"]
    for _ in range(2):
        ending.call_off()
    assert dismissed == ["one", "two"]
