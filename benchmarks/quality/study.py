"""The arms of one data set and encoder: trained from the same start, measured, and kept: see `benchmarks.quality`."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.data import Features, Prepared, cut_tokens, measure, prepare, settings_of, taught
from benchmarks.quality.forgetting import MERGED_FROM, MIXED, SEEDS, WITH_START, merge_seeds, merge_with_start, mix_in
from cluster.storage.model_folders import Manifest, fetch_folder, upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32
from eval.metrics import summarise
from training.engine.schedule import Schedule
from training.settings import TrainingSettings
from training.task import TrainData, TrainTask

BASE = "off the shelf"
GEOMETRY = (
    "positive_probability",
    "effective_negatives",
    "hardest_weight",
    "dead_negatives",
    "above_positive",
    "negatives_per_query",
    "gradient_share_hard",
    "gradient_share_random",
    "gradient_share_in_batch",
)


@dataclass(frozen=True)
class Arm:
    """What an arm does otherwise than the others."""

    mined: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    taught: str = ""
    """The mining with a teacher that its negatives come from, of TAUGHT; "": the default one."""


WIDE = ["mining.relative_margin=off", "mining.teacher.relative_margin=0.1"]
TAUGHT = {
    "dropped": WIDE,
    "relabelled": [*WIDE, "mining.teacher.relabel=0.7"],
    "weak": [*WIDE, "mining.teacher.weak_positive=20"],
    "stratified": [*WIDE, "mining.choose=stratified"],
}
"""What a teacher does, as settings of the mining beside the teacher itself."""
ARMS = {
    "random": Arm(),
    "in-batch": Arm(settings={"hard_negatives": 0}),
    "mined 0.05": Arm(mined=True),
    "mined 0.07": Arm(mined=True, settings={"temperature": 0.07}),
    "teacher drops": Arm(mined=True, taught="dropped"),
    "teacher relabels": Arm(mined=True, taught="relabelled"),
    "no weak positives": Arm(mined=True, taught="weak"),
    "distilled": Arm(mined=True, taught="dropped", settings={"distil": {}}),
    "distilled, stratified": Arm(mined=True, taught="stratified", settings={"distil": {}}),
    "margin-MSE": Arm(mined=True, taught="dropped", settings={"distil": {"loss": "margin_mse", "weight": 0.05}}),
    "mined, decay 3": Arm(mined=True, settings={"weight_decay": 3.0}),
    MIXED: Arm(mined=True),
    WITH_START: Arm(),
    SEEDS: Arm(),
}
STEPS = {"adapter": 300, "transformer": 25}
SETTINGS: dict[str, dict[str, Any]] = {
    "adapter": {"batch_size": 128},
    # a processor does some pairs a second: few steps, so a higher rate than the default, which is meant for whole epochs
    "transformer": {"batch_size": 32, "hard_negatives": 3, "learning_rate": 5e-5},
}


class Study:
    """Trains the arms of one data set and encoder, and keeps what came out; of the arms `kept` also the models."""

    def __init__(self, given: argparse.Namespace, name: str, kind: str) -> None:
        self.work, self.threads, self.name, self.kind = given.work, given.threads, name, kind
        self.label, self.arms, self.settings, self.kept = kind, ARMS, SETTINGS[kind], {MERGED_FROM}
        self.steps = given.steps or STEPS[kind]
        self.prepared = prepare(name, given.data, given.work, given.model, given.threads)
        self.features = self._features(self.prepared)
        self.teacher: list[str] = given.teacher or []
        self._taught: dict[str, Prepared] = {}
        general = given.general if given.general != name else None
        self.general = Study(argparse.Namespace(**vars(given) | {"general": None}), general, kind) if general else None

    def _features(self, prepared: Prepared) -> Features:
        return prepared.vectors if self.kind == "adapter" else cut_tokens(prepared, settings_of(self.name).max_length)

    def _of(self, arm: Arm, seed: int) -> Prepared:
        """The data of an arm."""
        if not arm.taught:
            return self.prepared
        if arm.taught not in self._taught:
            settings = [*self.teacher, *TAUGHT[arm.taught]]
            self._taught[arm.taught] = taught(self.prepared, self.name, arm.taught, settings, Path(self.work), self.threads)
        return self._taught[arm.taught]

    def path(self, arm: str, seed: int, suffix: str) -> Path:
        """Where an arm's figures lie."""
        label = arm.replace(" ", "-")
        return Path(self.work) / "arms" / f"{self.name}.{self.label}.{self.steps}.{label}.{seed}{suffix}"

    def off_the_shelf(self) -> None:
        """Measure the model as it comes."""
        if self.path(BASE, 0, ".json").exists():
            return
        vectors = self.prepared.item_vectors, self.prepared.query_vectors
        if self.kind == "transformer":  # which reads fewer tokens here than when it mined
            vectors = self._encode(self.prepared.store, *self.start(0, self.prepared))
        self.keep(BASE, 0, *vectors, {"mining": self.prepared.mining} | self.general_figures(None))

    def _encode(self, store: Store, model: Manifest, prefix: str) -> tuple[F32, F32]:
        """(items, queries) under the model at `prefix`; rows of training queries are left empty."""
        from training.encoders.load import load_encoder

        return self.encode_by(load_encoder(fetch_folder(store, model, prefix)))

    def encode_by(self, encoder: Any) -> tuple[F32, F32]:
        from training.encoders.tokens.features import load_features

        items, queries = (load_features(self.prepared.store, parts) for parts in self.features)
        wanted = np.concatenate([rows for name, rows in self.prepared.rows.items() if name != "train"])
        vectors = np.zeros((len(queries), encoder.dimension), np.float32)
        vectors[wanted] = encoder.encode(queries.take(wanted))
        return encoder.encode(items), vectors

    def train(self, arm: str, seed: int) -> None:
        """Train and measure one arm, unless that is done."""
        if arm == SEEDS or self.path(arm, seed, ".json").exists():  # SEEDS: when all seeds are trained
            return
        if arm == MIXED and self.general is None:  # nothing to mix in
            return
        if arm == WITH_START:
            self._train_to_merge(seed)
            merge_with_start(self, seed)
            return
        import torch

        from training.engine.engine import Place
        from training.loop import Trainer

        started = time.monotonic()
        task = self._task(arm, seed) if arm != MIXED else mix_in(self, self._task(arm, seed))
        trainer = Trainer(task, Place(0, 1, torch.device("cpu"), False))
        result = trainer.run(lambda _: None)
        trained = time.monotonic() - started
        items, queries = self._encode(task.store, result["best"]["model"], result["best"]["prefix"])
        more = {
            "seconds": trained,
            "best_epoch": result["best"]["epoch"],
            "epochs": result["epochs"],
            "steps": result["steps"],
            "train_loss": result["train_loss"],
            "geometry": _geometry(task),
        }
        if self.kind == "adapter":  # what choosing the epoch on dev did: the last model beside the kept one
            more["last"] = summarise(self.measure(*self.encode_by(trainer.engine.module)))
        trainer.engine.destroy()
        folder = fetch_folder(task.store, result["best"]["model"], result["best"]["prefix"])
        more |= self.general_figures(folder)
        if arm in self.kept:
            shutil.copytree(folder, self.path(arm, seed, ".model"), dirs_exist_ok=True)
        task.store.delete(task.folder)
        self.keep(arm, seed, items, queries, more)

    def merge_seeds(self, seeds: int) -> None:
        """Average the models of all seeds, unless that is done; adapters start from other weights with every seed."""
        if self.kind != "adapter" and seeds > 1 and not self.path(SEEDS, 0, ".json").exists():
            for seed in range(1, seeds + 1):
                self._train_to_merge(seed)
            merge_seeds(self, seeds)

    def _train_to_merge(self, seed: int) -> None:
        if not self.path(MERGED_FROM, seed, ".model").exists():  # of an arm that was trained before models were kept
            self.path(MERGED_FROM, seed, ".json").unlink(missing_ok=True)
        self.train(MERGED_FROM, seed)

    def general_figures(self, model: Path | None) -> dict[str, Any]:
        """Figures of a model on the dev queries of the general set, which no arm is trained on; {}: there is none."""
        from training.encoders.load import load_encoder

        if self.general is None:
            return {}
        prepared = self.general.prepared
        if model is None and self.kind == "adapter":
            vectors = prepared.item_vectors, prepared.query_vectors
        else:
            folder = model or fetch_folder(prepared.store, *self.general.start(0, prepared))
            vectors = self.general.encode_by(load_encoder(folder))
        return {"general": summarise(self.general.measure(*vectors))}

    def _task(self, arm: str, seed: int) -> TrainTask:
        from training.encoders.base import CPU_BUDGET_TOKENS

        chosen = self.arms[arm]
        prepared = self._of(chosen, seed)
        features = self._features(prepared)
        folder = f"quality/{self.path(arm, seed, '').name}"
        prepared.store.delete(folder)  # of an interrupted attempt
        # no stopping policy is handed over: all arms make the same steps
        settings = TrainingSettings(**self.settings | chosen.settings)
        model, prefix = self.start(seed, prepared)
        return TrainTask(
            store=prepared.store,
            folder=folder,
            kind=self.kind,
            model=model,
            model_prefix=prefix,  # type: ignore[arg-type]
            data=TrainData(
                codes=prepared.codes,
                queries=prepared.queries,
                item_features=features[0],
                query_features=features[1],
                labels=prepared.labels,
                negatives=prepared.negatives if chosen.mined else [],
                near_misses=prepared.near_misses,
            ),
            settings=settings,
            schedule=Schedule(self.steps, steps=self.steps),
            seed=seed,
            threads=self.threads,
            budget_tokens=CPU_BUDGET_TOKENS,
        )

    def start(self, seed: int, prepared: Prepared) -> tuple[Manifest, str]:
        """The model that all arms of a seed start from: a new adapter of that seed, or the transformer as it comes."""
        if self.kind != "adapter":
            return prepared.base.files, prepared.base.figures["prefix"]
        from training.encoders.adapter import new_adapter_folder
        from training.settings import EncoderSettings

        prefix = f"quality/adapter-{seed}"
        with tempfile.TemporaryDirectory() as local:
            new_adapter_folder(Path(local), self.prepared.item_vectors.shape[1], EncoderSettings(kind="adapter").hidden, seed)
            return upload_folder(Path(local), prepared.store, prefix), prefix

    def measure(self, items: F32, queries: F32) -> dict[str, Any]:
        rows = self.prepared.rows["dev"]
        return measure(self.prepared, items, queries[rows], rows)

    def keep(self, arm: str, seed: int, items: F32, queries: F32, more: dict[str, Any]) -> None:
        per_query = self.measure(items, queries)
        path = self.path(arm, seed, ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self.path(arm, seed, ".dev.npz"), **per_query)
        if "test" in self.prepared.rows:  # to be measured once, at the end
            np.savez(self.path(arm, seed, ".vectors.npz"), items=items, queries=queries[self.prepared.rows["test"]])
        row = {"set": self.name, "encoder": self.label, "arm": arm, "seed": seed, "metrics": summarise(per_query)} | more
        with (Path(self.work) / "results.jsonl").open("a") as log:
            log.write(json.dumps(row | {"planned": self.steps, "at": time.time()}) + "\n")
        path.write_text(json.dumps(row))  # last: what exists is done

    def test(self) -> None:
        """Measure the kept vectors of every arm on the test split."""
        rows = self.prepared.rows.get("test")
        found = sorted((Path(self.work) / "arms").glob(f"{self.name}.{self.label}.{self.steps}.*.vectors.npz"))
        for path in found if rows is not None else []:
            kept = np.load(path)
            per_query = measure(self.prepared, kept["items"], kept["queries"], rows)  # type: ignore[arg-type]
            np.savez(Path(str(path).replace(".vectors.npz", ".test.npz")), **per_query)


def _geometry(task: TrainTask) -> dict[str, float]:
    """Means over the last tenth of the steps, at least five."""
    lines = [json.loads(line) for line in task.store.read_bytes(f"{task.folder}/telemetry.jsonl").splitlines()]
    lines = [line for line in lines if "event" not in line]
    last = lines[-max(5, len(lines) // 10) :]
    return {name: float(np.mean([line[name] for line in last])) for name in GEOMETRY if name in last[-1]}
