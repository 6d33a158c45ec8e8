"""Trains the small models of docs/why-hard-negatives.md, draws its pictures and prints its tables:

    OMP_NUM_THREADS=1 python -m benchmarks.why [--case arms] [--case all --out docs/pictures] [--seed 0]

No data, no download; the catalogue is generated (benchmarks/why/world.py), the models, batches, masks, losses and figures are
the project's own. Pictures are drawn with --out and need the extra "bench" (matplotlib).
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.shared.command import chosen_cases, emit, has_package, make_parser
from benchmarks.shared.machine import describe_machine
from benchmarks.why.bench import BATCH_PLAN, MINED_PLAN, RANDOM_PLAN, ROWS, TEMPERATURES, Bench, compare, table
from benchmarks.why.editions import false_negatives
from benchmarks.why.figures import (
    chance_of_hard,
    draws_for_chance,
    effective_number,
    expected_best_position,
    softmax_gradient,
    weights_by_position,
)
from benchmarks.why.pictures import Circle, Draws, draw_arms, draw_batch_sizes, draw_circles, draw_temperatures
from benchmarks.why.training import F64, Head, Plan, embed, last, means, measure, new_adapter, search, train
from benchmarks.why.variants import capacity, collapse, mixture, trained_temperatures, unlearning
from benchmarks.why.world import Recipe, World, make_world

FIGURES = (
    "loss",
    "positive_probability",
    "effective_negatives",
    "hardest_weight",
    "dead_negatives",
    "above_positive",
    "gradient_norm",
    "alignment",
    "uniformity",
    "mean_pairwise_cosine",
)


def gradient(bench: Bench) -> None:
    """One query with five candidates, by hand."""
    cosines = np.array([0.70, 0.66, 0.55, 0.30, 0.05])
    rows = []
    for temperature in (0.05, 0.5):
        p, push = softmax_gradient(cosines, temperature)
        rows += [[f"{temperature:g}", f"{s:.2f}", f"{p_c:.2g}", f"{g:+.2g}"] for s, p_c, g in zip(cosines, p, push, strict=True)]
    table("one query", ["τ", "cosine", "p", "∂L/∂s"], rows)


def circle(bench: Bench) -> None:
    """Two-dimensional embeddings: what a general model knows, then as many steps with random or with mined negatives."""
    recipe = Recipe(works=40, genre_size=4, families=10, train=800, dev=400, title=0.7, noise=0.5)
    general = make_world(recipe, bench.seed, group="genre")
    world = make_world(recipe, bench.seed)
    torch.manual_seed(bench.seed)
    model = Head(2)
    # siblings are masked as group mates, so nothing tells them apart: a model that knows genres
    train(model, general, Plan(steps=300, random=0, in_batch=True, temperature=0.1, learning_rate=3e-3), bench.seed)
    panels = [_panel("Off the shelf", model, world)]
    for title, hard, random in (("+ 40 steps, random negatives", 0, 1), ("+ 40 steps, mined negatives", 1, 0)):
        arm = copy.deepcopy(model)
        plan = Plan(steps=40, hard=hard, random=random, temperature=0.02, mine_every=10, kept=3)
        train(arm, world, plan, bench.seed)
        panels.append(_panel(title, arm, world))
    bench.draw("why-1-circle", draw_circles, panels)
    table(
        "two dimensions",
        ["model", "right item first", "right genre first"],
        [[panel.title, f"{panel.hit:.3f}", f"{panel.genre_hit:.3f}"] for panel in panels],
    )


def _panel(title: str, model: nn.Module, world: World) -> Circle:
    rows = world.dev_rows
    found = search(model, world, rows, 1)[1][:, 0]
    wanted = world.positive_Q[rows]
    items, queries = (embed(model, base).numpy() for base in (world.items_ND, world.queries_QD[rows[:120]]))
    return Circle(
        title,
        items,
        queries,
        wanted[:120],
        world.genre_N,
        float((found == wanted).mean()),
        float((world.genre_N[found] == world.genre_N[wanted]).mean()),
    )


def temperature(bench: Bench) -> None:
    """Who is pushed at which temperature, by the warm model's scores over the whole catalogue."""
    positives_Q, negatives_QR = bench.negatives
    weights = {value: weights_by_position(negatives_QR, value) for value in TEMPERATURES}
    bench.draw("why-2-temperature", draw_temperatures, weights, RANDOM_PLAN.temperature)
    rows = []
    for value, weight_R in weights.items():
        total = np.cumsum(weight_R)
        logits = (negatives_QR - positives_Q[:, None]) / value
        mass = 1 - 1 / (1 + np.exp(logits).sum(axis=1))
        rows.append(
            [
                f"{value:g}",
                f"{total[0]:.1%}",
                f"{total[9]:.1%}",
                f"{total[99]:.1%}",
                f"{total[999]:.1%}",
                f"{int(np.searchsorted(total, 0.5)) + 1:,}",
                f"{effective_number(negatives_QR, value):,.1f}",
                f"{mass.mean():.2f}",
            ]
        )
    table("temperature", ["τ", "the hardest", "10 hardest", "100", "1,000", "half within", "effective", "1 − p⁺"], rows)


