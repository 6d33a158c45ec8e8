"""From Parquet files with vectors to negatives: `python -m benchmarks.scale [--items 1000000] [--case disk]`.

Generates items × 128 and 20,000 queries with two labels each, and runs `hardmine mine` on them as a command of its own.

    disk   prints for every stage its seconds, requests, bytes and memory, and for every kind of process its peak memory, measured
           from outside. Sizes that docs/scale.md quotes: 1,000,000, 3,000,000 and 10,000,000 items.
    s3     the same over an S3 server on this machine (moto) that counts requests and bytes, at once and with 60 ms more for
           each request: 200,000 items by default.

--data keeps the generated files in a folder for the next run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.scale.data import CONFIG, QUERIES, write_data
from benchmarks.scale.endpoint import BUCKET, KEYS, counting_endpoint
from benchmarks.scale.processes import Watched, watch
from benchmarks.shared.command import Row, chosen_cases, compared, emit, make_parser, note
from benchmarks.shared.inputs import temporary_folder
from cluster.commits import Commit, Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store

ROOT = Path(__file__).parents[2]
DELAY_S = 0.06
DEFAULT = {"disk": 1_000_000, "s3": 200_000}


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=DEFAULT, default=("disk",))
    parser.add_argument("--items", type=int, action="append", help="size of the corpus; may be repeated")
    parser.add_argument("--data", type=Path, help="folder of the generated files, made where it is missing")
    given = parser.parse_args()
    rows: list[Row] = []
    for case in chosen_cases(given):
        for items in given.items or [DEFAULT[case]]:
            with temporary_folder() as folder:
                data = (given.data or folder) / f"items-{items}"
                if not data.exists():
                    note(f"generating {items:,} items")
                    write_data(data, items)
                rows += on_disk(data, folder, items) if case == "disk" else on_s3(data, folder, items)
    emit(rows, as_json=given.json)


def on_disk(data: Path, folder: Path, items: int) -> list[Row]:
    """The stages of one run, and a row for the whole with the memory of its processes."""
    done = mine(folder, CONFIG.format(output=folder / "out", folder=data), {})
    rows = [stage_row(f"{items:,} items", commit, items) for commit in Ledger(Store(str(folder / "out/run"))).all()]
    negatives = json.loads(done.out)["rows"]["negatives"]
    whole = compared(f"{items:,} items: whole", done.seconds)
    return [*rows, whole | {"queries": QUERIES, "negatives": negatives, "peak_mib": done.peak_mib}]


def on_s3(data: Path, folder: Path, items: int) -> list[Row]:
    """The stages of two runs, without and with a delay; the whole of each as the server counted it."""
    rows: list[Row] = []
    os.environ.update(KEYS)
    with counting_endpoint() as endpoint:
        endpoint.upload(data, "data")
        without = None
        for delay in (0.0, DELAY_S):
            endpoint.reset(delay)
            output = f"s3://{BUCKET}/out-{delay}"
            config = CONFIG.format(output=output, folder=f"s3://{BUCKET}/data") + f'[storage]\nendpoint = "{endpoint.url}"\n'
            done = mine(folder, config, KEYS)
            passed = {"requests": endpoint.requests, "read_mib": endpoint.sent_bytes >> 20}
            passed["written_mib"] = endpoint.received_bytes >> 20
            name = f"{items:,} items, {delay * 1000:.0f} ms more"
            store = Store(f"{output}/run", StorageSettings(endpoint=endpoint.server))
            rows += [stage_row(name, commit, items) for commit in Ledger(store).all()]
            rows.append(compared(f"{name}: whole", done.seconds, "without delay", without) | passed)
            without = without or done.seconds
    return rows


def mine(folder: Path, config: str, environment: Mapping[str, str]) -> Watched:
    """Run `hardmine mine`."""
    path = folder / "run.toml"
    path.write_text(config)
    command = [sys.executable, "-m", "jobs", "mine", str(path), "--json"]
    done = watch(command, os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment))
    if done.code:
        raise SystemExit(f"hardmine mine ended with exit code {done.code}")
    return done


def stage_row(name: str, commit: Commit, items: int) -> Row:
    """Seconds, requests, bytes and memory of a stage."""
    row = compared(f"{name}: {commit.name}", commit.seconds["wall"])
    row["items_per_s"] = round(items / max(1e-3, commit.seconds["wall"]))
    for key, value in commit.used.items():
        row[key.replace("bytes", "mib")] = value >> 20 if key.endswith("bytes") else value
    return row


if __name__ == "__main__":
    main()
