"""One of W gloo ranks that trains many small rounds with DeepSpeed; `test_loop_distributed.py` judges what it wrote.

Run as `python loop_worker.py RANK WORLD FOLDER`; the two-rank launch comes first and makes the data. Rank 0 writes
FOLDER/report-W.json. One launch runs all scenarios of its world size, because starting torch and DeepSpeed is most of
the time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from transformers.utils import logging

from cluster.errors import HardmineError
from cluster.storage.model_folders import fetch_folder, upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, vectors_to_column, write_part
from eval.verdict import decide_epochs
from training.encoders.adapter import new_adapter_folder
from training.encoders.load import load_encoder
from training.encoders.prepare.prepare import build_base
from training.encoders.tokens.tokenizer import Tokenizer
from training.engine.engine import Place, full_state
from training.engine.schedule import Schedule
from training.loop import Trainer
from training.settings import VALIDATION_K, EncoderSettings, TrainingSettings
from training.task import TrainData, TrainTask
from training.telemetry.telemetry import read_lines

NUM_ITEMS, NUM_TRAIN, NUM_DEV, TOPICS, JOINED_BATCH = 90, 96, 12, 15, 8
WORDS = [start + end for start in ("ba", "de", "ko", "lu", "mi", "zo") for end in ("ra", "ne", "sti", "gor", "pa")]
Figures = dict[str, Any]


def texts_of(count: int, rng: np.random.Generator) -> list[str]:
    """Texts whose topic shows in most of their words; lengths differ, so that ranks have unequal micro-batches."""
    texts = []
    for row in range(count):
        topic = [WORDS[(row % TOPICS) * 2], WORDS[(row % TOPICS) * 2 + 1]]
        texts.append(" ".join(rng.choice(topic if rng.random() < 0.7 else WORDS) for _ in range(rng.integers(3, 14))))
    return texts


def write(store: Store, name: str, table: pa.Table, cuts: int = 2) -> list[Part]:
    """A table in `cuts` parts."""
    edges = np.linspace(0, table.num_rows, cuts + 1).astype(int)
    return [
        write_part(store, f"{name}/{part_name(i)}", table.slice(low, high - low), first_row=int(low))
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def label_table(rng: np.random.Generator) -> pa.Table:
    """One to three relevant items per query, one judged irrelevant, weights that differ."""
    rows = []
    for query in range(NUM_TRAIN + NUM_DEV):
        same = np.arange(query % TOPICS, NUM_ITEMS, TOPICS)
        chosen = rng.permutation(same)[: rng.integers(1, 4)]
        rows += [(query, int(item), 1, float(rng.choice([0.5, 1.0, 2.0]))) for item in chosen]
        rows.append((query, int((query + 1) % TOPICS), 0, 1.0))
    query_rows, item_rows, scores, weights = zip(*sorted(rows), strict=True)
    return pa.table(
        {"query_row": query_rows, "item_row": item_rows, "score": scores, "weight": weights, "source": ["test"] * len(rows)}
    )


def negative_table(rng: np.random.Generator) -> pa.Table:
    """Zero to five mined negatives per training query."""
    lists = [[int(item) for item in rng.permutation(NUM_ITEMS)[: rng.integers(0, 6)]] for _ in range(NUM_TRAIN)]
    return pa.table({"query_row": np.arange(NUM_TRAIN), "negative_rows": pa.array(lists, pa.list_(pa.int64()))})


def tokens_table(texts: list[str], tokenizer: Tokenizer) -> pa.Table:
    return pa.table({"row": np.arange(len(texts)), "tokens": tokenizer(texts, "")})


def write_bert(folder: Path, static: Path, *, dropout: float = 0.0) -> None:
    """A tiny BERT as a plain Hugging Face folder, on the static model's vocabulary."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(static / "tokenizer.json"), unk_token="[UNK]", pad_token="[UNK]", model_max_length=32
    )
    torch.manual_seed(3)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=32,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_dense_pipeline(folder: Path, base: Path) -> None:
    """The same BERT with a Dense layer behind its pooling: sentence-transformers runs it, BERT's pooler is unused."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    model = SentenceTransformer(str(base), device="cpu")
    torch.manual_seed(4)
    modules = [*list(model)[:2], Dense(32, 24), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)


def prepare(folder: Path) -> dict[str, TrainTask]:
    """Data and models of all kinds in one store; one task of each kind."""
    logging.disable_progress_bar()
    store, rng, storage = Store(str(folder / "store")), np.random.default_rng(0), StorageSettings()
    items, queries = texts_of(NUM_ITEMS, rng), texts_of(NUM_TRAIN + NUM_DEV, rng)
    corpus = pa.table(
        {
            "row": np.arange(NUM_ITEMS),
            "text_code": np.arange(NUM_ITEMS),
            "group_code": np.where(np.arange(NUM_ITEMS) % 7 == 0, np.arange(NUM_ITEMS) // 14, -1),
        }
    )
    split = pa.table(
        {
            "row": np.arange(len(queries)),
            "item_row": np.full(len(queries), -1),
            "split": ["train"] * NUM_TRAIN + ["dev"] * NUM_DEV,
        }
    )
    static = build_base(
        EncoderSettings(kind="static", dimension=24, vocabulary=256), storage, items + queries, 0, folder / "base-static"
    )
    write_bert(folder / "bert", static)
    bert = build_base(EncoderSettings(model=str(folder / "bert")), storage, [], 0, folder / "base-bert")
    write_bert(folder / "dropout", static, dropout=0.2)
    dropout = build_base(EncoderSettings(model=str(folder / "dropout")), storage, [], 0, folder / "base-dropout")
    write_dense_pipeline(folder / "dense", bert)
    dense = build_base(EncoderSettings(model=str(folder / "dense")), storage, [], 0, folder / "base-dense")
    (folder / "adapter").mkdir()
    new_adapter_folder(folder / "adapter", 16, 32, 0)
    tokenizer = Tokenizer(static, EncoderSettings(kind="static"))
    centres = rng.normal(size=(TOPICS, 16))
    vectors = [
        (centres[np.arange(n) % TOPICS] + 1.5 * rng.normal(size=(n, 16))).astype(np.float32) for n in (NUM_ITEMS, len(queries))
    ]
    features = {
        "tokens": [
            write(store, name, tokens_table(texts, tokenizer), 3)
            for name, texts in (("item-tokens", items), ("query-tokens", queries))
        ],
        "vectors": [
            write(store, name, pa.table({"row": np.arange(len(block)), "vector": vectors_to_column(block)}))
            for name, block in zip(("item-vectors", "query-vectors"), vectors, strict=True)
        ],
    }
    shared = {
        "codes": write(store, "codes", corpus),
        "queries": write(store, "queries", split),
        "labels": write(store, "labels", label_table(rng)),
        "negatives": write(store, "negatives", negative_table(rng)),
    }
    tasks = {}
    for name, kind, local, source in (
        ("static", "static", static, "tokens"),
        ("bert", "transformer", bert, "tokens"),
        ("dropout", "transformer", dropout, "tokens"),
        ("dense", "transformer", dense, "tokens"),
        ("adapter", "adapter", folder / "adapter", "vectors"),
    ):
        tasks[name] = TrainTask(
            store=store,
            folder="",
            kind=kind,
            model=upload_folder(local, store, f"models/{name}"),  # type: ignore[arg-type]
            model_prefix=f"models/{name}",
            data=TrainData(item_features=features[source][0], query_features=features[source][1], **shared),
            settings=TrainingSettings(epochs=2, hard_negatives=3, random_fraction=0.67, zero_stage=2, learning_rate=5e-4),
            schedule=Schedule(2),
            budget_tokens=48,
            stopping=decide_epochs,
        )
    return tasks


class KilledError(RuntimeError):
    """Stands for a worker that dies after an epoch's state was saved."""


