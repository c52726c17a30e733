"""
Run the contests: ``python -m benchmarks [names] [--rounds N] [--loops a,b] [--check]``.

With ``--check`` a missed target makes the exit code 1. Without it the table alone speaks.
``python -m benchmarks docs`` measures what the docs show, and rewrites their tables and plots.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from dataclasses import asdict
from pathlib import Path

import benchmarks
from benchmarks import _docs
from benchmarks._harness import ABSENT, LOOPS, Contest, Row, hold, take

MARKS = {True: "ok", False: "MISSED", None: ""}


DOCS = "docs"


def summed_up(rows: list[Row]) -> int:
    """Print how many targets were reached, and who was left out; return how many were missed."""
    missed = sum(row.ok is False for row in rows)
    held = sum(row.ok is True for row in rows)
    print(f"\n{held} targets reached, {missed} missed")
    if ABSENT:
        print(f"Left out, as not installed: {', '.join(sorted(ABSENT))}")
    return missed


def main() -> int:
    if sys.argv[1:2] == [DOCS]:
        return _docs.main(sys.argv[2:])
    names = sorted(
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of {', '.join(names)}; or all; or {DOCS}"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns each contender takes")
    parser.add_argument("--loops", default=",".join(LOOPS), help="event loops, with commas")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}. There are {', '.join(names)}.")
    loops = options.loops.split(",")
    if unknown := set(loops) - set(LOOPS):
        parser.error(f"unknown loops: {', '.join(sorted(unknown))}. There are {', '.join(LOOPS)}.")
    rows: list[Row] = []
    for name in options.names or names:
        print(f"\n{name}")
        for event in importlib.import_module(f"benchmarks.{name}").EVENTS:
            for loop in loops:
                if loop not in event.loops:
                    continue
                run = hold if isinstance(event, Contest) else take
                for row in run(event, loop, options.rounds):
                    rows.append(row)
                    print(
                        f"  {row.loop:8} {row.title:58} {row.text:28} {MARKS[row.ok]}", flush=True
                    )
    missed = summed_up(rows)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
