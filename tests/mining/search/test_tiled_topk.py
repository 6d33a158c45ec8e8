"""The best of tiles and chunks are the best of all, whatever the ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.search.tiled_topk import LONGEST_CHUNK, SHORTEST_CHUNK, WORTHWHILE, chunk_length, tile_topk, tiled_topk


def scores(queries: int, items: int, levels: int, seed: int) -> torch.Tensor:
    """Few levels: many ties."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.integers(-levels, levels, (queries, items)).astype(np.float32))


def check(got: tuple[torch.Tensor, torch.Tensor], all_scores: torch.Tensor, width: int) -> None:
    """The values are those of a full sort, at positions that hold them, each position once."""
    values, positions = got
    wanted = all_scores.sort(dim=1, descending=True).values[:, :width]
    assert torch.equal(values, wanted)
    assert torch.equal(all_scores.gather(1, positions), values)
    assert all(len(set(row)) == len(row) for row in positions.tolist())


@settings(max_examples=300)
@given(
    st.integers(1, 5),
    st.integers(1, 9000),
    st.sampled_from([1, 2, 5, 50, 1000, 10**6]),
    st.integers(1, 300),
    st.integers(0, 9999),
)
def test_a_tile_s_best_by_chunks_are_those_of_a_full_sort(queries: int, items: int, levels: int, width: int, seed: int) -> None:
    made, width = scores(queries, items, levels, seed), min(width, items)
    check(tile_topk(made, width), made, width)


def test_two_thousand_and_more_are_found_among_many_ties() -> None:
    for levels in (3, 1000, 10**6):
        made = scores(2, 2048 * WORTHWHILE + 5, levels, levels)
        check(tile_topk(made, 2048), made, 2048)


@settings(max_examples=100)
@given(st.integers(1, 40), st.integers(1, 500), st.integers(1, 60), st.sampled_from([7, 64, 1000, 10**9]), st.integers(0, 9999))
def test_tiles_of_any_size_give_the_best_of_all(queries: int, items: int, width: int, tile_scores: int, seed: int) -> None:
    generator, width = np.random.default_rng(seed), min(width, items)
    made = [torch.from_numpy(generator.integers(-2, 3, (count, 6)).astype(np.float32)) for count in (queries, items)]
    check(tiled_topk(made[0], made[1], width, tile_scores=tile_scores), made[0] @ made[1].T, width)


@pytest.mark.parametrize(
    ("tile", "width", "want"), [(131_072, 128, 32), (131_072, 2048, SHORTEST_CHUNK), (2**27, 1, LONGEST_CHUNK)]
)
def test_a_chunk_leaves_little_to_sort(tile: int, width: int, want: int) -> None:
    assert chunk_length(tile, width) == want
