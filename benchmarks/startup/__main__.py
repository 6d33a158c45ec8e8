"""Seconds of a run that are no model work: `python -m benchmarks.startup [--case own] [--runs 3]`.

Cases:
    imports  what a new Python process takes to import what a stage needs: the least that a stage in a new process costs.
    own      a run of the demo's catalogue (800 titles, 1 + 2 rounds of an epoch each) with a Ray of its own.
    joined   the same, in the Ray that `cluster.address` names.
    s3       the same, with its output on S3 (moto on this machine's loopback).

Of a run there is a row for each kind of stage, first and later ones apart: `ours_s` is the median of what its commits call
overhead, the time from the stage's begin to its commit without search, steps or encoding; `wall_s` is all of it. The peer of
training is a new process that imports what a rank does; that of the others one that imports torch.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.shared.command import Row, chosen_cases, compared, emit, make_parser
from benchmarks.shared.machine import timed

IMPORTS = {
    "search": "import torch, faiss, numba",
    "embed": "import torch, transformers",
    "train": "import torch, transformers, ray.train.torch, deepspeed",
    "sentence-transformers": "import sentence_transformers",
}
KINDS = ("base", "tokens", "embed", "search", "hits", "mine", "report", "train", "evaluate", "finish")
BUCKET = "startup"


def case_imports(runs: int) -> list[Row]:
    """See the module."""
    return [
        compared(f"imports of {name}", _import_seconds(code, runs), "python", _import_seconds("pass", runs))
        for name, code in IMPORTS.items()
    ]


def _import_seconds(code: str, runs: int) -> float:
    subprocess.run([sys.executable, "-c", code], check=True)
    return statistics.median(timed(lambda: subprocess.run([sys.executable, "-c", code], check=True)) for _ in range(runs))


def case_run(case: str, runs: int) -> list[Row]:
    """See the module."""
    overhead: dict[str, list[float]] = defaultdict(list)
    walls: dict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="hardmine-benchmark-") as folder, _place(case, folder) as (output, environment):
            started = time.perf_counter()
            _run(Path(folder), output, environment)
            walls["whole run"].append(time.perf_counter() - started)
            for name, seconds in _stages(output, environment):
                overhead[name].append(seconds["overhead"])
                walls[name].append(seconds["wall"])
    slowest = {kind: _import_seconds(IMPORTS.get(kind, "import torch"), 1) for kind in {name.split()[-1] for name in overhead}}
    rows = [
        compared(f"{case}: {name}", statistics.median(took), "imports alone", slowest[name.split()[-1]])
        | {"wall_s": statistics.median(walls[name])}
        for name, took in overhead.items()
    ]
    return [*rows, compared(f"{case}: whole run", statistics.median(walls["whole run"]))]


def _run(folder: Path, output: str, environment: Mapping[str, str]) -> None:
    """The demo's catalogue, as a configuration that a person would write, through the command line."""
    from jobs.demo.settings import write_catalogue

    write_catalogue(folder, 800)
    (folder / "run.toml").write_text(
        f'name = "run"\noutput = "{output}"\n[data]\ncorpus = "corpus.parquet"\nqueries = "queries.parquet"\n'
        'qrels = "qrels.parquet"\nitem_text = "{title} by {author} | {genres} | {text}"\n'
        '[encoder]\nkind = "static"\ndimension = 256\n[rounds]\nmined = 2\ncompare_random = false\n'
        "[training]\nepochs = 1\nbatch_size = 16\nhard_negatives = 8\n"
        + (f'[storage]\nendpoint = "{environment["ENDPOINT"]}"\n' if "ENDPOINT" in environment else "")
    )
    command = [sys.executable, "-m", "jobs", "run", str(folder / "run.toml"), "--json"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])


def _stages(output: str, environment: Mapping[str, str]) -> Iterator[tuple[str, dict[str, float]]]:
    """(first or later, and the kind; its seconds) of every stage of the run."""
    from cluster.commits import Ledger
    from cluster.storage.settings import StorageSettings
    from cluster.storage.store import Store

    os.environ.update(environment)
    ledger = Ledger(Store(f"{output}/run", StorageSettings(endpoint=environment.get("ENDPOINT"))))
    seen: set[str] = set()
    for commit in ledger.all():
        kind = next((kind for kind in KINDS if commit.name.endswith(kind) or commit.name.startswith(kind)), None)
        if kind is not None:
            yield f"{'later' if kind in seen else 'first'} {kind}", commit.seconds
            seen.add(kind)


@contextmanager
def _place(case: str, folder: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(the output of a case, variables of its run)."""
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    if case == "own":
        yield f"{folder}/runs", root
    elif case == "joined":
        import ray

        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        try:
            yield f"{folder}/runs", root | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        finally:
            ray.shutdown()
    else:
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
        try:
            _make_bucket(f"http://{host}:{port}", keys)
            yield f"s3://{BUCKET}/runs", root | keys | {"ENDPOINT": f"http://{host}:{port}"}
        finally:
            server.stop()


def _make_bucket(endpoint: str, keys: Mapping[str, str]) -> None:
    import botocore.session

    session: Any = botocore.session.get_session()
    session.set_credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])
    session.create_client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=BUCKET)


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=("imports", "own", "joined", "s3"), default=("imports", "own"), runs=1)
    chosen = parser.parse_args()
    rows = [
        row
        for case in chosen_cases(chosen)
        for row in (case_imports(chosen.runs) if case == "imports" else case_run(case, chosen.runs))
    ]
    emit(rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
