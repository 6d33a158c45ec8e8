"""Replaying queries on two exports: figures against a slow reference, traffic weights, labels, the page in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.live.rank_overlap import PERSISTENCE
from jobs.serving.live.queries import LoggedQuery
from jobs.serving.live.replay import replay
from jobs.serving.live.show import write_page
from jobs.serving.search.opened import Opened, open_export
from tests.eval.live.test_rank_overlap import slow_rbo
from tests.jobs.serving.conftest import Shop
from tests.support.browser import Window, find_chromium, look


@pytest.fixture(scope="module")
def both(shop: Shop) -> tuple[Opened, Opened]:
    """(the off-the-shelf model, round 1)."""
    return open_export(str(shop.home / shop.base)), open_export(str(shop.home))


def queries_of(shop: Shop, number: int = 20) -> list[LoggedQuery]:
    return [
        LoggedQuery(
            text, count=1 + 3 * (n % 4), relevant={f"i{n}", "i3"} if n % 2 else set(), slices={"kind": text[:3]}, band="head"
        )
        for n, text in enumerate(shop.run.query_texts[:number])
    ]


def hits_of(export: Opened, text: str, hits: int) -> list[str]:
    return [hit["id"] for hit in export.shown(export.search(export.encode([text]), hits))]


def test_figures_are_those_of_a_slow_reference(shop: Shop, both: tuple[Opened, Opened]) -> None:
    queries = queries_of(shop)
    got = replay(queries, *both, hits=7)
    sides = [[hits_of(export, query.text, 7) for query in queries] for export in both]
    weights = [query.count for query in queries]

    def mean(values: list[float], some: list[int] | None = None) -> float:
        rows = range(len(queries)) if some is None else some
        return sum(values[row] * weights[row] for row in rows) / sum(weights[row] for row in rows)

    shared = [len(set(a) & set(b)) / 7 for a, b in zip(*sides, strict=True)]
    rbo = [slow_rbo(a, b, PERSISTENCE) for a, b in zip(*sides, strict=True)]
    assert got["queries"] == sum(weights)
    assert got["overlap"] == pytest.approx(mean(shared), abs=1e-6)
    assert got["rbo"] == pytest.approx(mean(rbo), abs=1e-6)
    assert got["first_changed"] == pytest.approx(mean([float(a[0] != b[0]) for a, b in zip(*sides, strict=True)]), abs=1e-6)
    labelled = [row for row, query in enumerate(queries) if query.relevant]
    for name, side in zip(("found_a", "found_b"), sides, strict=True):
        shares = [len(query.relevant & set(ids)) / max(1, len(query.relevant)) for query, ids in zip(queries, side, strict=True)]
        assert got["labelled"][name] == pytest.approx(mean(shares, labelled), abs=1e-6)
    gained = sum(len((queries[row].relevant & set(sides[1][row])) - set(sides[0][row])) for row in labelled)
    lost = sum(len((queries[row].relevant & set(sides[0][row])) - set(sides[1][row])) for row in labelled)
    assert (got["labelled"]["gained"], got["labelled"]["lost"]) == (gained, lost)
    some = [row for row, query in enumerate(queries) if query.slices["kind"] == "cri"]
    assert got["slices"]["kind"]["cri"]["rbo"] == pytest.approx(mean(rbo, some), abs=1e-6)
    assert got["bands"]["head"]["rbo"] == got["rbo"]
    assert [change["rbo"] for change in got["changes"]] == pytest.approx(sorted(rbo)[: len(got["changes"])], abs=1e-4)


def test_an_export_against_itself_changes_nothing(shop: Shop, both: tuple[Opened, Opened]) -> None:
    got = replay(queries_of(shop, 6), both[1], both[1])
    assert (got["overlap"], got["rbo"], got["first_changed"], got["identical"], got["changes"]) == (1.0, 1.0, 0.0, 1.0, [])
    assert got["interleaving"]["share_that_differs"] == 0.0


def test_changes_show_both_sides_with_titles_and_positions(shop: Shop, both: tuple[Opened, Opened]) -> None:
    (change,) = replay([LoggedQuery("crime4 thing4", 9, {"i4"}, band="head")], *both, hits=10)["changes"]
    for side, export, other in (("a", both[0], both[1]), ("b", both[1], both[0])):
        own, theirs = hits_of(export, "crime4 thing4", 10), hits_of(other, "crime4 thing4", 10)
        assert change[side] == [
            {
                "id": name,
                "title": f"Title {name[1:]}",
                "other": theirs.index(name) + 1 if name in theirs else None,
                "relevant": name == "i4",
            }
            for name in own[:5]
        ]


def test_the_command_prints_figures_and_writes_a_page(shop: Shop, tmp_path: Path, case: Any, refused: Any) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"query": text, "relevant": [f"i{n}"], "device": "phone"} for n, text in enumerate(shop.run.query_texts[:12])]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "pages" / "changes.html"
    words = ("compare-live", str(log), f"{shop.home}/{shop.base}", str(shop.home), "--slice", "device", "--page", str(page))
    answer = json.loads(case.hardmine(*words, "--json").out)
    assert (answer["a"], answer["b"], answer["distinct"], answer["page"]) == (shop.base, shop.live, 12, str(page))
    assert "device = phone" in case.hardmine(*words).out
    refused(case.hardmine("compare-live", str(log)), 2, ["expected a log of queries and two exports"])
    refused(case.hardmine("compare-live", str(log), "--outcome", str(log)), 2, ["--outcome judges one log"])


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
def test_the_page_reads_well_at_every_width(shop: Shop, both: tuple[Opened, Opened], tmp_path: Path) -> None:
    queries = [*queries_of(shop), LoggedQuery("<script>alert(1)</script> crime4", 2, band="head")]
    write_page(replay(queries, *both), tmp_path / "changes.html")
    for seen in look(tmp_path / "changes.html", [Window(1360), Window(820), Window(390, dark=True)]):
        assert seen.errors == []
        assert seen.requests == []
        assert seen.width <= seen.window
        assert "largest changes" in seen.text
        assert "<script>alert(1)</script> crime4" in seen.text


def test_bands_of_no_query_are_left_out(shop: Shop, both: tuple[Opened, Opened]) -> None:
    assert list(replay(queries_of(shop, 4), *both)["bands"]) == ["head"]
    assert not np.isnan(replay(queries_of(shop, 1), *both)["rbo"])
