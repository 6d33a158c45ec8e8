"""From Parquet files with vectors to negatives: `python -m benchmarks.scale [--items 1000000] [--case disk]`.

Generates items × 128 and 20,000 queries, each near its one relevant item, and runs `hardmine mine` on them as a command.

    disk   prints for every stage its seconds, requests, bytes and memory, beside what `--dry-run` expects of them, and for every
           kind of process its peak memory, measured from outside. Sizes that docs/scale.md quotes: 1,000,000, 3,000,000 and
           10,000,000 items.
    s3     the same over an S3 server on this machine (moto) that counts requests and bytes, at once and with 60 ms more for
           each request: 200,000 items by default.
    kill   a run whose driver is killed in every stage, and what then finishes it: the same bytes as an undisturbed run.
    train  one round of training of an adapter on 50,000 queries: 3,000,000 items by default.

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
from benchmarks.scale.expected import Expected, expected_of
from benchmarks.scale.kills import kill_in, objects
from benchmarks.scale.processes import Watched, watch
from benchmarks.scale.training import write_training
from benchmarks.shared.command import Row, chosen_cases, compared, emit, make_parser, note
from benchmarks.shared.inputs import temporary_folder
from cluster.commits import Commit, Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.record.stages import EMBEDDING

ROOT = Path(__file__).parents[2]
DELAY_S = 0.06
CASES = {"disk": 1_000_000, "s3": 200_000, "kill": 1_000_000, "train": 3_000_000}
"""Items by default."""


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=CASES, default=("disk",))
    parser.add_argument("--items", type=int, action="append", help="size of the corpus; may be repeated")
    parser.add_argument("--data", type=Path, help="folder of the generated files, made where it is missing")
    given = parser.parse_args()
    run = {"disk": on_disk, "s3": on_s3, "kill": killed, "train": trained}
    rows: list[Row] = []
    for case in chosen_cases(given):
        name, write = ("tables", write_training) if case == "train" else ("items", write_data)
        for items in given.items or [CASES[case]]:
            with temporary_folder() as folder:
                data = (given.data or folder) / f"{name}-{items}"
                if not data.exists():
                    note(f"generating {items:,} items")
                    write(data, items)
                rows += run[case](data, folder, items)
    emit(rows, as_json=given.json)


def on_disk(data: Path, folder: Path, items: int) -> list[Row]:
    """The stages of one run, and a row for the whole with the memory of its processes."""
    config = CONFIG.format(output=folder / "out", folder=data)
    expected = expected_of(_write(folder, config))
    done = mine(folder, config, {})
    commits = Ledger(Store(str(folder / "out/run"))).all()
    rows = []
    for commit in commits:
        kind = "embed" if commit.name.startswith(EMBEDDING) else commit.name
        rows.append(stage_row(f"{items:,} items", commit, items, expected.get(kind)))
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


def killed(data: Path, folder: Path, items: int) -> list[Row]:
    """An undisturbed run, and one whose driver is killed in every stage that writes a table."""
    rows: list[Row] = []
    whole = mine(folder, CONFIG.format(output=folder / "whole", folder=data), {})
    config = CONFIG.format(output=folder / "killed", folder=data)
    command, environment = _command(_write(folder, config))
    for commit in Ledger(Store(str(folder / "whole/run"))).all():
        if commit.tables:
            seconds, left = kill_in(commit, folder / "killed/run", command, environment)
            rows.append(compared(f"{items:,} items: killed in {commit.name}", seconds) | {"left": left})
    rest = mine(folder, config, {})
    wanted, found = objects(folder / "whole/run"), objects(folder / "killed/run")
    if found != wanted:
        other = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise SystemExit(f"the killed run left other bytes in {', '.join(other)}")
    compare = compared(f"{items:,} items: the rest", rest.seconds, "undisturbed", whole.seconds)
    return [*rows, compare | {"objects_with_equal_bytes": sum(map(len, wanted.values()))}]


def trained(data: Path, folder: Path, items: int) -> list[Row]:
    """One round of training, with the memory of its processes."""
    done = watch([sys.executable, "-m", "benchmarks.scale.training", str(data)], _environment({}))
    if done.code:
        raise SystemExit(f"the training ended with exit code {done.code}")
    figures = json.loads(done.out.splitlines()[-1])
    return [compared(f"{items:,} items: a round of training", done.seconds) | figures | {"peak_mib": done.peak_mib}]


def mine(folder: Path, config: str, environment: Mapping[str, str]) -> Watched:
    """Run `hardmine mine`."""
    done = watch(*_command(_write(folder, config), environment))
    if done.code:
        raise SystemExit(f"hardmine mine ended with exit code {done.code}")
    return done


def _write(folder: Path, config: str) -> Path:
    path = folder / "run.toml"
    path.write_text(config)
    return path


def _command(path: Path, environment: Mapping[str, str] | None = None) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "jobs", "mine", str(path), "--json"], _environment(environment or {})


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | dict(more)


def stage_row(name: str, commit: Commit, items: int, expected: Expected | None = None) -> Row:
    """Seconds, requests, bytes and memory of a stage, and what was expected of them."""
    row = compared(f"{name}: {commit.name}", commit.seconds["wall"])
    row["items_per_s"] = round(items / max(1e-3, commit.seconds["wall"]))
    measured = dict(commit.used)
    if expected is not None:  # the largest process of a stage, where it is known which one that is
        measured["peak_bytes"] = commit.usage.get(expected.process, measured)["peak_bytes"]
    for key, value in measured.items():
        unit, size = ("mib", 2**20) if key.endswith("bytes") else ("", 1)
        label = key.replace("bytes", unit) if unit else key
        row[label] = value // size
        if expected is not None and key in expected.figures:
            row[f"{label}_expected"] = expected.figures[key] // size
    return row


if __name__ == "__main__":
    main()
