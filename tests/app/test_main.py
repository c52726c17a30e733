"""``python -m mtaio`` and the installed command, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import mtaio
from mtaio.__main__ import main


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python."""
    return subprocess.run(  # noqa: S603 - this very Python, with words written here
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_module_is_the_command() -> None:
    """``python -m mtaio`` takes the same arguments, and hands on the exit code."""
    done = python("-m", "mtaio", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mtaio {mtaio.__version__}\n", "")
    assert python("-m", "mtaio", "demo", "--colour").returncode == 2


def test_command_is_installed() -> None:
    """The console script is the same function."""
    (script,) = entry_points(group="console_scripts", name="mtaio")
    assert script.load() is main


def test_missing_extra_is_named() -> None:
    """Without the extra the command says how to install it, with the exit code of a usage error."""
    program = (
        "import sys; sys.modules['cyclopts'] = None; "
        "from mtaio.__main__ import main; sys.exit(main())"
    )
    done = python("-c", program)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "mtaio: the command needs cyclopts. Install it with: pip install 'mtaio[cli]'\n"
    )


@pytest.mark.parametrize("command", ["check", "completion bash"])
def test_reader_that_has_read_enough(command: str) -> None:
    """As of ``mtaio check | head -1``: it ends without a word, as SIGPIPE ends a program."""
    program = (
        "import os, sys; ours, theirs = os.pipe(); os.dup2(theirs, 1); os.close(theirs); "
        "os.close(ours); from mtaio.__main__ import main; sys.exit(main())"
    )
    done = python("-c", program, *command.split())
    assert (done.returncode, done.stderr) == (141, "")


def test_checks_need_no_extra() -> None:
    """``mtaio check`` runs where nothing but mtaio itself is installed, and loads nothing else."""
    program = """if True:
        import sys
        from mtaio.__main__ import main

        sys.modules.update(dict.fromkeys(["cyclopts", "hypercorn", "rich", "trio"]))
        sys.argv = ["mtaio", "check", "--json"]
        sys.exit(main())
    """
    done = python("-c", program)
    assert done.stderr == ""
    assert json.loads(done.stdout)["application"] is None
    assert done.returncode in {0, 1}  # this machine may fail a check


def test_interrupted_while_it_loads() -> None:
    """Ctrl-C in the first moments, while modules are still being loaded, ends it quietly."""
    program = """if True:
        import sys
        from mtaio.__main__ import main

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "mtaio.app._cli":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Interrupting())
        sys.exit(main())
    """
    done = python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mtaio: interrupted\n")


def test_other_import_errors_are_not_hidden() -> None:
    """A module that is missing for another reason is not blamed on the extra."""
    program = (
        "import sys; sys.modules['mtaio.app._cli'] = None; from mtaio.__main__ import main; main()"
    )
    done = python("-c", program)
    assert done.returncode == 1
    assert "ModuleNotFoundError: import of mtaio.app._cli halted" in done.stderr
