"""The table of `benchmarks.quality`: means over seeds, and paired intervals against the arm of random negatives.

Q evaluated queries, S seeds.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval.significance import paired_bootstrap

REFERENCE = "random"
COMPARED = ("recall@3", "ndcg@10")
ORDER = (
    "off the shelf",
    "random",
    "in-batch",
    "mined 0.05",
    "mined 0.07",
    "mined, decay 3",
    "mixed",
    "merged",
    "seeds merged",
    "teacher drops",
    "teacher relabels",
    "no weak positives",
)


def compare(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each (encoder, set, steps, arm): figures averaged over seeds, differences to random negatives.

    A query's figure is its mean over the arm's seeds; the 95 % interval is over queries, drawn in pairs. Both sides are
    averaged over the seeds that both arms have; how much a seed alone changes is `seed_sd`, the standard deviation over
    seeds of the mean (0 with one seed).

    Args:
        rows: one for each arm and seed, with "per_query": metric -> [Q] float64.
    """
    groups: dict[tuple[str, str, int], dict[str, dict[int, Mapping[str, Any]]]] = {}
    for row in rows:
        arms = groups.setdefault((row["encoder"], row["set"], row["planned"]), {})
        arms.setdefault(row["arm"], {})[row["seed"]] = row
    result = []
    for (encoder, name, steps), arms in groups.items():
        for arm in sorted(arms, key=lambda arm: ORDER.index(arm) if arm in ORDER else len(ORDER)):
            result.append({"encoder": encoder, "set": name, "steps": steps, "arm": arm, **_arm(arms[arm], arms.get(REFERENCE))})
    return result


def _arm(seeds: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]] | None) -> dict[str, Any]:
    found = list(seeds.values())
    names = list(found[0]["per_query"])
    means = {name: [float(np.nanmean(row["per_query"][name])) for row in found] for name in names}
    row: dict[str, Any] = {
        "seeds": len(found),
        "queries": int(np.sum(~np.isnan(found[0]["per_query"][names[0]]))),
        "metrics": {name: float(np.mean(values)) for name, values in means.items()},
        "seed_sd": {name: float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for name, values in means.items()},
    }
    if reference is not None and seeds is not reference:
        row["against_random"] = _against(seeds, reference)
    if "geometry" in found[0]:
        row["geometry"] = {name: float(np.mean([each["geometry"][name] for each in found])) for name in found[0]["geometry"]}
        row["seconds"] = float(np.mean([each["seconds"] for each in found]))
        row["best_epochs"] = [f"{each['best_epoch']}/{each['epochs']}" for each in found]
    if "general" in found[0]:
        row["general"] = {name: float(np.mean([each["general"][name] for each in found])) for name in found[0]["general"]}
    if "share" in found[0]:
        row["shares"] = [each["share"] for each in found]
    if "last" in found[0]:
        row["last"] = {name: float(np.mean([each["last"][name] for each in found])) for name in found[0]["last"]}
    if "mining" in found[0]:
        row["mining"] = found[0]["mining"]
    return row


def _against(seeds: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Paired intervals. The model as it comes has one seed, 0, and is compared with all of the other's."""
    shared = sorted(set(seeds) & set(reference))
    ours, theirs = (shared, shared) if shared else (list(seeds), list(reference))
    return {
        name: asdict(
            paired_bootstrap(
                np.mean([seeds[seed]["per_query"][name] for seed in ours], axis=0),
                np.mean([reference[seed]["per_query"][name] for seed in theirs], axis=0),
            )
        )
        for name in COMPARED
    }


def as_markdown(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], day: datetime.date, split: str) -> str:
    """The rows as a Markdown table, with where and when they were measured."""
    head = (
        "encoder",
        "data",
        "arm",
        "Recall@3",
        "− random [95 %]",
        "NDCG@10",
        "− random [95 %]",
        "Hit@10",
        "bad top-1",
        "NDCG, sd over seeds",
        "effective negatives",
        "hardest weight",
        "dead",
        "above the positive",
        "gradient from mined",
        "s",
        "general NDCG@10",
    )
    lines = [
        f"{day}, {machine['processor']}, {machine['cpus']} CPU(s), load {machine['load']}; split: {split}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---"] * 3 + ["---:"] * (len(head) - 3)) + "|",
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    figures, geometry, against = row["metrics"], row.get("geometry", {}), row.get("against_random", {})
    looks = ["–"] * 6
    if geometry:  # the share of negatives above the positive as a count per query: the arms have other numbers of them
        above = geometry["above_positive"] * geometry["negatives_per_query"]
        looks = [
            f"{geometry['effective_negatives']:.1f} of {geometry['negatives_per_query']:.0f}",
            f"{geometry['hardest_weight']:.2f}",
            f"{geometry['dead_negatives']:.0%}",
            f"{above:.2f}",
            f"{geometry.get('gradient_share_hard', 0.0):.0%}",
            f"{row['seconds']:.0f}",
        ]
    return [
        row["encoder"],
        f"{row['set']} ({row['queries']:,} queries, {row['steps']} steps)",
        row["arm"] + (f" × {row['seeds']}" if geometry else _shares(row)),
        f"{figures['recall@3']:.3f}",
        difference(against.get("recall@3")),
        f"{figures['ndcg@10']:.3f}",
        difference(against.get("ndcg@10")),
        f"{figures['hit@10']:.3f}",
        f"{figures['bad_top1']:.1%}",
        f"{row['seed_sd']['ndcg@10']:.3f}" if row["seeds"] > 1 else "–",
        *looks,
        f"{row['general']['ndcg@10']:.3f}" if "general" in row else "–",
    ]


def _shares(row: Mapping[str, Any]) -> str:
    """Of merged models: how many percent of each seed's are the trained one's."""
    return f" ({', '.join(map(str, row['shares']))} %)" if "shares" in row else ""


def difference(interval: Mapping[str, float] | None) -> str:
    """In points; bold where the interval leaves out 0."""
    if interval is None:
        return "–"
    mean, low, high = (100 * interval[name] for name in ("mean", "low", "high"))
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
