"""What a run moves and holds, worked by hand; and the page about a hundred million items, which says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.run.scale import CASE, flop, gets, memory, moved, read, requests_of_part, stored, tables
from mining.memory import blocks_in_flight, most_mining_tasks, rows_that_fit
from training.feed.memory import POOL_ROWS, loaded_items

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"


def test_the_page_says_what_the_formulas_say() -> None:
    text = PAGE.read_text()
    assert "\n".join(tables()) in text, "write it anew: python -m jobs.run.scale prints the tables"
    assert f"{POOL_ROWS:,} items" in text
    few = loaded_items(CASE.items, 50_000, 3, CASE.hard, CASE.random, 1)
    assert f"name at most {50_000 * 10 + min(POOL_ROWS, 100_000):,} items" in text
    assert few == 50_000 * 10 + 100_000


def test_the_case_worked_by_hand() -> None:
    assert stored(CASE)["vectors_per_model_bytes"] == 110_000_000 * 384 * 4
    assert stored(CASE)["hits_per_round_bytes"] == 10_000_000 * 100 * 12
    assert flop(CASE, weights=1, tokens=1)["search_flop"] == 2 * 10**8 * 10**7 * 384
    assert (CASE.waves, CASE.shard) == (1, 1_562_500)
    assert memory(CASE)["mining_node_bytes"] == 8 * 10**8 + 9 * 3 * 10**7 + 16 * 10**7
    assert moved(CASE)["hits_between_nodes_bytes"] == 10**9 * 12 * 7
    assert replace(CASE, nodes=1, actors_per_node=1).waves > 1


def test_a_search_that_is_not_exact_reads_vectors_again_for_its_sample_and_to_verify_waves() -> None:
    once, codes = CASE.vectors, CASE.items * 16
    assert CASE.parts(CASE.items) == 1526
    assert read(CASE)["search_reads_bytes"] == once + codes
    assert read(replace(CASE, mode="two_stage"))["search_reads_bytes"] == once + codes
    # 8,192 lists × 64 items lie in 8 parts, but 256 are read
    assert read(replace(CASE, mode="ivf"))["search_reads_bytes"] == once + codes + once * 256 // 1526
    assert gets(replace(CASE, mode="ivf"))["search_gets"] - gets(CASE)["search_gets"] == 256 * requests_of_part(65_536 * 1538)
    one = replace(CASE, nodes=1, actors_per_node=1, items=10_000_000)
    assert one.waves > 1
    assert read(replace(one, mode="ivf"))["search_reads_bytes"] == 3 * one.vectors + 10**7 * 16, "153 parts are all of the sample"
    assert read(replace(one, mode="two_stage"))["search_reads_bytes"] == 2 * one.vectors + 10**7 * 16


def test_everything_is_flat_but_for_what_grows_with_the_items() -> None:
    small, large = (memory(replace(CASE, items=items, trained=50_000)) for items in (10**7, 10**8))
    assert {name for name in small if small[name] != large[name]} == {
        "search_actor_bytes",
        "mining_node_bytes",
        "mining_sharing_bytes",
    }
    assert large["mining_node_bytes"] - small["mining_node_bytes"] == 8 * 9 * 10**7
    assert max(gets(CASE).values()) < 10**6


def test_a_part_is_one_request_or_its_end_and_its_ranges() -> None:
    mib = 2**20
    assert [requests_of_part(size) for size in (1, 256 * 1024, 256 * 1024 + 1, 32 * mib, 33 * mib)] == [1, 1, 2, 2, 3]


def test_shards_follow_the_memory_of_the_node_and_do_not_tremble() -> None:
    gib = 2**30
    assert rows_that_fit(384, 0, 1, gpu=False) == 1_000_000
    assert rows_that_fit(384, 24 * gib, 1, gpu=False) == 2**22
    assert {rows_that_fit(384, int(24 * gib * share), 1, gpu=False) for share in (0.9, 1.0, 1.1)} == {2**22}
    assert rows_that_fit(384, 24 * gib, 4, gpu=False) == 2**20
    assert rows_that_fit(384, 1024 * gib, 8, gpu=True) == 2**22, "a GPU of 16 GiB holds no more"


def test_blocks_in_flight_are_bounded_by_what_their_hits_take() -> None:
    assert blocks_in_flight(1, 1, 4096, 100) == 3
    assert blocks_in_flight(8, 8, 4096, 100) == 17
    assert blocks_in_flight(64, 64, 4096, 100) == 13
    assert blocks_in_flight(512, 512, 4096, 1000) == 3, "no holder waits"


def test_no_more_tasks_mine_than_read_few_ids_for_each_that_they_name() -> None:
    assert most_mining_tasks(CASE.items, CASE.queries * CASE.num_negatives) == 102
    assert most_mining_tasks(CASE.items, 20_000 * 32) == 1, "one pass over a hundred million ids, not one for each CPU"
    assert most_mining_tasks(3_000_000, 20_000 * 32) == 6
    assert CASE.id_passes == 102
    assert replace(CASE, cpus=16).id_passes == 16 * 5, "a task names 20 million, and looks 4 million up at a time"
