"""The Pythons of this machine, for noxfile.py: found by uv, and put on PATH for nox alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nox.virtualenv

SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14", "3.15")
USERS_PATH: Final = os.environ.get("PATH", os.defpath)
THIS: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

FREE: Final = ("3.15t", "3.14t", "3.13t")
"""Those without the GIL, the newest first; .ci/free-threaded builds the last."""


def find() -> list[str]:
    """Return the supported versions that are here, oldest first; each then answers to its name."""
    # A shim of pyenv's may refuse to run. The Pythons behind it are in the folder "versions".
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    folders = [*USERS_PATH.split(os.pathsep), *map(str, pyenv.glob("versions/*/bin"))]
    folders = [each for each in folders if each and Path(each) != pyenv / "shims"]
    found = subprocess.run(  # noqa: S603 - nox's own uv
        [nox.virtualenv.UV, "python", "list", "--only-installed", "--output-format", "json"],
        env={**os.environ, "PATH": os.pathsep.join(folders)},
        capture_output=True,
        check=True,
    )
    pythons = {THIS: Path(sys.executable)}
    for each in json.loads(found.stdout):
        version = "{major}.{minor}".format(**each["version_parts"])
        if (each["implementation"], each["variant"]) == ("cpython", "default"):
            pythons.setdefault(version, Path(each["path"]).absolute())
    here: list[str] = [version for version in SUPPORTED if version in pythons]
    homes = {str(pythons[version].parent): None for version in here if version != THIS}
    # For nox and what it starts: the shell that called it keeps its own "python3".
    os.environ["PATH"] = os.pathsep.join([*homes, USERS_PATH])
    if not here:
        sys.exit(f"mtaio needs CPython {SUPPORTED[0]} or later, and none was found on PATH.")
    return here


def find_free() -> str:
    """Return the path of the newest Python without the GIL on PATH; without one, the last name."""
    names = [f"python{version}" for version in FREE]
    return next(filter(None, (shutil.which(name, path=USERS_PATH) for name in names)), names[-1])
