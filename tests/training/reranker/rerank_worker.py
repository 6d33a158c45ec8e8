"""One of W gloo ranks that trains small re-rankers with DeepSpeed; `test_reranker_training.py` judges what it wrote.

Run as `python rerank_worker.py RANK WORLD FOLDER`; the two-rank launch comes first and makes the data. Rank 0 writes
FOLDER/report-W.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor

from cluster.errors import HardmineError
from cluster.storage.model_folders import describe_folder, fetch_folder, upload_folder
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, write_part
from eval.verdict import decide_epochs
from training.encoders.prepare.late import prepare_late
from training.encoders.prepare.reranker import prepare_reranker
from training.encoders.rerankers.load import load_reranker, reranker_tokenizer
from training.encoders.rerankers.pair_encoder import PairEncoder
from training.encoders.st_format import read_json, write_json
from training.engine.engine import Place, full_state, set_learning_rate, start_engine
from training.engine.schedule import Schedule
from training.loop import Trainer
from training.reranker.load import load
from training.reranker.losses import count_terms, loss_sums
from training.reranker.settings import Loss, RerankerSettings, settings_for
from training.reranker.subject import Reranker
from training.reranker.task import RerankData, RerankTask
from training.settings import LoraSettings, TrainingSettings
from training.telemetry.telemetry import read_lines

ITEMS, TRAIN, DEV, TOPICS, JOINED = 80, 48, 16, 16, 8
Figures = dict[str, Any]
sys.path.insert(0, str(Path(__file__).parents[1]))

from equality_worker import error, full_gradient  # noqa: E402  the matrix of the retriever


def texts_of(count: int, rng: np.random.Generator) -> list[str]:
    """Texts whose topic is their first letter, most of the time; lengths differ, so that ranks have unequal packs."""
    letters = [chr(ord("a") + row % TOPICS) for row in range(count)]
    return [
        " ".join(rng.choice([letter, letter, chr(ord("a") + rng.integers(TOPICS))]) for _ in range(rng.integers(2, 9)))
        for letter in letters
    ]


def write(store: Store, name: str, table: pa.Table) -> list[Part]:
    """A table in two parts."""
    edges = np.linspace(0, table.num_rows, 3).astype(int)
    return [
        write_part(store, f"{name}/{part_name(i)}", table.slice(low, high - low), first_row=int(low))
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def label_table(rng: np.random.Generator) -> pa.Table:
    """Two to four items of the query's topic with grades 1 to 3, one judged irrelevant; weights that differ."""
    rows = []
    for query in range(TRAIN + DEV):
        same = rng.permutation(np.arange(query % TOPICS, ITEMS, TOPICS))[: rng.integers(2, 5)]
        weight = float(rng.choice([0.5, 1.0, 2.0]))
        rows += [(query, int(item), 1.0, float(rng.integers(1, 4)), weight) for item in same]
        rows.append((query, int((query + 1) % TOPICS), 0.0, 0.0, 1.0))
    columns = zip(*sorted(rows), strict=True)
    return pa.table(
        dict(zip(("query_row", "item_row", "score", "gain", "weight"), columns, strict=True)) | {"source": ["test"] * len(rows)}
    )


