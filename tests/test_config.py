"""Settings: from arguments, from the environment, described, and refused all at once."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import os
import pickle
import re
import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError, asdict, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.cache import TTLCache
from mtaio.config import (
    Setting,
    Settings,
    SettingsError,
    ShutdownBudget,
)
from mtaio.core import TaskExecutor
from mtaio.logging import configure
from mtaio.monitoring import Probes, ResourceMonitor
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager
from mtaio.types import SettingValues
from tests.guide import BLOCKS
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES: Final = [each.name for each in Settings().describe()]
SECRET: Final = "hunter2-hunter2"  # noqa: S105 - for show


def setting(settings: Settings, name: str) -> Setting:
    """Return what is said of one setting."""
    (found,) = (each for each in settings.describe() if each.name == name)
    return found


# ---- values --------------------------------------------------------------------------------------


def test_defaults() -> None:
    """Without arguments every setting has its default, and the environment is not read."""
    assert asdict(Settings()) | {"_sources": None} == {
        "max_workers": 4,
        "cache_ttl": 300.0,
        "cache_size": 1000,
        "log_level": "INFO",
        "log_file": None,
        "log_max_bytes": 10_000_000,
        "log_backup_count": 5,
        "log_when": None,
        "log_format": "text",
        "log_console": True,
        "rate_limit": 100.0,
        "burst_limit": 200,
        "concurrency_limit": 50,
        "default_timeout": 30.0,
        "cpu_threshold": 80.0,
        "memory_threshold": 90.0,
        "certfile": None,
        "keyfile": None,
        "trusted_proxies": None,
        "max_in_flight": math.inf,
        "body_timeout": 60.0,
        "access_log": True,
        "workers": 1,
        "start_timeout": 120.0,
        "health_bind": "127.0.0.1:9464",
        "health_token": None,
        "drain_delay": 0.0,
        "shutdown_timeout": 25.0,
        "_sources": None,
    }


def test_environment_is_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the process count at the call of `from_env`, and for it alone."""
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "8")
    assert Settings().max_workers == 4
    assert Settings.from_env().max_workers == 8
    monkeypatch.setenv("MTAIO_MAX_WORKERS", "9")
    assert Settings.from_env().max_workers == 9


def test_every_setting_from_the_environment() -> None:
    """Each setting has a variable, which `from_env` reads."""
    environ = {
        "MTAIO_MAX_WORKERS": "8",
        "MTAIO_CACHE_TTL": "0.5",
        "MTAIO_CACHE_SIZE": "1000000",
        "MTAIO_LOG_LEVEL": "debug",
        "MTAIO_LOG_FILE": "/var/log/shop.log",
        "MTAIO_LOG_MAX_BYTES": "0",
        "MTAIO_LOG_BACKUP_COUNT": "14",
        "MTAIO_LOG_WHEN": "W0",
        "MTAIO_LOG_FORMAT": "JSON",
        "MTAIO_LOG_CONSOLE": "off",
        "MTAIO_RATE_LIMIT": "inf",
        "MTAIO_BURST_LIMIT": "10",
        "MTAIO_CONCURRENCY_LIMIT": "5",
        "MTAIO_DEFAULT_TIMEOUT": "1e-3",
        "MTAIO_CPU_THRESHOLD": "100",
        "MTAIO_MEMORY_THRESHOLD": "0.5",
        "MTAIO_CERTFILE": "/etc/shop/cert.pem",
        "MTAIO_KEYFILE": "/etc/shop/key.pem",
        "MTAIO_TRUSTED_PROXIES": "10.0.0.0/8,unix",
        "MTAIO_MAX_IN_FLIGHT": "500",
        "MTAIO_BODY_TIMEOUT": "inf",
        "MTAIO_ACCESS_LOG": "no",
        "MTAIO_WORKERS": "4",
        "MTAIO_START_TIMEOUT": "inf",
        "MTAIO_HEALTH_BIND": "0.0.0.0:8000",
        "MTAIO_HEALTH_TOKEN": SECRET,
        "MTAIO_DRAIN_DELAY": "5",
        "MTAIO_SHUTDOWN_TIMEOUT": "10",
    }
    expected = Settings(
        max_workers=8,
        cache_ttl=0.5,
        cache_size=1_000_000,
        log_level="DEBUG",
        log_file="/var/log/shop.log",
        log_max_bytes=0,
        log_backup_count=14,
        log_when="w0",
        log_format="json",
        log_console=False,
        rate_limit=math.inf,
        burst_limit=10,
        concurrency_limit=5,
        default_timeout=0.001,
        cpu_threshold=100,
        memory_threshold=0.5,
        certfile="/etc/shop/cert.pem",
        keyfile="/etc/shop/key.pem",
        trusted_proxies="10.0.0.0/8,unix",
        max_in_flight=500,
        body_timeout=math.inf,
        access_log=False,
        workers=4,
        start_timeout=math.inf,
        health_bind="0.0.0.0:8000",
        health_token=SECRET,
        drain_delay=5,
        shutdown_timeout=10,
    )
    settings = Settings.from_env(environ)
    assert settings == expected
    assert {each.variable for each in settings.describe()} == environ.keys()
    assert {each.source for each in settings.describe()} == {"environment"}
    assert all(each.value != each.default for each in settings.describe())


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_empty_means_unset(blank: str) -> None:
    """A variable that is empty or blank counts as not set."""
    variables = [each.variable for each in Settings().describe()]
    environ = dict.fromkeys([*variables, "MTAIO_HEALTH_TOKEN_FILE", "MTAIO_NONSENSE"], blank)
    settings = Settings.from_env(environ)
    assert settings == Settings()
    assert {each.source for each in settings.describe()} == {"default"}


