"""
Make the pictures of the status page in the docs: ``python -m tests.deployed.screenshots [URL]``.

They show the service at URL; without one, the model in `tests.deployed.service`, whose figures do
not depend on what else this machine does.
Inter is what the page is shown in if it is installed (Debian: fonts-inter), as system fonts vary.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zlib
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Final

from tests.deployed.browser import Browser
from tests.deployed.service import Service

GUIDES: Final = Path(__file__).parents[2] / "docs" / "en" / "guides"
FONTS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <match target="pattern">
    <edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit>
  </match>
  <include>/etc/fonts/fonts.conf</include>
</fontconfig>
"""
WIDTH: Final = 1280
PICTURES: Final = (
    ("monitoring", "", "document.querySelector('.chart path') !== null", 1090),
    ("tasks", "#tasks", "document.querySelector('.row') !== null", 720),
)
"""What each picture is called, what it shows, when that is drawn, and its height."""


def chunks(png: bytes) -> dict[bytes, bytes]:
    """Return the parts of a PNG file by their names, those of one name joined."""
    found: dict[bytes, bytes] = {}
    at = 8
    while at < len(png):
        (size,) = struct.unpack_from(">I", png, at)
        name = png[at + 4 : at + 8]
        found[name] = found.get(name, b"") + png[at + 8 : at + 8 + size]
        at += 12 + size
    return found


def pixels(png: bytes) -> tuple[int, int, list[bytes]]:
    """Return the width, the height and the colours of a PNG of 8 bits with no interlacing."""
    parts = chunks(png)
    width, height, depth, kind = struct.unpack_from(">IIBB", parts[b"IHDR"])
    assert (depth, kind) in {(8, 2), (8, 6)}
    step = 3 if kind == 2 else 4
    raw = zlib.decompress(parts[b"IDAT"])
    size = width * step
    above = bytearray(size)
    colours: list[bytes] = []
    for row in range(height):
        start = row * (size + 1)
        line = bytearray(raw[start + 1 : start + 1 + size])
        unfilter(raw[start], line, above, step)
        colours += [bytes(line[x : x + 3]) for x in range(0, size, step)]
        above = line
    return width, height, colours


def unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undo what a PNG has done to a line, in place."""
    for x in range(len(line)) if kind else ():
        left = line[x - step] if x >= step else 0
        up = above[x]
        corner = above[x - step] if x >= step else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = min((left, up, corner), key=lambda each: abs(left + up - corner - each))
        line[x] = (line[x] + guess) & 255


def distance(one: bytes, other: bytes) -> int:
    """Return how different two colours are."""
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def small(png: bytes) -> bytes:
    """Return a picture with at most 256 colours, which is all that a page like this needs."""
    width, height, colours = pixels(png)
    counts: Counter[bytes] = Counter(colours)
    palette = [colour for colour, _ in counts.most_common(128)]
    index: dict[bytes, int] = {colour: n for n, colour in enumerate(palette)}
    # Of the others, again and again the one that is worst served: an icon keeps its colour.
    nearest: dict[bytes, tuple[int, int]] = {
        colour: min((distance(colour, each), n) for n, each in enumerate(palette))
        for colour in counts
        if colour not in index
    }
    while nearest and len(palette) < 256:
        worst = max(nearest, key=nearest.__getitem__)
        nearest = {
            colour: min(old, (distance(colour, worst), len(palette)))
            for colour, old in nearest.items()
            if colour != worst
        }
        index[worst] = len(palette)
        palette.append(worst)
    index.update({colour: n for colour, (_, n) in nearest.items()})
    flat = bytes(map(index.__getitem__, colours))
    rows = b"".join(b"\0" + flat[y * width : (y + 1) * width] for y in range(height))

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", b"".join(palette)),
            chunk(b"IDAT", zlib.compress(rows, 9)),
            chunk(b"IEND", b""),
        )
    )


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        fonts = Path(folder) / "fonts.conf"
        fonts.write_text(FONTS, encoding="utf-8")
        with (
            Browser(environment={"FONTCONFIG_FILE": str(fonts)}) as browser,
            Service(load=0.55, trouble=True) as service,
        ):
            url = sys.argv[1] if len(sys.argv) > 1 else service.url
            for theme, (name, place, ready, height) in product(("light", "dark"), PICTURES):
                tab = browser.tab()
                tab.look(width=WIDTH, height=height, theme=theme)
                tab.speak("en-GB")
                tab.goto(f"{url}{place}")
                tab.wait(f"cards.size > 3 && {ready}")
                tab.wait("link.tries === 0 && !link.whole && !link.busy")
                path = GUIDES / f"{name}-{theme}.png"
                tab.screenshot(path)
                path.write_bytes(small(path.read_bytes()))
                print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")  # noqa: T201 - a script
                tab.close()


if __name__ == "__main__":
    main()
