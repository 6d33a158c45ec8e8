"""pairs.html in a browser, pairs.md, and the settings in docs/logs.md."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from jobs.config.reference import sections, settings_of
from jobs.pairs.output.logging_advice import JAVASCRIPT, PYTHON
from jobs.pairs.settings import PairsSettings
from jobs.pairs.signals import SIGNALS
from tests.jobs.pairs.conftest import START, Made, Make, event, query
from tests.support.browser import Window, find_chromium, look

GUIDE = Path(__file__).parents[4] / "docs" / "logs.md"
EVIL = "</script><script>alert(1)</script> `x` | shoe"


def hostile(pairs: Make) -> Made:
    rows = [query(f"e{number}", EVIL, ["a"], user=f"u{number}", time=START + number) for number in range(5)]
    return pairs({"log.jsonl": [query("q1", "shoe", ["a", "b"]), event("q1", "b", "purchase"), event("q1", "a", "odd"), *rows]})


def test_no_text_of_a_log_becomes_markup(pairs: Make) -> None:
    made = hostile(pairs)
    page = (made.folder / "pairs.html").read_text()
    assert "<script>alert" not in page
    assert html.escape("</script><script>alert(1)</script>") in page
    data = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1]) == made.summary
    assert EVIL.replace("|", "\\|").replace("<", "&lt;") in (made.folder / "pairs.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
def test_the_page_fits_its_window_and_loads_nothing(pairs: Make) -> None:
    made = hostile(pairs)
    for seen in look(made.folder / "pairs.html", [Window(1360), Window(820, dark=True), Window(390)]):
        assert seen.width == seen.window
        assert seen.errors == seen.requests == []
        assert made.summary["readiness"]["answer"].partition(":")[0] in seen.text
        assert "action 'odd' is no signal" in seen.text


def test_the_guide_has_every_setting_and_every_signal() -> None:
    guide = GUIDE.read_text()
    for path, model in sections(PairsSettings, ""):
        if path in ("cluster", "storage"):
            continue
        for setting in settings_of(path, model):
            assert f"| `{setting.key}` | {setting.default} | {setting.meaning}".replace("\n", " ") in guide, setting.key
    for name, signal in SIGNALS.items():
        assert f"| `{name}` | {signal.grade} | {signal.weight} | {signal.rule} |" in guide, name
    assert PYTHON.rstrip() in guide
    assert JAVASCRIPT.rstrip() in guide
