"""The guides list the metrics that there are."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, get_type_hints

import pytest

from mtaio.monitoring._samples import ALIASES
from mtaio.statistics import ResourceStats
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = {
    "en": {
        "seconds": "s",
        "percent": "%",
        "bytes": "bytes",
        "ratio": "0 to 1",
        "cores": "processors",
        "": "",
    },
    "ja": {
        "seconds": "秒",
        "percent": "%",
        "bytes": "バイト",
        "ratio": "0〜1",
        "cores": "コア",
        "": "",
    },
}


def metrics(cls: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the unit of each number in a statistics class."""
    hints = get_type_hints(cls)
    for each in fields(cls):
        if is_dataclass(hints[each.name]):
            yield from metrics(hints[each.name], f"{prefix}{each.name}.")
        elif each.metadata["kind"] != "info":
            ends = each.name.rpartition("_")[2]
            unit = each.metadata.get("unit", ends if ends in UNITS["en"] else "")
            yield prefix + each.name, unit


@pytest.mark.parametrize("language", ["en", "ja"])
def test_guide_lists_the_fixed_metrics(language: str) -> None:
    """The table of metrics has each that is always there, with its unit and its short name."""
    page = (ROOT / "docs" / language / "guides" / "monitoring.md").read_text(encoding="utf-8")
    table = page.partition('<a id="measured"></a>\n\n## ')[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.*?) ?\| .+ \| (?:`(\w+)` )?\|$", table, re.MULTILINE)
    short = {name: alias for alias, name in ALIASES.items()}
    assert rows == [
        (name, UNITS[language][unit], short.get(name, "")) for name, unit in metrics(ResourceStats)
    ]
