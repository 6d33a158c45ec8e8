"""One of two gloo ranks that takes one step under every loss, ZeRO stage, with and without GradCache and gathering.

Run as `python equality_worker.py RANK WORLD FOLDER`. Every rank works out the truth by itself, on a plain module without
DeepSpeed, collectives or micro-batches: one process with the joined batch. Rank 0 writes FOLDER/report.json.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from loop_worker import prepare
from torch import Tensor
from torch.nn import functional

from cluster.storage.model_folders import fetch_folder
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.engine.engine import Place, set_learning_rate, start_engine
from training.feed.batches import BatchPlan, Examples
from training.feed.feed import Feed
from training.feed.tables import Guide, Tables
from training.objective.objective import Objective
from training.retriever.load import load
from training.retriever.step import train_step
from training.settings import DistilSettings, GuideSettings, TrainingSettings
from training.task import TrainTask

BATCH, BUDGET, TAU = 4, 48, 0.1
LOSSES: dict[str, dict[str, Any]] = {
    "info_nce": {},
    "symmetric": {"symmetric": True},
    "triplet": {"loss": "triplet", "margin": 0.3},
    "matryoshka": {"matryoshka": [8, 20]},
    "learned": {"learn_temperature": True, "symmetric": True},
    "distilled": {"distil": DistilSettings(weight=0.5, temperature=0.2), "learn_temperature": True},
    "margins": {"distil": DistilSettings(loss="margin_mse", weight=0.02), "symmetric": True},
    "guided": {"guide": GuideSettings(margin=0.05), "false_negative_margin": 0.2},
}


class World:
    """The data, and plans for any rank."""

    def __init__(self, task: TrainTask) -> None:
        loaded = load(task, 1)
        tables, examples = loaded.tables, loaded.plan.examples
        rng = np.random.default_rng(4)
        told = [
            np.where(rng.random(len(rows)) < 0.2, np.nan, rng.random(len(rows))).astype(np.float32)
            for rows in (examples.positive_rows, examples.negative_rows)
        ]
        self.examples = replace(examples, positive_scores=told[0], negative_scores=told[1])
        generator = torch.Generator().manual_seed(2)
        guide = [
            functional.normalize(torch.randn(len(side), 6, generator=generator), dim=1).half().numpy()
            for side in (tables.queries, tables.items)
        ]
        self.tables = Tables(tables.queries, tables.items, tables.labels, Guide(*guide))
        self.truths: dict[tuple[str, bool, int], tuple[dict[str, Tensor], list[float]]] = {}
        """By loss, gathering and step: neither a ZeRO stage nor GradCache nor accumulation is part of the truth."""

    def plan(self, rank: int, world: int, batch: int) -> BatchPlan:
        """Three mined and two random negatives per query."""
        examples: Examples = self.examples
        return BatchPlan(examples, len(self.tables.items), batch, 3, 2, 5, rank, world)


def truth(
    world: World, encoder: Encoder, settings: TrainingSettings, step: int, ranks: int
) -> tuple[dict[str, Tensor], list[float]]:
    """(gradient of every weight, parts of the gradient of log τ) of the joined batch in one process; without gathering the
    mean of each rank's own."""
    encoder.zero_grad()
    plans = [world.plan(0, 1, BATCH * ranks)] if settings.gather else [world.plan(rank, ranks, BATCH) for rank in range(ranks)]
    log_temperature: list[float] = []
    for plan in plans:
        feed = Feed(plan, world.tables, encoder, settings, budget_tokens=10**6, device="cpu", equal_packs=False)
        prepared = feed.prepare(0, step)
        feed.close()
        assert len(prepared.packs) == 1
        (pack,) = prepared.packs
        output = encoder(pack.inputs)
        embeddings = output[torch.argsort(torch.from_numpy(pack.places))]
        queries, items = embeddings[: plan.batch_size], embeddings[plan.batch_size :]
        got = Objective(settings, world.tables, rank=0, device=torch.device("cpu"))(queries, items, prepared, TAU)
        embeddings.backward(torch.cat([got.gradient_BD, got.gradient_UD]) / len(plans))
        log_temperature.append(float(got.log_temperature) / len(plans))
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}, log_temperature