def test_blanks_around_a_value() -> None:
    """Blanks around a value are no part of it."""
    environ = {"MTAIO_MAX_WORKERS": " 8\n", "MTAIO_LOG_FILE": " a b.log "}
    settings = Settings.from_env(environ)
    assert (settings.max_workers, settings.log_file) == (8, "a b.log")


def test_names_are_exact() -> None:
    """A variable in other letters is not read."""
    with pytest.warns(UserWarning, match=r"mtaio_max_workers \(did you mean MTAIO_MAX_WORKERS\?\)"):
        assert Settings.from_env({"mtaio_max_workers": "8"}) == Settings()


@pytest.mark.parametrize("text", ["1", "yes", "true", "on", "YES", "True"])
def test_yes(text: str) -> None:
    """What is yes, in any case."""
    assert Settings.from_env({"MTAIO_LOG_CONSOLE": text}).log_console


@pytest.mark.parametrize("text", ["0", "no", "false", "off", "NO", "False"])
def test_no(text: str) -> None:
    """What is no, in any case."""
    assert not Settings.from_env({"MTAIO_LOG_CONSOLE": text}).log_console


@pytest.mark.parametrize("text", ["y", "n", "t", "2", "enabled", "-", "None", "1.0"])
def test_nothing_else_is_yes_or_no(text: str) -> None:
    """Any other word is refused: a guess could switch the log off."""
    with pytest.raises(ValueError, match=r"^MTAIO_LOG_CONSOLE=.* is neither yes nor no\. Set it"):
        Settings.from_env({"MTAIO_LOG_CONSOLE": text})


@pytest.mark.parametrize(
    ("given_level", "level"),
    [
        ("info", "INFO"),
        ("warn", "WARNING"),
        ("20", "INFO"),
        ("25", 25),
        (20, 20),
        (logging.DEBUG, 10),
    ],
)
def test_levels(given_level: str | int, level: str | int) -> None:
    """A level has the name that logging gives it; a number stays one."""
    assert Settings(log_level=given_level).log_level == level


