"""The arms against forgetting: averages of trained weights, chosen on dev as `rounds.merge` does, and a second set mixed in."""

from __future__ import annotations

import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.storage.model_folders import fetch_folder
from cluster.storage.store import Store
from cluster.tables.tables import Part
from eval.metrics import summarise
from training.task import TrainData, TrainTask

if TYPE_CHECKING:
    from benchmarks.quality.study import Study

MERGED_FROM = "mined 0.05"
WITH_START, SEEDS = "merged", "seeds merged"
SHARES = (25, 50, 75)
MIXED, MIX_SHARE = "mixed", 0.2


def mix_in(study: Study, task: TrainTask) -> TrainTask:
    """The training with the training queries of the general set mixed in, in a store that holds both sets' runs."""
    assert study.general is not None
    data, other = task.data, study.general
    second = TrainData(
        codes=_below(other.name, other.prepared.codes),
        queries=_below(other.name, other.prepared.queries),
        labels=_below(other.name, other.prepared.labels),
        item_features=_below(other.name, other.features[0]),
        query_features=_below(other.name, other.features[1]),
    )
    own = {field.name: getattr(data, field.name) for field in fields(data) if field.name not in ("mix", "mix_share")}
    moved = {name: _below(study.name, parts) for name, parts in own.items()}
    return replace(
        task,
        store=Store(str(Path(study.work) / "runs")),
        folder=f"{study.name}/{task.folder}",
        model={f"{study.name}/{path}": info for path, info in task.model.items()},
        model_prefix=f"{study.name}/{task.model_prefix}",
        data=TrainData(**moved, mix=second, mix_share=MIX_SHARE),
    )


def _below(name: str, parts: list[Part]) -> list[Part]:
    return [replace(part, path=f"{name}/{part.path}") for part in parts]


def merge_with_start(study: Study, seed: int) -> None:
    """The seed's model of MERGED_FROM, or its average with the start, whichever has the highest Recall@3 on dev."""
    from training.encoders.prepare.merge import merge_folders

    started, trained = time.monotonic(), study.path(MERGED_FROM, seed, ".model")
    start = fetch_folder(study.prepared.store, *study.start(seed, study.prepared))
    with tempfile.TemporaryDirectory() as local:
        folders = {100: trained, **{share: Path(local) / str(share) for share in SHARES}}
        for share in SHARES:
            merge_folders(trained, start, share / 100, folders[share])
        _keep_best(study, WITH_START, seed, folders, started)


def merge_seeds(study: Study, seeds: int) -> None:
    """The mean of all seeds' models of MERGED_FROM, which start from the same weights; alone and with a share of the start."""
    from training.encoders.prepare.merge import merge_folders

    started = time.monotonic()
    start = fetch_folder(study.prepared.store, *study.start(1, study.prepared))
    with tempfile.TemporaryDirectory() as local:
        mean = study.path(MERGED_FROM, 1, ".model")
        for seed in range(2, seeds + 1):
            before, mean = mean, Path(local) / f"mean-{seed}"
            merge_folders(study.path(MERGED_FROM, seed, ".model"), before, 1 / seed, mean)
        folders = {100: mean, **{share: Path(local) / str(share) for share in SHARES}}
        for share in SHARES:
            merge_folders(mean, start, share / 100, folders[share])
        _keep_best(study, SEEDS, 0, folders, started)


def _keep_best(study: Study, arm: str, seed: int, folders: dict[int, Path], started: float) -> None:
    from training.encoders.load import load_encoder

    measured: dict[int, tuple[dict[str, Any], Any]] = {}
    for share, folder in folders.items():
        vectors = study.encode_by(load_encoder(folder))
        measured[share] = summarise(study.measure(*vectors)), vectors
    best = max(measured, key=lambda share: (measured[share][0]["recall@3"], share == 100, -share))
    shares = {str(share): figures for share, (figures, _) in measured.items()}
    more = {"seconds": time.monotonic() - started, "share": best, "shares": shares, **study.general_figures(folders[best])}
    study.keep(arm, seed, *measured[best][1], more)
