"""
Settings of a service, read from environment variables in one place.

Promise: `Settings` is a plain immutable value, created from arguments or from variables. The
    environment is read when `Settings.from_env` is called and not at import. All mistakes are
    reported together, one line for each, and no secret appears in an error, a ``repr`` or a
    description.
Cost: it imports no dependency, not even anyio, and reads no file except one that holds a secret.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import (
    Any,
    Final,
    Literal,
    NamedTuple,
    Self,
    TypeAlias,
    TypedDict,
    Unpack,
    final,
)

from mtaio._internal import checks, environment
from mtaio._internal.addresses import Address
from mtaio._internal.levels import level_number
from mtaio._internal.proxies import Proxies

__all__ = [
    "Setting",
    "SettingProblem",
    "Settings",
    "SettingsError",
    "ShutdownBudget",
]

SettingSource: TypeAlias = Literal["default", "environment", "file", "override"]
"""Where a value comes from: a default, a variable, the file that a variable names, or an
argument."""

_MASK: Final = "***"
_LONGEST_SECRET: Final = 65536
"""Bytes of a file with a secret: a wrong path is more likely than a longer one."""

_DAY: Final = 86400
_PERCENT: Final = 100
_LATEST_DRAIN: Final = 0.5
_CANCEL: Final = 0.08
_TEARDOWN: Final = 0.2


class SettingValues(TypedDict, total=False):
    """Keyword arguments of `Settings.from_env` and `Settings.with_`: any of the settings."""

    max_workers: int
    cache_ttl: float
    cache_size: int
    log_level: str | int
    log_file: str | os.PathLike[str] | None
    log_max_bytes: int
    log_backup_count: int
    log_when: str | None
    log_format: Literal["text", "json"]
    log_console: bool
    rate_limit: float
    burst_limit: int
    concurrency_limit: int
    default_timeout: float
    cpu_threshold: float
    memory_threshold: float
    certfile: str | os.PathLike[str] | None
    keyfile: str | os.PathLike[str] | None
    trusted_proxies: str | None
    max_in_flight: float
    body_timeout: float
    access_log: bool
    workers: int
    start_timeout: float
    health_bind: str
    health_token: str | None
    drain_delay: float
    shutdown_timeout: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as `Settings.describe` shows it."""

    name: str
    """The attribute of `Settings`, and its argument."""
    variable: str
    """The environment variable. For a secret, there is also one that ends in ``_FILE``."""
    value: object
    """The value; for a secret, ``"***"`` if it is set and None if it is not."""
    default: object
    """The value if it is not set."""
    source: SettingSource
    """Where the value came from."""
    accepts: str
    """The values it accepts, in words."""
    meaning: str
    """What it controls."""
    secret: bool
    """Whether the value is hidden."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SettingProblem:
    """One mistake in the settings."""

    setting: str
    """The name of the setting."""
    message: str
    """What was refused, and why."""
    remedy: str
    """What to do."""


class SettingsError(ValueError, TypeError):
    """
    Settings were refused. One error reports all mistakes.

    Args:
        message: All mistakes, with what to do.
        problems: Each mistake.
    """

    problems: tuple[SettingProblem, ...]

    def __init__(self, message: str, *, problems: Iterable[SettingProblem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownBudget:
    """How ``shutdown_timeout`` is split, in the order in which the time is spent."""

    drain_delay: float
    """Seconds in which the service still answers, for load balancers to notice that it is not
    ready."""
    drain: float
    """Seconds for work in flight to finish; no new work is accepted."""
    cancel: float
    """Seconds for work that is then cancelled to clean up."""
    teardown: float
    """Seconds to close resources and write the logs."""

    @property
    def total(self) -> float:
        """The most seconds from the signal to the exit."""
        return self.drain_delay + self.drain + self.cancel + self.teardown


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    The settings of a service: immutable, checked, and comparable.

    `from_env` reads the environment variables, which are ``MTAIO_`` plus the name of the argument
    in upper case. The constructor reads no variables; settings that are not given have their
    defaults. Durations are in seconds. ``mtaio.logging.configure`` accepts the settings.

    The token is not in the ``repr``, but it is in ``dataclasses.asdict`` and in a pickle. Use
    `describe` to show settings.

    Args:
        max_workers: Maximum number of items that an executor works on at once.
        cache_ttl: Seconds for which a cache keeps a value; 0 to keep none, ``inf`` for no limit.
        cache_size: Maximum number of entries in a cache.
        log_level: The lowest level that is logged, by name or number.
        log_file: The log file; None or ``""`` for none.
        log_max_bytes: The size in bytes at which a new log file begins; 0 for no limit.
        log_backup_count: The number of older log files to keep.
        log_when: When a new log file begins, such as ``"midnight"``, as for
            ``mtaio.logging.AsyncFileHandler``; None or ``""`` for never.
        log_format: ``"text"`` or ``"json"``.
        log_console: Whether the log is also written to standard error.
        rate_limit: Maximum rate at which requests start, per second; 0 to pause, ``inf`` for no
            limit.
        burst_limit: Maximum number of requests that start at once after a quiet time.
        concurrency_limit: Maximum number of requests that run at once.
        default_timeout: Seconds that a request may take; ``inf`` for no limit.
        cpu_threshold: The processor use, in percent, above which there is an alert; 100 for none.
        memory_threshold: The memory use, in percent, above which there is an alert; 100 for none.
        certfile: The TLS certificate of the servers with its chain, in PEM; None or ``""`` for no
            TLS.
        keyfile: The private key in PEM, without a password; None if ``certfile`` contains it.
        trusted_proxies: The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are
            trusted: IP addresses and networks, separated by commas, and ``unix`` for those that
            connect through a Unix socket; None or ``""`` for none.
        max_in_flight: Maximum number of requests that a server handles at once; further clients get
            503; ``inf`` for no limit.
        body_timeout: Seconds that a client may take to send the next piece of a request's body;
            ``inf`` for no limit.
        access_log: Whether each request to a server gets an id and a line in the log.
        workers: The number of worker processes that ``mtaio run`` starts; with 1, there is only its
            own process. Only the variable has an effect, and ``app.run()`` is always one process.
        start_timeout: Seconds that a worker process may take until it is ready; then it is killed
            and started again. ``inf`` for no limit. Only the variable has an effect.
        health_bind: The address for probes and metrics: an IP address or ``localhost``, and a port;
            IPv6 addresses in brackets.
        health_token: What clients must send to see metrics; required if other machines can reach
            ``health_bind``.
        drain_delay: Seconds from reporting "not ready" until no new work is accepted; part of
            ``shutdown_timeout``, and at most half of it.
        shutdown_timeout: Maximum seconds from the signal to the exit. By default, Kubernetes kills
            a process after 30 seconds, and Docker after 10.

    Raises:
        SettingsError: A value is out of range or has the wrong type, or values contradict each
            other. The message has a line for each mistake. It is a ``ValueError`` and a
            ``TypeError``.

    Example:
        ```python
        from mtaio import Settings

        settings = Settings(max_workers=8, log_level="debug")
        assert settings.log_level == "DEBUG"
        assert settings.cache_ttl == 300.0
        assert settings.shutdown.drain == 18.0
        ```
    """

    max_workers: int = 4
    cache_ttl: float = 300.0
    cache_size: int = 1000
    log_level: str | int = "INFO"
    log_file: str | os.PathLike[str] | None = None
    log_max_bytes: int = 10_000_000
    log_backup_count: int = 5
    log_when: str | None = None
    log_format: Literal["text", "json"] = "text"
    log_console: bool = True
    rate_limit: float = 100.0
    burst_limit: int = 200
    concurrency_limit: int = 50
    default_timeout: float = 30.0
    cpu_threshold: float = 80.0
    memory_threshold: float = 90.0
    certfile: str | os.PathLike[str] | None = None
    keyfile: str | os.PathLike[str] | None = None
    trusted_proxies: str | None = None
    max_in_flight: float = math.inf
    body_timeout: float = 60.0
    access_log: bool = True
    workers: int = 1
    start_timeout: float = 120.0
    health_bind: str = "127.0.0.1:9464"
    health_token: str | None = field(default=None, repr=False)
    drain_delay: float = 0.0
    shutdown_timeout: float = 25.0
    _sources: dict[str, SettingSource] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Values are kept in one form: durations as floats, names of levels in upper case.
        given = {name: _Given(name, getattr(self, name)) for name in _SPECS}
        values = _checked(given, [])
        for name, value in values.items():
            object.__setattr__(self, name, value)
        sources: dict[str, SettingSource] = {
            name: "default" if values[name] == _DEFAULTS[name] else "override" for name in _SPECS
        }
        object.__setattr__(self, "_sources", sources)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, **overrides: Unpack[SettingValues]
    ) -> Self:
        """
        Return the settings in the environment variables.

        A variable that is empty or blank counts as not set. ``MTAIO_HEALTH_TOKEN_FILE`` names a
        file that contains the token. Other variables that begin with ``MTAIO_`` cause a
        ``UserWarning``, with the names that were probably meant.

        Not a checkpoint, though it reads the file of a secret.

        Args:
            environ: The environment variables; None for those of the process.
            **overrides: Settings that the program fixes; their variables are not read.

        Raises:
            SettingsError: As for the constructor, also for the values of variables.
            TypeError: An override is not a setting.

        Example:
            ```python
            from mtaio import Settings

            settings = Settings.from_env({"MTAIO_MAX_WORKERS": "8"}, log_console=False)
            assert settings.max_workers == 8
            ```
        """
        if environ is None:
            environ = os.environ
        _refuse_unknown_names(overrides)
        unknown = environment.unknown(environ, list(_known_variables()))
        if unknown:
            warnings.warn(_notice(unknown), stacklevel=2)
        problems: list[SettingProblem] = []
        given: dict[str, _Given] = {}
        decided: Mapping[str, object] = overrides
        for name, spec in _SPECS.items():
            try:
                if name in decided:
                    given[name] = _Given(name, decided[name])
                else:
                    given[name] = spec.read(name, environ)
            except (TypeError, ValueError) as error:
                problems.append(_problem(name, error))
        settings = cls(**_checked(given, problems))
        sources = {name: each.source for name, each in given.items()}
        object.__setattr__(settings, "_sources", sources)
        return settings

    def with_(self, **changes: Unpack[SettingValues]) -> Self:
        """
        Return a copy of these settings with some of them changed.

        Args:
            **changes: The new values.

        Raises:
            SettingsError: As for the constructor.
            TypeError: A name is not a setting.
        """
        _refuse_unknown_names(changes)
        settings = replace(self, **changes)
        changed: dict[str, SettingSource] = dict.fromkeys(changes, "override")
        object.__setattr__(settings, "_sources", {**self._sources, **changed})
        return settings

    def describe(self) -> tuple[Setting, ...]:
        """
        Return all settings, with their variables, values, defaults, sources and meanings.

        Secrets are masked. For settings not created by `from_env`, the source is ``"override"`` if
        the value is not the default.
        """
        return tuple(
            Setting(
                name=name,
                variable=_variable(name),
                value=_shown(spec, getattr(self, name)),
                default=_DEFAULTS[name],
                source=self._sources[name],
                accepts=spec.accepts,
                meaning=spec.meaning,
                secret=spec.secret,
            )
            for name, spec in _SPECS.items()
        )

    @property
    def shutdown(self) -> ShutdownBudget:
        """
        How ``shutdown_timeout`` is split.

        ``drain_delay`` comes first. Of the rest, 72 % is for work in flight, 8 % for the clean-up
        of cancelled work, and 20 % for resources and logs.
        """
        rest = self.shutdown_timeout - self.drain_delay
        cancel = rest * _CANCEL
        teardown = rest * _TEARDOWN
        return ShutdownBudget(
            drain_delay=self.drain_delay,
            drain=rest - cancel - teardown,
            cancel=cancel,
            teardown=teardown,
        )


