"""Small models that are really trained on the catalogue of `benchmarks.why.world`, with the project's own batches, masks, loss
and geometry, in one process; what they show comes out as lines like those of telemetry.jsonl.

B queries of a step, C candidate columns, N items, T training queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.why.world import DIMENSIONS, World
from cluster.tables.tables import F32, I64
from eval.metrics import per_query_metrics
from mining.choice.filters import cut_above
from training.encoders.adapter import AdapterEncoder
from training.feed.batches import Batch
from training.feed.candidate_masks import candidate_masks
from training.objective.losses import info_nce, likely_positives, scores
from training.telemetry.gradient_geometry import IN_BATCH, alignment_uniformity, geometry_figures, geometry_sums

F64 = npt.NDArray[np.float64]
WARMUP_STEPS = 20
DEV_BLOCK = 512


@dataclass(frozen=True)
class Plan:
    """What one training does; the names are those of [training] and [mining] where there is such a setting."""

    steps: int = 300
    batch_size: int = 64
    hard: int = 0
    random: int = 8
    temperature: float = 0.05
    in_batch: bool = False
    """Other queries' items are negatives too."""
    relative_margin: float | None = None
    """Of mining: drop candidates that score above (1 - margin) × the positive."""
    false_negative_margin: float | None = None
    """Of training: leave out candidates that score this much above the positive."""
    kept: int = 32
    """Mined negatives kept for each query (mining.num_negatives), of twice as many looked at."""
    mine_every: int = 150
    """Steps between minings: a round."""
    learning_rate: float = 1e-3
    attraction_only: bool = False
    """1 - cosine of the pair as the loss, no negatives at all."""


class Head(nn.Module):
    """A small network whose output has as many dimensions as you like; two can be drawn as they are."""

    def __init__(self, dimension: int, hidden: int = 128) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(DIMENSIONS, hidden), nn.Linear(hidden, dimension)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, dimension], unit length."""
        return functional.normalize(self.down(functional.relu(self.up(inputs["vectors"]))), dim=-1)


def new_adapter(seed: int) -> AdapterEncoder:
    """The project's adapter, untrained: it ranks like the base vectors."""
    torch.manual_seed(seed)
    return AdapterEncoder(DIMENSIONS, 128)


@torch.no_grad()
def embed(model: nn.Module, base: F32) -> Tensor:
    """Unit vectors of base vectors."""
    vectors: Tensor = model({"vectors": torch.from_numpy(base)})
    return vectors


def search(model: nn.Module, world: World, query_rows: I64, num_hits: int, *, eight_bits: bool = False) -> tuple[F32, I64]:
    """(scores, item rows) of the nearest items, best first, by an exact search of the whole catalogue.

    Args:
        eight_bits: the items are stored in 255 steps from -1 to 1, as a small index would.
    """
    items = embed(model, world.items_ND)
    items = torch.round(items * 127) / 127 if eight_bits else items
    found = [
        torch.topk(embed(model, world.queries_QD[query_rows[start : start + DEV_BLOCK]]) @ items.T, num_hits)
        for start in range(0, len(query_rows), DEV_BLOCK)
    ]
    return (torch.cat([top.values for top in found]).numpy(), torch.cat([top.indices for top in found]).numpy())


def measure(model: nn.Module, world: World, *, eight_bits: bool = False) -> dict[str, F64]:
    """Metrics of every dev query, by all that is relevant to it in truth."""
    rows = world.dev_rows
    return per_query_metrics(search(model, world, rows, 10, eight_bits=eight_bits)[1], rows, world.truth, ks=(1, 3, 10))


def mine(model: nn.Module, world: World, plan: Plan) -> I64:
    """[T, plan.kept] the nearest items of each training query that no label knows and that pass the cut; -1: there are fewer."""
    rows = world.train_rows
    hits_TK, items_TK = search(model, world, rows, min(2 * plan.kept, len(world.items_ND)))
    drop_TK = world.labels.positive_mask(rows, items_TK)
    if plan.relative_margin is not None:
        positives = embed(model, world.items_ND[world.positive_Q[rows]])
        own_T = (embed(model, world.queries_QD[rows]) * positives).sum(1).numpy()
        drop_TK |= hits_TK > cut_above(own_T, plan.relative_margin)[:, None]
    order = np.argsort(drop_TK, axis=1, kind="stable")[:, : plan.kept]
    return np.where(np.take_along_axis(drop_TK, order, 1), -1, np.take_along_axis(items_TK, order, 1))


