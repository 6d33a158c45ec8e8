"""One run of `benchmarks.illnesses`, in this process: what `hardmine run` does stage by stage, with its own code, without Ray.

    off the shelf -> warm-up on random negatives -> (search, mine, train, measure) for each round -> the arm of random negatives

N items, Q queries, D dimensions.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.illnesses.case import Case
from benchmarks.illnesses.data import Written, write_parts, write_tables
from benchmarks.illnesses.measure import SETTINGS, Measured, Searcher
from cluster.storage.model_folders import Manifest, upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import F32, Part, vectors_to_column
from eval.diagnosis.evidence import Arm, Evidence, Measurement, Mining, Training
from jobs.finished.evidence import measurement_from_figures, mining_from_figures, training_from_lines
from mining.negatives import MineTask, mine_block
from mining.report.figures import ChoiceFigures
from mining.settings import MiningSettings
from training.engine.schedule import Schedule
from training.settings import EncoderSettings, Kind, TrainingSettings
from training.task import TrainData, TrainTask

Features = dict[str, list[Part]]


@dataclass(frozen=True)
class Model:
    """An encoder in the run's store."""

    kind: Kind
    prefix: str
    files: Manifest


@dataclass(frozen=True)
class Standing:
    """A model, what it finds, and what is known of it."""

    model: Model
    items: F32
    """[N, D]"""
    queries: F32
    """[Q, D]"""
    measured: Measured
    measurement: Measurement
    general: Measured | None = None


@dataclass(frozen=True)
class Fitted:
    """What one training left."""

    model: Model
    training: Training
    steps: int


