"""Training on the device: every ZeRO stage, GradCache and precision, its share of the matrix rate."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.device import matrix_rate
from benchmarks.gpu.models import SIZES, TINY, catalogue, write_model
from benchmarks.shared.command import Row, compared
from benchmarks.shared.inputs import temporary_folder
from benchmarks.shared.texts import read_task, read_triples, write_task
from training.settings import TrainingSettings

STEPS, BATCH = 24, 128
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "float16 τ 0.01": {"precision": "float16", "temperature": 0.01},
    "bfloat16 ZeRO 1": {"precision": "bfloat16", "zero_stage": 1},
    "bfloat16 ZeRO 2": {"precision": "bfloat16", "zero_stage": 2},
    "bfloat16 ZeRO 3": {"precision": "bfloat16", "zero_stage": 3},
    "bfloat16 GradCache": {"precision": "bfloat16", "grad_cache": True},
}
TOLERANCE = {"float32": 1e-3}
"""How far the loss of the first step may be from that of float32 on the CPU; 2 % in half precision."""


def case_training(device: torch.device, *, quick: bool) -> list[Row]:
    """The same steps in each variant; the first loss against that of the CPU in float32."""
    rows, batch = [], 8 if quick else BATCH
    variants = {name: VARIANTS[name] for name in ("float32", "bfloat16 GradCache")} if quick else VARIANTS
    with temporary_folder() as folder:
        triples = read_triples(catalogue(folder), batch * (4 if quick else STEPS))
        for size in [TINY] if quick else list(SIZES.values()):
            model = write_model(folder, size)
            wanted: float | None = None
            for name, changes in variants.items():
                if size.layers == 12 and "ZeRO 1" in name:
                    continue  # the small model has shown it
                task = folder / f"{size.name}-{name.replace(' ', '-')}"
                task.mkdir()
                settings = TrainingSettings(batch_size=batch, hard_negatives=3, random_fraction=0.0, **changes)
                write_task(task, triples, str(model), settings)
                if wanted is None:
                    wanted = _alone(task, "cpu", 1)["losses"][0]
                figures = _alone(task, str(device), None)
                rows.append(_row(f"training {size.name} {name}", figures, wanted, changes))
        rows += _shares(rows, device)
    return rows


def _row(case: str, figures: dict[str, Any], wanted: float, changes: dict[str, Any]) -> Row:
    losses = figures["losses"]
    off = abs(losses[0] - wanted) / wanted
    like = "temperature" in changes or off < TOLERANCE.get(changes["precision"], 0.02)
    falls = len(losses) < STEPS or statistics.mean(losses[-6:]) < statistics.mean(losses[:6])
    passed = all(map(math.isfinite, losses)) and falls and like
    return compared(case, figures["seconds"]) | {
        "passed": passed,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "off_the_cpu": None if "temperature" in changes else off,
        "pairs_per_s": figures["pairs"] / figures["seconds"],
        "tokens_per_s": figures["tokens"] / figures["seconds"],
        "peak_gib": figures["peak_gib"],
    }


def _shares(rows: list[Row], device: torch.device) -> list[Row]:
    """Of the bfloat16 matrix rate that training reaches: forward and backward are three times a forward pass, about 6
    operations per weight and token (attention not counted)."""
    rate = matrix_rate(device, torch.bfloat16)
    shares = []
    for size in SIZES.values():
        weights = size.layers * (4 * size.hidden**2 + 2 * size.hidden * size.inner)
        for row in rows:
            if row["case"] == f"training {size.name} bfloat16":
                share = 6 * weights * row["tokens_per_s"] / rate
                shares.append({"case": f"training {size.name}: share of the bfloat16 matrix rate", "floor_share": share})
    return shares


def _alone(task: Path, device: str, max_steps: int | None) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(train, task, device, max_steps).result()


def train(folder: Path, device_name: str, max_steps: int | None) -> dict[str, Any]:
    """Seconds of the steps (the first three left out: they compile and allocate), losses, peak memory of the device."""
    device = torch.device(device_name)
    os.environ["DS_ACCELERATOR"] = device.type
    os.environ.setdefault("LOCAL_RANK", "0")
    from dataclasses import replace

    import torch.distributed as dist

    from training.engine.engine import place_of
    from training.loop import Trainer

    task, _, _ = read_task(folder)
    settings = task.settings
    if device.type == "cpu":
        settings = settings.model_copy(update={"precision": "float32", "zero_stage": 0, "grad_cache": False})
    if max_steps is not None:
        settings = settings.model_copy(update={"max_steps": max_steps})
    task = replace(task, settings=settings)
    with tempfile.TemporaryDirectory() as rendezvous:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{rendezvous}/init", rank=0, world_size=1)
        task.store.delete(task.folder)
        Trainer(task, place_of(task.settings, device, rank=0, world=1)).run(lambda figures: None)
        dist.destroy_process_group()
    text = task.store.read_bytes(f"{task.folder}/telemetry.jsonl").decode()
    lines = [line for line in map(json.loads, text.splitlines()) if "event" not in line]
    timed = lines[3:] or lines
    usual = statistics.median(line["seconds"] for line in timed)
    tokens = statistics.median(line["tokens"] for line in timed) if "tokens" in lines[0] else math.nan
    return {
        "seconds": usual * len(lines),
        "losses": [line["loss"] for line in lines],
        "pairs": len(lines) * settings.batch_size,
        "tokens": tokens * len(lines),
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None,
    }
