"""
What is fast stays fast: the calls that Python makes on the paths that most calls take.

A time says little on a machine that is shared, so what is counted is how many Python functions are
entered, each of which costs about as much as all else that such a path does; the benchmarks say
what that comes to. A path that gets longer for a reason gets a new number here.
"""

from __future__ import annotations

import json
import subprocess
import sys

from mtaio.cache._store import _GET_LOCKS

PATHS = {
    "a token": 1,
    "a token of a key": 4,
    "a slot, in a block": 3,
    "a function with a rate": 3,
    "a hit": 2,
    "a hit of a function": 1,
    "an event": 3,
    "a try": 4,
    "a pipeline": 3,
    "a function of a pipeline": 3,
    "a function of a part": 8,
    "two at once": 22,
    "a race of two": 23,
    "a task": 35,
    "a request": 14,
    "64 tokens": 71,
}
"""
The most functions that each enters, with the user's own and the lambda of the measurement.

The last five start tasks, yield or enter scopes, and only functions of mtaio count there.
"""

LOOKED_UP = ("a hit", "a hit of a function")
"""Which enter a function more where `dict.get` takes a lock, to get around it."""

AN_ITEM = 3
"""The most functions that ``map`` enters for an item more, the user's own included."""


def test_few_functions_are_entered(backend: str) -> None:
    """No more than when it was measured."""
    done = subprocess.run(  # noqa: S603 - this very Python
        [sys.executable, "-m", "tests.fast_paths", backend],
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(done.stdout)
    items = counts.pop("200 items") - counts.pop("100 items")
    assert counts.keys() == PATHS.keys()
    most = PATHS | {path: PATHS[path] + 1 for path in LOOKED_UP if _GET_LOCKS}
    assert {path: found for path, found in counts.items() if found > most[path]} == {}
    assert items <= 100 * AN_ITEM