def test_level_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the program has given to a level is known."""
    monkeypatch.setattr(logging, "_nameToLevel", {**logging.getLevelNamesMapping(), "Trace": 5})
    monkeypatch.setattr(logging, "_levelToName", {5: "Trace"})
    assert Settings.from_env({"MTAIO_LOG_LEVEL": "TRACE"}).log_level == "Trace"


def test_log_file() -> None:
    """A path may be an object; an empty one is none."""
    assert Settings(log_file=Path("shop.log")).log_file == Path("shop.log")
    assert Settings(log_file="").log_file is None
    environ = {"MTAIO_LOG_FILE": "app.log"}
    assert Settings.from_env(environ, log_file=None).log_file is None


def test_durations_are_floats() -> None:
    """Durations, rates and thresholds are floats, whatever they were given as."""
    settings = Settings(cache_ttl=1, rate_limit=2, default_timeout=3, cpu_threshold=4)
    values = (settings.cache_ttl, settings.rate_limit, settings.default_timeout)
    assert list(map(type, (*values, settings.cpu_threshold))) == [float] * 4
    assert settings == Settings(
        cache_ttl=1.0, rate_limit=2.0, default_timeout=3.0, cpu_threshold=4.0
    )


def test_immutable_and_hashable() -> None:
    """Settings cannot be changed, and equal ones have equal hashes."""
    settings = Settings(max_workers=8)
    with pytest.raises(FrozenInstanceError):
        settings.max_workers = 9  # type: ignore[misc] # what is tried
    assert not hasattr(settings, "__dict__")
    assert {settings: 1}[Settings.from_env({"MTAIO_MAX_WORKERS": "8"})] == 1


def unpickled(settings: Settings) -> Settings:
    """Return what a worker process gets."""
    copied = pickle.loads(pickle.dumps(settings))  # noqa: S301 - ours
    assert isinstance(copied, Settings)
    return copied


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, unpickled])
def test_copies(copied: Callable[[Settings], Settings]) -> None:
    """A copy, or what a worker process gets, has the same values from the same sources."""
    settings = Settings.from_env({"MTAIO_HEALTH_TOKEN": SECRET}, max_workers=8)
    again = copied(settings)
    assert again == settings
    assert again.describe() == settings.describe()


def test_values_that_may_be_overridden() -> None:
    """What `from_env` and `with_` take by keyword are the settings, with their types."""
    hints = get_type_hints(Settings, vars(sys.modules["mtaio.config"]) | {"os": os})
    del hints["_sources"]
    assert get_type_hints(SettingValues, {"os": os}) == hints
    assert list(hints) == NAMES


# ---- overrides and changes -----------------------------------------------------------------------


def test_overrides_win() -> None:
    """A variable of a setting that the program decides is not even read."""
    environ = {"MTAIO_MAX_WORKERS": "nonsense", "MTAIO_HEALTH_TOKEN_FILE": "/nowhere"}
    settings = Settings.from_env(environ, max_workers=2, health_token=None)
    assert (settings.max_workers, settings.health_token) == (2, None)
    assert setting(settings, "max_workers").source == "override"


def test_with() -> None:
    """Changed settings are others; those they were made from stay as they are."""
    settings = Settings.from_env({"MTAIO_MAX_WORKERS": "8", "MTAIO_CACHE_SIZE": "9"})
    changed = settings.with_(max_workers=2)
    assert (settings.max_workers, changed.max_workers, changed.cache_size) == (8, 2, 9)
    sources = {each.name: each.source for each in changed.describe() if each.source != "default"}
    assert sources == {"max_workers": "override", "cache_size": "environment"}


def test_changes_are_checked() -> None:
    """A change that makes no sense with the rest is refused."""
    settings = Settings(shutdown_timeout=10)
    with pytest.raises(ValueError, match=r"^drain_delay=6\.0 is more than half of shutdown_time"):
        settings.with_(drain_delay=6)


@pytest.mark.parametrize("change", [Settings.from_env, Settings().with_])
def test_what_is_no_setting(change: Any) -> None:
    """A keyword that is no setting is refused, with the one that was probably meant."""
    with pytest.raises(TypeError, match=r"^'max_worker' is not a setting\. Did you mean 'max_wor"):
        change(max_worker=8)
    with pytest.raises(TypeError, match=r"^'_sources' is not a setting\. Settings\(\)\.desc"):
        change(_sources={})


# ---- refusals ------------------------------------------------------------------------------------

REFUSED: Final = [
    ("MAX_WORKERS", "0", "=0 is less than 1. Set it to a whole number, 1 or more, or unset it f"),
    ("MAX_WORKERS", "4.0", "='4.0' is not a whole number. Set it to a whole number, 1 or more, or"),
    ("MAX_WORKERS", "9" * 5000, "='9999"),
    ("CACHE_TTL", "-1", "=-1.0 is less than 0. Set it to a number of seconds, 0 or more, or"),
    ("CACHE_TTL", "5m", "='5m' is not a number. Set it to a number of seconds, 0 or more"),
    ("CACHE_TTL", "nan", "=nan is not a number. Set it to a number of seconds, 0 or more"),
    ("CACHE_SIZE", "1_000", "='1_000' has an underscore or a digit other"),
    ("CACHE_SIZE", "\uff11\uff10", "='\uff11\uff10' has an underscore or a digit other"),
    ("RATE_LIMIT", "1_0.5", "='1_0.5' has an underscore or a digit other"),
    ("RATE_LIMIT", "\u0663", "='\u0663' has an underscore or a digit other"),
    ("LOG_LEVEL", "\u0663\u0660", "='\u0663\u0660' is not a level. Pass one of CRITICAL,"),
    ("CACHE_SIZE", "many", "='many' is not a whole number. Set it to a whole number, 1 or"),
    ("LOG_LEVEL", "LOUD", "='LOUD' is not a level. Pass one of CRITICAL,"),
    ("LOG_FILE", "a\0b", r"='a\x00b' contains a NUL character, which a path cannot have."),
    ("LOG_FILE", "\ud800\0", r"='\ud800\x00' "),
    ("LOG_MAX_BYTES", "10MB", "='10MB' is not a whole number. Set it to a whole number, 0 or more"),
    ("LOG_BACKUP_COUNT", "-1", "=-1 is less than 0. Set it to a whole number, 0 or more, or unset"),
    ("LOG_WHEN", "noon", "='noon' is unknown. Pass 'midnight', 'D', 'H', 'M', 'S', or 'W0'"),
    ("LOG_FORMAT", "xml", "='xml' is unknown. Pass 'text' or 'json'."),
    ("LOG_CONSOLE", "maybe", "='maybe' is neither yes nor no. Set it to 1 or 0, yes or no,"),
    ("RATE_LIMIT", "-0.1", "=-0.1 is less than 0. Set it to a number, 0 or more"),
    ("BURST_LIMIT", "0", "=0 is less than 1."),
    ("CONCURRENCY_LIMIT", "0", "=0 is less than 1."),
    ("DEFAULT_TIMEOUT", "0", "=0.0 is not more than 0. Set it to a number of seconds, more than 0"),
    ("CPU_THRESHOLD", "101", "=101.0 is more than 100. Set it to a percentage, more"),
    ("CPU_THRESHOLD", "80%", "='80%' is not a number. Set it to a percentage, more than 0"),
    ("MEMORY_THRESHOLD", "0", "=0.0 is not more than 0. Set it to a percentage"),
    ("KEYFILE", "key.pem", "='key.pem' has no certificate. Set MTAIO_CERTFILE or pass certfile="),
    ("TRUSTED_PROXIES", "*", "='*' is not a list of addresses and networks: '*' does not appear"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "='10.0.0.1/8' is not a list of addresses and networks:"),
    ("MAX_IN_FLIGHT", "0", "=0.0 is less than 1. Set it to a whole number, 1 or more, or inf"),
    ("BODY_TIMEOUT", "0", "=0.0 is not more than 0. Set it to a number of seconds, more than 0"),
    ("WORKERS", "0", "=0 is less than 1. Set it to a whole number, 1 or more"),
    ("MAX_IN_FLIGHT", "1.5", "=1.5 is not a whole number. Set it to a whole number, 1 or more"),
    ("HEALTH_BIND", "9464", "='9464' does not end in a port from 0 to 65535. Pass a host"),
    ("HEALTH_BIND", ":9464", "=':9464' has no host."),
    ("HEALTH_BIND", "shop:9464", "='shop:9464' does not begin with an IP address or localhost."),
    ("HEALTH_BIND", "::1:9464", "='::1:9464' has misplaced brackets"),
    ("HEALTH_BIND", "127.0.0.1:" + "9" * 5000, "='127.0.0.1:999"),
    ("HEALTH_BIND", "0.0.0.0:9464", "='0.0.0.0:9464' can be reached from other machines, and"),
    ("HEALTH_BIND", "[::]:9464", "='[::]:9464' can be reached from other machines, and"),
    ("HEALTH_TOKEN", "a\nb", " begins or ends with whitespace, or contains unprintable"),
    ("HEALTH_TOKEN", "\udcff\udcff", " begins or ends with whitespace, or contains unprintable"),
    ("HEALTH_TOKEN_FILE", "/nowhere/token", "='/nowhere/token' cannot be read: No such file or"),
    ("HEALTH_TOKEN_FILE", "a\0b", r"='a\x00b' cannot be read: embedded null"),
    ("DRAIN_DELAY", "-1", "=-1.0 is less than 0."),
    ("DRAIN_DELAY", "12.6", "=12.6 is more than half of MTAIO_SHUTDOWN_TIMEOUT=25.0, which inclu"),
    ("DRAIN_DELAY", "inf", "=inf is more than half of MTAIO_SHUTDOWN_TIMEOUT=25.0, which includes"),
    ("SHUTDOWN_TIMEOUT", "0", "=0.0 is not more than 0. Set it to a number of seconds, more"),
    ("SHUTDOWN_TIMEOUT", "inf", "=inf is more than 86400. Set it to a number of seconds, more"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    REFUSED,
    ids=[f"{variable} {text[:16]!r}" for variable, text, _ in REFUSED],
)
def test_refused_variables(variable: str, text: str, message: str) -> None:
    """A value that makes no sense is refused with its variable, the reason and the way out."""
    with pytest.raises(ValueError, match=f"^{re.escape(f'MTAIO_{variable}{message}')}") as caught:
        Settings.from_env({f"MTAIO_{variable}": text})
    assert len(str(caught.value).splitlines()) == 1


REFUSED_ANYHOW: Final = sorted(
    {f"MTAIO_{name}" for name, _, _ in REFUSED}
    - {"MTAIO_KEYFILE", "MTAIO_LOG_FILE", "MTAIO_HEALTH_TOKEN", "MTAIO_HEALTH_TOKEN_FILE"}
)
"""The variables whose text is read, and shown where it is refused."""

WRONG: Final = [
    ("max_workers", "8", r"^max_workers='8' is a str, not an int\. Pass a whole number, 1 or more"),
    ("max_workers", True, r"^max_workers=True is a bool, not an int\. Pass"),
    ("max_workers", None, r"^max_workers=None is a NoneType, not an int\. Pass"),
    ("cache_ttl", "300", r"^cache_ttl='300' is a str, not a number\. Pass a number of seconds"),
    ("log_level", 1.5, r"^log_level=1\.5 is a float, not an int\."),
    ("log_file", 3, r"^log_file=3 is an int, not a path\. Pass a str or an os\.PathLike\."),
    ("log_console", "yes", r"^log_console='yes' is a str, not a bool\. Pass True or False\."),
    ("trusted_proxies", 10, r"^trusted_proxies=10 is an int, not a str\. Pass IP addresses"),
    ("max_in_flight", None, r"^max_in_flight=None is a NoneType, not a number\. Pass a whole"),
    ("health_bind", 9464, r"^health_bind=9464 is an int, not a str\. Pass a host and a port"),
    ("health_token", b"hunter2-hunter2", r"^health_token is a bytes, not a str\. Pass a long"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_wrong_types(name: str, value: Any, message: str) -> None:
    """An argument of a wrong type is a TypeError, in the constructor as in `from_env`."""
    arguments: Any = {name: value}
    for make in (Settings, Settings().with_, partial(Settings.from_env, {})):
        with pytest.raises(TypeError, match=message) as caught:
            make(**arguments)
        assert SECRET not in str(caught.value)


def test_all_at_once() -> None:
    """One error has a line for everything that is wrong, wherever it came from."""
    environ = {
        "MTAIO_MAX_WORKERS": "zero",
        "MTAIO_CACHE_TTL": "-1",
        "MTAIO_LOG_LEVEL": "LO\nUD",
        "MTAIO_HEALTH_BIND": "0.0.0.0:1",
        "MTAIO_DRAIN_DELAY": "20",
    }
    wrong: Any = "json"
    with pytest.raises(ValueError, match=r"^6 settings are refused:\n") as caught:
        Settings.from_env(environ, log_console=wrong)
    assert [line.split(" ", 2)[1] for line in str(caught.value).splitlines()[1:]] == [
        "MTAIO_MAX_WORKERS='zero'",
        "MTAIO_CACHE_TTL=-1.0",
        r"MTAIO_LOG_LEVEL='LO\nUD'",
        "log_console='json'",
        "MTAIO_HEALTH_BIND='0.0.0.0:1'",
        "MTAIO_DRAIN_DELAY=20.0",
    ]


def test_all_at_once_from_arguments() -> None:
    """The constructor too says all that is wrong; if it is types alone, by a TypeError."""
    wrong: Any = "1"
    with pytest.raises(TypeError, match=r"^2 settings are refused:\n- max_workers='1' is a str"):
        Settings(max_workers=wrong, cache_size=wrong)
    with pytest.raises(ValueError, match=r"^2 settings are refused:\n- max_workers='1' is a str"):
        Settings(max_workers=wrong, cache_size=0)


def test_problems_as_data() -> None:
    """Each mistake is there as data too, whatever the refused value has in it."""
    environ = {
        "MTAIO_MAX_WORKERS": "many. Set\n- MTAIO_CACHE_TTL='0' is fine",
        "MTAIO_LOG_FORMAT": "json. pretty",
        "MTAIO_HEALTH_BIND": "my. host:80",
        "MTAIO_HEALTH_TOKEN_FILE": "/no. where",
        "MTAIO_DRAIN_DELAY": "20",
    }
    with pytest.raises(SettingsError, match=r"^5 settings are refused:\n") as caught:
        Settings.from_env(environ)
    problems = caught.value.problems
    contradiction = (
        "MTAIO_DRAIN_DELAY=20.0 is more than half of MTAIO_SHUTDOWN_TIMEOUT=25.0, which includes "
        "it: too little is left for work in flight"
    )
    assert {each.setting: (each.message, each.remedy[:15]) for each in problems} == {
        "max_workers": (
            f"MTAIO_MAX_WORKERS={environ['MTAIO_MAX_WORKERS']!r} is not a whole number",
            "Set it to a who",
        ),
        "health_token": (
            "MTAIO_HEALTH_TOKEN_FILE='/no. where' cannot be read: No such file or directory",
            "Name a text fil",
        ),
        "log_format": ("MTAIO_LOG_FORMAT='json. pretty' is unknown", "Pass 'text' or "),
        "health_bind": (
            "MTAIO_HEALTH_BIND='my. host:80' does not begin with an IP address or localhost",
            "Pass a host and",
        ),
        "drain_delay": (
            contradiction,
            "Lower the delay",
        ),
    }
    lines = str(caught.value).splitlines()[1:]
    assert lines == [f"- {each.message}. {each.remedy}" for each in problems]


@given(st.sampled_from(REFUSED_ANYHOW), st.text())
def test_problem_is_whole(variable: str, junk: str) -> None:
    """Of no value is a part lost, or taken for what to do."""
    text = f"!{junk}!"  # which no setting accepts, and no blanks are taken off
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({variable: text})
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"{variable}={text!r} ")
    assert problem.remedy.startswith(("Set it to ", "Pass "))
    assert str(caught.value) == f"{problem.message}. {problem.remedy}"


def test_error_in_another_process() -> None:
    """The error survives pickling with its problems."""
    with pytest.raises(SettingsError) as caught:
        Settings(max_workers=0)
    twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made here
    assert (str(twin), twin.problems) == (str(caught.value), caught.value.problems)


def test_error_chain_is_clean() -> None:
    """What went wrong inside is no part of the traceback."""
    with pytest.raises(ValueError, match=r"^MTAIO_MAX_WORKERS") as caught:
        Settings.from_env({"MTAIO_MAX_WORKERS": "x"})
    assert caught.value.__context__ is None


def test_variables_are_text() -> None:
    """A mapping made by hand with a number in it is refused, and what it is is not shown."""
    environ: Any = {"MTAIO_MAX_WORKERS": 8, "MTAIO_HEALTH_TOKEN": SECRET.encode()}
    with pytest.raises(
        TypeError, match=r"^2 settings are refused:\n- MTAIO_MAX_WORKERS is an int, n"
    ):
        Settings.from_env(environ)


# ---- unknown variables ---------------------------------------------------------------------------


def test_unknown_variables() -> None:
    """Variables that look like settings are warned about once, with what was probably meant."""
    environ = {
        "MTAIO_MAX_WORKER": "8",
        "MTAIO_XYZZY": "1",
        "MTAIO_HEALTH_TOKEN_FIL": "x",
        "MTAIO_EMPTY": "",
        "OTHER": "1",
        "MTAIO": "1",
    }
    with pytest.warns(UserWarning, match=r"^variables that mtaio does not read: ") as caught:
        Settings.from_env(environ)
    assert [str(each.message) for each in caught] == [
        (
            "variables that mtaio does not read: MTAIO_HEALTH_TOKEN_FIL (did you mean "
            "MTAIO_HEALTH_TOKEN_FILE?), MTAIO_MAX_WORKER (did you mean MTAIO_MAX_WORKERS?), "
            "MTAIO_XYZZY. Correct or unset them."
        )
    ]
    assert caught[0].filename == __file__  # where the settings were asked for


def test_known_variables_are_no_surprise() -> None:
    """What is read causes no warning."""
    described = Settings.from_env({}).describe()
    environ = {each.variable: str(each.value) for each in described if each.value is not None}
    assert len(environ) > 12
    Settings.from_env(environ)


def test_values_are_not_in_the_warning() -> None:
    """A misspelt secret is not shown."""
    with pytest.warns(UserWarning, match=r"MTAIO_HEALTH_TOKE \(did") as caught:
        Settings.from_env({"MTAIO_HEALTH_TOKE": SECRET})
    assert SECRET not in str(caught[0].message)


# ---- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [SECRET, f"{SECRET}\n", f"  {SECRET}\r\n\n", f"\ufeff{SECRET}\n"],
    ids=["bare", "line", "blanks", "byte order mark"],
)
def test_secret_from_a_file(tmp_path: Path, content: str) -> None:
    """A file has the secret in it; the line break that editors leave is no part of it."""
    path = tmp_path / "token"
    path.write_bytes(content.encode())
    settings = Settings.from_env({"MTAIO_HEALTH_TOKEN_FILE": str(path)})
    assert settings.health_token == SECRET
    assert setting(settings, "health_token").source == "file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfehunter2", "is not UTF-8"),
        (b"hunter2" * 10_000, "has more than 65536 bytes"),
    ],
    ids=["empty", "blank", "binary", "long"],
)
def test_files_that_hold_no_secret(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file with something else in it is refused, and what is in it is not shown."""
    path = tmp_path / "token"
    path.write_bytes(content)
    message = f"MTAIO_HEALTH_TOKEN_FILE={str(path)!r} {reason}. Name a text file"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        Settings.from_env({"MTAIO_HEALTH_TOKEN_FILE": str(path)})
    assert "hunter2" not in str(caught.value)