class Runs:
    """Trains one task after another on this rank and notes what came out."""

    def __init__(self, tasks: dict[str, TrainTask], rank: int, world: int) -> None:
        self.tasks, self.rank, self.world = tasks, rank, world
        self.report: dict[str, Figures] = {}

    def task(self, name: str, kind: str, **changes: Any) -> TrainTask:
        """The task of a kind with other settings; the joined batch is the same for every world size."""
        task = self.tasks[kind]
        data = {key: changes.pop(key) for key in ("negatives", "queries") if key in changes}
        schedule = Schedule(changes.pop("epochs", task.schedule.epochs))
        settings = task.settings.model_copy(update={"batch_size": JOINED_BATCH // self.world, **changes})
        return replace(task, folder=f"runs/{name}", settings=settings, schedule=schedule, data=replace(task.data, **data))

    def train(
        self,
        label: str,
        task: TrainTask,
        *,
        bfloat16: bool = False,
        on_epoch: Callable[[Figures], None] | None = None,
        check_model: bool = False,
        kill_at_step: int | None = None,
    ) -> None:
        """Train, and note losses, figures, weights and errors under `label`."""
        trainer = None
        noted: Figures = {}
        try:
            trainer = Trainer(task, Place(self.rank, self.world, torch.device("cpu"), bfloat16))
            noted["started_at"], noted["clipping"] = trainer.progress.epoch, trainer.engine.gradient_clipping()
            noted["started_at_step"] = trainer.progress.step
            if kill_at_step is not None:
                kill_in_the_middle(trainer, kill_at_step)
            start = flat_weights(trainer)
            noted["result"] = trainer.run(on_epoch or (lambda figures: None))
            end = flat_weights(trainer)
            noted["end"], noted["moved"] = end.tolist(), (end - start).tolist()
            if check_model:
                noted["recall_of_best"] = slow_recall(trainer, noted["result"]["best"])
        except (HardmineError, KilledError) as error:
            noted["error"] = f"{type(error).__name__}: {error}"
        if trainer is not None:
            trainer.checkpoints.wait()  # kills before an upload has ended are test_checkpoint's
            trainer.engine.destroy()
        path = f"{task.folder}/telemetry.jsonl"
        dist.barrier()
        if self.rank == 0:
            if task.store.exists(path):
                noted["lines"] = [line for line in read_lines(task.store, task.folder) if "event" not in line]
            noted["files"] = sorted(task.store.list(task.folder))
        self.report[label] = noted
        dist.barrier()


def flat_weights(trainer: Trainer) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All weights in one row on rank 0, ordered by name; empty elsewhere."""
    state = full_state(trainer.engine, trainer.place)
    return np.concatenate([np.zeros(0), *(state[name].double().numpy().ravel() for name in sorted(state))])


def slow_recall(trainer: Trainer, best: Figures) -> float:
    """Validation recall of the kept folder, opened with `load_encoder` and scored query by query."""
    assert trainer.subject.check is not None
    encoder = load_encoder(fetch_folder(trainer.task.store, best["model"], best["prefix"]))
    queries = encoder.encode(trainer.subject.tables.queries.take(trainer.subject.check.query_rows))
    items = encoder.encode(trainer.subject.tables.items.take(trainer.subject.check.item_rows))
    total = 0.0
    for place, query in enumerate(trainer.subject.check.query_rows):
        top = trainer.subject.check.item_rows[np.argsort(-(items @ queries[place]))[:VALIDATION_K]]
        _, positives = trainer.subject.tables.labels.positives(np.array([query]))
        total += len(set(top) & set(positives)) / len(positives)
    return total / len(trainer.subject.check.query_rows)


def kill_after(epoch: int) -> Callable[[Figures], None]:
    def act(figures: Figures) -> None:
        if figures["epoch"] == epoch:
            raise KilledError(f"after epoch {epoch}")

    return act


def kill_in_the_middle(trainer: Trainer, step: int) -> None:
    """Let the worker die when it has trained so many steps."""
    add = trainer.telemetry.add

    def act(figures: Figures) -> None:
        add(figures)
        if figures["step"] == step:
            raise KilledError(f"at step {step}")

    trainer.telemetry.add = act  # type: ignore[method-assign]


def uneven(runs: Runs) -> TrainTask:
    """A batch that two ranks cannot share evenly."""
    return replace(runs.task("uneven" + str(runs.world), "adapter", symmetric=True), joined=JOINED_BATCH - 1)


def mixed(runs: Runs, name: str) -> TrainTask:
    """Some steps of a second data set, which has its own items."""
    task = runs.task(name, "adapter", checkpoint_steps=5)
    second = replace(task.data, negatives=[], near_misses=[])
    return replace(task, data=replace(task.data, mix=second, mix_share=0.3))


def two_ranks(runs: Runs) -> None:
    """What needs two ranks."""
    runs.train("mixed", mixed(runs, "mixed-2"))
    runs.train("mixed-killed", mixed(runs, "mixed-again"), kill_at_step=12)
    runs.train("mixed-resumed", mixed(runs, "mixed-again"))
    for kind in ("static", "adapter", "dense"):
        runs.train(kind, runs.task(kind, kind), check_model=kind != "adapter")
    for stage in (0, 1, 2, 3):
        runs.train(f"zero-{stage}", runs.task(f"zero-{stage}", "bert", zero_stage=stage), check_model=stage in (1, 3))
    runs.train("dense-zero-3", runs.task("dense-zero-3", "dense", zero_stage=3))
    for stage in (0, 2, 3):
        task = runs.task(f"resumed-{stage}", "bert", zero_stage=stage)
        runs.train(f"killed-{stage}", task, on_epoch=kill_after(1))
        runs.train(f"resumed-{stage}", task)
    for stage, cached in ((1, False), (1, True), (3, True)):
        name = f"dropout-{stage}-{'cached' if cached else 'kept'}"
        runs.train(name, runs.task(name, "dropout", zero_stage=stage, grad_cache=cached))
    task = runs.task("middle", "dropout", zero_stage=1, grad_cache=True, learn_temperature=True, checkpoint_steps=5)
    runs.train("middle-killed", task, kill_at_step=8)
    runs.train("middle-resumed", task)
    runs.train("middle", replace(task, folder="runs/middle-undisturbed"))
    for stage in (0, 1, 2, 3):
        runs.train(f"fewer-{stage}", runs.task(f"fewer-{stage}", "bert", zero_stage=stage), on_epoch=kill_after(1))
    runs.train("uneven", uneven(runs))
    task = runs.task("tampered", "adapter")
    runs.train("tampered-before", task, on_epoch=kill_after(1))
    if runs.rank == 0:
        path = next(path for path in task.store.list(task.folder) if path.endswith(".safetensors") and "/engine/" in path)
        task.store.write_bytes(path, task.store.read_bytes(path)[:-1] + b"!")
    dist.barrier()
    runs.train("tampered", task)
    runs.train("nan-rate", runs.task("nan-rate", "adapter", learning_rate=float("nan"), warmup_fraction=0.0))
    runs.train("huge-rate", runs.task("huge-rate", "adapter", learning_rate=1e30, gradient_clipping=0.0))
    for kind in ("static", "bert", "adapter"):
        runs.train(f"bf16-{kind}", runs.task(f"bf16-{kind}", kind, zero_stage=1), bfloat16=True)
    runs.train("bf16-zero-3", runs.task("bf16-zero-3", "adapter", zero_stage=3), bfloat16=True)
    runs.train("accumulation", runs.task("accumulation", "adapter", accumulation=2))
    for stage in (0, 2):
        task = runs.task(f"clipped-{stage}", "adapter", gradient_clipping=1e-10, zero_stage=stage, max_steps=6)
        runs.train(f"clipped-{stage}", task)
    runs.train("local", runs.task("local", "adapter", gather=False, max_steps=6))
    runs.train("warm-up", runs.task("warm-up", "static", negatives=[], max_steps=6))
    runs.train("long", runs.task("long", "static", epochs=5, patience=4))
    runs.train("few-steps", runs.task("few-steps", "adapter", max_steps=5))


def one_rank(runs: Runs) -> None:
    """The truth for two ranks, and what needs only one."""
    runs.train("mixed", mixed(runs, "mixed-1"))
    for kind in ("static", "adapter", "dense"):
        runs.train(kind, runs.task(kind, kind))
    runs.train("bert", runs.task("bert", "bert"))
    for stage in (0, 1, 2, 3):  # batch_size as two ranks had it: settings do not change with the cluster
        runs.train(f"fewer-{stage}", runs.task(f"fewer-{stage}", "bert", zero_stage=stage, batch_size=JOINED_BATCH // 2))
    runs.train("uneven", uneven(runs))
    runs.train("too-few", runs.task("too-few", "adapter", accumulation=13))
    store = runs.tasks["adapter"].store
    no_dev = write(
        store,
        "queries-no-dev",
        pa.table(
            {
                "row": np.arange(NUM_TRAIN + NUM_DEV),
                "item_row": np.full(NUM_TRAIN + NUM_DEV, -1),
                "split": ["train"] * (NUM_TRAIN + NUM_DEV),
            }
        ),
    )
    runs.train("no-dev", runs.task("no-dev", "adapter", queries=no_dev, epochs=4, patience=1))
    patience = runs.task("patience", "adapter", epochs=9, patience=1, learning_rate=1e-9)
    runs.train("patience", patience)
    runs.train("no-policy", replace(patience, folder="runs/no-policy", schedule=Schedule(3), stopping=None))


def main(rank: int, world: int, folder: Path) -> None:
    """Run all scenarios of this world size as one rank."""
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"  # before any model is made: transformers may import accelerate, and that deepspeed
    os.environ["LOCAL_RANK"] = str(rank)  # as Ray Train sets it; DeepSpeed reads it
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init-{world}", rank=rank, world_size=world, timeout=timedelta(seconds=300)
    )
    if world == 2 and rank == 0:
        torch.save(prepare(folder), folder / "tasks.pt")
    dist.barrier()
    runs = Runs(torch.load(folder / "tasks.pt", weights_only=False), rank, world)
    (two_ranks if world == 2 else one_rank)(runs)
    if rank == 0:
        (folder / f"report-{world}.json").write_text(json.dumps(runs.report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
