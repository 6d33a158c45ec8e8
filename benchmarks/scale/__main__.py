"""From Parquet files with vectors to negatives: `python -m benchmarks.scale [--items 1000000]`.

Generates items × 128 and 20,000 queries with two labels each, runs `hardmine mine` on them as a command of its own, and
prints for every stage its seconds, and for every kind of process its peak memory. Sizes that docs/scale.md quotes: 1,000,000,
3,000,000 and 10,000,000 items. --data keeps the generated files in a folder for the next run.

    --s3  the same over an S3 server on this machine (moto) that counts requests and bytes, at once and with 60 ms more for
          each request; needs `moto[server]`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.scale.data import CONFIG, QUERIES, write_data
from benchmarks.scale.processes import watch
from benchmarks.shared.command import Row, compared, emit, make_parser, note
from benchmarks.shared.inputs import temporary_folder
from cluster.commits import Ledger
from cluster.storage.store import Store

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run it."""
    parser = make_parser(__doc__)
    parser.add_argument("--items", type=int, action="append", help="size of the corpus; may be repeated (default: 1,000,000)")
    parser.add_argument("--data", type=Path, help="folder of the generated files, made where it is missing")
    given = parser.parse_args()
    rows: list[Row] = []
    for items in given.items or [1_000_000]:
        with temporary_folder() as folder:
            data = (given.data or folder) / f"items-{items}"
            if not data.exists():
                note(f"generating {items:,} items")
                write_data(data, items)
            rows += measure(data, folder, items)
    emit(rows, as_json=given.json)


def measure(data: Path, folder: Path, items: int) -> list[Row]:
    """The stages of one run, and a row for the whole with the memory of its processes."""
    config = folder / "run.toml"
    config.write_text(CONFIG.format(output=folder / "out", folder=data))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = watch([sys.executable, "-m", "jobs", "mine", str(config), "--json"], environment)
    if done.code:
        raise SystemExit(f"hardmine mine ended with exit code {done.code}")
    figures = json.loads(done.out)
    store = Store(str(folder / "out/run"))
    rows = []
    for commit in Ledger(store).all():
        row = compared(f"{items:,} items: {commit.name}", commit.seconds["wall"])
        used = {name: value // 2**20 if name.endswith("bytes") else value for name, value in commit.used.items()}
        rate = round(items / max(1e-3, commit.seconds["wall"]))
        rows.append(row | {"items_per_s": rate} | {name.replace("bytes", "mib"): value for name, value in used.items()})
    whole = compared(f"{items:,} items: whole", done.seconds)
    negatives = figures["rows"]["negatives"]
    return [*rows, whole | {"queries": QUERIES, "negatives": negatives, "peak_mib": done.peak_mib}]


if __name__ == "__main__":
    main()