def negative_table(labels: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Up to nine mined negatives of a training query, with a teacher's scores."""
    relevant: dict[int, list[int]] = {}
    for query, item, score in zip(*(labels[name].to_pylist() for name in ("query_row", "item_row", "score")), strict=True):
        relevant.setdefault(query, []).extend([item] if score > 0 else [])
    mined = [
        [int(item) for item in rng.permutation(ITEMS)[: rng.integers(0, 10)] if item not in relevant[query]]
        for query in range(TRAIN)
    ]
    lists = {"negative_rows": mined, "positive_rows": [relevant[query] for query in range(TRAIN)]}
    columns: dict[str, Any] = {"query_row": np.arange(TRAIN)}
    for name, rows in lists.items():
        columns[name] = pa.array(rows, pa.list_(pa.int64()))
        scores = [rng.normal(size=len(some)) + (name == "positive_rows") for some in rows]
        columns[name.replace("rows", "teacher_scores")] = pa.array(scores, pa.list_(pa.float32()))
    return pa.table(columns)


def prepare(folder: Path, source: Path) -> RerankTask:
    """Data, and the tiny cross-encoder in `source`, in one store: without dropout, as "dropout" with its own, and its body as
    "late", of late interaction."""
    store, rng = Store(str(folder / "store")), np.random.default_rng(0)
    labels = label_table(rng)
    for name in ("model", "dropout"):
        prepare_reranker(source, folder / name, max_length=24)
    upload_folder(folder / "dropout", store, "dropout")
    prepare_late(source, folder / "late", max_length=24)
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for name in ("model", "late"):
        write_json(folder / name / "config.json", read_json(folder / name / "config.json") | none)
    upload_folder(folder / "late", store, "late")
    tables = {
        "queries": pa.table(
            {
                "row": np.arange(TRAIN + DEV),
                "text": texts_of(TRAIN + DEV, rng),
                "split": ["train"] * TRAIN + ["dev"] * DEV,
                "item_row": np.full(TRAIN + DEV, -1),
            }
        ),
        "corpus": pa.table({"row": np.arange(ITEMS), "text": texts_of(ITEMS, rng)}),
        "codes": pa.table(
            {"row": np.arange(ITEMS), "text_code": np.arange(ITEMS), "group_code": np.where(np.arange(ITEMS) < 6, 1, -1)}
        ),
        "labels": labels,
        "negatives": negative_table(labels, rng),
        "near_misses": pa.table(
            {
                "query_row": np.arange(TRAIN, TRAIN + DEV),
                "item_rows": pa.array([rng.permutation(ITEMS)[:40].tolist() for _ in range(DEV)], pa.list_(pa.int64())),
            }
        ),
    }
    reranker = RerankerSettings(model="-", epochs=2, batch_size=JOINED, hard_negatives=4, random_negatives=2, learning_rate=2e-3)
    return RerankTask(
        store=store,
        folder="",
        model=upload_folder(folder / "model", store, "model"),
        model_prefix="model",
        data=RerankData(**{name: write(store, name, table) for name, table in tables.items()}),
        settings=settings_for(TrainingSettings(), reranker),
        reranker=reranker,
        schedule=Schedule(2),
        budget_tokens=160,
        stopping=decide_epochs,
    )


class KilledError(RuntimeError):
    """Stands for a worker that dies."""


class Runs:
    """Trains one task after another on this rank and notes what came out."""

    def __init__(self, task: RerankTask, rank: int, world: int, folder: Path) -> None:
        self.base, self.rank, self.world, self.folder = task, rank, world, folder
        self.report: dict[str, Any] = {}

    def task(self, name: str, own: Figures | None = None, **training: Any) -> RerankTask:
        """The task with other settings; the joined batch is the same for every world size."""
        reranker = self.base.reranker.model_copy(update={"batch_size": JOINED // self.world, **(own or {})})
        settings = settings_for(TrainingSettings(**training), reranker)
        return replace(self.base, folder=f"runs/{name}", settings=settings, reranker=reranker)

    def of(self, model: str, task: RerankTask) -> RerankTask:
        """The same from another model."""
        return replace(task, model=describe_folder(self.folder / model, model), model_prefix=model)

    def train(self, label: str, task: RerankTask, *, bfloat16: bool = False, kill_at: int | None = None) -> None:
        """Train, and note losses, weights and errors under `label`."""
        noted: Figures = {}
        trainer = None
        try:
            trainer = Trainer(task, Place(self.rank, self.world, torch.device("cpu"), bfloat16))
            noted["started_at_step"] = trainer.progress.step
            if kill_at is not None:
                _kill(trainer, kill_at)
            start = _weights(trainer)
            noted["result"] = trainer.run(lambda figures: None)
            end = _weights(trainer)
            noted["end"], noted["moved"] = end.tolist(), (end - start).tolist()
        except (HardmineError, KilledError) as error:
            noted["error"] = f"{type(error).__name__}: {error}"
        if trainer is not None:
            trainer.checkpoints.wait()
            trainer.engine.destroy()
        dist.barrier()
        if self.rank == 0 and task.store.exists(f"{task.folder}/telemetry.jsonl"):
            noted["lines"] = [line for line in read_lines(task.store, task.folder) if "event" not in line]
        self.report[label] = noted
        dist.barrier()

    def opened(self, label: str) -> None:
        """Scores of the kept folder: ours, and those of sentence-transformers (of a cross-encoder the logits)."""
        from sentence_transformers import CrossEncoder, MultiVectorEncoder

        if self.rank:
            return
        best = self.report[label]["result"]["best"]
        folder = fetch_folder(self.base.store, best["model"], best["prefix"])
        pairs = [("a b a", "a a"), ("c", "d e f d e f d e f d e f d e f d e f d e f d e f"), ("b b c", "p")]
        tokenizer, rows = reranker_tokenizer(folder), np.arange(len(pairs))
        queries, items = (list(side) for side in zip(*pairs, strict=True))
        joined = tokenizer.template.join(tokenizer.queries(queries), tokenizer(items), rows, rows)
        self.report[label]["ours"] = load_reranker(folder).encode(joined)[:, 0].tolist()
        if label == "late":
            late = MultiVectorEncoder(str(folder), device="cpu")
            theirs = late.similarity_pairwise(late.encode_query(queries), late.encode_document(items))
            self.report[label]["theirs"] = theirs.tolist()
            return
        model = CrossEncoder(str(folder), device="cpu")
        self.report[label]["theirs"] = model.predict(pairs, activation_fn=torch.nn.Identity()).tolist()
        self.report[label]["activation"] = type(model.activation_fn).__name__


def _weights(trainer: Trainer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All weights in one row on rank 0, ordered by name; empty elsewhere."""
    state = full_state(trainer.engine, trainer.place)
    return np.concatenate([np.zeros(0), *(state[name].double().numpy().ravel() for name in sorted(state))])


def _kill(trainer: Trainer, step: int) -> None:
    add = trainer.telemetry.add

    def act(figures: Figures) -> None:
        add(figures)
        if figures["step"] == step:
            raise KilledError(f"at step {step}")

    trainer.telemetry.add = act  # type: ignore[method-assign]


def truth(runs: Runs, subject: Reranker, plain: PairEncoder) -> dict[str, Tensor]:
    """Gradient of every weight by plain autograd: all lists of all ranks in one pass of one process."""
    lists, name = subject._draw(0, 0), subject._task.reranker.loss
    logits = plain(plain.collate(subject._pairs(*lists.pairs())))[:, 0]
    real, gains, teacher, weights = map(torch.from_numpy, (lists.real, lists.gains, lists.teacher, lists.weights))
    scores = torch.zeros(real.shape).masked_scatter(real, logits)
    total = (loss_sums(name, scores, gains, real, teacher) * weights).sum()
    plain.zero_grad()
    (total / (count_terms(name, gains, real, teacher) * weights).sum()).backward()
    return {key: value.grad.clone() for key, value in plain.named_parameters() if value.grad is not None}


def gradients(runs: Runs) -> dict[str, float]:
    """Case -> relative error of the gradient that two ranks give the weights."""
    report, place = {}, Place(runs.rank, runs.world, torch.device("cpu"), False)
    folder = fetch_folder(runs.base.store, runs.base.model, runs.base.model_prefix)
    for stage in (0, 1, 2, 3):
        tasks = {loss: runs.task("gradients", {"loss": loss}, zero_stage=stage, gradient_clipping=0.0) for loss in get_args(Loss)}
        subjects = {
            loss: Reranker(task, place, load(task, runs.world), budget_tokens=None, say=print) for loss, task in tasks.items()
        }
        first = subjects["bce"]
        engine = start_engine(first.model, first.settings, place)
        set_learning_rate(engine, 0.0)  # the weights stay: every case has the same truth
        for loss, subject in subjects.items():
            want = truth(runs, subject, PairEncoder.load(folder).train())
            for cached in (False, True):
                subject.model = first.model
                subject.settings = subject.settings.model_copy(update={"grad_cache": cached})
                subject.begin(engine)
                subject.micro_step(0, 0, then=None, boundary=True, rate=0.0)
                report[f"zero {stage} · {loss} · {'cached' if cached else 'kept'}"] = error(full_gradient(engine), want)
                engine.step()
            subject.close()
        engine.destroy()
    return report


LATE = {"kind": "late_interaction", "loss": "lambda"}
LORA = LoraSettings(rank=4, alpha=8.0)


def two_ranks(runs: Runs) -> None:
    """What needs two ranks."""
    runs.report["gradients"] = gradients(runs)
    for stage in (0, 1, 2, 3):
        runs.train(f"zero-{stage}", runs.task(f"zero-{stage}", zero_stage=stage))
    runs.opened("zero-1")
    runs.train("cached", runs.task("cached", zero_stage=2, grad_cache=True))
    for loss in ("lambda", "listnet", "margin_mse"):
        runs.train(loss, runs.task(loss, {"loss": loss}))
    runs.opened("lambda")
    runs.train("lora", runs.task("lora", {"lora": LORA}, zero_stage=3))
    runs.opened("lora")
    runs.train("bfloat16", runs.task("bfloat16"), bfloat16=True)
    for name, training in (("late", {}), ("late-cached", {"zero_stage": 3, "grad_cache": True})):
        runs.train(name, runs.of("late", runs.task(name, LATE, **training)))
    runs.opened("late")
    task = runs.of("dropout", runs.task("middle", checkpoint_steps=4, zero_stage=2, grad_cache=True))
    runs.train("killed", task, kill_at=6)
    runs.train("resumed", task)
    runs.train("whole", replace(task, folder="runs/whole"))
    runs.train("wild", runs.task("wild", {"learning_rate": 1e30}, gradient_clipping=0.0, warmup_fraction=0.0))


def one_rank(runs: Runs) -> None:
    """The same with one rank."""
    runs.train("zero-1", runs.task("one-zero-1"))
    for loss in ("lambda", "listnet", "margin_mse"):
        runs.train(loss, runs.task(f"one-{loss}", {"loss": loss}))
    runs.train("lora", runs.task("one-lora", {"lora": LORA}))
    runs.train("late", runs.of("late", runs.task("one-late", LATE)))
    bare = replace(runs.base.data, negatives=[], near_misses=[])
    runs.train("bare", replace(runs.task("bare"), data=bare))
    runs.train("no-teacher", replace(runs.task("no-teacher", {"loss": "margin_mse"}), data=bare))


def main(rank: int, world: int, folder: Path) -> None:
    """Run all scenarios of this world size as one rank."""
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init-{world}", rank=rank, world_size=world, timeout=timedelta(seconds=300)
    )
    if world == 2 and rank == 0:
        torch.save(prepare(folder, folder / "cross-encoder"), folder / "task.pt")
    dist.barrier()
    runs = Runs(torch.load(folder / "task.pt", weights_only=False), rank, world, folder)
    (two_ranks if world == 2 else one_rank)(runs)
    if rank == 0:
        (folder / f"report-{world}.json").write_text(json.dumps(runs.report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
