"""Two runs side by side: a verdict only where the same queries were asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.records import write_record
from cluster.storage.store import Store
from eval.significance import paired_bootstrap
from jobs.report.compare import compare, comparison_answer, render_comparison
from jobs.report.write import report_command
from tests.support.synthetic_run import Size, write_run


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_run(tmp_path_factory.mktemp("runs") / "longer", Size(rounds=3))


@pytest.fixture(scope="module")
def pair(made_up: Store, longer: Store) -> dict[str, Any]:
    return compare(made_up, longer)


def test_the_difference_is_that_of_the_same_queries(pair: dict[str, Any], made_up: Store, longer: Store) -> None:
    from cluster.commits import Ledger
    from cluster.tables.tables import read_parts

    values = [
        read_parts(store, Ledger(store).find(f"{name}-evaluate").parts("per_query"))["recall@3"].to_numpy()
        for store, name in ((made_up, "round-02"), (longer, "round-03"))
    ]
    want = paired_bootstrap(values[1], values[0])
    assert pair["metrics"]["recall@3"]["mean"] == pytest.approx(want.mean)
    assert pair["metrics"]["recall@3"]["low"] == pytest.approx(want.low)
    assert pair["changes"]["better"] == (values[1] > values[0]).sum()
    assert pair["different"] == []


def test_other_queries_get_no_verdict(made_up: Store, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", Size(queries=30))
    found = compare(made_up, other)
    assert found["why_not"] == "the two runs were measured on different queries"
    assert comparison_answer(found)["headline"].startswith("No verdict: ")
    assert comparison_answer(found)["state"] == "open"
    assert "No verdict" in render_comparison(found)


def test_other_data_gets_no_verdict(made_up: Store, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other")
    write_record(other, "identity.json", {"data": {"corpus:all": {"corpus.parquet": "another"}}})
    assert compare(made_up, other)["why_not"] == "the two runs are on different data"


def test_the_command_writes_a_page_of_both(made_up: Store, longer: Store, tmp_path: Path) -> None:
    found = report_command(made_up.root, longer.root, tmp_path / "both.html", None)
    text = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert found["path"] == str(tmp_path / "both.html")
    assert comparison_answer(found)["headline"] in text
    assert re.search(r'id="plot-a-loss".*id="plot-b-loss"', text, re.DOTALL)
    assert "Kept: round 2" in text, "by the name that the tables have"
    for chart in ("a-loss", "b-loss", "race"):
        assert re.search(rf'data-chart="{chart}"><svg ', text), "a picture without the script"
    ids = re.findall(r'\bid="([^"]+)"', text.split("<script", 1)[0])
    assert len(ids) == len(set(ids))
