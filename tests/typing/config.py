"""What type checkers make of settings: checked by mypy and pyright, and not run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_type

from mtaio.config import Settings, ShutdownBudget
from mtaio.logging import AsyncFileHandler, configure
from mtaio.types import LogSettings, SettingSource

settings = Settings(max_workers=8, cache_ttl=60, log_file=Path("shop.log"))


def reading() -> None:
    """Settings have types, and so has what is read, changed and described."""
    assert_type(settings.max_workers, int)
    assert_type(settings.cache_ttl, float)
    assert_type(settings.log_file, str | os.PathLike[str] | None)
    assert_type(settings.health_token, str | None)
    assert_type(settings.shutdown, ShutdownBudget)
    assert_type(settings.describe()[0].source, SettingSource)
    assert_type(Settings.from_env(), Settings)
    assert_type(Settings.from_env(os.environ, max_workers=8, log_file=None), Settings)
    assert_type(settings.with_(log_level="DEBUG"), Settings)


def mistakes() -> None:
    """A name that is no setting, or a value of a wrong type, is found without running it."""
    Settings(max_worker=8)  # type: ignore[call-arg] # a misspelt name
    Settings.from_env(max_worker=8)  # type: ignore[call-arg] # a misspelt name
    Settings.from_env(max_workers="8")  # type: ignore[arg-type] # text
    settings.with_(log_format="xml")  # type: ignore[arg-type] # no format
    settings.max_workers = 9  # type: ignore[misc] # settings are immutable
    AsyncFileHandler("app.log", overflow="drop")  # type: ignore[arg-type] # no such policy
    AsyncFileHandler("app.log", "r")  # type: ignore[arg-type] # a log is written


def logging_takes_them(them: LogSettings = settings) -> None:
    """Settings are what `configure` asks for."""
    configure(them)
