"""Small runs on the same data with output on a storage that fails on demand, and what each of them left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cluster.faulty_storage import FaultyStorage
from benchmarks.cluster.many_nodes import ManyNodes
from cluster.commits import Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from jobs.demo.catalogue import generate_catalogue

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret", "AWS_EC2_METADATA_DISABLED": "true"}
BUCKET = "chaos"
DATA = f"s3://{BUCKET}/data"
CONFIG = """
name = "run"
output = "{output}"
[data]
corpus = "{data}/corpus.parquet"
queries = "{data}/queries.parquet"
qrels = "{data}/qrels.parquet"
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
query_block = 32
shards = 3
cpus_per_worker = 1
actors = 1
wait_s = 120
[storage]
endpoint = "{endpoint}"
"""


def create_bucket(endpoint: str) -> None:
    """The bucket of all runs."""
    import botocore.session

    client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)


class Runs:
    """Small runs on the same data, all of it on S3."""

    def __init__(self, folder: Path, nodes: ManyNodes, storage: FaultyStorage) -> None:
        """Make the bucket and put the data there."""
        import pyarrow.parquet as pq

        self.folder, self.nodes, self.storage = folder, nodes, storage
        self.settings = StorageSettings(endpoint=storage.endpoint)
        create_bucket(storage.endpoint)
        catalogue, data = generate_catalogue(num_titles=300, num_queries=240), Store(DATA, self.settings)
        for name in ("corpus", "queries", "qrels"):
            stream = io.BytesIO()
            pq.write_table(getattr(catalogue, name), stream)
            data.write_bytes(f"{name}.parquet", stream.getvalue())

    def config(self, name: str) -> Path:
        """A configuration with this name, on S3."""
        path = self.folder / f"{name}.toml"
        # a folder for each: a run would copy vectors that one beside it has
        output = f"s3://{BUCKET}/{name}"
        path.write_text(CONFIG.format(output=output, data=DATA, endpoint=self.storage.endpoint))
        return path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a driver or a command of this cluster."""
        mine = {"HARDMINE_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        return os.environ | KEYS | self.nodes.variables | mine

    def start(self, name: str, *overrides: str) -> subprocess.Popen[bytes]:
        """A driver."""
        return self.command(name, "run", str(self.config(name)), *overrides, "--json", out=subprocess.DEVNULL)

    def command(self, name: str, *words: str, out: int | None = None) -> subprocess.Popen[bytes]:
        """`hardmine WORDS`; what it says goes to the log, its standard output to `out` where that is given."""
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "jobs", *words]
            return subprocess.Popen(command, cwd=ROOT, env=self.variables, stdout=out or log, stderr=log)

    def log(self, name: str) -> str:
        """What a run's drivers said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def last_words(self, name: str) -> str:
        """The last line of it."""
        return self.log(name).strip().rpartition("\n")[2]

    def store(self, name: str) -> Store:
        """What a run writes."""
        return Store(f"s3://{BUCKET}/{name}/run", self.settings)

    def artifacts(self, name: str) -> dict[str, str]:
        """What a run left: each commit's key, figures and the digest of every object, but for times."""
        store, left = self.store(name), {}
        for commit in Ledger(store).all():
            for path, info in commit.listed().items():
                # telemetry has the seconds of each step; pages for people are made of what is compared anyway
                if path.endswith("mining.json"):  # it tells the seconds of the search
                    left[f"{commit.name}: {path}"] = digest_of(json.loads(store.read_bytes(path)))
                elif "telemetry" not in path and not path.endswith(".md"):
                    left[f"{commit.name}: {path}"] = str(info["sha256"])
            if commit.name != "finish":
                left[commit.name] = digest_of(commit.figures)
        return left


def digest_of(figures: Mapping[str, Any]) -> str:
    """Of figures without times, and without notes, which tell of resuming."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if "seconds" not in key and key != "notes"}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return hashlib.sha256(json.dumps(plain(figures), sort_keys=True, default=str).encode()).hexdigest()
