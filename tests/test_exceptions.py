"""The tree of errors: what each is, says and carries, here and in another process."""

from __future__ import annotations

import builtins
import copy
import inspect
import math
import pickle
from typing import Any

import pytest
from anyio import WouldBlock, to_process

from mtaio import exceptions
from mtaio.exceptions import (
    BreakerOpenError,
    CacheClosedError,
    ConcurrencyLimitError,
    EventOverflowError,
    LeaseLostError,
    LimitClosedError,
    LimitError,
    LimitTimeoutError,
    ListenError,
    MTAIOError,
    RateLimitError,
    StoreError,
    StrayCancellationError,
    TaskCancelledError,
    TimeoutError,  # noqa: A004 - the subject
)

PARENTS: dict[type[Exception], tuple[type[Exception], ...]] = {
    MTAIOError: (Exception,),
    TimeoutError: (MTAIOError, builtins.TimeoutError),
    LimitError: (MTAIOError, WouldBlock),
    LimitTimeoutError: (LimitError, TimeoutError),
    RateLimitError: (LimitError,),
    LimitClosedError: (LimitError,),
    ConcurrencyLimitError: (LimitError,),
    EventOverflowError: (LimitError,),
    BreakerOpenError: (LimitError,),
    CacheClosedError: (MTAIOError,),
    TaskCancelledError: (MTAIOError,),
    StoreError: (MTAIOError, builtins.ConnectionError),
    LeaseLostError: (MTAIOError,),
    ListenError: (MTAIOError, OSError),
    StrayCancellationError: (MTAIOError, RuntimeError),
}

ATTRIBUTES: dict[type[Exception], dict[str, Any]] = {
    MTAIOError: {},
    TimeoutError: {"timeout": 2.5, "deadline": 12.5, "name": "db"},
    LimitError: {"retry_after": 1.5, "name": "api"},
    RateLimitError: {"retry_after": 0.75, "name": "api"},
    LimitClosedError: {"retry_after": 0.25, "name": "api"},
    LimitTimeoutError: {"retry_after": 3.0, "timeout": 2.5, "deadline": 12.5, "name": "api"},
    ConcurrencyLimitError: {"retry_after": 0.5, "name": "slots"},
    EventOverflowError: {"retry_after": 0.5, "name": "bus"},
    BreakerOpenError: {"retry_after": 12.5, "name": "api"},
    CacheClosedError: {"name": "users"},
    TaskCancelledError: {},
    StoreError: {"server": "redis://127.0.0.1:6379/0", "refused": True},
    LeaseLostError: {"token": 7, "name": "reports"},
    ListenError: {},
    StrayCancellationError: {},
}

DEFAULTS: dict[type[Exception], dict[str, Any]] = {
    TimeoutError: {"timeout": None, "deadline": math.inf, "name": None},
    LimitError: {"retry_after": None, "name": None},
    RateLimitError: {"retry_after": 0.0, "name": None},
    LimitClosedError: {"retry_after": math.inf, "name": None},
    LimitTimeoutError: {
        "retry_after": None,
        "timeout": None,
        "deadline": math.inf,
        "name": None,
    },
    ConcurrencyLimitError: {"retry_after": None, "name": None},
    EventOverflowError: {"retry_after": None, "name": None},
    BreakerOpenError: {"retry_after": 0.0, "name": None},
    CacheClosedError: {"name": None},
    StoreError: {"server": None, "refused": False},
    LeaseLostError: {"token": 0, "name": None},
}

every = pytest.mark.parametrize("kind", list(PARENTS), ids=lambda kind: kind.__name__)


def make(kind: type[Exception]) -> Exception:
    """Return an error with two notes, and no attribute at its default."""
    error = kind("what happened, and why", **ATTRIBUTES[kind])
    error.add_note("first note")
    error.add_note("second note")
    return error


def assert_twin(twin: BaseException, error: BaseException) -> None:
    """Check that one error is a full copy of another."""
    assert twin is not error
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert twin.__notes__ == error.__notes__ == ["first note", "second note"]


def echo(error: Exception) -> Exception:
    """Return the error that another process has received."""
    return error


def fail(error: Exception) -> None:
    """Raise the error in another process."""
    raise error


def test_every_error_is_listed() -> None:
    """`__all__` names every error of the module, and the tests below leave none out."""
    defined = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert set(exceptions.__all__) == defined == {kind.__name__ for kind in PARENTS}
    assert exceptions.__all__ == sorted(exceptions.__all__)


@every
def test_parents(kind: type[Exception]) -> None:
    """Each error refines those of the tree and of the language that it is to refine."""
    assert kind.__bases__ == PARENTS[kind]
    assert issubclass(kind, MTAIOError)


def test_builtin_clauses_catch() -> None:
    """Code that catches the builtins catches ours."""
    assert issubclass(TimeoutError, OSError)
    for kind in (TimeoutError, LimitTimeoutError):
        with pytest.raises(builtins.TimeoutError):
            raise make(kind)


def test_one_clause_catches_every_refusal() -> None:
    """``except LimitError`` is enough, and so is AnyIO's own name for what would have to wait."""
    refusals = [kind for kind in PARENTS if issubclass(kind, LimitError)]
    assert len(refusals) == 7
    for kind in refusals:
        with pytest.raises(WouldBlock) as caught:
            raise make(kind)
        assert {"name", "retry_after"} <= vars(caught.value).keys()


@every
def test_message_and_attributes(kind: type[Exception]) -> None:
    """An error says its message, and carries what it was given."""
    error = make(kind)
    assert str(error) == "what happened, and why"
    assert {name: getattr(error, name) for name in ATTRIBUTES[kind]} == ATTRIBUTES[kind]


@pytest.mark.parametrize("kind", list(DEFAULTS), ids=lambda kind: kind.__name__)
def test_defaults(kind: type[Exception]) -> None:
    """What is not given has a default, the message included."""
    error = kind()
    assert str(error)
    assert vars(error) == DEFAULTS[kind]


@every
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_all(kind: type[Exception], protocol: int) -> None:
    """Attributes and notes survive pickling, under every protocol."""
    error = make(kind)
    assert_twin(pickle.loads(pickle.dumps(error, protocol)), error)  # noqa: S301 - our own bytes


@every
def test_copying_keeps_all(kind: type[Exception]) -> None:
    """Attributes and notes survive copying, deep or not."""
    error = make(kind)
    assert_twin(copy.copy(error), error)
    assert_twin(copy.deepcopy(error), error)


async def test_errors_cross_the_process_boundary() -> None:
    """An error given to a worker process, returned by it or raised in it, is the same error."""
    for kind in PARENTS:
        error = make(kind)
        assert_twin(await to_process.run_sync(echo, error), error)
        with pytest.raises(kind) as caught:
            await to_process.run_sync(fail, error)
        assert_twin(caught.value, error)


def test_errors_of_a_group_pickle() -> None:
    """A group of errors keeps what its members carry."""
    group = ExceptionGroup("several", [make(kind) for kind in PARENTS])
    twin = pickle.loads(pickle.dumps(group))  # noqa: S301 - our own bytes
    for one, other in zip(twin.exceptions, group.exceptions, strict=True):
        assert_twin(one, other)
