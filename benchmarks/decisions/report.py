"""How large report.html is, how long it takes to make, and to load in a browser: `python -m benchmarks.decisions.report`.

The run is generated (tests/support/synthetic_run.py), in the format of a real one. docs/report.md quotes
`--queries 1000 100000`. Loading is measured where a chromium is
installed: from navigation to the last chart drawn.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from benchmarks.shared.command import Row, compared, emit, make_parser
from jobs.report.charts.drawing import chart_library
from jobs.report.gather import gather
from jobs.report.page import render_run
from tests.support.browser import Window, find_chromium, look
from tests.support.synthetic_run import Size, write_run


def measure(queries: int, items: int, steps: int, hits: int) -> Row:
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
        row = compared(f"{queries:,} queries", rendered - started) | {
            "gather_s": gathered - started,
            "library_s": bundled - gathered,
            "render_s": rendered - bundled,
            "page_bytes": len(text.encode()),
            "json_bytes": len(json.dumps(report)),
            "library_bytes": len(chart_library()),
        }
        if find_chromium():
            desktop, phone = look(page, [Window(1360), Window(390)])
            row |= {"load_desktop_s": desktop.seconds, "load_phone_width_s": phone.seconds, "charts": desktop.charts}
        return row


def main() -> None:
    """Measure every size."""
    parser = make_parser(__doc__)
    parser.add_argument("--queries", type=int, nargs="+", default=[1_000, 10_000], help="evaluated queries (%(default)s)")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=5_000, help="of each training")
    parser.add_argument("--hits", type=int, default=101, help="of each query and model")
    given = parser.parse_args()
    rows = [measure(queries, given.items, given.steps, given.hits) for queries in given.queries]
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