def draw(rng: np.random.Generator, world: World, plan: Plan, mined_TN: I64 | None) -> Batch:
    """Queries of a step with their positives, some of their mined negatives, and random ones."""
    place = rng.choice(len(world.train_rows), plan.batch_size, replace=False)
    rows = world.train_rows[place]
    hard = np.full((len(rows), 0), -1, np.int64)
    if mined_TN is not None and plan.hard:
        own = mined_TN[place]
        keys = np.where(own < 0, 2.0, rng.random(own.shape))
        hard = np.take_along_axis(own, np.argsort(keys, axis=1)[:, : plan.hard], 1)
    randoms = rng.integers(len(world.items_ND), size=(len(rows), plan.random))
    return Batch.of(rows, world.positive_Q[rows], hard, randoms, np.ones(len(rows), np.float32))


def train(model: nn.Module, world: World, plan: Plan, seed: int, *, validate_every: int = 0) -> list[dict[str, Any]]:
    """Train in place; returns a line per step and, every `validate_every` steps, one of the event "validation"."""
    rng = np.random.default_rng([seed, 1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=0.01)
    lines: list[dict[str, Any]] = []
    mined = None
    for step in range(1, plan.steps + 1):
        if plan.hard and (step - 1) % plan.mine_every == 0:
            mined = mine(model, world, plan)
        # constant after a short warm-up: a curve that flattens does so for no reason of the schedule
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * min(1.0, step / WARMUP_STEPS)
        optimizer.zero_grad()
        loss, figures = step_loss(model, world, plan, draw(rng, world, plan, mined))
        loss.backward()
        figures["gradient_norm"] = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()
        lines.append({"step": step, "loss": float(loss.detach()), **figures})
        if validate_every and step % validate_every == 0:
            lines.append({"event": "validation", "step": step} | means(measure(model, world)))
    return lines


def step_loss(model: nn.Module, world: World, plan: Plan, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Loss of a step, and its geometry."""
    queries = model({"vectors": torch.from_numpy(world.queries_QD[batch.query_rows])})
    items = model({"vectors": torch.from_numpy(world.items_ND[batch.item_rows])})
    column_B = torch.from_numpy(np.searchsorted(batch.item_rows, batch.positive_rows))
    space = alignment_uniformity(queries, items[column_B])
    if plan.attraction_only:
        return (1 - (queries * items[column_B]).sum(1)).mean(), space
    masked, kind = candidate_masks(batch, batch.item_rows, world.labels)
    masked_BC = torch.from_numpy(masked if plan.in_batch else masked | (kind == IN_BATCH))
    if plan.false_negative_margin is not None:
        masked_BC |= likely_positives(scores(queries, items), column_B, -plan.false_negative_margin)
    result = info_nce(queries, items, column_B, temperature=plan.temperature, masked_BC=masked_BC)
    sums = geometry_sums(result.logits_BC, column_B, torch.from_numpy(kind))
    false_BC = torch.from_numpy(world.false_negatives(batch.query_rows, batch.item_rows))
    figures = geometry_figures(sums, plan.temperature) | space
    return result.loss, figures | {"gradient_share_false": share_of(result.logits_BC, column_B, false_BC)}


def share_of(logits_BC: Tensor, positive_column_B: Tensor, chosen_BC: Tensor) -> float:
    """Share of the negatives' gradient that falls on the chosen columns."""
    p_BC = logits_BC.softmax(1).scatter(1, positive_column_B[:, None], 0.0)
    return float((p_BC * chosen_BC).sum() / p_BC.sum().clamp(min=1e-12))


def means(per_query: dict[str, F64]) -> dict[str, float]:
    """Mean of each metric."""
    return {name: float(values.mean()) for name, values in per_query.items()}


def last(lines: list[dict[str, Any]], name: str, steps: int = 50) -> float:
    """Mean of a figure over the last steps."""
    values = [line[name] for line in lines if "event" not in line][-steps:]
    return float(np.mean(values))
