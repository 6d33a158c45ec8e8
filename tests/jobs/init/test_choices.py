"""Settings from figures of data and machines that are not here; the file that they make is read back."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from jobs.config.config import parse_config
from jobs.init.choices import Choice, choose, dev_fraction, warnings
from jobs.init.figures import Figures, Texts
from jobs.init.machine import Machine
from jobs.init.toml_file import to_lines

TEXTS = Texts(rows=10_000, median_words=50, long_words=120, empty=0, equal=0, other_script=0.0)
DATA = Figures(
    items=100_000,
    queries=12_000,
    splits={"train": 10_000, "dev": 2_000},
    with_positive={"train": 10_000, "dev": 2_000},
    cut_dev=False,
    labels=24_000,
    judged_irrelevant=12_000,
    relevant_per_query=1.0,
    grades=[0.0, 1.0],
    dimension=None,
    item_texts=TEXTS,
    query_texts=TEXTS,
    titles_repeated=0.0,
    twins_across_splits=0,
    metadata=[],
)
LAPTOP, BOX = Machine(cpus=8, memory_gib=16.0), Machine(cpus=32, memory_gib=256.0, gpus=4, gpu_memory_gib=80.0)


def settings(figures: Figures, machine: Machine) -> dict[str, Any]:
    """What is chosen, read back from the file as a run reads it."""
    data = [Choice(f"data.{name}", f"{name}.parquet", "") for name in ("corpus", "queries", "qrels")]
    text = "\n".join(to_lines([], [Choice("name", "shop", ""), Choice("output", "runs", ""), *data, *choose(figures, machine)]))
    values = tomllib.loads(text)
    parse_config(values, source="the test")
    assert max(map(len, text.splitlines())) <= 130
    return values


def test_gpus_train_all_weights_in_large_batches_and_are_not_replaced_by_cpus() -> None:
    values = settings(DATA, BOX)
    assert values["encoder"]["kind"] == "transformer"
    assert values["cluster"] == {"device": "gpu"}
    assert values["training"]["batch_size"] == 32, "10,000 queries on 4 ranks: 78 steps; of 64 it would be 39"
    assert settings(replace(DATA, with_positive={"train": 100_000}), BOX)["training"]["batch_size"] == 128


@pytest.mark.parametrize(("items", "kind"), [(100_000, "adapter"), (10_000_000, "static")])
def test_a_cpu_embeds_once_what_it_can_in_three_hours(items: int, kind: str) -> None:
    assert settings(replace(DATA, items=items), LAPTOP)["encoder"]["kind"] == kind


@pytest.mark.parametrize("machine", [LAPTOP, BOX])
def test_vectors_that_come_with_the_data_need_no_model(machine: Machine) -> None:
    assert settings(replace(DATA, dimension=1024), machine)["encoder"] == {"kind": "adapter"}


@pytest.mark.parametrize("queries", [2, 7, 50, 319, 320, 5_000, 10**6])
@pytest.mark.parametrize("items", [2, 5, 21, 150, 10**6])
@pytest.mark.parametrize("machine", [LAPTOP, BOX])
def test_whatever_the_sizes_the_settings_are_accepted_and_a_batch_can_be_filled(
    queries: int, items: int, machine: Machine
) -> None:
    values = settings(replace(DATA, items=items, with_positive={"train": queries, "dev": 1}), machine)
    steps = queries // values["training"]["batch_size"] // max(1, machine.gpus)
    assert steps * values["training"]["epochs"] >= 40 or values["training"]["batch_size"] <= 8
    if queries >= 2 * max(1, machine.gpus):
        assert steps >= 1
    assert values["mining"]["num_hits"] <= max(1, items - 1)


def test_many_relevant_items_are_measured_by_a_figure_that_can_reach_1() -> None:
    assert "evaluation" not in settings(DATA, LAPTOP)
    assert settings(replace(DATA, relevant_per_query=9.5), LAPTOP)["evaluation"] == {"primary": "ndcg@10"}


def test_other_scripts_get_a_multilingual_model() -> None:
    mixed = replace(DATA, query_texts=replace(TEXTS, other_script=0.2))
    assert "multilingual" in settings(mixed, LAPTOP)["encoder"]["model"]


@pytest.mark.parametrize(("train", "dev", "want"), [(10_000, 1_000, None), (450, 50, 0.2), (90, 10, 0.3)])
def test_few_queries_give_a_larger_share_to_dev(train: int, dev: int, want: float | None) -> None:
    assert dev_fraction(replace(DATA, with_positive={"train": train, "dev": dev}, cut_dev=True)) == want
    assert dev_fraction(replace(DATA, with_positive={"train": train, "dev": dev})) is None


def test_vectors_that_do_not_fit_into_memory_are_told() -> None:
    large = replace(DATA, items=20_000_000)
    assert [text for text in warnings(large, LAPTOP, own_model=False) if "use a cluster" in text]
    assert not [text for text in warnings(large, BOX, own_model=False) if "use a cluster" in text]