def test_file_with_two_lines(tmp_path: Path) -> None:
    """What cannot be sent as a token is refused under the name of the file's variable."""
    path = tmp_path / "token"
    path.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^MTAIO_HEALTH_TOKEN_FILE begins or ends with"):
        Settings.from_env({"MTAIO_HEALTH_TOKEN_FILE": str(path)})


def test_secret_given_twice(tmp_path: Path) -> None:
    """Of a variable and a file neither wins."""
    environ = {"MTAIO_HEALTH_TOKEN": SECRET, "MTAIO_HEALTH_TOKEN_FILE": str(tmp_path)}
    with pytest.raises(ValueError, match=r"^MTAIO_HEALTH_TOKEN and MTAIO_HEALTH_TOKEN_FILE are"):
        Settings.from_env(environ)


def test_folder_is_no_secret(tmp_path: Path) -> None:
    """A folder in a file's place is refused."""
    with pytest.raises(ValueError, match=r"^MTAIO_HEALTH_TOKEN_FILE=.* cannot be read: "):
        Settings.from_env({"MTAIO_HEALTH_TOKEN_FILE": str(tmp_path)})


def test_only_secrets_have_files() -> None:
    """``…_FILE`` of anything else is no setting."""
    with pytest.warns(UserWarning, match="MTAIO_LOG_LEVEL_FILE"):
        Settings.from_env({"MTAIO_LOG_LEVEL_FILE": "/nowhere"})


