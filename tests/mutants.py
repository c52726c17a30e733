"""
Which random changes to the code no test notices: ``python -m tests.mutants cache --count 20``.

Each mutant is one small change to one statement of a room (a comparison turned round, a number off
by one, a statement left out), made in a copy of the repository, where the room's tests are run
until one fails. The seed decides which, so a sample can be drawn again. What survives is printed
as a line of the source: it is equivalent, or a test is missing, which only a reader can tell.
"""

from __future__ import annotations

import argparse
import ast
import random
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]

SHARED = ["tests/test_contracts.py", "tests/test_threads.py", "tests/test_clocks.py"]
"""Tests of all rooms, which are run after the room's own."""

TIMES_OUT = 300
"""Seconds after which a mutant that hangs counts as killed."""

_TURNED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


def changes(node: ast.AST) -> Iterator[str]:
    """Change a node in place, in one way after another; each is undone before the next."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _TURNED:
            node.ops = [_TURNED[type(op)]()]  # type: ignore[list-item]
            yield "comparison"
            node.ops = [op]
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _TURNED:
            node.op = _TURNED[type(op)]()  # type: ignore[assignment]
            yield "operator"
            node.op = op
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
            yield "condition"
            node.test = test
        case ast.Constant(value=bool(value)):
            node.value = not value
            yield "constant"
            node.value = value
        case ast.Constant(value=int(value) | float(value)):
            node.value = value + 1
            yield "constant"
            node.value = value
        case _:
            return


def mutants(path: Path) -> Iterator[tuple[int, str, ast.Module]]:
    """Yield each mutant of a module: its line, what was changed, and the tree, changed for now."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {  # what type checkers and readers alone see
        id(inner)
        for node in ast.walk(tree)
        for outer in silent_parts(node)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if id(node) in silent:
            continue
        for kind in changes(node):
            yield getattr(node, "lineno", 0), kind, tree
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if not isinstance(body, list) or isinstance(node, ast.Module | ast.ClassDef):
                continue
            for number, statement in enumerate(body):
                call = isinstance(statement, ast.Expr) and not isinstance(
                    statement.value, ast.Constant
                )
                if call or isinstance(statement, ast.AugAssign | ast.Raise | ast.Return):
                    body[number] = ast.copy_location(ast.Pass(), statement)
                    yield statement.lineno, "left out", tree
                    body[number] = statement


def silent_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what of a node is a type, a message, or code for type checkers alone."""
    for name in ("annotation", "returns"):
        if (found := getattr(node, name, None)) is not None:
            yield found
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        yield node
    if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
        yield node


def survives(copy: Path, room: str) -> bool:
    """Return whether the tests of a room pass in the copy."""
    paths = [path for path in (f"tests/{room.strip('_')}", *SHARED) if (copy / path).exists()]
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-m", "not heavy"]
    try:
        done = subprocess.run(  # noqa: S603 - of this repository
            [*command, *paths], cwd=copy, capture_output=True, timeout=TIMES_OUT, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def sample(room: Path, *, count: int, seed: int) -> Iterator[tuple[Path, int, str, str]]:
    """Yield some mutants of a room: the module, the line, what was changed, the whole source."""
    found = [
        (path, number)
        for path in sorted(room.rglob("*.py"))
        for number, _ in enumerate(mutants(path))
    ]
    drawn = random.Random(f"{seed} {room.name}").sample(found, min(count, len(found)))  # noqa: S311 - no secret
    for path, number in drawn:
        line, kind, tree = next(islice(mutants(path), number, None))
        yield path, line, kind, ast.unparse(tree)


def main() -> None:
    """Try a sample for each room; print what survives, and how many were killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument("rooms", nargs="+", help="folders of mtaio")
    parser.add_argument("--count", type=int, default=20, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)  # noqa: S603, S607
        for room in chosen.rooms:
            if not survives(copy, room):
                parser.error(f"the tests of {room} fail without a change")
            tried = killed = 0
            for path, line, kind, source in sample(
                copy / "mtaio" / room, count=chosen.count, seed=chosen.seed
            ):
                original = path.read_text(encoding="utf-8")
                path.write_text(source, encoding="utf-8")
                tried += 1
                if survives(copy, room):
                    text = original.splitlines()[line - 1].strip()
                    print(f"{path.relative_to(copy)}:{line}: {kind}: {text}", flush=True)  # noqa: T201
                else:
                    killed += 1
                path.write_text(original, encoding="utf-8")
            print(f"{room}: {killed} of {tried} killed", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
