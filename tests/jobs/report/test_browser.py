"""The page in a real browser, where one is installed: drawn without an error, nothing wider than the window, no request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Window, find_chromium, look

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no chromium on the PATH: apt-get install chromium")


@pytest.mark.slow
def test_the_page_is_drawn_without_errors_at_three_widths_in_both_colours(written: Path, report: dict[str, Any]) -> None:
    windows = [Window(390), Window(820, dark=True), Window(1360)]
    for window, seen in zip(windows, look(written, windows), strict=True):
        assert seen.errors == [], window
        assert seen.requests == [], window
        assert seen.width <= seen.window == window.width
        assert seen.charts == seen.places >= 15
        assert seen.clipped == [] or window.width < 1360, "no table is cut off on a laptop's screen"
        assert json.loads(seen.data) == report
        assert "alert('owned')" in seen.text, "a hostile title is read, not run"