# ---- what each setting is ------------------------------------------------------------------------


class _Given(NamedTuple):
    """A value, with the name of the argument or the variable that it came from."""

    label: str
    value: object
    source: SettingSource = "override"

    def way_out(self, spec: _Spec, default: object) -> str:
        if not self.label.isupper():
            return f"Pass {spec.accepts}."
        usual = "yes" if default is True else default
        return f"Set it to {spec.accepts}, or unset it, which means {usual}."


class _Spec(NamedTuple):
    """How a setting is read, checked and described."""

    parse: Callable[..., object]
    """Makes a value of (variable, text, way_out=)."""
    check: Callable[[str, object, str], object]
    """Returns what it accepts of (name, value, way out), in its one form."""
    accepts: str
    meaning: str
    secret: bool = False

    def read(self, name: str, environ: Mapping[str, str]) -> _Given:
        """Return what the environment says, or the default."""
        variable = _variable(name)
        default = _Given(variable, _DEFAULTS[name], "default")
        text = environment.text(environ, variable)
        path = environment.text(environ, f"{variable}_FILE") if self.secret else None
        if path is not None:
            if text is not None:
                reason = f"{variable} and {variable}_FILE are both set"
                raise checks.refusal(ValueError, reason, "Unset one of them.")
            return _Given(f"{variable}_FILE", _secret_in(f"{variable}_FILE", path), "file")
        if text is None:
            return default
        value = self.parse(variable, text, way_out=default.way_out(self, default.value))
        return _Given(variable, value, "environment")


