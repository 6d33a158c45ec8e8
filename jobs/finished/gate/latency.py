"""How long one query takes, measured: the kept model and the off-the-shelf one encode the same queries in turns.

One query at a time, tokenising included, in this process and on this machine's device, without Ray. Models that read texts
are run by sentence-transformers, as whoever serves them would: an adapter on its base model is one such model.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import ArtifactError
from cluster.storage.model_folders import fetch_folder
from cluster.tables.rows import read_rows
from cluster.tables.tables import column_to_vectors
from eval.gate.latency import Latency, compare_latency
from jobs.finished.finished_run import FinishedRun
from jobs.record.stages import BASELINE, Kind, ModelName

F64 = npt.NDArray[np.float64]
Encode = Callable[[int], object]
"""Encodes query number i of those that were drawn."""

QUERIES = 200
"""Queries that both models encode in turns; fewer where `BUDGET_S` is not enough."""
WARM_UP = 20
"""Queries that each model encodes before the clock counts."""
BUDGET_S = 60.0
LEAST_PAIRS = 30
"""Measured even where they take longer than the budget."""
REPEATS = 5
"""Times that each model encodes a query, in turns; the fastest counts, as in timeit: what a time is longer by is other work
of the machine. A 95th percentile is to tell long texts from short ones, not a busy moment from a quiet one."""


@dataclass(frozen=True)
class Sides:
    """Both models, ready to encode."""

    model: Encode
    base: Encode | None
    """None: the off-the-shelf model is not part of the run."""
    queries: int
    what: str
    """What one measurement covers."""


def measure_latency(
    run: FinishedRun, number: int, rows: npt.NDArray[np.int64], *, confidence: float, pairs: int = QUERIES
) -> tuple[Latency, dict[str, Any]]:
    """Measure the model of a round against the off-the-shelf one.

    Args:
        number: the round, 0 or more.
        rows: query rows whose texts are encoded, repeated where there are fewer than `pairs`.

    Returns:
        (figures, {"what", "machine", …} and the figures as JSON).

    Raises:
        ArtifactError: the model's files are damaged.
    """
    device = _device()
    with tempfile.TemporaryDirectory(prefix="hardmine-gate-") as scratch:  # read while the model is opened only
        sides = _sides(run, number, rows[:pairs], device, Path(scratch))
    model_ms, base_ms = time_in_turns(sides.model, sides.base, sides.queries, pairs)
    found = compare_latency(model_ms, base_ms, confidence=confidence)
    return found, {"what": sides.what, "repeats": REPEATS, "machine": describe_machine(device)} | asdict(found)


def time_in_turns(
    model: Encode,
    base: Encode | None,
    queries: int,
    pairs: int,
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[F64, F64 | None]:
    """Milliseconds of each query under both, in turns and in changing order; of five times the fastest.

    Args:
        queries: how many there are; they are taken round and round.
        pairs: queries to measure; fewer, but at least 30, where `budget_s` seconds are not enough.

    Returns:
        (float64 [P] of the model, [P] of the base or None).
    """
    sides = [model] if base is None else [model, base]
    for number in range(WARM_UP):
        for encode in sides:
            encode(number % queries)
    took: list[list[float]] = [[] for _ in sides]
    began = clock()
    for number in range(pairs):
        if number >= LEAST_PAIRS and clock() - began > budget_s:
            break
        times: list[list[float]] = [[] for _ in sides]
        for turn in range(number, number + REPEATS):
            for side in range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides))):
                started = clock()
                sides[side](number % queries)
                times[side].append(1e3 * (clock() - started))
        for side, each in enumerate(times):
            took[side].append(min(each))
    return np.array(took[0]), np.array(took[1]) if base is not None else None


def _sides(run: FinishedRun, number: int, rows: npt.NDArray[np.int64], device: str, scratch: Path) -> Sides:
    kind = run.setting("encoder", "kind", None) or "transformer"
    if kind == "sequence":
        return _histories(run, number, rows, device)
    if "prefix" not in run.commit(Kind.BASE).figures:
        return _vectors(run, number, rows, device, scratch)
    texts = read_rows(run.store, run.commit(Kind.INGEST).parts("queries"), rows, ["text"])["text"].to_pylist()
    base = run.commit(Kind.BASE)
    folders = _text_folder(run, number, scratch), fetch_folder(run.store, base.files, base.figures["prefix"])
    model, off_the_shelf = (_on_texts(folder, texts, device) for folder in folders)
    return Sides(model, off_the_shelf, len(texts), "one text: prompt, tokens and vector, by sentence-transformers")


def _on_texts(folder: Path, texts: list[str], device: str) -> Encode:
    from training.encoders.st_format import prompts

    model, prompt = _open(folder, device), prompts(folder).get("query")
    return lambda number: model.encode(texts[number], prompt=prompt, show_progress_bar=False)


def _open(folder: Path, device: str) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", device)  # else deepspeed, where accelerate imports it, looks for one and says so
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(str(folder), device=device, local_files_only=True)


def _vectors(run: FinishedRun, number: int, rows: npt.NDArray[np.int64], device: str, scratch: Path) -> Sides:
    """An adapter on the data's own vectors: whatever made these is not here, so the adapter's own time is what it adds."""
    import torch

    column = read_rows(run.store, run.commit(Kind.INGEST).parts("queries"), rows, ["vector"])["vector"]
    vectors = torch.from_numpy(column_to_vectors(column).copy()).to(device)
    model = _open(_text_folder(run, number, scratch), device).eval()

    def encode(row: int) -> object:
        with torch.inference_mode():
            return model({"sentence_embedding": vectors[row : row + 1]})["sentence_embedding"].cpu()

    return Sides(
        encode,
        None,
        len(rows),
        "the adapter alone, on a vector that came with the data: the model that made it is not "
        "part of the run, and its time comes on top",
    )


def _histories(run: FinishedRun, number: int, rows: npt.NDArray[np.int64], device: str) -> Sides:
    from training.encoders.load import load_encoder
    from training.encoders.tokens.features import load_features

    base = run.commit(Kind.SEQUENCE)
    asked = load_features(run.store, base.parts("queries")).take(rows)
    queries = [asked.take(np.array([place])) for place in range(len(rows))]
    folders = _trained_folder(run, number), fetch_folder(run.store, base.files, base.figures["prefix"])
    model, untrained = (load_encoder(folder).to(device) for folder in folders)
    return Sides(
        lambda place: model.encode(queries[place]),
        lambda place: untrained.encode(queries[place]),
        len(rows),
        "one history, as item rows: its vector",
    )


def _text_folder(run: FinishedRun, number: int, scratch: Path) -> Path:
    """The model of a round as a folder that sentence-transformers opens; below `scratch` if it has to be made."""
    from training.encoders.adapter import servable_folder

    base = run.commit(Kind.BASE)
    frozen = fetch_folder(run.store, base.files, base.figures["prefix"]) if "prefix" in base.figures else None
    return servable_folder(_trained_folder(run, number), frozen, scratch)


def _trained_folder(run: FinishedRun, number: int) -> Path:
    """The model that was kept, or else what the round's training left."""
    if number == BASELINE.round:
        commit = run.commit(Kind.BASE)
    else:
        commit = (
            run.commit(Kind.FINISH) if number == run.best_round else run.commit(ModelName(number).source.kind, ModelName(number))
        )
    if "prefix" not in commit.figures:
        raise ArtifactError(f"expected a model in commit {commit.name} of {run.store.root}, found none")
    return fetch_folder(run.store, commit.files, commit.figures["prefix"])


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_machine(device: str) -> dict[str, Any]:
    """What the figures hold for."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "processor": processor,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }
