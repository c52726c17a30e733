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
    """Two lists, a table of scores, and a table of what was evicted from the first list."""

    def __init__(self) -> None:
        self.small: list[int] = []
        self.main: list[int] = []
        self.scores: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.ghost: dict[int, int] = {}
        self.slots = 1

    def insert(self, key: int) -> None:
        trace = hash(key)
        self.scores[key] = 0
        if self.ghost.get(trace % self.slots) == trace:
            del self.ghost[trace % self.slots]
            self.main.append(key)
        else:
            self.small.append(key)

    def remove(self, key: int) -> None:
        self.left[key] = self.scores.pop(key)
        (self.small if key in self.small else self.main).remove(key)

    def hit(self, key: int) -> None:
        self.scores[key] = min(3, self.scores[key] + 1)

    def evict(self) -> int:
        held = len(self.small) + len(self.main)
        chances = 16
        while True:
            if len(self.small) * 10 >= held or not self.main:
                key = self.small[0]
                if self.scores[key] < 2 or not chances:
                    return self.from_small(key, held)
                self.small.pop(0)
                self.scores[key] = 0
            else:
                key = self.main[0]
                if self.scores[key] == 0 or (not chances and not self.small):
                    self.remove(key)
                    return key
                if not chances:
                    return self.from_small(self.small[0], held)
                self.main.pop(0)
                self.scores[key] -= 1
            self.main.append(key)
            chances -= 1

    def from_small(self, key: int, held: int) -> int:
        self.remove(key)
        if self.slots < held:
            while self.slots < held:
                self.slots *= 2
            traces = [trace for _, trace in sorted(self.ghost.items())]
            self.ghost = {trace % self.slots: trace for trace in traces}
        self.ghost[hash(key) % self.slots] = hash(key)
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
