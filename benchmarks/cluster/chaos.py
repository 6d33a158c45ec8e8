"""Kills drivers, workers and nodes and disturbs the storage at random while small runs go on; their artifacts must not change.

    python -m benchmarks.cluster.chaos [--seed 1] [--faults 20] [--minutes 4] [--json]

Two nodes of one CPU each and a head that does no work, on this machine; output on an S3 endpoint on loopback. One run is left
alone. Then runs of the same data are disturbed, until as many faults were made or the time is over: each must end with the bytes
of the first, by resuming as often as it takes. A row for every run: its faults, how often the driver was started, whether its
artifacts are those of the undisturbed run. Exit code 1: some are not. The same seed makes the same choices; when they come
depends on the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cluster.faulty_storage import FaultyStorage, faulty_storage
from benchmarks.cluster.many_nodes import ManyNodes, many_nodes
from benchmarks.shared.command import compared, emit, make_parser
from cluster.commits import Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.demo.catalogue import generate_catalogue

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}
FAULTS = {"worker": 6, "node": 3, "driver": 3, "storage": 2, "away": 1}
"""Kind -> how often, relative to the others."""
PAUSE_S = (0.5, 6.0)
STORAGE_S, STORAGE_SHARE, AWAY_S = 6.0, 0.1, 20.0
RUN_S = 400.0
CONFIG = """
name = "run"
output = "{output}"
[data]
corpus = "{folder}/corpus.parquet"
queries = "{folder}/queries.parquet"
qrels = "{folder}/qrels.parquet"
[encoder]
kind = "static"
dimension = 64
[rounds]
warmup_epochs = 0
mined = 1
[mining]
num_hits = 50
num_negatives = 16
[training]
batch_size = 16
epochs = 2
checkpoint_steps = 4
[cluster]
part_rows = 64
query_block = 16
shards = 3
cpus_per_worker = 1
search_actors = 1
wait_s = 120
[storage]
endpoint = "{endpoint}"
"""


class Runs:
    """Small runs on the same data."""

    def __init__(self, folder: Path, nodes: ManyNodes, storage: FaultyStorage) -> None:
        import pyarrow.parquet as pq

        self.folder, self.nodes, self.storage = folder, nodes, storage
        catalogue = generate_catalogue(num_titles=300, num_queries=240)
        for name in ("corpus", "queries", "qrels"):
            pq.write_table(getattr(catalogue, name), folder / f"{name}.parquet")
        self.bucket = "s3://chaos"

    def config(self, name: str) -> Path:
        """A configuration with this name, on S3."""
        path = self.folder / f"{name}.toml"
        # a folder for each: a run would copy vectors that one beside it has
        output = f"{self.bucket}/{name}"
        path.write_text(CONFIG.format(output=output, folder=self.folder, endpoint=self.storage.endpoint))
        return path

    def start(self, name: str, *overrides: str) -> subprocess.Popen[bytes]:
        """A driver."""
        environment = os.environ | KEYS | self.nodes.variables
        environment |= {"HARDMINE_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "jobs", "run", str(self.config(name)), *overrides, "--json"]
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    def log(self, name: str) -> str:
        """What a run's drivers said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def last_words(self, name: str) -> str:
        """The last line of it."""
        return self.log(name).strip().rpartition("\n")[2]

    def store(self, name: str) -> Store:
        """What a run writes."""
        return Store(f"{self.bucket}/{name}/run", StorageSettings(endpoint=self.storage.endpoint))

    def artifacts(self, name: str) -> dict[str, str]:
        """What a run left: each commit's key, figures and the digest of every object, but for times."""
        store, found = self.store(name), {}
        for commit in Ledger(store).all():
            for path, info in commit.listed().items():
                # telemetry has the seconds of each step; pages for people are made of what is compared anyway
                if path.endswith("mining.json"):  # it tells the seconds of the search
                    found[f"{commit.name}: {path}"] = digest_of(json.loads(store.read_bytes(path)))
                elif "telemetry" not in path and not path.endswith(".md"):
                    found[f"{commit.name}: {path}"] = str(info["sha256"])
            if commit.name != "finish":
                found[commit.name] = digest_of(commit.figures)
        return found