def test_secrets_are_not_shown() -> None:
    """The token is in no representation, description or error."""
    settings = Settings.from_env({"MTAIO_HEALTH_TOKEN": SECRET})
    assert settings.health_token == SECRET
    assert SECRET not in f"{settings!r} {settings} {settings.describe()}"
    assert setting(settings, "health_token").value == "***"
    assert setting(Settings(), "health_token").value is None
    for changes in ({"max_workers": 0}, {"health_token": f"{SECRET}\n"}):
        wrong: Any = changes
        with pytest.raises(ValueError, match=r"^(max_workers|health_token)") as caught:
            settings.with_(**wrong)
        assert SECRET not in str(caught.value)


def test_public_bind_with_a_token() -> None:
    """An address that other machines can reach needs a token, wherever that comes from."""
    environ = {"MTAIO_HEALTH_BIND": "[::]:9464"}
    assert Settings.from_env(environ, health_token=SECRET).health_bind == "[::]:9464"
    for local in ("127.0.0.1:0", "localhost:1", "[::1]:65535", "127.8.8.8:80"):
        assert Settings(health_bind=local).health_bind == local


def test_wrong_token_is_not_a_missing_one() -> None:
    """A public address with a bad token has one error, which is about the token."""
    with pytest.raises(ValueError, match=r"^health_token is empty"):
        Settings(health_bind="0.0.0.0:1", health_token=" ")  # noqa: S106 - none


