"""False negatives of the page: twelve editions of every work, one of them labelled."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from benchmarks.why.bench import MINED_PLAN, RANDOM_PLAN, Bench, compare, table
from benchmarks.why.canvas import INK
from benchmarks.why.pictures import FOURTH, MINED, RANDOM, THIRD, FalseArm, draw_false_negatives
from benchmarks.why.training import last, means, measure, mine, new_adapter, train
from benchmarks.why.world import Recipe, World, make_world


def false_negatives(bench: Bench) -> None:
    """Twelve editions of every work, one of them labelled: what the cuts are worth."""
    recipe = Recipe(works=4_200, editions=12, train=2_500, dev=1_500)
    world, grouped = make_world(recipe, bench.seed), make_world(recipe, bench.seed, group="work")
    warm = new_adapter(bench.seed)
    train(warm, world, RANDOM_PLAN, bench.seed)
    cut = replace(MINED_PLAN, relative_margin=0.05)
    plans = [
        ("random", RANDOM, world, RANDOM_PLAN),
        ("mined, no cut", MINED, world, MINED_PLAN),
        ("mined, margin 5 %", THIRD, world, cut),
        ("mined, margin 20 %", FOURTH, world, replace(cut, relative_margin=0.2)),
        ("mined, editions grouped", INK, grouped, MINED_PLAN),
    ]
    before = means(measure(warm, world))["ndcg@10"]
    drawn, rows, measured = [], [], {}
    for name, colour, told, plan in plans:
        model = copy.deepcopy(warm)
        among = _false_among_mined(model, world, mine(model, told, plan)) if plan.hard else 0.0
        lines = train(model, told, replace(plan, steps=400, mine_every=100), bench.seed + 1, validate_every=100)
        quality = [(0, before), *((line["step"], line["ndcg@10"]) for line in lines if "event" in line)]
        measured[name] = measure(model, world)["ndcg@10"]
        drawn.append(FalseArm(name, colour, quality, last(lines, "gradient_share_false", 400), among))
        rows.append(
            [
                name,
                f"{among:.1%}",
                f"{drawn[-1].share_false:.1%}",
                f"{quality[-1][1]:.3f}",
                *(f"{last(lines, key):.3g}" for key in ("loss", "positive_probability", "above_positive", "above_hard")),
            ]
        )
    bench.draw("why-4-false-negatives", draw_false_negatives, drawn)
    table(
        f"false negatives; before: {before:.3f}",
        ["", "false among mined", "share of push", "NDCG@10 by all", "loss", "p⁺", "above", "above, hard"],
        rows,
    )
    for name, values in measured.items():
        compare(f"NDCG@10, {name} − no cut", values, measured["mined, no cut"])


def _false_among_mined(model: nn.Module, world: World, mined_TN: np.ndarray[Any, Any]) -> float:
    kept = mined_TN >= 0
    false = world.work_N[np.maximum(mined_TN, 0)] == world.work_Q[world.train_rows][:, None]
    return float((false & kept).sum() / kept.sum())
