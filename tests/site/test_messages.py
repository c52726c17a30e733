"""What the site's search knows of messages. The session `docs` runs this."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

SITE = Path(os.environ["MTAIO_SITE"])
PAGE = "guides/troubleshooting/limits/"


def test_messages_are_results_of_their_own() -> None:
    """Each has its words as the title, what to do as the text, and an anchor on its page."""
    index = json.loads((SITE / "search/search_index.json").read_text(encoding="utf-8"))
    found = {entry["location"]: entry for entry in index["docs"]}
    anchors = {
        prefix: re.findall(
            r'<code id="(message-\d+)">', (SITE / prefix / PAGE / "index.html").read_text("utf-8")
        )
        for prefix in ("", "ja/")
    }
    assert anchors[""] == anchors["ja/"]
    for prefix, names in anchors.items():
        assert {f"{prefix}{PAGE}#{name}" for name in names} <= found.keys()
    texts = [e["text"] for e in index["docs"] if e["title"] == "… had no free slot within … s"]
    assert len(texts) == len(anchors)
    assert all("LimitTimeoutError" in text for text in texts)