BINDS: Final = [
    "0.0.0.0:80",
    "[::1]:80",
    "::1:80",
    "[1.2.3.4]:80",
    "x:80",
    "1.2.3.4:99999",
    "80",
    "",
]


@pytest.mark.parametrize("bind", BINDS)
@pytest.mark.parametrize("token", [None, SECRET])
def test_probes_take_what_settings_take(bind: str, token: str | None) -> None:
    """Probes refuse the same addresses, in the same words."""

    def refusal(make: Callable[[], object]) -> str:
        try:
            make()
        except ValueError as error:
            return str(error).replace("health_bind=", "bind=").partition(". ")[0]
        return ""

    monitor = ResourceMonitor()
    theirs = refusal(lambda: Probes(monitor, bind=bind, token=token))
    assert refusal(lambda: Settings(health_bind=bind, health_token=token)) == theirs


# ---- shutting down -------------------------------------------------------------------------------


def test_shutdown_budget() -> None:
    """Of 25 seconds 18 are for work in flight, 2 for what is cancelled, 5 for the rest."""
    assert Settings().shutdown == ShutdownBudget(drain_delay=0, drain=18, cancel=2, teardown=5)
    assert Settings().shutdown.total == 25


def test_drain_delay_is_part_of_the_total() -> None:
    """The delay comes first, and what it leaves is split as before."""
    budget = Settings(drain_delay=5).shutdown
    assert budget.drain_delay == 5
    assert budget.drain == pytest.approx(14.4)
    assert (budget.cancel, budget.teardown) == (1.6, 4)
    assert Settings(drain_delay=12.5).shutdown.drain == 9


