"""The comparison of arms: seeds averaged per query, intervals paired by query."""

import datetime

import numpy as np
import pytest

from benchmarks.quality.table import as_markdown, compare
from eval.significance import paired_bootstrap

GEOMETRY = {
    "effective_negatives": 3.0,
    "negatives_per_query": 12.0,
    "hardest_weight": 0.5,
    "dead_negatives": 0.25,
    "above_positive": 0.0125,
    "gradient_share_hard": 0.4,
}


def row(arm, seed, recall, **more):
    figures = {
        "recall@3": np.array(recall, float),
        "ndcg@10": np.array(recall, float) / 2,
        "hit@10": np.ones(len(recall)),
        "bad_top1": np.zeros(len(recall)),
    }
    trained = {"geometry": GEOMETRY, "seconds": 10.0 * seed, "best_epoch": seed, "epochs": 4} if seed else {}
    return {"encoder": "adapter", "set": "x", "planned": 30, "arm": arm, "seed": seed, "per_query": figures} | trained | more


def test_seeds_are_averaged_per_query_before_queries_are_drawn():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((3, 40)), rng.random((3, 40))
    rows = [row("mined 0.05", seed + 1, ours[seed]) for seed in range(3)]
    rows += [row("random", seed + 1, theirs[seed]) for seed in range(3)]
    random, mined = compare(rows)
    assert (random["arm"], mined["arm"]) == ("random", "mined 0.05")
    wanted = paired_bootstrap(ours.mean(axis=0), theirs.mean(axis=0))
    got = mined["against_random"]["recall@3"]
    assert (got["mean"], got["low"], got["high"]) == (wanted.mean, wanted.low, wanted.high)
    assert mined["metrics"]["recall@3"] == pytest.approx(ours.mean())
    assert mined["seed_sd"]["recall@3"] == pytest.approx(ours.mean(axis=1).std(ddof=1))
    assert mined["seconds"] == 20.0
    assert "against_random" not in random


def test_an_arm_with_fewer_seeds_is_compared_on_the_seeds_that_both_have():
    rows = [row("random", 1, [0.0, 0.0]), row("random", 2, [1.0, 1.0]), row("in-batch", 2, [1.0, 0.0])]
    _, short = compare(rows)
    assert short["seeds"] == 1
    assert short["against_random"]["recall@3"]["mean"] == -0.5


def test_the_model_as_it_comes_is_compared_with_all_seeds_and_has_no_geometry():
    base, random = compare([row("random", 1, [0.0, 1.0]), row("random", 2, [1.0, 1.0]), row("off the shelf", 0, [0.0, 0.0])])
    assert base["arm"] == "off the shelf"
    assert base["against_random"]["recall@3"]["mean"] == -0.75
    assert "geometry" not in base
    assert random["seed_sd"]["recall@3"] == pytest.approx(np.std([0.5, 1.0], ddof=1))


def test_runs_of_other_steps_or_sets_are_never_compared():
    rows = [row("random", 1, [0.0]), row("mined 0.05", 1, [1.0], planned=90), row("mined 0.05", 1, [1.0], set="y")]
    assert all("against_random" not in found for found in compare(rows))


def test_a_query_without_relevant_items_counts_in_no_figure():
    rows = [row("random", 1, [0.0, np.nan, 0.0]), row("mined 0.05", 1, [1.0, np.nan, 0.0])]
    _, mined = compare(rows)
    assert (mined["queries"], mined["metrics"]["recall@3"]) == (2, 0.5)
    assert mined["against_random"]["recall@3"]["queries"] == 2


def test_the_table_is_bold_only_where_the_interval_leaves_out_zero():
    rows = [row("random", 1, np.zeros(50)), row("mined 0.05", 1, np.ones(50)), row("in-batch", 1, [1.0, *np.zeros(49)])]
    text = as_markdown(compare(rows), {"processor": "P", "cpus": 2, "load": 0.5}, datetime.date(2026, 11, 21), "dev")
    lines = text.splitlines()
    assert lines[0] == "2026-11-21, P, 2 CPU(s), load 0.5; split: dev."
    by_arm = {line.split(" | ")[2]: line for line in lines[4:]}
    assert "**+100.0 [+100.0, +100.0]**" in by_arm["mined 0.05 × 1"]
    assert " +2.0 [+0.0, +6.0] " in by_arm["in-batch × 1"]
    assert "3.0 of 12 | 0.50 | 25% | 0.15 | 40% | 10 | – |" in by_arm["random × 1"]
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_a_merged_arm_says_its_shares_and_every_arm_what_it_forgot():
    general = [{"general": {"ndcg@10": figure}} for figure in (0.3, 0.4)]
    rows = [row("random", 1, [0.0, 1.0], **general[0]), row("random", 2, [0.0, 1.0], **general[1])]
    rows += [row("merged", seed, [1.0, 1.0], share=share, **general[1]) for seed, share in ((1, 50), (2, 100))]
    for each in rows[2:]:
        del each["geometry"]
    found = compare(rows)
    assert [each["arm"] for each in found] == ["random", "merged"]
    text = as_markdown(found, {"processor": "P", "cpus": 2, "load": 0.5}, datetime.date(2026, 11, 21), "dev").splitlines()
    assert "merged (50, 100 %)" in text[-1]
    assert (text[-2].split(" | ")[-1], text[-1].split(" | ")[-1]) == ("0.350 |", "0.400 |")
