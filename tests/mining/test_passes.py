"""Passes over all blocks in Ray: calibrated cuts, a limit on uses and popularity, the same for every block size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from cluster.session.resources import ClusterSize
from cluster.tables.tables import read_parts, write_part
from mining.passes import Passes
from mining.settings import MiningSettings
from tests.mining.test_negatives import mine_task, write_hits

if TYPE_CHECKING:
    from tests.mining.conftest import World

SETTINGS = {"num_hits": 40, "num_negatives": 6, "relative_margin": None}


def with_popularity(world: World) -> World:
    corpus = read_parts(world.store, world.corpus)
    sales = pa.array([None if row % 9 == 0 else row % 5 for row in range(corpus.num_rows)], pa.int64())
    part = write_part(world.store, "corpus-with-sales/part-00000.parquet", corpus.append_column("sales", sales))
    return replace(world, corpus=[part])


@pytest.mark.cluster
@pytest.mark.parametrize(
    "options",
    [
        {"positive_quantile": 0.4},
        {"target_discard_rate": 0.3},
        {"max_uses": 3},
        {"max_uses": 4, "choose": "softmax"},
        {"choose": "uniform", "popularity": "sales", "popularity_power": 2.0},
    ],
)
def test_passes_do_not_depend_on_blocks(
    new_world: Callable[..., World], ray_local: ClusterSize, options: dict[str, object]
) -> None:
    world = with_popularity(new_world())
    settings = MiningSettings(**{**SETTINGS, **options})  # type: ignore[arg-type]
    tables, cuts = [], []
    for block in (7, 50):
        task = mine_task(world, write_hits(world, f"hits-{block}", block, 40), f"out-{block}", settings)
        passes = Passes(task, retries=0)
        cuts.append(passes.with_cuts().cuts)
        parts, counts = passes.mine()
        tables.append(read_parts(world.store, parts))
        assert counts.queries == 50
    assert cuts[0] == cuts[1]
    assert tables[0].equals(tables[1])
    if "max_uses" in options:
        chosen = np.concatenate(
            [
                [item for item, negative in zip(rows, items, strict=True) if negative["source"] != "judged"]
                for rows, items in zip(tables[0]["negative_rows"].to_pylist(), tables[0]["negatives"].to_pylist(), strict=True)
            ]
        ).astype(int)
        assert np.bincount(chosen).max() == options["max_uses"]  # and some item is wanted more often than that
    if "positive_quantile" in options:
        positives = [score for scores in tables[0]["positive_scores"].to_pylist() for score in scores]
        assert cuts[0] is not None
        assert cuts[0].ceiling == pytest.approx(np.quantile(positives, 0.4, method="inverted_cdf"), abs=2e-4)
