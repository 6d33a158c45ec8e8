"""What the re-ranker's ranks load: the same lists and tokens, whether the whole corpus is loaded or what the steps name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError
from cluster.tables.tables import write_part
from training.reranker.lists import Lists, draw_lists
from training.reranker.load import HIGHEST_GAIN, Loaded, load
from training.reranker.settings import RerankerSettings, settings_for
from training.reranker.task import RerankTask
from training.settings import TrainingSettings


@pytest.fixture(scope="module")
def task(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> RerankTask:
    """With 120 more items, which no query's labels name."""
    from tests.training.reranker.rerank_worker import ITEMS, prepare

    task, more = prepare(tmp_path_factory.mktemp("task"), cross_encoder), np.arange(ITEMS, ITEMS + 120)
    columns = {
        "codes": {"row": more, "text_code": more, "group_code": np.full(len(more), -1)},
        "corpus": {"row": more, "text": [f"item {row}" for row in more]},
    }
    parts = {
        name: [*getattr(task.data, name), write_part(task.store, f"more/{name}.parquet", pa.table(table), first_row=ITEMS)]
        for name, table in columns.items()
    }
    return replace(task, data=replace(task.data, **parts))


POOL = 70
"""More than there are queries, fewer than items."""


def lists_of(loaded: Loaded) -> list[Lists]:
    steps = loaded.plan.micro_steps
    return [
        draw_lists(loaded.plan, loaded.labels, loaded.gains, loaded.teacher, epoch, step)
        for epoch in range(2)
        for step in range(steps)
    ]


def tokens_of(loaded: Loaded, lists: Lists) -> list[int]:
    return loaded.template.join(loaded.queries, loaded.items, *lists.pairs()).values.tolist()


def test_lists_are_the_same_where_only_named_items_are_loaded(task: RerankTask) -> None:
    teaching = replace(task, reranker=task.reranker.model_copy(update={"loss": "margin_mse"}))
    some = load(teaching, 1, pool_rows=POOL)
    whole = load(teaching, 1)
    assert len(some.items) < len(whole.items)
    for named in lists_of(some):
        assert (named.item_rows < len(some.items)).all()
        assert named.real[:, 0].all()
        assert np.isfinite(named.teacher).any()
    # the pool changes which random items are drawn: without random ones all is equal
    bare = replace(teaching, reranker=teaching.reranker.model_copy(update={"random_negatives": 0}))
    some, whole = load(bare, 1, pool_rows=POOL), load(bare, 1)
    assert len(some.items) < len(whole.items)
    for one, other in zip(lists_of(some), lists_of(whole), strict=True):
        assert tokens_of(some, one) == tokens_of(whole, other)
        np.testing.assert_array_equal(one.gains, other.gains)
        np.testing.assert_array_equal(one.teacher, other.teacher)


def test_grades_are_scaled_as_the_loss_takes_them(task: RerankTask) -> None:
    assert load(task, 1).gains.values.max() == 1.0, "bce: shares of the highest grade"
    listwise = replace(task, reranker=task.reranker.model_copy(update={"loss": "lambda"}))
    assert load(listwise, 1).gains.values.max() == 3.0 <= HIGHEST_GAIN


def test_a_batch_that_cannot_be_filled_names_the_re_ranker_s_setting(task: RerankTask) -> None:
    own = task.reranker.model_copy(update={"batch_size": 49})
    large = replace(task, reranker=own, settings=settings_for(TrainingSettings(), own))
    with pytest.raises(ConfigError, match=r"set reranker\.batch_size to 48 or less"):
        load(large, 1)


def test_the_re_ranker_takes_from_training_what_is_not_its_own() -> None:
    training = TrainingSettings(epochs=9, zero_stage=3, max_steps=4, learning_rate=0.5, batch_size=64, accumulation=2)
    got = settings_for(training, RerankerSettings(model="m", epochs=3, batch_size=5))
    assert (got.epochs, got.batch_size, got.learning_rate, got.max_steps) == (3, 5, 2e-5, None)
    assert (got.zero_stage, got.accumulation) == (3, 2)
    with pytest.raises(ValueError, match="leave nothing to tell relevant items from"):
        RerankerSettings(model="m", hard_negatives=0, random_negatives=0)


def test_memory_is_predicted_from_counts(task: RerankTask) -> None:
    assert task.predicted_bytes(1) > 0