def digest_of(figures: Mapping[str, Any]) -> str:
    """Of figures without times, and without notes, which tell of resuming."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if "seconds" not in key and key != "notes"}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(plain(figures), sort_keys=True, default=str).encode()).hexdigest()


class Chaos:
    """Faults at random, on one run after another."""

    def __init__(self, runs: Runs, seed: int, faults: int, until: float) -> None:
        self.runs, self.rng, self.left, self.until = runs, random.Random(seed), faults, until
        self.nodes_wanted = runs.nodes.count

    def disturb(self, name: str) -> dict[str, Any]:
        """One run to its end, with faults on the way."""
        started, starts, stops, faults = time.monotonic(), 1, 0, []
        driver, ended = self.runs.start(name), None
        while time.monotonic() - started < RUN_S:
            pause = self.rng.uniform(*PAUSE_S)
            try:
                ended = driver.wait(timeout=pause)
            except subprocess.TimeoutExpired:
                if self.left > 0 and time.monotonic() < self.until:
                    fault = self.rng.choices([*FAULTS], [*FAULTS.values()])[0]
                    told = self._make(fault, driver)
                    if told:
                        faults.append(told)
                        self.left -= 1
                self._mend()
                continue
            self._mend()
            if ended == 0:
                break
            stops += ended > 0
            if ended not in (3, -signal.SIGKILL):
                break
            starts += 1
            driver = self.runs.start(name)
        driver.kill()
        driver.wait()
        seconds = time.monotonic() - started
        return {"run": name, "faults": faults, "starts": starts, "stops": stops, "code": ended, "seconds": seconds}

    def _make(self, fault: str, driver: subprocess.Popen[bytes]) -> str:
        nodes = self.runs.nodes
        if fault == "driver":
            driver.kill()
        elif fault == "worker":
            victim = nodes.kill_worker(self.rng)
            return f"worker {victim}" if victim else ""
        elif fault == "node":
            if nodes.count < self.nodes_wanted:
                return ""
            nodes.kill_node(self.rng.randrange(nodes.count))
        elif fault == "away":
            self.runs.storage.away = True
            time.sleep(AWAY_S)
            self.runs.storage.away = False
        else:
            self.runs.storage.share = STORAGE_SHARE
            time.sleep(STORAGE_S)
            self.runs.storage.share = 0.0
        return fault

    def _mend(self) -> None:
        """Nodes come back, some later than others."""
        if self.runs.nodes.count < self.nodes_wanted and self.rng.random() < 0.5:
            self.runs.nodes.add()


def main() -> int:
    """The command."""
    parser = make_parser(__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30.0, help="no further fault and no further run after this time")
    given = parser.parse_args()
    os.environ.update(KEYS)
    until = time.monotonic() + 60 * given.minutes
    rows = []
    temporary = tempfile.TemporaryDirectory(prefix="hardmine-chaos-", ignore_cleanup_errors=True)
    with temporary as folder, faulty_storage(given.seed) as storage, many_nodes(2) as nodes:
        runs = Runs(Path(folder), nodes, storage)
        create_bucket(storage.endpoint)
        started = time.monotonic()
        if runs.start("calm").wait(timeout=RUN_S):
            raise SystemExit(f"the undisturbed run failed: {runs.last_words('calm')}")
        calm_s = time.monotonic() - started
        want, chaos, number = runs.artifacts("calm"), Chaos(runs, given.seed, given.faults, until), 0
        while chaos.left > 0 and time.monotonic() < until:
            number += 1
            row = chaos.disturb(f"run-{number}")
            got = runs.artifacts(row["run"])
            different = [name for name in {**want, **got} if want.get(name) != got.get(name)]
            row |= {"same": row["code"] == 0 and not different, "different": sorted(different)[:5]}
            if not row["same"]:
                row["said"] = runs.last_words(row["run"])
            sys.stderr.write(json.dumps(row) + "\n")
            rows.append(compared(f"{row['run']}: {len(row['faults'])} faults", row["seconds"], "undisturbed", calm_s) | row)
    emit(rows, as_json=given.json)
    return int(not all(row["same"] for row in rows))


def create_bucket(endpoint: str) -> None:
    """The bucket of all runs."""
    import botocore.session

    botocore.session.get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
        Bucket="chaos"
    )


if __name__ == "__main__":
    sys.exit(main())
