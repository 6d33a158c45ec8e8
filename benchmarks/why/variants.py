"""The experiments of docs/why-hard-negatives.md that only print: training at several temperatures, what random negatives add
to mined ones, collapse, and a model that is too small.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from benchmarks.why.bench import BATCH_PLAN, MINED_PLAN, RANDOM_PLAN, TEMPERATURES, Bench, table
from benchmarks.why.training import Head, Plan, last, means, measure, new_adapter, search, train


def trained_temperatures(bench: Bench) -> None:
    """Mined negatives from the same start at several temperatures."""
    rows = []
    for value in (0.005, *TEMPERATURES):
        model = bench.start()
        lines = train(model, bench.world, replace(MINED_PLAN, temperature=value, in_batch=True), bench.seed)
        got = means(measure(model, bench.world))
        rows.append(
            [
                f"{value:g}",
                f"{got['recall@3']:.3f}",
                f"{got['recall@10']:.3f}",
                *(
                    f"{last(lines, name):.3g}"
                    for name in (
                        "loss",
                        "effective_negatives",
                        "hardest_weight",
                        "dead_negatives",
                        "above_positive",
                        "positive_probability",
                    )
                ),
            ]
        )
    table(
        "training at τ, 300 mined steps with in-batch negatives",
        ["τ", "Recall@3", "Recall@10", "loss", "effective", "hardest", "dead", "above", "p⁺"],
        rows,
    )


def unlearning(bench: Bench) -> None:
    """A good model goes on with eight random negatives alone: the loss falls, and so does recall."""
    model, rows = bench.start(), []
    lines = train(model, bench.world, replace(BATCH_PLAN, steps=600), bench.seed + 1)
    for name, plan in (("with the batch's items", None), ("300 steps of random alone", RANDOM_PLAN), ("300 more", RANDOM_PLAN)):
        if plan is not None:
            lines = train(model, bench.world, plan, bench.seed + 2)
        got = means(measure(model, bench.world))
        rows.append([name, f"{last(lines, 'loss'):.2g}", f"{last(lines, 'positive_probability'):.4f}", f"{got['recall@3']:.3f}"])
    table("unlearning", ["", "loss", "p⁺", "Recall@3"], rows)


def mixture(bench: Bench) -> None:
    """Eight negatives of a query's own, from all random to all mined, with nothing else in the denominator."""
    rows = []
    for hard, random in ((0, 8), (4, 4), (6, 2), (8, 0)):
        model = bench.start()
        lines = train(model, bench.world, Plan(steps=300, hard=hard, random=random), bench.seed + 1)
        got = means(measure(model, bench.world))
        top = search(model, bench.world, bench.world.dev_rows, 1)[1][:, 0]
        strange = bench.world.genre_N[top] != bench.world.genre_N[bench.world.positive_Q[bench.world.dev_rows]]
        rows.append(
            [
                f"{hard} + {random}",
                f"{got['recall@3']:.3f}",
                f"{got['recall@10']:.3f}",
                f"{strange.mean():.1%}",
                *(f"{last(lines, key):.3g}" for key in ("loss", "cosine_hard", "mean_pairwise_cosine", "uniformity")),
            ]
        )
    table(
        "mined + random, no in-batch negatives",
        ["", "Recall@3", "Recall@10", "wrong genre first", "loss", "cosine of mined", "mean pairwise cosine", "uniformity"],
        rows,
    )


def collapse(bench: Bench) -> None:
    """What happens without negatives, in the figures that show it."""
    rows = []
    plans = {
        "off the shelf": replace(BATCH_PLAN, steps=1, learning_rate=1e-12),
        "random negatives": BATCH_PLAN,
        "no negatives": Plan(attraction_only=True),
    }
    for name, plan in plans.items():
        model = new_adapter(bench.seed)
        lines = train(model, bench.world, plan, bench.seed)
        got = [means(measure(model, bench.world, eight_bits=small))["recall@3"] for small in (False, True)]
        rows.append(
            [
                name,
                *(f"{last(lines, key):.3f}" for key in ("loss", "alignment", "uniformity", "mean_pairwise_cosine")),
                *(f"{value:.3f}" for value in got),
            ]
        )
    table(
        "collapse, 300 steps from off the shelf",
        ["", "loss", "alignment", "uniformity", "mean pairwise cosine", "Recall@3", "in 8 bits"],
        rows,
    )


def capacity(bench: Bench) -> None:
    """A model that is too small: contrast changes nothing; a wider one does."""
    rows, mined = [], replace(MINED_PLAN, in_batch=True)
    for size in (4, 32):
        torch.manual_seed(bench.seed)
        warm = Head(size)
        train(warm, bench.world, replace(BATCH_PLAN, steps=400), bench.seed)
        got = [means(measure(warm, bench.world))["recall@10"]]
        left: list[str] = []
        for plan in (BATCH_PLAN, mined, replace(mined, temperature=0.02), replace(mined, temperature=0.1)):
            model = copy.deepcopy(warm)
            lines = train(model, bench.world, replace(plan, steps=200), bench.seed + 1)
            got.append(means(measure(model, bench.world))["recall@10"])
            left += [f"{1 - last(lines, 'positive_probability'):.3f}"] if len(left) < 2 else []
        rows.append([str(size), *(f"{value:.3f}" for value in got), *left])
    table(
        "capacity: Recall@10",
        ["dimensions", "warm-up", "random", "mined", "mined, τ 0.02", "mined, τ 0.1", "1 − p⁺ random", "1 − p⁺ mined"],
        rows,
    )
