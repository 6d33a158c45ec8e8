"""`rounds.background` against the usual loop at equal wall time: `python -m benchmarks.training.background [--data FOLDER]`.

Both loops start from the same data and settings with short rounds, run for --seconds each, one after the other, and are then
stopped. A model counts from the moment it was trained, with its figure on the dev queries; the table has the best so far at
quarters of the time. Models that were not yet measured when the loop was stopped do not count. Without --data: the demo's
catalogue. Everything that both need once (ingest, the base model's vectors and figures) is outside the time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.shared.command import emit, make_parser
from benchmarks.shared.inputs import temporary_folder
from cluster.commits import Commit
from cluster.storage.store import Store
from jobs.demo.catalogue import generate_catalogue
from jobs.record.record import RunRecord
from jobs.record.stages import BASELINE, Kind, ModelName

TITLES, QUERIES = 6000, 8000
QUARTERS = (0.25, 0.5, 0.75, 1.0)
LOOK_S = 0.5
LATEST_S = 600.0
"""For what both loops need once."""


def write_config(folder: Path, name: str, data: str, *, steps: int, words: list[str]) -> list[str]:
    """The command that runs one of the loops."""
    path = folder / f"{name}.toml"
    path.write_text(f"""
name = "{name}"
output = "{folder}"
[data]
{data}
[encoder]
kind = "static"
[rounds]
mined = 100
patience = 100
background = {str(name == "background").lower()}
[training]
epochs = 100
patience = 100
max_steps = {steps}
""")
    return [sys.executable, "-m", "jobs", "run", str(path), *words]


def begun(root: Path) -> float | None:
    """When the off-the-shelf model was measured; None: not yet."""
    commit = RunRecord.read(Store(str(root))).find(Kind.EVALUATE, BASELINE) if (root / "commits").is_dir() else None
    return commit.created if commit else None


def run_for(command: list[str], root: Path, seconds: float) -> float:
    """Run a loop until `seconds` after its preparation; returns when that ended (seconds since 1970)."""
    with open(root.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
        try:
            latest = time.time() + LATEST_S
            while process.poll() is None:
                start = begun(root)
                if time.time() > (latest if start is None else start + seconds):
                    break
                time.sleep(LOOK_S)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait()
    start = begun(root)
    if start is None:
        raise SystemExit(f"the run measured nothing; see {root.with_suffix('.log')}")
    return start


def measured(root: Path, start: float) -> list[tuple[float, float, int]]:
    """(seconds until it was trained, its primary figure, its optimizer steps) of each model that was measured, in order."""
    record, rows, number = RunRecord.read(Store(str(root))), [], 0
    while True:
        trained, evaluated = (record.find(kind, ModelName(number)) for kind in (Kind.TRAIN, Kind.EVALUATE))
        if trained is None or evaluated is None:
            return rows
        rows.append((trained.created - start, primary_of(evaluated), int(trained.figures["steps"])))
        number += 1


def primary_of(evaluated: Commit) -> float:
    """Recall@3, the default primary figure."""
    return float(evaluated.figures["metrics"]["recall@3"])


def table_rows(name: str, models: list[tuple[float, float, int]], seconds: float) -> list[dict[str, Any]]:
    """A row for each quarter of the time."""
    rows = []
    for share in QUARTERS:
        until = [model for model in models if model[0] <= share * seconds]
        best = max((figure for _, figure, _ in until), default=None)
        steps = sum(count for _, _, count in until)
        rows.append({"loop": name, "seconds": share * seconds, "models": len(until), "steps": steps, "best recall@3": best})
    return rows


def main() -> None:
    """Run both loops and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", help="folder in BEIR's form (default: the demo's catalogue)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each loop (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="training.max_steps of each round (%(default)s)")
    parser.add_argument("settings", nargs="*", help="more settings of both, such as encoder.kind=transformer")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with temporary_folder() as folder:
        data = f'folder = "{given.data}"'
        if given.data is None:
            catalogue = generate_catalogue(num_titles=TITLES, num_queries=QUERIES)
            for name in ("corpus", "queries", "qrels"):
                pq.write_table(getattr(catalogue, name), folder / f"{name}.parquet")
            data = "\n".join(f'{name} = "{folder}/{name}.parquet"' for name in ("corpus", "queries", "qrels"))
        for name in ("one-after-the-other", "background"):
            command = write_config(folder, name, data, steps=given.steps, words=given.settings)
            start = run_for(command, folder / name, given.seconds)
            rows += table_rows(name, measured(folder / name, start), given.seconds)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