def _text(variable: str, value: str, *, way_out: str) -> str:  # noqa: ARG001 - as the parsers of environment
    return value


def _count(least: int) -> Callable[[str, object, str], int]:
    def check(name: str, value: object, way_out: str) -> int:
        return checks.count(name, value, least=least, way_out=way_out)

    return check


def _at_least_0(name: str, value: object, way_out: str) -> float:
    return float(checks.at_least(name, value, 0, way_out=way_out))


def _above_0(most: float) -> Callable[[str, object, str], float]:
    def check(name: str, value: object, way_out: str) -> float:
        accepted = checks.more_than_0(name, value, way_out=way_out)
        if accepted > most:
            reason = f"{name}={value!r} is more than {most!r}"
            raise checks.refusal(ValueError, reason, way_out)
        return float(accepted)

    return check


def _level(name: str, value: object, _way_out: str) -> str | int:
    number = level_number(name, value)
    if not isinstance(value, str):
        return number
    known = logging.getLevelName(number)
    return known if known in logging.getLevelNamesMapping() else number


def _file(name: str, value: object, _way_out: str) -> object:
    if value is None or value == "":
        return None
    checks.path(name, value)
    return value


def _when(name: str, value: object, _way_out: str) -> str | None:
    return None if value is None or value == "" else checks.when(name, value)


