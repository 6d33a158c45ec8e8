"""The two sides of `benchmarks.training`, each to be run in a process of its own: hardmine's loop and its peer's trainer."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared.texts import NEGATIVES, read_task

Figures = dict[str, Any]
THREADS = 2


def run_ours(folder: Path) -> Figures:
    """Seconds of the steps (and of tokenising, which a run does once), losses, telemetry and peak memory."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", "0")
    import torch
    import torch.distributed as dist

    from training.encoders.tokens.tokenizer import Tokenizer
    from training.engine.engine import Place
    from training.loop import Trainer
    from training.settings import EncoderSettings

    torch.set_num_threads(THREADS)
    task, triples, local = read_task(folder)
    tokenising = 0.0
    if task.kind == "transformer":
        tokenizer = Tokenizer(Path(local), EncoderSettings(model="-"))
        started = time.perf_counter()
        for texts in (triples.items, triples.queries):
            tokenizer(texts, "")
        tokenising = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as rendezvous:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}/init", rank=0, world_size=1)
        task.store.delete(task.folder)
        trainer = Trainer(task, Place(0, 1, torch.device("cpu"), bfloat16=False))
        before = _peak()
        result = trainer.run(lambda figures: None)
        dist.destroy_process_group()
    text = task.store.read_bytes(f"{task.folder}/telemetry.jsonl").decode()
    lines = [line for line in map(json.loads, text.splitlines()) if "event" not in line]
    return {
        "seconds": sum(line["seconds"] for line in lines) + tokenising,
        "tokenising": tokenising,
        "pairs": len(lines) * task.settings.batch_size,
        "losses": [line["loss"] for line in lines],
        "peak_mb": _peak(),
        "before_mb": before,
        "lines": lines,
        "whole": result["seconds"],
        "budget_tokens": result["budget_tokens"],
        "checkpoint": result["checkpoint_seconds"],
    }


def run_peer(folder: Path) -> Figures:
    """The same batches in the same order through SentenceTransformerTrainer, which tokenises in its collator."""
    os.environ.update(ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    import torch
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch.set_num_threads(THREADS)
    task, _, local = read_task(folder)
    settings = task.settings
    rows, steps = _in_order(folder)
    model = SentenceTransformer(local, device="cpu")
    noted: Figures = {"losses": []}

    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=output,
            per_device_train_batch_size=settings.batch_size,
            max_steps=steps,
            num_train_epochs=1,
            learning_rate=settings.peak_learning_rate(task.kind),
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
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            callbacks=[clock(noted)],
            loss=MultipleNegativesRankingLoss(model, scale=1.0 / settings.temperature),
        ).train()
    return {"seconds": noted["seconds"], "pairs": steps * settings.batch_size, "losses": noted["losses"], "peak_mb": _peak()}


def _in_order(folder: Path) -> tuple[Any, int]:
    """(rows of text in the order in which hardmine's plan takes them, steps)."""
    from datasets import Dataset  # type: ignore[import-untyped]

    from training.retriever.load import load

    task, triples, _ = read_task(folder)
    plan = load(task, 1).plan
    steps = min(plan.micro_steps, task.settings.max_steps or plan.micro_steps)
    batches = [plan.joined(0, step) for step in range(steps)]
    queries, positives = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("query_rows", "positive_rows"))
    hard = np.concatenate([batch.hard_BH for batch in batches])
    columns = {"anchor": [triples.queries[row] for row in queries], "positive": [triples.items[row] for row in positives]}
    for number in range(NEGATIVES):
        columns[f"negative_{number}"] = [triples.items[row] for row in hard[:, number]]
    return Dataset.from_dict(columns), steps


def clock(noted: Figures) -> Any:
    """A callback that notes in `noted` the seconds from the first batch to the last step, and every loss."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """See `clock`."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            noted["started"] = time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            noted["seconds"] = time.perf_counter() - noted["started"]

        def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
            noted["losses"] += [logs["loss"]] if logs and "loss" in logs else []

    return Clock()


def sequential(dataset: Any, batch_size: int, drop_last: bool, **_: Any) -> Any:
    """Batches in the order of the rows."""
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
