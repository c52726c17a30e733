"""The mark of an argument that was not given."""

from __future__ import annotations

import copy
import pickle

from mtaio._internal.sentinel import UNSET


def test_there_is_one_and_it_is_falsy() -> None:
    """It can be compared with ``is``, also after it was copied or pickled."""
    assert not UNSET
    assert copy.deepcopy(UNSET) is UNSET
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET  # noqa: S301 - our own bytes


def test_it_reads_well_in_a_signature() -> None:
    """``help()`` shows what it means."""
    assert repr(UNSET) == "<not given>"
