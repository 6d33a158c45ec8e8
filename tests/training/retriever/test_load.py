"""What ranks load: only what their steps name, and every step the same as with the whole corpus in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, vectors_to_column, write_part
from training.encoders.tokens.features import Vectors
from training.engine.schedule import Pace, Schedule
from training.feed.batches import Batch
from training.feed.candidate_masks import candidate_masks
from training.feed.mixed import MixedPlan, behind
from training.rank.load import NOT_LOADED, numbers, plan_batches
from training.retriever import validation
from training.retriever.load import Loaded, load
from training.settings import TrainingSettings
from training.task import TrainData, TrainTask, read_examples

ITEMS, QUERIES, DIMENSION = 400, 60, 3


def write(store: Store, name: str, columns: dict[str, Any], rows: int = 37) -> list[Part]:
    table = pa.table(columns)
    return [
        write_part(store, f"{name}/{part_name(number)}", table.slice(start, rows), first_row=start)
        for number, start in enumerate(range(0, table.num_rows, rows))
    ]


def make_task(root: Path, *, half: bool = False, epochs: int = 2, validates: str = "dev", **options: Any) -> TrainTask:
    """Queries 0 … 39 are trained on, 40 … 49 validate, the rest is neither; labels of every kind."""
    store, rng = Store(str(root)), np.random.default_rng(4)
    labels = sorted({(int(q), int(i)) for q, i in rng.integers(0, [QUERIES, ITEMS], (3 * QUERIES, 2))})
    scores = rng.integers(-1, 3, len(labels))
    splits = np.repeat(["train", validates, "test"], [40, 10, 10])
    items = rng.normal(size=(ITEMS, DIMENSION)).astype(np.float16 if half else np.float32)
    own = np.where(np.arange(QUERIES) % 5 == 0, rng.integers(0, ITEMS, QUERIES), -1)
    mined = [rng.permutation(ITEMS)[: rng.integers(0, 9)].tolist() for _ in range(40)]
    codes = {"group_code": rng.integers(-1, 90, ITEMS) * 2**40, "text_code": rng.integers(0, 300, ITEMS) * 2**40}
    codes["group_code"][codes["group_code"] < 0] = -1
    return TrainTask(
        store=store,
        folder="out",
        kind="adapter",
        model={},
        model_prefix="",
        settings=TrainingSettings(**{"batch_size": 4, "hard_negatives": 2, "random_fraction": 1.0} | options),
        schedule=Schedule(epochs),
        data=TrainData(
            codes=write(store, "codes", {"row": np.arange(ITEMS)} | codes),
            queries=write(store, "queries", {"row": np.arange(QUERIES), "split": splits, "item_row": own}),
            item_features=write(store, "items", {"vector": vectors_to_column(items)}, 61),
            query_features=write(store, "asked", {"vector": vectors_to_column(items[:QUERIES])}),
            labels=write(
                store,
                "labels",
                {
                    "query_row": [query for query, _ in labels],
                    "item_row": [item for _, item in labels],
                    "score": scores,
                    "weight": np.ones(len(labels)),
                    "source": ["" for _ in labels],
                },
            ),
            negatives=write(store, "mined", {"query_row": np.arange(40), "negative_rows": pa.array(mined, pa.list_(pa.int64()))}),
            near_misses=write(store, "near", {"item_rows": pa.array([[7, 9], [9, 200]], pa.list_(pa.int64()))}),
        ),
    )


def steps_of(loaded: Loaded, task: TrainTask) -> list[Batch]:
    pace = Pace(task.schedule, loaded.plan.micro_steps, task.settings.accumulation, task.settings.max_steps)
    micro_steps = range(pace.total_steps * task.settings.accumulation + 1)  # the feed prepares one more
    return [loaded.plan.joined(*divmod(number, pace.micro_steps_per_epoch)) for number in micro_steps]


def features_of(loaded: Loaded, rows: Any) -> Any:
    taken = loaded.tables.items.take(rows)
    assert isinstance(taken, Vectors)
    return taken.values


@pytest.fixture(autouse=True)
def _few_items_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "VALIDATION_ITEMS", 64)  # else validation alone loads all of the corpus


@pytest.mark.parametrize("options", [{}, {"half": True}, {"random_popularity": 0.75}, {"epochs": 5, "max_steps": 7}])
def test_every_step_is_the_one_of_the_whole_corpus_though_little_of_it_is_loaded(tmp_path: Path, options: Any) -> None:
    task = make_task(tmp_path, **options)
    few = load(task, 2, pool_rows=50)
    told = read_examples(task)
    pool = np.sort(np.random.default_rng([few.plan.seed, 0x9001]).choice(ITEMS, 50, replace=False, shuffle=False))
    # the same pool, everything in memory, the run's own rows
    whole = load(task, 2)
    whole = replace(whole, plan=plan_batches(task, told.examples, ITEMS, pool, 2))
    assert len(few.tables.items) < ITEMS
    assert len(few.tables.queries) == len(np.union1d(told.examples.query_rows, whole.check.query_rows if whole.check else []))
    for got, want in zip(steps_of(few, task), steps_of(whole, task), strict=True):
        assert np.isin(want.random_BR, pool).all()
        assert np.array_equal(got.hard_BH < 0, want.hard_BH < 0)
        assert np.array_equal(features_of(few, got.item_rows), features_of(whole, want.item_rows))
        for name in ("positive_rows", "hard_BH", "random_BR"):
            own, other = (getattr(batch, name).ravel() for batch in (got, want))
            assert np.array_equal(features_of(few, own[own >= 0]), features_of(whole, other[other >= 0]))
        columns = [candidate_masks(batch, batch.item_rows, loaded.tables.labels) for batch, loaded in ((got, few), (want, whole))]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*columns, strict=True))
        assert columns[0][0].any()


def test_a_corpus_that_the_pool_covers_is_loaded_whole_and_keeps_its_rows(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    loaded, told = load(task, 1), read_examples(task)
    assert loaded.plan.pool is None
    assert (len(loaded.tables.items), len(loaded.tables.queries)) == (ITEMS, QUERIES)
    for name in ("query_rows", "positive_rows", "negative_rows"):
        assert np.array_equal(getattr(loaded.plan.examples, name), getattr(told.examples, name))
    drawn = np.random.default_rng([loaded.plan.seed, 1, 3]).integers(0, ITEMS, (4, 2), dtype=np.int64)
    assert np.array_equal(loaded.plan.joined(1, 3).random_BR, drawn), "as it always was drawn"
    exact = load(task, 1, pool_rows=ITEMS)
    assert np.array_equal(exact.plan.joined(1, 3).random_BR, drawn)


def test_validation_is_the_same_whatever_else_is_loaded(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    few, whole = load(task, 1, pool_rows=ITEMS - 1), load(task, 1)
    assert few.check is not None
    assert whole.check is not None
    assert np.array_equal(
        few.tables.labels.positives(few.check.query_rows)[0], whole.tables.labels.positives(whole.check.query_rows)[0]
    )
    assert len(few.check.item_rows) == len(whole.check.item_rows) == 64
    assert np.isfinite(features_of(few, few.check.item_rows)).all()


def test_half_precision_stays_half_in_memory_and_gives_the_same_numbers(tmp_path: Path) -> None:
    loaded = load(make_task(tmp_path, half=True), 1, pool_rows=50)
    items = loaded.tables.items
    assert isinstance(items, Vectors)
    assert items.values.dtype == np.float16
    assert items.take(np.array([3, 1])).values.dtype == np.float32


def test_what_was_not_loaded_is_never_another_item(tmp_path: Path) -> None:
    loaded = np.array([2, 5, 9])
    assert numbers(loaded, np.array([5, 2, 9, 3, 10])).tolist() == [1, 0, 2, NOT_LOADED, NOT_LOADED]
    with pytest.raises(IndexError):
        Vectors(np.zeros((3, 2), np.float32)).take(np.array([NOT_LOADED]))


def test_a_part_of_the_queries_is_loaded_where_none_validates(tmp_path: Path) -> None:
    loaded = load(make_task(tmp_path, validates="test"), 1, pool_rows=50)
    assert loaded.check is None
    assert len(loaded.tables.queries) <= 40
    assert np.isfinite(features_of(loaded, loaded.plan.joined(0, 0).item_rows)).all()


@pytest.mark.parametrize("options", [{}, {"epochs": 3, "max_steps": 11}, {"accumulation": 2}])
def test_of_a_set_that_is_mixed_in_the_rows_of_its_steps_are_loaded_behind_the_run_s(tmp_path: Path, options: Any) -> None:
    own, other = make_task(tmp_path / "own", **options), make_task(tmp_path / "other", validates="train")
    files = {name: getattr(other.data, name) for name in ("codes", "queries", "item_features", "query_features", "labels")}
    store = Store(str(tmp_path))

    def moved(parts: list[Part], folder: str) -> list[Part]:
        return [replace(part, path=f"{folder}/{part.path}") for part in parts]

    data = {name: moved(getattr(own.data, name), "own") for name in (*files, "negatives", "near_misses")}
    mix = TrainData(**{name: moved(parts, "other") for name, parts in files.items()})
    task = replace(own, store=store, data=TrainData(**data, mix=mix, mix_share=0.3))
    few, whole = load(task, 2, pool_rows=50), load(task, 2)
    second = task.mixed_in()
    assert second is not None
    pools = [np.random.default_rng([s * 1009, 0x9001]).choice(ITEMS, 50, replace=False, shuffle=False) for s in (0, 1)]
    plans = [
        plan_batches(each, read_examples(each).examples, ITEMS, np.sort(pool), 2)
        for each, pool in zip((task, second), pools, strict=True)
    ]
    want_plan = MixedPlan.join(plans[0], behind(plans[1], QUERIES, ITEMS), 0.3)
    assert len(whole.tables.items) == 2 * ITEMS
    assert len(few.tables.items) < 2 * ITEMS
    assert isinstance(few.plan, MixedPlan)
    assert {few.plan.turn(0, step)[0] for step in range(few.plan.micro_steps)} == {False, True}
    for got, want in zip(steps_of(few, task), steps_of(replace(whole, plan=want_plan), task), strict=True):
        for name in ("positive_rows", "hard_BH", "random_BR", "item_rows"):
            mine, theirs = (getattr(batch, name).ravel() for batch in (got, want))
            assert np.array_equal(features_of(few, mine[mine >= 0]), features_of(whole, theirs[theirs >= 0]))
        columns = [candidate_masks(batch, batch.item_rows, loaded.tables.labels) for batch, loaded in ((got, few), (want, whole))]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*columns, strict=True))
    alone = load(replace(own, store=store, data=TrainData(**data)), 2)
    assert whole.check is not None
    assert alone.check is not None
    assert np.array_equal(whole.check.item_rows, alone.check.item_rows), "nothing of it is validated on"
    assert task.predicted_bytes(1) > replace(task, data=TrainData(**data)).predicted_bytes(1)


def test_a_mixed_in_set_without_a_step_is_refused_by_its_name(tmp_path: Path) -> None:
    task = make_task(tmp_path, batch_size=16)
    few = write(
        task.store, "few", {"row": np.arange(QUERIES), "split": ["train"] * 5 + ["none"] * 55, "item_row": [-1] * QUERIES}
    )
    mix = replace(task.data, queries=few, negatives=[], near_misses=[])
    with pytest.raises(ConfigError, match=r"\[data\.mix\]: a step takes 16 queries"):
        load(replace(task, data=replace(task.data, mix=mix, mix_share=0.5)), 1)
