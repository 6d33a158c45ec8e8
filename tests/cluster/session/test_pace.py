"""How long the rest of a stage takes: nothing where nothing is known, start-up left out, whoever does the work."""

from __future__ import annotations

import pytest

from cluster.session.pace import Message, Pace, duration


def test_what_is_left_follows_from_the_pace_without_the_start() -> None:
    pace = Pace(100.0)
    pace.hear({"search": Message("", of=1000)}, 101.0)
    assert (pace.text, pace.left_s(101.0)) == ("", None)
    pace.hear({"shard 1/2": Message("one", 50), "shard 2/2": Message("two", 50)}, 130.0)
    assert pace.left_s(130.0) is None, "one look gives no pace"
    pace.hear({"shard 1/2": Message("one", 150), "shard 2/2": Message("two", 150)}, 140.0)
    assert pace.left_s(140.0) == pytest.approx(700 / 20)
    assert pace.left_s(145.0) == pytest.approx(700 / 20 - 5), "time goes on between two messages"
    assert pace.left_s(1000.0) == 0.0
    assert pace.text == "one · two"
    assert pace.seconds(140.0) == 40.0


def test_a_message_without_counts_leaves_them_as_they_were() -> None:
    pace = Pace(0.0)
    pace.hear({"train": Message("step 2/10", 2, 10)}, 1.0)
    pace.hear({"train": Message("step 4/10", 4, 10)}, 3.0)
    pace.hear({"train": Message("a note")}, 4.0)
    assert (pace.text, pace.left_s(4.0)) == ("a note", 5.0)


def test_where_nobody_knows_the_whole_nothing_is_said() -> None:
    pace = Pace(0.0)
    for second in range(1, 5):
        pace.hear({"bm25": Message(f"{second} texts", second)}, second)
    assert pace.left_s(5.0) is None


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (7199, "120 min"), (9000, "2.5 h")])
def test_a_duration_is_no_finer_than_an_estimate(seconds: float, text: str) -> None:
    assert duration(seconds) == text
