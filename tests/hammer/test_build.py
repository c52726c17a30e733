"""The lock is off where these tests are meant to run without it."""

from __future__ import annotations

import sysconfig

import psutil  # noqa: F401 - it is partly in C

from mtaio._internal.gil import has_gil


def test_nothing_has_turned_the_lock_on_again() -> None:
    """A Python that was built without the GIL runs without it, with all that is imported by now."""
    is_on = has_gil()
    assert is_on is not bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
