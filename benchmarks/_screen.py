"""
The picture in the READMEs: what a terminal shows when ``mtaio demo`` has run.

``python -m benchmarks._screen`` runs it in a terminal of its own, over the folder that it is
started in, and draws what is on the screen at the end. It needs a system with pseudo-terminals.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

PICTURE: Final = Path(__file__).parents[1] / "docs" / "en" / "demo.svg"

COLUMNS: Final = 64
ROWS: Final = 24
COMMAND: Final = ("mtaio", "demo")

WIDE: Final = 8.4
HIGH: Final = 20
EDGE: Final = 20
BAR: Final = 36
"""The height of the window's own bar."""

INK: Final = "#d6dae3"
ANSI: Final = {31: "#f2857d", 32: "#8bd17c", 33: "#e5c07b", 34: "#8c9eff", 36: "#4db6ac"}
FONT: Final = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'

PARTS: Final = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<kind>[A-Za-z])|(?P<char>.)", re.DOTALL)


@dataclass(frozen=True)
class Look:
    colour: str = INK
    bold: bool = False


Cell = tuple[str, Look]


def run() -> str:
    """Return everything that the command writes to its terminal."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        os.environ.update(environment)
        os.execv(sys.executable, [sys.executable, "-m", *COMMAND])  # noqa: S606 - our own command
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    written = bytearray()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        written += part
    _, status = os.waitpid(child, 0)
    if status:
        msg = f"{' '.join(COMMAND)} ended with {os.waitstatus_to_exitcode(status)}"
        raise SystemExit(msg)
    return written.decode()


def screen(written: str) -> list[list[Cell]]:
    """Return the lines that are left on the screen."""
    lines: list[list[Cell]] = [[]]
    row = column = 0
    look = Look()
    for part in PARTS.finditer(written):
        numbers = (
            [int(number) for number in part["numbers"].split(";") if number.isdigit()]
            if part["kind"]
            else []
        )
        match part["kind"], part["char"]:
            case "m", _:
                look = changed(look, numbers)
            case "A", _:
                row = max(0, row - (numbers or [1])[0])
            case "K", _:
                lines[row] = []
            case None, "\r":
                column = 0
            case None, "\n":
                row += 1
                lines += [[] for _ in range(row + 1 - len(lines))]
            case None, str(char):
                line = lines[row]
                line += [(" ", Look())] * (column + 1 - len(line))
                line[column] = (char, look)
                column += 1
    return [line for line in lines if line]


def changed(look: Look, numbers: list[int]) -> Look:
    """Return how characters look after a sequence that says so."""
    match numbers:
        case [] | [0]:
            return Look()
        case [1]:
            return replace(look, bold=True)
        case [38, 2, red, green, blue]:
            return replace(look, colour=f"#{red:02x}{green:02x}{blue:02x}")
        case [number] if number in ANSI:
            return replace(look, colour=ANSI[number])
    msg = f"a way to look that this does not know: {numbers}"
    raise ValueError(msg)


def drawn(lines: list[list[Cell]]) -> str:
    """Return the picture."""
    width = round(COLUMNS * WIDE) + 2 * EDGE
    height = BAR + HIGH * len(lines) + EDGE
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"',
        '  role="img" aria-labelledby="title">',
        '  <title id="title">A terminal in which mtaio demo has run</title>',
        "  <style>",
        f"    text {{ font: 14px {FONT}; white-space: pre }} .b {{ font-weight: 700 }}",
        "  </style>",
        f'  <rect width="{width}" height="{height}" rx="10" fill="#1e2129"/>',
        *(
            f'  <circle cx="{EDGE + 4 + 18 * number}" cy="18" r="5.5" fill="{colour}"/>'
            for number, colour in enumerate(("#f2857d", "#e5c07b", "#8bd17c"))
        ),
    ]
    for number, line in enumerate(lines):
        y = BAR + HIGH * number + 15
        column = 0
        for look, cells in groupby(line, key=lambda cell: cell[1]):
            said = "".join(char for char, _ in cells)
            made += shown(said, look, EDGE + column * WIDE, y)
            column += len(said)
    return "\n".join([*made, "</svg>", ""])


def shown(said: str, look: Look, x: float, y: float) -> list[str]:
    """Return what draws a piece of a line, as wide as its columns whatever the font."""
    if set(said) == {"━"}:
        wide = len(said) * WIDE
        return [
            f'  <rect x="{x:.1f}" y="{y - 6}" width="{wide:.1f}" height="3" fill="{look.colour}"/>'
        ]
    before = len(said) - len(said.lstrip())
    said = said.strip()
    if not said:
        return []
    bold = ' class="b"' if look.bold else ""
    place = f'x="{x + before * WIDE:.1f}" y="{y}" textLength="{len(said) * WIDE:.1f}"'
    return [f'  <text{bold} {place} fill="{look.colour}">{escape(said)}</text>']


if __name__ == "__main__":
    prompt: list[Cell] = [(char, Look("#8b949e")) for char in "$ "]
    prompt += [(char, Look(bold=True)) for char in " ".join(COMMAND)]
    PICTURE.write_text(drawn([prompt, *screen(run())]), encoding="utf-8")
