"""What is new in the data, and what follows from it: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.serving.refresh.changes import Changes, item_counts, known_rows, new_and_gone
from jobs.serving.refresh.decide import LEAST_NEW_LABELS, after_gate, after_probe, first_decision


def test_items_are_known_by_id_and_their_vectors_by_text() -> None:
    rows, same = known_rows(
        pa.array(["c", "new", "a", "b"]),
        pa.array(["C", "N", "A, again", "B"]),
        pa.array(["a", "b", "c", "d"]),
        pa.array([*"ABCD"]),
    )
    assert rows.tolist() == [2, -1, 0, 1]
    assert same.tolist() == [True, False, False, True]
    assert item_counts(rows, same, 4) == {"items_new": 1, "items_changed": 1, "items_gone": 1, "items_same": 2}


def test_any_two_catalogues_equal_the_slow_reference() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        old, new = ({f"i{n}": f"t{rng.integers(3)}" for n in rng.permutation(12)[: rng.integers(0, 12)]} for _ in range(2))
        columns = [pa.array(list(side), pa.string()) for side in (new, new.values(), old, old.values())]
        rows, same = known_rows(*columns)
        assert item_counts(rows, same, len(old)) == {
            "items_new": len(new.keys() - old.keys()),
            "items_changed": sum(old[name] != text for name, text in new.items() if name in old),
            "items_gone": len(old.keys() - new.keys()),
            "items_same": sum(old.get(name) == text for name, text in new.items()),
        }


def test_new_and_gone_count_a_value_once() -> None:
    assert new_and_gone(pa.array(["x", "y", "y", "z"]), pa.array(["x", "w", "w"])) == (2, 1)
    assert new_and_gone(pa.array([], pa.string()), pa.array(["x"])) == (0, 1)


SAME = Changes(0, 0, 0, 500, labels_new=0, labels_gone=0, labels=1000, queries_new=0, queries=700)


@pytest.mark.parametrize(
    ("changes", "action", "words"),
    [
        (SAME, "nothing", ["0 of 1,000 labels are new, too few", "the items are those that are served"]),
        (replace(SAME, items_new=3), "items", ["too few to train on (from 100 on)", "items: 3 new"]),
        (replace(SAME, items_changed=1, items_gone=2), "items", ["items: 1 changed, 2 gone"]),
        (replace(SAME, metadata_changed=True), "items", ["items: other metadata"]),
        (replace(SAME, labels_new=LEAST_NEW_LABELS), "train", ["100 of 1,000 labels are new; 100 are worth a probe"]),
        (replace(SAME, labels_new=150, labels=20_000), "nothing", ["from 400 on"]),
        (replace(SAME, labels_new=None, labels=80), "nothing", ["it is not known how many are new"]),
        (replace(SAME, labels_new=None), "train", ["1,000 labels, of which it is not known"]),
    ],
)
def test_the_first_decision_follows_from_counts(changes: Changes, action: str, words: list[str]) -> None:
    decision = first_decision(changes)
    assert decision.action == action
    assert [word for word in words if word not in decision.reason] == [], decision.reason


@pytest.mark.parametrize(
    ("verdict", "changes", "action"),
    [
        ("yes", SAME, "train"),
        ("cannot tell", SAME, "train"),
        ("no", SAME, "nothing"),
        ("no", replace(SAME, items_new=1), "items"),
    ],
)
def test_only_a_probe_that_says_no_stops_a_round(verdict: str, changes: Changes, action: str) -> None:
    assert after_probe(changes, verdict, "because").action == action


def test_a_model_that_the_gate_refuses_leaves_the_live_one_with_new_items() -> None:
    kwargs: dict[str, Any] = {"verdict": "no: worse on crime"}
    assert after_gate(SAME, **kwargs).action == "nothing"
    decision = after_gate(replace(SAME, items_gone=4), **kwargs)
    assert (decision.action, decision.reason) == (
        "items",
        "a round was trained, and the gate says no: worse on crime; items: 4 gone",
    )
