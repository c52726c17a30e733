"""Plain models: what each policy gives up, with lists and counters."""

# ruff: noqa: D102 - the methods are those of the cache, and say so by their names

from __future__ import annotations

from typing import Protocol

from mtaio.types import EvictionPolicy


class ModelPolicy(Protocol):
    """What a plain policy can do."""

    def insert(self, key: int) -> None:
        """Take in a key."""
        ...

    def remove(self, key: int) -> None:
        """Let go a key."""
        ...

    def hit(self, key: int) -> None:
        """Note a use."""
        ...

    def evict(self) -> int:
        """Let go the key to give up, and return it."""
        ...

    def restore(self, key: int) -> None:
        """Take back a key."""
        ...


class PlainFIFO:
    """A list."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    def insert(self, key: int) -> None:
        self.keys.append(key)

    def remove(self, key: int) -> None:
        self.keys.remove(key)

    def hit(self, key: int) -> None:
        assert key in self.keys

    def evict(self) -> int:
        return self.keys.pop(0)

    def restore(self, key: int) -> None:
        self.insert(key)


class PlainLRU(PlainFIFO):
    """A list in which a use moves the key to the end."""

    def hit(self, key: int) -> None:
        self.keys.remove(key)
        self.keys.append(key)


class PlainLFU:
    """A table of uses, and of when the last was."""

    def __init__(self) -> None:
        self.uses: dict[int, int] = {}
        self.since: dict[int, int] = {}
        self.clock = 0

    def insert(self, key: int) -> None:
        self.uses[key] = 0
        self.hit(key)

    def remove(self, key: int) -> None:
        del self.uses[key], self.since[key]

    def hit(self, key: int) -> None:
        self.clock += 1
        self.uses[key] += 1
        self.since[key] = self.clock

    def evict(self) -> int:
        key = min(self.uses, key=lambda each: (self.uses[each], self.since[each]))
        self.remove(key)
        return key

    def restore(self, key: int) -> None:
        self.insert(key)


class PlainS3FIFO:
    """Two lists, tables of scores and turns, and a table of what was evicted from the first."""

    def __init__(self) -> None:
        self.small: list[int | None] = [None]  # None is the mark
        self.main: list[int] = []
        self.scores: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self.ghost: dict[int, tuple[int, int]] = {}
        self.slots = 1
        self.share = 1.0
        self.turn = self.due = self.moved = self.early = 0

    @property
    def newcomers(self) -> list[int]:
        """The keys in small."""
        return [key for key in self.small if key is not None]

    def insert(self, key: int) -> None:
        self.scores[key] = 0
        if self.earns_main(hash(key)):
            self.main.append(key)
            self.seen[key] = self.turn
        else:
            self.small.append(key)

    def earns_main(self, trace: int) -> bool:
        known, left = self.ghost.get(trace % self.slots, (None, 0))
        if known != trace:
            return False
        del self.ghost[trace % self.slots]
        if len(self.newcomers) > self.share or not self.main:
            return True
        if self.scores[self.main[0]]:
            self.to_main(self.main.pop(0))
        oldest = self.main[0]
        # In the array a turn is known modulo the slots.
        earned = not self.scores[oldest] and self.seen[oldest] < self.turn - self.since(left)
        self.early += earned
        return earned

    def since(self, turn: int) -> int:
        return (self.turn - turn) % self.slots

    def to_main(self, key: int) -> None:
        self.main.append(key)
        self.scores[key] = 0
        self.seen[key] = self.turn

    def remove(self, key: int) -> None:
        self.left[key] = self.scores.pop(key)
        if key in self.main:
            self.main.remove(key)
        else:
            self.small.remove(key)

    def hit(self, key: int) -> None:
        self.scores[key] = min(3, self.scores[key] + 1)

    def evict(self) -> int:
        held = len(self.newcomers) + len(self.main)
        chances = 16
        while True:
            if self.small[0] is None:
                self.end_turn(held)
            newcomers = self.newcomers
            if len(newcomers) >= self.share or not self.main:
                key = newcomers[0]
                if self.scores[key] < 2 or not chances:
                    return self.from_small(key, held)
                self.small.remove(key)
                self.moved += 1
            else:
                key = self.main[0]
                if self.scores[key] == 0 or (not chances and not newcomers):
                    self.remove(key)
                    return key
                if not chances:
                    return self.from_small(newcomers[0], held)
                self.main.pop(0)
            self.to_main(key)
            chances -= 1

    def end_turn(self, held: int) -> None:
        self.share += self.moved + 2 * self.early - (self.due - self.moved) / 2
        self.share = max(self.share, held // 20, 1)
        self.share = min(self.share, max(held * 9 // 10, 1))
        self.turn += 1
        self.due = len(self.newcomers)
        self.moved = self.early = 0
        self.small.append(self.small.pop(0))

    def from_small(self, key: int, held: int) -> int:
        self.remove(key)
        if self.slots < 2 * held:
            before = [(trace, self.turn - self.since(left)) for trace, left in self.ghost.values()]
            while self.slots < 2 * held:
                self.slots *= 2
            self.ghost = {trace % self.slots: (trace, left) for trace, left in before}
        self.ghost[hash(key) % self.slots] = hash(key), self.turn
        return key

    def restore(self, key: int) -> None:
        self.scores[key] = self.left[key]
        self.small.append(key)


PLAIN: dict[EvictionPolicy, type[ModelPolicy]] = {
    "fifo": PlainFIFO,
    "lru": PlainLRU,
    "lfu": PlainLFU,
    "s3fifo": PlainS3FIFO,
}