def _format(name: str, value: object, _way_out: str) -> str:
    return checks.one_of(name, value, ("text", "json"))


def _flag(name: str, value: object, _way_out: str) -> bool:
    return checks.flag(name, value)


def _proxies(name: str, value: object, _way_out: str) -> object:
    Proxies.parse(name, value)
    return None if value == "" else value


def _most(name: str, value: object, way_out: str) -> float:
    return checks.most(name, value, way_out=way_out)


def _bind(name: str, value: object, _way_out: str) -> object:
    Address.parse(name, value)
    return value


def _token(name: str, value: object, _way_out: str) -> str | None:
    return None if value is None else checks.token(name, value)


_FLAG: Final = "1 or 0, yes or no, true or false, on or off"
_WHOLE: Final = environment.whole_number
_NUMBER: Final = environment.number

_SPECS: Final[dict[str, _Spec]] = {
    "max_workers": _Spec(
        _WHOLE,
        _count(1),
        "a whole number, 1 or more",
        "How many items an executor works on at once.",
    ),
    "cache_ttl": _Spec(
        _NUMBER,
        _at_least_0,
        "a number of seconds, 0 or more, or inf",
        "Seconds for which a cache keeps a value; 0 for not at all, inf for ever.",
    ),
    "cache_size": _Spec(
        _WHOLE, _count(1), "a whole number, 1 or more", "How many entries a cache holds."
    ),
    "log_level": _Spec(
        _text,
        _level,
        "the name of a level, or its number",
        "The lowest level that is logged.",
    ),
    "log_file": _Spec(_text, _file, "a path", "The file that the log is written to."),
    "log_max_bytes": _Spec(
        _WHOLE,
        _count(0),
        "a whole number, 0 or more",
        "The size at which a new log file is started; 0 for never.",
    ),
    "log_backup_count": _Spec(
        _WHOLE, _count(0), "a whole number, 0 or more", "How many older log files are kept."
    ),
    "log_when": _Spec(
        _text,
        _when,
        "midnight, D, H, M, S, or W0 (Monday) to W6",
        "When a new log file is started, beside log_max_bytes.",
    ),
    "log_format": _Spec(_text, _format, "text or json", "How a line of the log is written."),
    "log_console": _Spec(
        environment.flag, _flag, _FLAG, "Whether the log is also written to standard error."
    ),
    "rate_limit": _Spec(
        _NUMBER,
        _at_least_0,
        "a number, 0 or more, or inf",
        "How many requests a second may start; 0 pauses, inf for no limit.",
    ),
    "burst_limit": _Spec(
        _WHOLE,
        _count(1),
        "a whole number, 1 or more",
        "How many requests may start at once after a quiet time.",
    ),
    "concurrency_limit": _Spec(
        _WHOLE, _count(1), "a whole number, 1 or more", "How many requests may run at once."
    ),
    "default_timeout": _Spec(
        _NUMBER,
        _above_0(math.inf),
        "a number of seconds, more than 0, or inf",
        "Seconds that a request may take; inf for no limit.",
    ),
    "cpu_threshold": _Spec(
        _NUMBER,
        _above_0(_PERCENT),
        "a percentage, more than 0, up to 100",
        "The processor use above which there is an alert; 100 for none.",
    ),
    "memory_threshold": _Spec(
        _NUMBER,
        _above_0(_PERCENT),
        "a percentage, more than 0, up to 100",
        "The memory use above which there is an alert; 100 for none.",
    ),
    "certfile": _Spec(
        _text, _file, "a path", "The certificate of the servers, in PEM; unset for no TLS."
    ),
    "keyfile": _Spec(_text, _file, "a path", "Its private key, unless certfile has it too."),
    "trusted_proxies": _Spec(
        _text,
        _proxies,
        "IP addresses, networks, unix, separated by commas",
        "The proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    ),
    "max_in_flight": _Spec(
        _NUMBER,
        _most,
        "a whole number, 1 or more, or inf",
        "How many requests a server answers at once; others get 503. inf for no limit.",
    ),
    "body_timeout": _Spec(
        _NUMBER,
        _above_0(math.inf),
        "a number of seconds, more than 0, or inf",
        "How long a client may take for the next piece of a body. inf for no limit.",
    ),
    "access_log": _Spec(
        environment.flag,
        _flag,
        _FLAG,
        "Whether each request to a server has an id, and a line in the log.",
    ),
    "workers": _Spec(
        _WHOLE,
        _count(1),
        "a whole number, 1 or more",
        "How many processes mtaio run starts; 1 for its own alone.",
    ),
    "start_timeout": _Spec(
        _NUMBER,
        _above_0(math.inf),
        "a number of seconds, more than 0, or inf",
        "How long a worker of mtaio run may take until it is ready. inf for no limit.",
    ),
    "health_bind": _Spec(
        _text,
        _bind,
        "an IP address or localhost, and a port",
        "Where probes and metrics are answered.",
    ),
    "health_token": _Spec(
        _text,
        _token,
        "a long random string",
        "What clients must send to see metrics.",
        secret=True,
    ),
    "drain_delay": _Spec(
        _NUMBER,
        _at_least_0,
        "a number of seconds, 0 or more, up to half of shutdown_timeout",
        'Seconds between saying "not ready" and accepting nothing more.',
    ),
    "shutdown_timeout": _Spec(
        _NUMBER,
        _above_0(_DAY),
        "a number of seconds, more than 0, up to a day",
        "Seconds from the signal to the exit, at most, all in all.",
    ),
}

_DEFAULTS: Final[dict[str, Any]] = {
    each.name: each.default for each in fields(Settings) if each.init
}


def _variable(name: str) -> str:
    return f"{environment.PREFIX}{name.upper()}"


def _known_variables() -> Iterator[str]:
    for name, spec in _SPECS.items():
        yield _variable(name)
        if spec.secret:
            yield f"{_variable(name)}_FILE"
    yield environment.WORKER


# ---- checking ------------------------------------------------------------------------------------


def _checked(given: Mapping[str, _Given], problems: list[SettingProblem]) -> dict[str, Any]:
    """Return the values in their standard form, or raise one error for all mistakes."""
    values: dict[str, Any] = {}
    for name, each in given.items():
        spec = _SPECS[name]
        try:
            values[name] = spec.check(each.label, each.value, each.way_out(spec, _DEFAULTS[name]))
        except (TypeError, ValueError) as error:
            problems.append(_problem(name, error))
    problems.extend(_contradictions(values, given))
    if problems:
        raise _refusal(problems)
    return values


def _contradictions(
    values: Mapping[str, Any], given: Mapping[str, _Given]
) -> Iterator[SettingProblem]:
    """Yield what is wrong with values that contradict each other, at the setting to change."""
    if {"health_bind", "health_token"} <= values.keys():
        bind = values["health_bind"]
        if values["health_token"] is None and not Address.parse("health_bind", bind).is_local:
            yield SettingProblem(
                setting="health_bind",
                message=(
                    f"{given['health_bind'].label}={bind!r} can be reached from other machines, "
                    f"and there is no token"
                ),
                remedy=(
                    f"Set {_variable('health_token')}_FILE or pass health_token=: clients then "
                    f"have to send it for metrics and the status page. Or bind to 127.0.0.1."
                ),
            )
    if values.get("keyfile") is not None and values.get("certfile", "") is None:
        yield SettingProblem(
            setting="keyfile",
            message=f"{given['keyfile'].label}={values['keyfile']!r} has no certificate",
            remedy=f"Set {_variable('certfile')} or pass certfile=, or leave out the key.",
        )
    if {"drain_delay", "shutdown_timeout"} <= values.keys():
        delay, total = values["drain_delay"], values["shutdown_timeout"]
        if delay > total * _LATEST_DRAIN:
            yield SettingProblem(
                setting="drain_delay",
                message=(
                    f"{given['drain_delay'].label}={delay!r} is more than half of "
                    f"{given['shutdown_timeout'].label}={total!r}, which includes it: too little "
                    f"is left for work in flight"
                ),
                remedy="Lower the delay, or raise the timeout.",
            )


def _problem(setting: str, error: Exception) -> SettingProblem:
    message, remedy = checks.parts_of(error)
    return SettingProblem(setting=setting, message=message, remedy=remedy)


def _refusal(problems: list[SettingProblem]) -> SettingsError:
    """Return one error for all mistakes."""
    lines = [f"{each.message}. {each.remedy}" for each in problems]
    if len(lines) == 1:
        return SettingsError(lines[0], problems=problems)
    listed = "\n".join(f"- {line}" for line in lines)
    msg = f"{len(lines)} settings are refused:\n{listed}"
    return SettingsError(msg, problems=problems)


def _secret_in(variable: str, path: str) -> str:
    """Return the content of a file, without whitespace around it."""
    way_out = "Name a text file that holds the secret and nothing else."
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        reason = f"{variable}={path!r} cannot be read: {cause}"
        raise checks.refusal(ValueError, reason, way_out) from None
    if len(content) > _LONGEST_SECRET:
        reason = f"{variable}={path!r} has more than {_LONGEST_SECRET} bytes"
        raise checks.refusal(ValueError, reason, way_out)
    try:
        secret = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        reason = f"{variable}={path!r} is not UTF-8"
        raise checks.refusal(ValueError, reason, way_out) from None
    if not secret:
        reason = f"{variable}={path!r} is empty"
        raise checks.refusal(ValueError, reason, way_out)
    return secret


def _refuse_unknown_names(names: Iterable[str]) -> None:
    """Raise ``TypeError`` if a name is not a setting."""
    for name in names:
        if name not in _SPECS:
            meant = environment.closest(name, list(_SPECS))
            hint = (
                "Settings().describe() lists them." if meant is None else f"Did you mean {meant!r}?"
            )
            reason = f"{name!r} is not a setting"
            raise checks.refusal(TypeError, reason, hint)


def _notice(unknown: Mapping[str, str | None]) -> str:
    """Return the warning about variables that are not settings."""
    parts = [
        name if meant is None else f"{name} (did you mean {meant}?)"
        for name, meant in unknown.items()
    ]
    return f"variables that mtaio does not read: {', '.join(parts)}. Correct or unset them."


def _shown(spec: _Spec, value: object) -> object:
    return _MASK if spec.secret and value is not None else value