def full_gradient(engine: Any) -> dict[str, Tensor]:
    """What the optimizer is about to use, whole, on every rank."""
    from deepspeed.utils import safe_get_full_grad

    stage, found = engine.zero_optimization_stage(), {}
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            value = parameter.grad if stage == 0 else safe_get_full_grad(parameter)
            if value is not None:
                found[name] = value.detach().clone().float()
    return found


def error(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """|got - want| / |want| over all weights; a weight that the truth moves must be there."""
    missing = [name for name, value in want.items() if name not in got and float(value.abs().max()) > 0]
    assert not missing, missing
    difference = sum(float((got[name] - value).double().square().sum()) for name, value in want.items() if name in got)
    return (difference / sum(float(value.double().square().sum()) for value in want.values())) ** 0.5


def steps(world: World, task: TrainTask, place: Place, stage: int, accumulation: int, report: dict[str, float]) -> None:
    """All losses under one stage."""
    folder = fetch_folder(task.store, task.model, task.model_prefix)
    encoder, plain = load_encoder(folder), load_encoder(folder)
    base = task.settings.model_copy(
        update={"batch_size": BATCH, "zero_stage": stage, "accumulation": accumulation, "gradient_clipping": 0.0}
    )
    engine = start_engine(encoder.train(), base, place)
    set_learning_rate(engine, 0.0)  # the weights stay: every case has the same truth
    for name, changes in LOSSES.items():
        for cached in (False, True):
            for gather in (True, False):
                settings = base.model_copy(update={**changes, "grad_cache": cached, "gather": gather})
                want: dict[str, Tensor] = {}
                got: dict[str, Tensor] = {}
                for micro in range(accumulation):
                    if (name, gather, micro) not in world.truths:
                        world.truths[name, gather, micro] = truth(world, plain, settings, micro, place.world)
                    more, want_tau = world.truths[name, gather, micro]
                    want = {key: want.get(key, 0.0) + value / accumulation for key, value in more.items()}
                    feed = Feed(
                        world.plan(place.rank, place.world, BATCH),
                        world.tables,
                        encoder,
                        settings,
                        device="cpu",
                        budget_tokens=BUDGET,
                        equal_packs=cached or stage == 3,
                    )
                    prepared = feed.prepare(0, micro)
                    feed.close()
                    objective = Objective(settings, world.tables, rank=place.rank, device=place.device)
                    boundary = micro + 1 == accumulation
                    seen = train_step(engine, objective, prepared, place, temperature=TAU, cached=cached, boundary=boundary)
                    if boundary:
                        got = full_gradient(engine)
                    engine.step()
                label = (
                    f"zero {stage} · accumulation {accumulation} · {name} · {'cached' if cached else 'kept'} · "
                    f"{'gathered' if gather else 'local'}"
                )
                report[label] = error(got, want)
                if settings.learn_temperature:
                    # the ranks' parts may cancel: the error is relative to what was added
                    report[f"{label} · log τ"] = abs(seen.log_temperature - sum(want_tau)) / sum(map(abs, want_tau))
    engine.destroy()


def main(rank: int, world: int, folder: Path) -> None:
    """Run all cases as one rank."""
    torch.set_num_threads(1)
    os.environ["DS_ACCELERATOR"] = "cpu"  # before any model is made: transformers may import accelerate, and that deepspeed
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=world, timeout=timedelta(seconds=300)
    )
    tasks: list[Any] = [prepare(folder) if rank == 0 else None]
    dist.broadcast_object_list(tasks, src=0)
    task: TrainTask = tasks[0]["bert"]
    data, place = World(task), Place(rank, world, torch.device("cpu"), False)
    report: dict[str, float] = {}
    for stage in (0, 1, 2, 3):
        steps(data, task, place, stage, 1, report)
    for stage in (0, 1, 2, 3):
        steps(data, task, place, stage, 2, report)
    if rank == 0:
        (folder / "report.json").write_text(json.dumps(report))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
