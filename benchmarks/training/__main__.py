"""Training against sentence-transformers: `python -m benchmarks.training --model FOLDER --short DATA --mixed DATA`.

Cases:
    peer       the same batches in the same order through hardmine's loop (DeepSpeed, one rank) and through
               SentenceTransformerTrainer with MultipleNegativesRankingLoss (scale = 1 / temperature): same model, float32,
               2 threads, AdamW, warm-up and cosine, clipping; 3 negatives per query; batches of 16 and 32; texts that are
               all short, and texts of mixed length. Tokenising counts on both sides (of ours the run's tokenise step is
               added); start-up and saving on neither. What differs: in-batch items that equal or are labelled for the
               query are no negatives here, and weight decay spares biases and norms on both sides.
    gradcache  one step of 8,192 queries with training.grad_cache against steps of 64 without: peak memory, queries/s; an
               adapter and a small transformer.
    telemetry  which share of the steps the loss geometry, waiting for data and checkpoints take.

Every figure comes from a process of its own. Needs the extra "bench".
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.shared.machine import emit
from benchmarks.shared.texts import NEGATIVES, made_triples, read_triples, write_task
from benchmarks.training.sides import Figures, run_ours, run_peer
from training.settings import TrainingSettings

Row = dict[str, Any]
BATCHES = (16, 32)
LARGE, SMALL = 8192, 64


def alone(side: Callable[[Path], Figures], folder: Path) -> Figures:
    """One side in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(side, folder).result()


@contextmanager
def temporary() -> Iterator[Path]:
    """A folder that is deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="hardmine-benchmark-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settings_of(batch: int, **more: Any) -> TrainingSettings:
    """Settings that both sides can follow."""
    return TrainingSettings(batch_size=batch, hard_negatives=NEGATIVES, random_fraction=0.0, **more)


def case_peer(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    for name, data in (("short", given.short), ("mixed", given.mixed)):
        for batch in BATCHES if data is not None else ():
            with temporary() as folder:
                write_task(folder, read_triples(data, batch * given.steps), given.model, settings_of(batch))
                rows.append({"case": f"peer {name} batch={batch}"} | _compare(folder, given.runs))
    return rows


def _compare(folder: Path, runs: int) -> Row:
    ours: list[Figures] = []
    peer: list[Figures] = []
    for number in range(runs):
        pair = [(run_ours, ours), (run_peer, peer)]
        for side, found in pair if number % 2 == 0 else reversed(pair):  # in turns: a slow minute hits both
            found.append(alone(side, folder))
    seconds, theirs = (statistics.median(run["seconds"] for run in side) for side in (ours, peer))
    last = max(1, len(ours[0]["losses"]) // 4)
    lines = ours[0]["lines"]
    return {
        "ours_s": seconds,
        "peer": "SentenceTransformerTrainer",
        "peer_s": theirs,
        "ratio": statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, peer, strict=True)),
        "ours_pairs_per_s": ours[0]["pairs"] / seconds,
        "peer_pairs_per_s": peer[0]["pairs"] / theirs,
        "ours_loss": statistics.mean(ours[0]["losses"][-last:]),
        "peer_loss": statistics.mean(peer[0]["losses"][-last:]),
        "ours_first_loss": ours[0]["losses"][0],
        "peer_first_loss": peer[0]["losses"][0],
        "steps": len(lines),
        "tokenising_s": ours[0]["tokenising"],
        "budget_tokens": ours[0]["budget_tokens"],
        "padding": statistics.mean(line["padding"] for line in lines),
        "ours_peak_mb": ours[0]["peak_mb"],
        "peer_peak_mb": peer[0]["peak_mb"],
    }


def case_gradcache(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    triples = made_triples(LARGE)
    for kind in ("adapter", "bert"):
        found: dict[int, Figures] = {}
        for batch, cached in ((SMALL, False), (LARGE, True)):
            with temporary() as folder:
                write_task(folder, triples, given.model, settings_of(batch, grad_cache=cached, learning_rate=1e-4), kind=kind)
                found[batch] = alone(run_ours, folder)
        small, large = found[SMALL], found[LARGE]
        rows.append(
            {
                "case": f"gradcache {kind} batch={LARGE}",
                "ours_s": large["seconds"],
                "peer": f"ours, batch={SMALL} without",
                "peer_s": small["seconds"],
                "ratio": small["seconds"] / large["seconds"],
                "pairs_per_s": large["pairs"] / large["seconds"],
                "small_pairs_per_s": small["pairs"] / small["seconds"],
                "peak_mb": large["peak_mb"],
                "small_peak_mb": small["peak_mb"],
                "of_the_steps_mb": large["peak_mb"] - large["before_mb"],
                "small_of_the_steps_mb": small["peak_mb"] - small["before_mb"],
            }
        )
    return rows


def case_telemetry(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    for name, data in (("short", given.short), ("mixed", given.mixed)):
        if data is None:
            continue
        with temporary() as folder:
            settings = settings_of(BATCHES[-1], epochs=2, checkpoint_steps=max(1, given.steps // 2))
            write_task(folder, read_triples(data, BATCHES[-1] * given.steps), given.model, settings)
            found = alone(run_ours, folder)
        lines, steps = found["lines"], sum(line["seconds"] for line in found["lines"])
        rows.append(
            {
                "case": f"telemetry {name} batch={BATCHES[-1]}",
                "ours_s": found["whole"],
                "steps": len(lines),
                "steps_s": steps,
                "geometry_share": sum(line["seconds_geometry"] for line in lines) / steps,
                "waiting_share": sum(line["seconds_waiting"] for line in lines) / steps,
                "checkpoint_save_s": found["checkpoint"]["save"],
                "checkpoint_upload_s": found["checkpoint"]["upload"],
                "outside_steps_share": 1 - steps / found["whole"],
                "padding": sum(line["padding"] for line in lines) / len(lines),
            }
        )
    return rows


CASES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "peer": case_peer,
    "gradcache": case_gradcache,
    "telemetry": case_telemetry,
}


def main() -> None:
    """Run some cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="default: peer")
    parser.add_argument("--model", required=True, help="model folder, e.g. of all-MiniLM-L6-v2")
    parser.add_argument("--short", type=Path, help="data folder with short texts (corpus, queries, qrels .parquet)")
    parser.add_argument("--mixed", type=Path, help="data folder with texts of mixed length")
    parser.add_argument("--runs", type=int, default=3, help="paired runs; the median counts")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of one run")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[Row] = []
    for case in given.case or ["peer"]:
        rows += CASES[case](given)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
