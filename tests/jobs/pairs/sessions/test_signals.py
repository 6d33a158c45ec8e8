"""Every signal of docs/logs.md, by hand: what a user does, and the label that follows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.jobs.pairs.conftest import MINUTE, START, Make, event, query

Rows = list[dict[str, Any]]
TEXT, OTHER = "red shoe", "red running shoe"
SHOWN = ["a", "b", "c", "d"]


def asked(*events: dict[str, Any], text: str = TEXT) -> Rows:
    return [query("q1", text, SHOWN), *events]


@pytest.mark.parametrize(
    ("rows", "item", "label"),
    [
        (asked(event("q1", "a")), "a", (1, "click")),
        (asked(event("q1", "a", dwell=45.0)), "a", (2, "dwell")),
        (asked(event("q1", "a"), query("q2", "hat", ["x"], time=START + 2 * MINUTE)), "a", (2, "dwell")),
        (asked(event("q1", "a", "add_to_cart")), "a", (2, "cart")),
        (asked(event("q1", "a", "purchase")), "a", (3, "purchase")),
        (asked(event("q1", "a", "wishlist")), "a", (2, "wishlist")),
        (asked(event("q1", "a", "like")), "a", (3, "thumbs_up")),
        (asked(event("q1", "c", "purchase"), event("q1", "a", dwell=2.0)), "a", (0, "quick_return")),
        (asked(event("q1", "c", "purchase"), event("q1", "a", "dislike")), "a", (0, "thumbs_down")),
        (asked(event("q1", "c", "purchase"), event("q1", "a", "hide")), "a", (0, "deletion")),
        (asked(event("q1", "c", "purchase", position=3)), "b", (0, "skipped")),
        (asked(event("q1", "c", "purchase", position=3)), "d", None),
    ],
)
def test_an_action_becomes_a_label(pairs: Make, rows: Rows, item: str, label: tuple[int, str] | None) -> None:
    assert pairs({"log.jsonl": rows}).labels.get((TEXT, item)) == label


@pytest.mark.parametrize("action", ["click", "purchase"])
def test_results_before_a_successful_reformulation_are_irrelevant_unless_they_were_chosen_then(pairs: Make, action: str) -> None:
    rows = [
        query("q1", TEXT, ["a", "b"]),
        query("q2", OTHER, ["b", "e"], time=START + 20_000),
        event("q2", "b", action, time=START + 21_000),
        query("q9", TEXT, ["z"], user="u2", time=START + 60 * MINUTE),
        event("q9", "z", "purchase", user="u2", time=START + 61 * MINUTE),
    ]
    labels = pairs({"log.jsonl": rows}).labels
    assert labels[TEXT, "a"] == (0, "reformulated")
    assert (TEXT, "b") not in labels, "it was what the user wanted"
    late = [rows[0], rows[1] | {"timestamp": START + 31_000}, *rows[2:]]
    assert (TEXT, "a") not in pairs({"log.jsonl": late}).labels, "half a minute is over"


def test_a_result_that_is_shown_on_top_again_and_again_and_not_clicked_is_irrelevant(pairs: Make) -> None:
    rows: Rows = []
    for number in range(40):
        rows.append(query(f"q{number}", TEXT, ["a", "b"], user=f"u{number}", time=START + number * MINUTE))
        rows.append(
            event(
                f"q{number}", "b" if number % 2 else "a", user=f"u{number}", position=1 + number % 2, time=START + number * MINUTE
            )
        )
    for number in range(40, 60):
        rows.append(query(f"q{number}", OTHER, ["c", "b"], user=f"u{number}", time=START + number * MINUTE))
    rows.append(event("q59", "b", "purchase", user="u59", position=2, time=START + 60 * MINUTE))
    made = pairs({"log.jsonl": rows}, "signals.weights.skipped=0.0")
    assert made.labels[OTHER, "c"] == (0, "not_clicked")
    assert made.labels[OTHER, "b"] == (3, "purchase")


def test_an_answer_cites_some_of_what_was_retrieved(pairs: Make) -> None:
    answers = [
        {
            "query": "how to cancel",
            "retrieved": ["d1", "d2", "d3"],
            "cited": ["d2"],
            "deleted": ["d3"],
            "user_id": "u",
            "feedback": "up",
        },
        {"query": "refund time", "retrieved": [{"id": "d4", "score": 0.9}, {"id": "d5", "score": 0.2}], "cited": ["d5"]},
        {"query": "opening hours", "retrieved": ["d6"], "cited": ["d6"], "feedback": -1},
    ]
    made = pairs({"rag.jsonl": answers})
    assert made.labels == {
        ("how to cancel", "d2"): (3, "thumbs_up"),
        ("how to cancel", "d1"): (0, "not_cited"),
        ("how to cancel", "d3"): (0, "deletion"),
        ("refund time", "d5"): (2, "citation"),
        ("refund time", "d4"): (0, "not_cited"),
    }
    assert made.summary["doubts"] == {"citation of an answer that was disliked, not counted": 1}


def test_an_event_table_of_ones_own_is_mapped(pairs: Make) -> None:
    csv = (
        b"search_term,product,what,who,when\n"
        b"red shoe,a,view_long,u1,2026-01-01T10:00:00Z\n"
        b"red shoe,b,basket,u2,2026-01-02 10:00:00+01:00\n"
        b"Red  shoe!,b,basket,u3,1767400000\n"
    )
    columns = 'columns={ query = "search_term", item = "product", action = "what", user = "who", time = "when" }'
    made = pairs({"events.csv": csv}, columns, 'signals.actions={ view_long = "dwell" }')
    assert made.labels == {("red shoe", "a"): (2, "dwell"), ("red shoe", "b"): (2, "cart")}, "three spellings of one query"
    assert made.summary["skipped"] == {}


def test_a_weight_of_a_signal_can_be_changed_and_taken_away(pairs: Make) -> None:
    log = {"log.jsonl": asked(event("q1", "a", "purchase"), event("q1", "c", position=3))}
    assert pairs(log).weights[TEXT, "a"] == 1.0
    assert pairs(log, "signals.weights.purchase=0.5").weights[TEXT, "a"] == pytest.approx(0.5 + 0.25, abs=0.01), "and the click"
    assert (TEXT, "b") not in pairs(log, "signals.weights.skipped=0").labels


def test_bots_and_repetitions_do_not_count(pairs: Make) -> None:
    rows = asked(event("q1", "a", "purchase"))
    for number in range(30):
        rows += [query(f"b{number}", TEXT, SHOWN, user="bot", time=START + number * 1000)]
        rows += [event(f"b{number}", "d", user="bot", position=4, time=START + number * 1000 + 500)]
    made = pairs({"log.jsonl": rows}, "bot_queries=4")
    assert (TEXT, "d") not in made.labels
    assert made.summary["skipped"]["clients that are bots"] == 1
    assert made.summary["skipped"]["event of a bot"] == 30
    again = pairs({"log.jsonl": rows})
    assert again.summary["skipped"]["query that its client asked more than 5 times"] == 25


def test_clients_that_each_count_their_queries_from_one_are_not_mixed_up(pairs: Make) -> None:
    rows: Rows = []
    for user in range(20):
        text = f"thing {user % 4}"
        rows += [
            query("1", text, SHOWN, user=f"u{user}", time=START + user),
            event("1", "b", "purchase", user=f"u{user}", position=2),
        ]
    made = pairs({"log.jsonl": rows}, "held_out=0.0")
    assert made.summary["queries_asked"] == 20
    assert made.summary["skipped"] == {}
    assert {pair: label for pair, (label, _) in made.labels.items() if label} == {(f"thing {n}", "b"): 3 for n in range(4)}


def test_without_times_nobody_asks_too_much_in_a_day(pairs: Make) -> None:
    rows = [
        {"query": f"thing {number}", "user_id": "u", "retrieved": ["a", "b"], "cited": ["b"], **when}
        for number, when in enumerate([{}] * 10)
    ]
    assert len(pairs({"rag.jsonl": rows}, "bot_queries=5").labels) == 20
    timed = [row | {"timestamp": START + number} for number, row in enumerate(rows)]
    timed += [{"query": "other", "user_id": "v", "retrieved": ["a"], "cited": ["a"], "timestamp": START}]
    assert {text for text, _ in pairs({"rag.jsonl": timed}, "bot_queries=5").labels} == {"other"}


def test_a_row_of_a_table_without_an_action_says_what_was_shown(pairs: Make) -> None:
    """A table with a row for each query and rows for its events; a query that several rows name is no fault."""
    rows = [{"query": TEXT, "user_id": "u", "shown": ["a", "b"], "item_id": None, "action": None}]
    rows += [
        {"query": TEXT, "user_id": "v", "shown": ["a", "b"], "item_id": "b", "action": action} for action in ("click", "buy")
    ]
    made = pairs({"table.jsonl": rows})
    assert made.summary["skipped"] == {}
    assert made.summary["queries_asked"] == 2
    assert made.labels == {(TEXT, "b"): (3, "purchase"), (TEXT, "a"): (0, "skipped")}


def test_an_editor_s_grade_is_kept(pairs: Make) -> None:
    rows = [{"query": TEXT, "item_id": f"i{grade}", "score": grade} for grade in (0, 1, 4, 10)]
    labels = pairs({"pairs.jsonl": rows}).labels
    assert {item: score for (_, item), (score, _) in labels.items()} == {"i0": 0, "i1": 1, "i4": 4, "i10": 10}


def test_every_unknown_action_is_counted(pairs: Make) -> None:
    rows = asked(event("q1", "a", "purchase"), *(event("q1", "b", f"action {number}") for number in range(100)))
    skipped = pairs({"log.jsonl": rows}).summary["skipped"]
    assert sum(count for reason, count in skipped.items() if "no signal" in reason) == 100
    assert len(skipped) < 60
