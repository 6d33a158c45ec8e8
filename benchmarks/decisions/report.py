"""How large report.html is at 100,000 evaluated queries, how long it takes to make, and to load in a browser.

    python -m benchmarks.decisions.report [--queries 100000] [--json]

The run is made up (tests/support/synthetic_run.py), in the format of a real one. Loading is measured where a chromium is
installed: from navigation to the last chart drawn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.shared.machine import describe
from jobs.report.gather import gather
from jobs.report.page import chart_library, render_run
from tests.support.browser import Window, find_chromium, look
from tests.support.synthetic_run import Size, write_run


def measure(queries: int, items: int, steps: int, hits: int) -> dict[str, Any]:
    """One row: seconds and bytes of a run of this size."""
    with tempfile.TemporaryDirectory(prefix="hardmine-report-") as folder:
        store = write_run(Path(folder) / "run", Size(queries=queries, items=items, hits=hits, steps=steps))
        started = time.perf_counter()
        report = gather(store)
        gathered = time.perf_counter()
        chart_library()
        bundled = time.perf_counter()
        text = render_run(report)
        rendered = time.perf_counter()
        page = Path(folder) / "report.html"
        page.write_text(text, encoding="utf-8")
        row = {
            "case": f"{queries:,} queries",
            "gather_s": gathered - started,
            "library_s": bundled - gathered,
            "render_s": rendered - bundled,
            "page_bytes": len(text.encode()),
            "json_bytes": len(json.dumps(report)),
            "library_bytes": len(chart_library()),
        }
        if find_chromium():
            seen = look(page, [Window(1360), Window(390)])
            row |= {"load_desktop_s": seen[0].seconds, "load_phone_width_s": seen[1].seconds, "charts": seen[0].charts}
        return row


def main() -> None:
    """Print a line per size, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=5_000, help="of each training")
    parser.add_argument("--hits", type=int, default=101, help="of each query and model")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = [measure(queries, asked.items, asked.steps, asked.hits) for queries in asked.queries]
    if asked.json:
        print(json.dumps({"machine": describe(), "rows": rows}))
        return
    for row in rows:
        size = f"{row['page_bytes'] / 1e6:.2f} MB of which the library {row['library_bytes'] / 1e6:.2f} MB"
        drawn = (
            f"drawn after {row['load_desktop_s']:.2f} s (1360 px), {row['load_phone_width_s']:.2f} s (390 px)"
            if "charts" in row
            else "no browser to load it in"
        )
        spent = f"gather {row['gather_s']:.1f} s, library {row['library_s']:.1f} s, page {row['render_s']:.1f} s"
        print(f"{row['case']:>16}: {spent}; {size}; {drawn}")


if __name__ == "__main__":
    main()