def arms(bench: Bench) -> None:
    """Random against mined from the same start with equal steps."""
    lines: dict[str, list[dict[str, Any]]] = {}
    measured = {"off the shelf": measure(new_adapter(bench.seed), bench.world), "warm-up": measure(bench.start(), bench.world)}
    for name, plan in (("random", RANDOM_PLAN), ("random + batch", BATCH_PLAN), ("mined", MINED_PLAN)):
        model = bench.start()
        lines[name] = train(model, bench.world, replace(plan, steps=600), bench.seed + 1, validate_every=100)
        measured[name] = measure(model, bench.world)
    bench.draw("why-3-random-or-mined", draw_arms, bench.warmup, lines)
    lines = {"warm-up": bench.warmup} | lines
    table(
        "random or mined", ["", *lines], [[figure, *(f"{last(own, figure):.3g}" for own in lines.values())] for figure in FIGURES]
    )
    table(
        "gradient by kind",
        ["", "hard", "random", "in-batch", "dead hard", "dead random", "dead in-batch"],
        [
            [
                name,
                *(
                    f"{last(own, f'{what}_{kind}'):.1%}"
                    for what in ("gradient_share", "dead")
                    for kind in ("hard", "random", "in_batch")
                ),
            ]
            for name, own in lines.items()
        ],
    )
    table(
        "held-out",
        ["", "Recall@1", "Recall@3", "Recall@10", "NDCG@10", "bad top-1"],
        [
            [name, *(f"{means(own)[key]:.3f}" for key in ("recall@1", "recall@3", "recall@10", "ndcg@10", "bad_top1"))]
            for name, own in measured.items()
        ],
    )
    for ours, theirs in (("random", "warm-up"), ("random + batch", "random"), ("mined", "random"), ("mined", "random + batch")):
        compare(f"Recall@3, {ours} − {theirs}", measured[ours]["recall@3"], measured[theirs]["recall@3"])


def batch_size(bench: Bench) -> None:
    """The hardest of n random negatives: formula against the warm model's scores; and what n random ones leave to learn."""
    positives_Q, negatives_QR = bench.negatives
    count, num_items = negatives_QR.shape
    rng = np.random.default_rng(bench.seed)
    rows = []
    for number in (8, 32, 128, 512, 2048, 8192, 32_768):
        best = np.array(
            [rng.choice(num_items, number, replace=False, shuffle=False).min() + 1 for _ in range(count * max(1, 1024 // number))]
        )
        picked = np.stack([rng.choice(num_items, number, replace=False, shuffle=False) for _ in range(count)])
        mass = _mass(positives_Q, np.take_along_axis(negatives_QR, picked, 1))
        rows.append(Draws(number, expected_best_position(num_items, number), float(best.mean()), mass))
    hard = np.stack([rng.choice(32, 7, replace=False) for _ in range(count)])
    mined = _mass(positives_Q, np.take_along_axis(negatives_QR, hard, 1))
    bench.draw("why-5-batch-size", draw_batch_sizes, rows, mined, 7, num_items)
    table(
        f"n random of {num_items:,}; 7 of the 32 hardest: 1 − p⁺ = {mined:.3f}",
        ["n", "(N+1)/(n+1)", "measured", "chance of one of the 32 hardest", "1 − p⁺"],
        [
            [
                f"{row.number:,}",
                f"{row.formula:,.1f}",
                f"{row.measured:,.1f}",
                f"{chance_of_hard(num_items, 32, row.number):.1%}",
                f"{row.mass:.3f}",
            ]
            for row in rows
        ],
    )
    table(
        "draws until a random one is among the 32 hardest",
        ["N", "50 %", "95 %"],
        [
            [f"{size:,}", *(f"{draws_for_chance(size, 32, chance):,}" for chance in (0.5, 0.95))]
            for size in (5_000, 50_000, 1_000_000, 100_000_000)
        ],
    )


def _mass(positives_Q: F64, negatives_QC: F64) -> float:
    logits_QC = (negatives_QC - positives_Q[:, None]) / RANDOM_PLAN.temperature
    return float((1 - 1 / (1 + np.exp(logits_QC).sum(axis=1))).mean())


EXPERIMENTS: dict[str, Callable[[Bench], None]] = {
    "gradient": gradient,
    "circle": circle,
    "temperature": temperature,
    "trained_temperatures": trained_temperatures,
    "arms": arms,
    "false_negatives": false_negatives,
    "batch_size": batch_size,
    "unlearning": unlearning,
    "mixture": mixture,
    "collapse": collapse,
    "capacity": capacity,
}


QUICK = ("gradient", "circle", "temperature", "batch_size")
"""What runs without --case."""


def main() -> None:
    """Run the experiments one after another."""
    parser = make_parser(__doc__, cases=[*EXPERIMENTS, "all"], default=QUICK)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of the pictures (default: none are drawn)")
    parser.add_argument("--format", nargs="+", default=[], choices=["svg", "png"], help="beside SVG")
    given = parser.parse_args()
    names = chosen_cases(given)
    if given.out is not None and has_package("matplotlib", "every picture"):
        given.out.mkdir(parents=True, exist_ok=True)
    else:
        given.out = None
    torch.set_num_threads(1)
    machine = describe_machine()
    bench = Bench(given.seed, given.out, sorted({"svg", *given.format}))
    with contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext():
        processor, version = machine["processor"], machine["versions"]["torch"]
        print(f"{datetime.date.today()}, seed {given.seed}, one thread of {processor}, torch {version}")
        for name in EXPERIMENTS if "all" in names else names:
            started = time.perf_counter()
            EXPERIMENTS[name](bench)
            print(f"({name}: {time.perf_counter() - started:.0f} s)", flush=True)
    if given.json:
        emit(ROWS, as_json=True)


if __name__ == "__main__":
    main()
