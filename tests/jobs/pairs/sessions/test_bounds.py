"""What keeps a partition small, whatever the log: few rows of one client, and pairs of items counted some clients at a time."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest

from jobs.pairs.corpus import pairs as from_items
from jobs.pairs.corpus.items import popular_share
from jobs.pairs.reading.rows import EVENT
from jobs.pairs.sessions import stage, together
from jobs.pairs.sessions.together import used_together
from jobs.pairs.signals import CODES
from tests.jobs.pairs.conftest import START, Make, event, query


def test_a_name_that_many_share_counts_as_far_as_the_memory_goes(pairs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_ROWS", 40)
    rows = [query(f"q{n}", f"thing {n}", ["a", "b"], user="anonymous", time=START + 60_000 * n) for n in range(100)]
    rows += [query("p1", "red shoe", ["a", "b"], user="u"), event("p1", "b", "purchase", user="u", position=2)]
    files = {f"{number}.jsonl": rows[number::3] for number in range(3)}
    made = pairs(files, "held_out=0.0")
    assert made.summary["skipped"] == {"rows of a client above 40": 60}
    assert made.summary["queries_asked"] == 41
    assert made.labels["red shoe", "b"] == (3, "purchase")


def test_pairs_of_items_are_the_same_however_many_clients_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [(client, f"i{(client * step) % 11}", step) for client in range(1, 30) for step in range(1, 9)]
    count = len(events)
    table = pa.table(
        {
            "kind": pa.array([EVENT] * count, pa.int8()),
            "client": pa.array([client for client, _, _ in events], pa.uint64()),
            "time": pa.array([time for _, _, time in events], pa.int64()),
            "item": [item for _, item, _ in events],
            "action": pa.array([CODES["thumbs_down" if time == 5 else "click"] for _, _, time in events], pa.int8()),
        }
    )

    def sums() -> tuple[dict[tuple[str, str], tuple[int, int]], int]:
        every, likers, users = used_together(table, 3)
        parts = list(every)
        total: Counter[tuple[str, str, str]] = Counter()
        for row in from_items._added(parts).to_pylist():
            total[row["item"], row["other"], "liked"] += row["liked"]
            total[row["item"], row["other"], "disliked"] += row["disliked"]
        assert users == 29
        assert sum(likers["likers"].to_pylist()) == len({(c, i) for c, i, t in events}) - sum(
            next(t for c2, i2, t in events if (c2, i2) == (c, i)) == 5 for c, i in {(c, i) for c, i, _ in events}
        )
        return dict(total), len(parts)

    want, parts = sums()
    assert parts == 1
    monkeypatch.setattr(together, "PAIRS", 60)
    monkeypatch.setattr(from_items, "MOST_ROWS", 20)
    got, parts = sums()
    assert parts > 10
    assert got == want


def test_the_most_popular_percent_is_counted_from_how_many_items_have_how_many_clicks() -> None:
    got = popular_share({"0": 100, "1": 90, "10": 9, "1000": 1})
    assert got == {"items": 200, "clicks": 90 + 90 + 1000, "top_percent_share": round(1010 / 1180, 4)}
    assert popular_share({}) == {"items": 0, "clicks": 0, "top_percent_share": 0.0}
