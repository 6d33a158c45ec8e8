"""Clicks of a log: what counts as a showing and a click, and what the replay says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.serving.live.clicks import ClickLog, ClickReader
from jobs.serving.live.queries import LoggedQuery, read_queries
from jobs.serving.live.replay import replay
from jobs.serving.live.show import clicks_told
from jobs.serving.search.opened import Opened, open_export
from tests.jobs.serving.conftest import Shop


def write_log(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def query(query_id: str, text: str, ids: list[str]) -> dict[str, Any]:
    return {"query_id": query_id, "user_query": text, "query_response_hit_ids": ids}


def click(query_id: str, item: str) -> dict[str, Any]:
    return {"action_name": "click", "query_id": query_id, "event_attributes": {"object": {"object_id": item}}}


def read_clicks(path: Path) -> ClickLog | None:
    clicks = ClickReader()
    read_queries(path, each=clicks.add)
    return clicks.log()


def test_a_click_counts_once_and_only_on_what_was_shown(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for number in range(100):
        rows += [click(f"q{number}", "b"), query(f"q{number}", "a lamp", ["a", "b"]), click(f"q{number}", "b")]
        rows += [click(f"q{number}", "never shown"), {"action_name": "hover", "query_id": f"q{number}", "object_id": "a"}]
    log = read_clicks(write_log(tmp_path / "log.jsonl", rows))
    assert log is not None
    code = log.codes[("a lamp", "b")]
    at = log.showings.pair == code
    assert (log.showings.position[at], log.showings.shown[at], log.showings.clicked[at]) == (1, 100, 100)
    assert log.showings.clicked.sum() == 100
    table = log.pairs([LoggedQuery("a lamp"), LoggedQuery("a chair")], [["b", "x"], ["b"]], 3)
    np.testing.assert_array_equal(table, [[code, -1, -2], [-1, -2, -2]])


@pytest.mark.parametrize("ids", [["a"], []], ids=["hardly any clicks", "no list of what was shown"])
def test_a_log_without_enough_says_nothing(tmp_path: Path, ids: list[str]) -> None:
    rows = [query(f"q{number}", "a lamp", ids) for number in range(200)] + [click(f"q{number}", "a") for number in range(99)]
    assert read_clicks(write_log(tmp_path / "log.jsonl", rows)) is None


@pytest.fixture(scope="module")
def both(shop: Shop) -> tuple[Opened, Opened]:
    return open_export(str(shop.home / shop.base)), open_export(str(shop.home))


def shown_by(export: Opened, text: str, hits: int) -> list[str]:
    return [hit["id"] for hit in export.shown(export.search(export.encode([text]), hits))]


def test_an_export_that_shows_what_is_clicked_higher_is_expected_to_win(
    shop: Shop, both: tuple[Opened, Opened], tmp_path: Path
) -> None:
    texts, rows, rng = shop.run.query_texts[:12], [], np.random.default_rng(3)
    for number in range(1_200):
        text = texts[number % len(texts)]
        a, b = (shown_by(export, text, 5) for export in both)
        shown = list(rng.permutation(list(dict.fromkeys([*a, *b]))))  # so the log knows what both show
        rows.append(query(f"q{number}", text, shown))
        wanted = b[0]  # what B shows first
        if rng.random() < 0.6 / (1 + shown.index(wanted)):
            rows.append(click(f"q{number}", wanted))
    log = read_clicks(write_log(tmp_path / "log.jsonl", rows))
    assert log is not None
    got = replay([LoggedQuery(text, count=100, band="head") for text in texts], *both, hits=5, clicks=log)["clicks"]
    assert got["positions_fitted"]
    assert got["says"] == "enough"
    assert got["known_b"] == 1.0
    assert got["b"] == pytest.approx(0.6, abs=0.08)  # its first result is clicked three times of five that it is looked at
    assert got["difference"] > 0
    assert got["low"] > 0
    assert "B " in clicks_told(got)[0]
    assert all(line.startswith("assumed: ") for line in clicks_told(got)[1:])


def test_a_log_that_never_showed_what_b_shows_says_little(shop: Shop, both: tuple[Opened, Opened], tmp_path: Path) -> None:
    text = shop.run.query_texts[0]
    rows = [query(f"q{number}", text, ["something", "else"]) for number in range(150)]
    rows += [click(f"q{number}", "something") for number in range(150)]
    log = read_clicks(write_log(tmp_path / "log.jsonl", rows))
    got = replay([LoggedQuery(text, count=1, band="head")], *both, hits=5, clicks=log)["clicks"]
    assert got["says"] == "little"
    assert not got["positions_fitted"]
    assert "says little; only 0%" in clicks_told(got)[0]