@given(
    total=st.floats(0, 86400, exclude_min=True),
    part=st.floats(0, 0.5),
)
def test_budget_keeps_to_the_total(total: float, part: float) -> None:
    """However it is split, the parts are all there and make up the total."""
    budget = Settings(shutdown_timeout=total, drain_delay=total * part).shutdown
    assert budget.total == pytest.approx(total)
    assert min(budget.drain, budget.cancel, budget.teardown) >= 0


# ---- describing ----------------------------------------------------------------------------------


def test_describe() -> None:
    """Every setting is described, with where its value came from."""
    settings = Settings.from_env({"MTAIO_CACHE_TTL": "60"}, max_workers=8)
    assert [each.name for each in settings.describe()] == [
        each.name for each in fields(Settings) if each.init
    ]
    assert setting(settings, "cache_ttl") == Setting(
        name="cache_ttl",
        variable="MTAIO_CACHE_TTL",
        value=60.0,
        default=300.0,
        source="environment",
        accepts="a number of seconds, 0 or more, or inf",
        meaning="Seconds that a cache keeps a value; 0 keeps nothing, inf keeps it for ever.",
        secret=False,
    )
    assert setting(settings, "max_workers").source == "override"
    assert setting(settings, "log_level").source == "default"
    assert [each.name for each in settings.describe() if each.secret] == ["health_token"]


def test_sources_of_arguments() -> None:
    """Of settings made directly, what is not the default was decided by the program."""
    settings = Settings(max_workers=8, cache_size=1000)
    assert [each.name for each in settings.describe() if each.source == "override"] == [
        "max_workers"
    ]


def test_docstring_says_what_describe_says() -> None:
    """The arguments in the docstring are the settings, in their order."""
    text = inspect.getdoc(Settings) or ""
    arguments = text.partition("Args:\n")[2].partition("Raises:")[0]
    assert re.findall(r"^ {4}(\w+): ", arguments, re.MULTILINE) == NAMES


# ---- round trips ---------------------------------------------------------------------------------

SECONDS: Final = st.floats(0, 1e300)
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "max_workers": st.integers(1, 10**30),
    "cache_ttl": st.one_of(SECONDS, st.just(math.inf)),
    "cache_size": st.integers(1, 10**30),
    "log_level": st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
    "log_file": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
        lambda text: text == text.strip()
    ),
    "log_max_bytes": st.integers(0, 10**30),
    "log_backup_count": st.integers(0, 10**30),
    "log_when": st.sampled_from(["midnight", "d", "h", "w6"]),
    "log_format": st.sampled_from(["text", "json"]),
    "log_console": st.booleans(),
    "rate_limit": st.one_of(SECONDS, st.just(math.inf)),
    "burst_limit": st.integers(1, 10**30),
    "concurrency_limit": st.integers(1, 10**30),
    "default_timeout": st.floats(1e-300, math.inf),
    "cpu_threshold": st.floats(0, 100, exclude_min=True),
    "memory_threshold": st.floats(0, 100, exclude_min=True),
    "certfile": st.just("/etc/shop/cert.pem"),
    "trusted_proxies": st.ip_addresses().map(str),
    "max_in_flight": st.one_of(st.integers(1, 2**53), st.just(math.inf)),
    "body_timeout": st.floats(0, math.inf, exclude_min=True),
    "access_log": st.booleans(),
    "workers": st.integers(1, 10**30),
    "start_timeout": st.floats(0, math.inf, exclude_min=True),
    "health_bind": st.integers(0, 65535).map("127.0.0.1:{}".format),
    "health_token": st.text(min_size=1).filter(
        lambda text: text == text.strip() and text.isprintable()
    ),
    "drain_delay": st.floats(0, 10),
    "shutdown_timeout": st.floats(20, 86400),
}


@given(values=st.fixed_dictionaries({}, optional=VALUES))
def test_round_trip(values: dict[str, Any]) -> None:
    """Settings written as variables are read as they were."""
    environ = {f"MTAIO_{name.upper()}": str(value) for name, value in values.items()}
    settings = Settings.from_env(environ)
    assert settings == Settings(**values)
    assert {each.name for each in settings.describe() if each.source == "environment"} == set(
        values
    )
    for name, value in values.items():
        assert getattr(settings, name) == value


@given(environ=st.dictionaries(st.sampled_from(NAMES), st.text(), min_size=1))
def test_hostile_values(environ: dict[str, str]) -> None:
    """Whatever variables say, the answer is settings, or one error with a line for each."""
    variables = {f"MTAIO_{name.upper()}": text for name, text in environ.items()}
    try:
        settings = Settings.from_env(variables)
    except ValueError as error:
        lines = str(error).split("\n")
        assert all("MTAIO_" in line for line in lines[len(lines) > 1 :])
        assert len(lines) <= len(variables) + 2
    else:
        assert settings.describe()


# ---- with the rest of mtaio ----------------------------------------------------------------------


def test_primitives_take_every_setting() -> None:
    """What settings accept, the primitives accept too: at both ends, and by default."""
    least = Settings(
        max_workers=1,
        cache_ttl=0,
        cache_size=1,
        rate_limit=0,
        burst_limit=1,
        concurrency_limit=1,
        default_timeout=5e-324,
        cpu_threshold=5e-324,
        memory_threshold=100,
    )
    most = Settings(cache_ttl=math.inf, rate_limit=math.inf, default_timeout=math.inf)
    for settings in (Settings(), least, most):
        TaskExecutor(settings.max_workers)
        TTLCache[str](settings.cache_ttl, max_size=settings.cache_size)
        RateLimiter(settings.rate_limit, burst=settings.burst_limit)
        ConcurrencyLimiter(settings.concurrency_limit)
        TimeoutManager(settings.default_timeout)
        monitor = ResourceMonitor()
        monitor.set_threshold("cpu_usage", settings.cpu_threshold)
        monitor.set_threshold("memory_usage", settings.memory_threshold)
        Probes(monitor, bind=settings.health_bind, token=settings.health_token)