class Run:
    """One case with one seed, from texts to evidence."""

    def __init__(self, case: Case, seed: int, folder: Path) -> None:
        self.case, self.seed = case, seed
        self.store = Store(str(folder))
        self.data = case.data(seed)
        self.tables: Written = write_tables(self.store, self.data)
        self.training = TrainingSettings(**case.training)
        self.mining = MiningSettings(**case.mining)
        self.searcher = Searcher(self.tables)
        self.rows = {split: np.array(self.data.rows(split), np.int64) for split in ("train", "dev", "general")}
        self.features: Features = {}
        """What the trained encoder reads: tokens, or the frozen vectors of a base model."""
        self.baseline: Standing | None = None
        self.general: list[Measurement] = []

    def evidence(self) -> Evidence:
        """Train everything; what the diagnosis reads."""
        base = self.baseline = self._off_the_shelf()
        warm = start = self._start(base)
        if self.case.warmup_epochs:
            fitted = self._fit(start.model, "round-00", 0, epochs=self.case.warmup_epochs)
            warm = self._measure(fitted.model, "round-00", 0, start)
        mined, last, steps = self._mined_arm(warm)
        arms = [mined, self._random_arm(warm, last, steps)] if self.case.compare_random else [mined]
        return Evidence(
            arms=arms,
            primary=SETTINGS.primary,
            baseline=base.measurement,
            general=self.general,
            leakage=base.measured.figures["leakage"],
            settings=self._settings(),
            items=len(self.data.items),
        )

    def _off_the_shelf(self) -> Standing:
        """The model that everything is compared with: new, or trained on earlier queries."""
        from training.encoders.prepare.prepare import build_base
        from training.encoders.tokens.tokenizer import Tokenizer

        texts = {
            "items": [str(item["text"]) for item in self.data.items],
            "queries": [str(query["text"]) for query in self.data.queries],
        }
        encoder = EncoderSettings(kind="static", dimension=self.case.dimension, vocabulary=8000)
        with tempfile.TemporaryDirectory() as folder:
            local = build_base(encoder, StorageSettings(), texts["items"], self.seed, Path(folder))
            tokenizer = Tokenizer(local, encoder)
            for side, of_side in texts.items():
                table = pa.table({"row": np.arange(len(of_side)), "tokens": tokenizer(of_side, "")})
                self.features[side] = write_parts(self.store, f"tokens/{side}", table)
            model = Model("static", "base", upload_folder(local, self.store, "base"))
        if self.case.earlier_epochs:
            model = self._fit(
                model,
                "earlier",
                0,
                epochs=self.case.earlier_epochs,
                settings=TrainingSettings(batch_size=32),
                queries=self.tables.earlier,
            ).model
        return self._measure(model, "baseline", -1, None)

    def _start(self, base: Standing) -> Standing:
        """The model that training starts from; a new adapter on the base model's frozen vectors starts as that model."""
        if self.case.kind != "adapter":
            return base
        from training.encoders.adapter import new_adapter_folder

        for side, values in (("items", base.items), ("queries", base.queries)):
            table = pa.table({"row": np.arange(len(values)), "vector": vectors_to_column(values)})
            self.features[side] = write_parts(self.store, f"vectors/{side}", table)
        with tempfile.TemporaryDirectory() as local:
            new_adapter_folder(Path(local), base.items.shape[1], self.case.hidden, self.seed)
            return replace(base, model=Model("adapter", "adapter", upload_folder(Path(local), self.store, "adapter")))

    def _measure(
        self, model: Model, name: str, number: int, previous: Standing | None, mined: Standing | None = None
    ) -> Standing:
        """Embed everything and measure it; the general queries too, where there are any, but not for the random arm."""
        from training.encoders.load import load_encoder
        from training.encoders.tokens.features import load_features

        encoder = load_encoder(Path(self.store.url(model.prefix)))
        items, queries = (encoder.encode(load_features(self.store, self.features[side])) for side in ("items", "queries"))
        rivals = {"baseline": self.baseline, "previous": previous, "best": mined}
        others = {key: standing.measured for key, standing in rivals.items() if standing}
        measured = self.searcher.measure(items, queries, self.rows["dev"], name, others)
        figures = {"round": number} | dict(measured.figures)
        measurement = measurement_from_figures(name, figures, random=mined is not None)
        standing = Standing(model, items, queries, measured, measurement)
        if not len(self.rows["general"]) or mined:
            return standing
        first = {"baseline": self.baseline.general} if self.baseline and self.baseline.general else {}
        general = self.searcher.measure(items, queries, self.rows["general"], f"{name}-general", first)
        if number != 0:
            self.general.append(measurement_from_figures(name, {"round": number} | dict(general.figures)))
        return replace(standing, general=general)

    def _fit(
        self,
        model: Model,
        name: str,
        number: int,
        *,
        epochs: int,
        settings: TrainingSettings | None = None,
        queries: list[Part] | None = None,
        negatives: list[Part] | None = None,
        cycles: int = 1,
        steps: int | None = None,
    ) -> Fitted:
        """One training by the project's loop, on one rank."""
        import torch

        from training.engine.engine import Place
        from training.loop import Trainer
        from training.telemetry.telemetry import read_lines

        task = TrainTask(
            store=self.store,
            folder=f"train/{name}",
            kind=model.kind,
            model=model.files,
            model_prefix=model.prefix,
            data=TrainData(
                codes=self.tables.corpus,
                queries=queries or self.tables.queries,
                item_features=self.features["items"],
                query_features=self.features["queries"],
                labels=self.tables.labels,
                negatives=negatives or [],
                near_misses=[self.baseline.measured.hits] if self.baseline else [],
            ),
            settings=settings or self.training,
            schedule=Schedule(epochs, cycles, steps),
            seed=self.seed,
            round=number,
            threads=1,
        )
        trainer = Trainer(task, Place(0, 1, torch.device("cpu"), False))
        try:
            result = trainer.run(lambda _: None)
        finally:
            trainer.engine.destroy()
        best = result["best"]
        return Fitted(
            Model(model.kind, best["prefix"], best["model"]),
            training_from_lines(name, number, read_lines(self.store, task.folder)),
            int(result["steps"]),
        )

    def _mined_arm(self, warm: Standing) -> tuple[Arm, Standing, int]:
        """(the arm, its last model, the optimizer steps of all its rounds)."""
        last, steps = warm, 0
        trainings: list[Training] = []
        measurements: list[Measurement] = []
        minings: list[Mining] = []
        for number in range(1, self.case.rounds + 1):
            name = f"round-{number:02d}"
            negatives, mining = self._mine(last, number)
            fitted = self._fit(last.model, name, number, epochs=self.training.epochs, negatives=negatives)
            last = self._measure(fitted.model, name, number, last)
            steps += fitted.steps
            trainings.append(fitted.training)
            measurements.append(last.measurement)
            minings.append(mining)
        return Arm("mined", warm.measurement, trainings, measurements, minings), last, steps

    def _random_arm(self, warm: Standing, rival: Standing, steps: int) -> Arm:
        """As many steps and learning-rate cycles as the mined rounds made, on random negatives, in one go."""
        rounds = self.case.rounds
        name = f"round-{rounds:02d}-random"
        fitted = self._fit(warm.model, name, rounds, epochs=rounds * self.training.epochs, cycles=rounds, steps=steps)
        standing = self._measure(fitted.model, name, rounds, warm, rival)
        return Arm("random", warm.measurement, [fitted.training], [standing.measurement])

    def _mine(self, standing: Standing, number: int) -> tuple[list[Part], Mining]:
        """Search the training queries and choose their negatives by the product's own filters."""
        hits = self.searcher.search(
            standing.items,
            standing.queries,
            self.rows["train"],
            f"hits/{number:02d}.parquet",
            self.mining.num_hits,
            exclude_known=True,
        )
        task = MineTask(
            self.store,
            [hits],
            self.tables.labels,
            self.tables.corpus,
            self.tables.corpus,
            self.tables.queries,
            self.mining,
            f"negatives/{number:02d}",
            self.seed + number,
            round=number,
        )
        part, counts = mine_block(task, 0, uses=np.zeros(len(self.data.items), np.int32) if self.mining.max_uses else None)
        return [part], mining_from_figures(f"round-{number:02d}", number, ChoiceFigures.of(counts).to_json())

    def _settings(self) -> dict[str, float | str | bool]:
        """What the run was told, by the names of the configuration."""
        case = self.case
        sections: dict[str, dict[str, Any]] = {
            "training": self.training.model_dump(),
            "mining": self.mining.model_dump(),
            "encoder": {"kind": case.kind, "dimension": case.dimension, "hidden": case.hidden},
            "rounds": {"warmup_epochs": case.warmup_epochs, "mined": case.rounds, "compare_random": case.compare_random},
        }
        return {
            f"{section}.{key}": value
            for section, values in sections.items()
            for key, value in values.items()
            if isinstance(value, (bool, int, float, str))
        }
