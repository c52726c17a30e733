"""The scripts that complete the command in a shell, read by that shell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mtaio.app._cli import main

if TYPE_CHECKING:
    from pathlib import Path

assert sys.platform != "win32"

BASH = shutil.which("bash")

# Stands for what the terminal does at a press of the Tab key: the words go to the function that the
# script has named for "mtaio", and it answers in COMPREPLY.
PRESS_TAB = """
. ./script
read -r _ _ function _ <<< "$(complete -p mtaio)"
while IFS= read -r line; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  COMPREPLY=()
  "$function"
  echo "${COMPREPLY[*]}"
done
"""


def write_script(folder: Path, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Write what the command prints for a shell to a file."""
    assert main(["completion", shell]) == 0
    (folder / "script").write_text(capsys.readouterr().out)


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bash completes commands, options, the choices of an option, and paths."""
    write_script(folder, "bash", capsys)
    (folder / "some_file").touch()
    expected = {
        "mtaio dem": "demo",
        "mtaio demo --back": "--backend",
        "mtaio demo --backend u": "uvloop",
        "mtaio demo some": "some_file",
        "mtaio run shop:app --backend t": "trio",
        "mtaio completion ": "bash zsh fish",
    }
    done = subprocess.run(  # noqa: S603 - the bash that is here, with words written here
        [str(BASH), "--norc", "-c", PRESS_TAB],
        input="".join(f"{line}\n" for line in expected),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert dict(zip(expected, done.stdout.splitlines(), strict=True)) == expected


def test_zsh_finds_the_function(capsys: pytest.CaptureFixture[str]) -> None:
    """The script for zsh defines the function that the help names its file after."""
    assert main(["completion", "zsh"]) == 0
    assert "\n_cyclopts_mtaio() {\n" in capsys.readouterr().out
    assert main(["completion", "--help"]) == 0
    assert " _cyclopts_mtaio " in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_is_one_for_its_shell(
    folder: Path, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    """Each shell that is here accepts the script that is made for it."""
    write_script(folder, shell, capsys)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(  # noqa: S603 - a shell by its name, with words written here
        [shell, "-n", "script"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """For another shell the choices are named."""
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err