LOG_VARIABLES: Final = {
    "MTAIO_LOG_LEVEL": "warning",
    "MTAIO_LOG_MAX_BYTES": "1000",
    "MTAIO_LOG_BACKUP_COUNT": "3",
    "MTAIO_LOG_FORMAT": "JSON",
    "MTAIO_LOG_CONSOLE": "No",
}


def test_logging_takes_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`configure` sets up the same from settings as from the variables they were read from."""
    logger = logging.getLogger("tests.config")
    found: list[tuple[int, str, type]] = []
    for variable, text in {**LOG_VARIABLES, "MTAIO_LOG_FILE": str(tmp_path / "a.log")}.items():
        monkeypatch.setenv(variable, text)
    for settings in (None, Settings.from_env()):
        with configure(settings, logger=logger) as context:
            (handler,) = context.handlers
            found.append((logger.level, vars(handler)["baseFilename"], type(handler.formatter)))
    assert found[0] == found[1]
    assert found[0][:2] == (logging.WARNING, str(tmp_path / "a.log"))


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MTAIO_LOG_LEVEL", "LOUD"),
        ("MTAIO_LOG_MAX_BYTES", "-1"),
        ("MTAIO_LOG_BACKUP_COUNT", "x"),
        ("MTAIO_LOG_FORMAT", "xml"),
        ("MTAIO_LOG_CONSOLE", "maybe"),
    ],
)
def test_logging_refuses_the_same(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `configure` refuses of the environment, settings refuse, in the same words."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=f"^{variable}=") as theirs:
        configure(logger="tests.config")
    with pytest.raises(ValueError, match=f"^{variable}=") as ours:
        Settings.from_env()
    assert str(ours.value).partition(". ")[0] == str(theirs.value).partition(". ")[0]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {
            "MTAIO_MAX_WORKERS": "8",
            "MTAIO_CACHE_TTL": "60",
            "MTAIO_CACHE_SIZE": "10",
            "MTAIO_LOG_LEVEL": "DEBUG",
        },
    ],
    ids=["defaults", "set"],
)
def test_guide_reads_the_same(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A hand-written deployment's own reading of variables gives what settings give."""
    for name in ("MAX_WORKERS", "CACHE_TTL", "CACHE_SIZE", "LOG_LEVEL"):
        monkeypatch.delenv(f"MTAIO_{name}", raising=False)
    for variable, text in environ.items():
        monkeypatch.setenv(variable, text)
    found: dict[str, Any] = {}
    exec(compile(BLOCKS["configuration"], "guide", "exec"), found)  # noqa: S102 - the guide's
    settings = Settings.from_env(environ)
    assert found["config"] == {name: getattr(settings, name) for name in found["config"]}
    assert found["executor"].max_workers == settings.max_workers
    assert (found["cache"].default_ttl, found["cache"].max_size) == (
        settings.cache_ttl,
        settings.cache_size,
    )


def test_guides_variables_are_settings() -> None:
    """Every variable of that deployment is a setting, with its default."""
    found = re.findall(r'getenv\("(\w+)", "(.*?)"\)', "".join(BLOCKS.values()))
    assert len(found) == 8
    assert Settings.from_env(dict(found)) == Settings()


def test_import_is_light() -> None:
    """Importing settings, and reading them, imports neither anyio nor psutil."""
    program = (
        "import sys; before = set(sys.modules); "
        "from mtaio.config import Settings; Settings.from_env({}).describe(); "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run(  # noqa: S603 - this very Python, with a program written here
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "mtaio" in done.stdout.split()
    heavy = {"anyio", "asyncio", "difflib", "psutil", "socket", "ssl", "subprocess", "trio"}
    assert heavy.isdisjoint(done.stdout.split())


# ---- the pages -----------------------------------------------------------------------------------


def table(language: str) -> list[list[str]]:
    """Return the cells of the guide's table of settings."""
    page = (ROOT / "docs" / language / "guides" / "settings.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in page.splitlines() if row.startswith("| `MTAIO_")]
    return [[cell.strip() for cell in row] for row in rows]


def shown(value: object) -> str:
    """Return a default as the table shows it."""
    if isinstance(value, bool):
        return "`yes`" if value else "`no`"
    if isinstance(value, int):
        return f"`{value}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return "none" if value is None else f"`{value}`"


def test_table_of_the_guide() -> None:
    """The guide's table has every setting, with its variable, default, values and meaning."""
    assert table("en") == [
        [
            f"`{each.variable}`",
            f"`{each.name}`",
            shown(each.default),
            each.accepts,
            each.meaning.rstrip("."),
        ]
        for each in Settings().describe()
    ]
    english = [[each.replace("none", "なし") for each in row[:3]] for row in table("en")]
    assert [row[:3] for row in table("ja")] == english


def test_no_warning_by_default() -> None:
    """An environment with nothing wrong in it causes no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settings.from_env({"PATH": "/bin", "MTAIO_MAX_WORKERS": "2"})
