"""The classes that ``statistics()`` returns, all of one form."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mtaio import statistics

CLASSES = [getattr(statistics, name) for name in statistics.__all__]


@pytest.mark.parametrize("cls", CLASSES)
def test_one_form(cls: type) -> None:
    """Frozen, slotted, by keyword alone, and named as what they are."""
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert "__slots__" in vars(cls)
    assert all(field.kw_only for field in fields(cls))
    assert cls.__name__.endswith(("Statistics", "Stats"))
