"""Pool sizes from what a cluster has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster.errors import ConfigError
from cluster.session.resources import (
    ClusterSettings,
    ClusterSize,
    PoolSize,
    divided,
    embed_pool,
    lacking,
    search_pool,
    shrunk,
    train_pool,
    uses_gpu,
)

LAPTOP = ClusterSize(nodes=1, cpus=8, gpus=0)
TWO_GPU_NODES = ClusterSize(nodes=2, cpus=64, gpus=8)
FOUR_CPU_NODES = ClusterSize(nodes=4, cpus=16, gpus=0)


@pytest.mark.parametrize(
    ("size", "embed", "train"),
    [
        (LAPTOP, PoolSize(1, 8, 0), PoolSize(1, 8, 0)),
        (FOUR_CPU_NODES, PoolSize(4, 4, 0), PoolSize(1, 4, 0)),
        (TWO_GPU_NODES, PoolSize(8, 8, 1), PoolSize(8, 8, 1)),
        (ClusterSize(1, 1, 0), PoolSize(1, 1, 0), PoolSize(1, 1, 0)),
    ],
)
def test_pools_fill_the_cluster_by_default(size: ClusterSize, embed: PoolSize, train: PoolSize) -> None:
    assert embed_pool(ClusterSettings(), size) == search_pool(ClusterSettings(), size) == embed
    assert train_pool(ClusterSettings(), size) == train


def test_settings_decide_counts_and_cpus() -> None:
    settings = ClusterSettings(actors=3, train_workers=8, device="cpu")
    assert embed_pool(settings, TWO_GPU_NODES) == PoolSize(3, 16, 0)  # two of them share a node of 32
    assert search_pool(settings, TWO_GPU_NODES) == PoolSize(3, 16, 0)
    assert train_pool(settings, TWO_GPU_NODES) == PoolSize(8, 8, 0)
    assert embed_pool(ClusterSettings(cpus_per_worker=1), LAPTOP) == PoolSize(1, 1, 0)


def test_the_device_is_chosen_or_refused() -> None:
    assert not uses_gpu(ClusterSettings(), LAPTOP)
    assert uses_gpu(ClusterSettings(), TWO_GPU_NODES)
    assert not uses_gpu(ClusterSettings(device="cpu"), TWO_GPU_NODES)
    with pytest.raises(ConfigError, match="no GPU; add a GPU node, or set"):
        uses_gpu(ClusterSettings(device="gpu"), LAPTOP)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (ClusterSettings(actors=9), LAPTOP),
        (ClusterSettings(actors=2, cpus_per_worker=5), LAPTOP),
        (ClusterSettings(actors=9), TWO_GPU_NODES),
        (ClusterSettings(), ClusterSize(1, 2, 4)),
    ],
)
def test_more_than_the_cluster_has_is_refused_with_both_figures(settings: ClusterSettings, size: ClusterSize) -> None:
    with pytest.raises(ConfigError, match=rf"actors needs \d+ × \d+ CPU.*offers {size.cpus} CPU.*lower cluster"):
        embed_pool(settings, size)


@given(st.integers(1, 8), st.integers(1, 64), st.integers(0, 8), st.none() | st.integers(1, 32))
def test_a_pool_that_is_granted_fits(nodes: int, cpus: int, gpus: int, wanted: int | None) -> None:
    size = ClusterSize(nodes, nodes * cpus, nodes * gpus)
    try:
        pool = embed_pool(ClusterSettings(actors=wanted), size)
    except ConfigError:
        return
    assert pool.count == (wanted or (size.gpus if gpus else nodes))
    assert pool.count * pool.cpus <= size.cpus
    assert pool.count * pool.gpus <= size.gpus
    assert -(-pool.count // nodes) * pool.cpus <= cpus  # and on each node


def test_unknown_settings_and_zero_actors_are_refused() -> None:
    with pytest.raises(ValidationError):
        ClusterSettings.model_validate({"embed_actor": 1})
    with pytest.raises(ValidationError):
        ClusterSettings(shards=0)


def test_the_smallest_gpu_node_decides_how_many_cpus_a_worker_asks_for() -> None:
    size = ClusterSize(nodes=3, cpus=40, gpus=2, gpu_nodes=2, node_cpus=8)
    assert train_pool(ClusterSettings(), size) == PoolSize(count=2, cpus=8, gpus=1)


@pytest.mark.parametrize(
    ("settings", "size", "first", "missing"),
    [
        ({}, ClusterSize(0, 0, 0), None, "1 of 1 node(s) with CPUs"),
        ({}, LAPTOP, None, ""),
        ({"expect_nodes": 3, "expect_gpus": 16}, TWO_GPU_NODES, None, "1 of 3 node(s) with CPUs and 8 of 16 GPU(s)"),
        ({"expect_nodes": 3, "expect_gpus": 16}, TWO_GPU_NODES, ClusterSize(3, 96, 16), ""),
        ({}, LAPTOP, TWO_GPU_NODES, "1 of 1 GPU(s)"),
        ({"device": "cpu"}, LAPTOP, TWO_GPU_NODES, ""),
    ],
)
def test_what_is_waited_for_is_what_was_announced_and_later_what_the_run_began_on(
    settings: dict[str, int | str], size: ClusterSize, first: ClusterSize | None, missing: str
) -> None:
    assert lacking(ClusterSettings.model_validate(settings), size, first) == missing


def test_gpus_are_not_waited_for_where_none_is_used() -> None:
    with pytest.raises(ValidationError, match="expect_gpus = 2 waits for GPUs"):
        ClusterSettings(expect_gpus=2, device="cpu")


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.none() | st.integers(1, 8), st.booleans())
def test_after_a_loss_the_counts_that_were_asked_for_are_cut_to_what_is_left(
    before: int, left: int, wanted: int, per_worker: int | None, on_gpus: bool
) -> None:
    gpus = 2 * int(on_gpus)
    first = ClusterSize(before, 8 * before, gpus * before, before * int(on_gpus), 8)
    size = ClusterSize(min(before, left), 8 * min(before, left), gpus * min(before, left), min(before, left) * int(on_gpus), 8)
    settings = ClusterSettings(train_workers=wanted, cpus_per_worker=per_worker)
    try:
        whole = train_pool(settings, first)
    except ConfigError:
        return
    pool = train_pool(settings, shrunk(size, first))
    assert 1 <= pool.count <= whole.count
    assert pool.count * pool.cpus <= size.cpus
    assert pool.count * pool.gpus <= size.gpus


@given(st.integers(1, 4), st.integers(2, 16), st.integers(0, 4), st.none() | st.integers(1, 8))
def test_what_trains_and_what_mines_beside_it_fit_the_cluster_together(
    nodes: int, cpus: int, gpus: int, workers: int | None
) -> None:
    settings = ClusterSettings(train_workers=workers)
    size = ClusterSize(nodes, nodes * cpus, nodes * gpus, nodes if gpus else 0, cpus)
    try:
        training, mining = (divided(settings, size)[number] for number in (0, 1))
        ranks, actors = train_pool(settings, training), embed_pool(settings, mining)
    except ConfigError:
        return
    assert ranks.count * ranks.gpus + actors.count * actors.gpus <= size.gpus
    assert ranks.gpus == actors.gpus == int(gpus > 0)
    if cpus >= gpus:
        assert ranks.count * ranks.cpus + actors.count * actors.cpus <= size.cpus


def test_training_gets_the_gpus_that_it_asks_for_or_half_of_them() -> None:
    shares = [divided(ClusterSettings(train_workers=workers), TWO_GPU_NODES) for workers in (None, 6)]
    assert [(training.gpus, mining.gpus) for training, mining in shares] == [(4, 4), (6, 2)]
    assert train_pool(ClusterSettings(train_workers=6), shares[1][0]).cpus == embed_pool(ClusterSettings(), shares[1][1]).cpus


def test_a_cluster_that_cannot_train_and_mine_at_once_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"trains on cluster.train_workers = 1 GPU\(s\) .* leave none; lower"):
        divided(ClusterSettings(), ClusterSize(1, 8, 1, 1, 8))
    with pytest.raises(ConfigError, match=r"takes 2 CPUs of every node, .* has 1; add CPUs"):
        divided(ClusterSettings(), ClusterSize(2, 2, 0, 0, 1))
