"""Refusals: what is accepted comes back as it is, what is not is named."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from mtaio._internal import checks

WAY_OUT = "Turn left."


@pytest.mark.parametrize("value", [0, -3, 2.5, math.inf, -math.inf, 10**300])
def test_number_accepts(value: float) -> None:
    """Any int or float but NaN is a number, and comes back as the object it is."""
    assert checks.number("n", value, way_out=WAY_OUT) is value


@pytest.mark.parametrize("value", ["1", None, True, False, 1j, Decimal(1), Fraction(1, 2), [1]])
def test_number_refuses_other_types(value: object) -> None:
    """What is neither an int nor a float is refused, bool included: a flag is not a limit of 1."""
    message = f"n={value!r} is a {type(value).__name__}, not a number. Turn left."
    with pytest.raises(TypeError) as caught:
        checks.number("n", value, way_out=WAY_OUT)
    assert str(caught.value) == message


def test_number_refuses_nan() -> None:
    """NaN compares with nothing, so no rule can be kept with it."""
    with pytest.raises(ValueError, match=r"^n=nan is not a number\. Turn left\.$"):
        checks.number("n", math.nan, way_out=WAY_OUT)


@pytest.mark.parametrize("value", [10**400, -(10**5000)], ids=["large", "too large to print"])
def test_number_refuses_what_no_float_can_hold(value: int) -> None:
    """An int beyond all floats would fail later, where it is added to a time."""
    with pytest.raises(ValueError, match=r"^n is an int too large for a float\. Turn left\.$"):
        checks.number("n", value, way_out=WAY_OUT)


@pytest.mark.parametrize(("value", "least"), [(0, 0), (0.5, 0.5), (7, 1), (math.inf, 3)])
def test_at_least_accepts(value: float, least: float) -> None:
    """The limit itself is enough."""
    assert checks.at_least("n", value, least, way_out=WAY_OUT) is value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (-0.5, ValueError, r"^n=-0\.5 is less than 0\. Turn left\.$"),
        (-math.inf, ValueError, r"^n=-inf is less than 0\. Turn left\.$"),
        (math.nan, ValueError, r"^n=nan is not a number\. Turn left\.$"),
        (True, TypeError, r"^n=True is a bool, not a number\. Turn left\.$"),
    ],
)
def test_at_least_refuses(value: float, error: type[Exception], message: str) -> None:
    """Less than the limit, or no number at all, is refused."""
    with pytest.raises(error, match=message):
        checks.at_least("n", value, 0, way_out=WAY_OUT)


def test_count_accepts() -> None:
    """An int of at least the limit, which is 1 unless told otherwise."""
    assert checks.count("n", 1, way_out=WAY_OUT) == 1
    assert checks.count("n", 0, least=0, way_out=WAY_OUT) == 0


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, r"^n=0 is less than 1\. Turn left\.$"),
        (1.0, TypeError, r"^n=1\.0 is a float, not an int\. Turn left\.$"),
        (True, TypeError, r"^n=True is a bool, not an int\. Turn left\.$"),
        (None, TypeError, r"^n=None is a NoneType, not an int\. Turn left\.$"),
    ],
)
def test_count_refuses(value: Any, error: type[Exception], message: str) -> None:
    """Too few, or no int, is refused, whole floats included."""
    with pytest.raises(error, match=message):
        checks.count("n", value, way_out=WAY_OUT)


@pytest.mark.parametrize("value", [None, 0, 0.25, math.inf])
def test_timeout_accepts(value: float | None) -> None:
    """Seconds from 0 to inf, or None for no limit."""
    assert checks.timeout("timeout", value) is value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            -1,
            ValueError,
            r"^timeout=-1 is less than 0\. Pass seconds >= 0, or None for no limit\.$",
        ),
        ("1", TypeError, r"^timeout='1' is a str, not a number\. Pass seconds >= 0, or None for"),
        (False, TypeError, r"^timeout=False is a bool, not a number\. Pass seconds >= 0, or None"),
    ],
)
def test_timeout_refuses(value: object, error: type[Exception], message: str) -> None:
    """Negative seconds, and what is not a number, are refused."""
    with pytest.raises(error, match=message):
        checks.timeout("timeout", value)


def test_callable() -> None:
    """A callable passes in silence; anything else is named with its type."""
    checks.callable_("fn", len, way_out=WAY_OUT)
    with pytest.raises(TypeError, match=r"^fn=3 is an int, which is not callable\. Turn left\.$"):
        checks.callable_("fn", 3, way_out=WAY_OUT)


@pytest.mark.parametrize(
    ("value", "named"),
    [(3, "an int"), ("3", "a str"), (OSError(), "an OSError"), (None, "a NoneType")],
    ids=["int", "str", "error", "None"],
)
def test_type_of_has_its_article(value: object, named: str) -> None:
    """A message says "an int" and "a str"."""
    assert checks.type_of(value) == named
