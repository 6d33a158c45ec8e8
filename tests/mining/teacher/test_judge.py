"""A language model as a judge: its requests, the grade in its answers, and whether it is believed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster import http
from cluster.errors import ConfigError, DataError
from cluster.http import Server
from cluster.labels.labels import Labels
from mining.teacher.agreement import OF_EACH, agreement, known_pairs
from mining.teacher.judge import RUBRIC, Judge, MakeJudge, body_of, find_form, grade_of, grades_of, read_rubric, text_of
from mining.teacher.server import KEY
from tests.mining.teacher.test_cut import labels_of
from tests.support.json_server import Asked, Reply, serving

GRADES = [0, 1, 2, 3]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv(KEY, raising=False)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("2", 2),
        (" **3** \n", 3),
        ("Grade: 1", 1),
        ("The score is 0.", 0),
        ("grade = 2 (out of 3)", 2),
        ("I would say 1, because it is about bread.", 1),
        ("2 or 3", None),
        ("2/3", None),
        ("7", None),
        ("1.5", None),
        ("relevant", None),
        ("", None),
    ],
)
def test_the_grade_is_the_one_that_the_text_gives_and_never_a_guess(text: str, grade: float | None) -> None:
    got = grade_of(text, GRADES)
    assert math.isnan(got) if grade is None else got == grade


def test_what_a_model_thinks_before_its_answer_is_no_grade() -> None:
    answer = {"choices": [{"message": {"content": "<think>maybe 1, no 0</think>\n3"}}]}
    assert grade_of(text_of(answer), GRADES) == 3
    assert text_of({"choices": [{"message": {"content": None}}]}) == "", "a refusal has no text"
    for other in ({}, {"choices": []}, [1], "fine", {"choices": [{"text": "2"}]}, {"choices": [{"message": {"content": 2}}]}):
        with pytest.raises(ValueError, match="has no text"):
            text_of(other)


def test_a_rubric_names_its_grades_line_by_line(tmp_path: Path) -> None:
    assert grades_of(RUBRIC) == GRADES
    assert grades_of("Judge 10 things.\n- 5: best\n  1 – worst\n3) middling\n2024 was a year") == [1, 3, 5]
    path = tmp_path / "rubric.txt"
    path.write_text("0: no\n1: yes\n")
    assert read_rubric(str(path)) == "0: no\n1: yes\n"
    path.write_text("Say whether it is relevant. 1: yes")
    with pytest.raises(ConfigError, match=r"mining.teacher.rubric = .*expected a line for each grade.*found 0"):
        read_rubric(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rubric(str(tmp_path / "none.txt"))


def chat(asked: Asked) -> Any:
    """3 for a pair with the same number, else 0; it answers in many ways, and fails one request in ten."""
    if asked.number % 10 == 7:
        return Reply(529)
    _, query, _, item, _ = asked.body["messages"][1]["content"].replace("\n\n", " ").split(" ", 4)
    grade = 3 if query[1:] == item[1:] else 0
    content = [str(grade), f"**{grade}**", f"Grade: {grade}", f"<think>1? 2?</think>{grade}"][asked.number % 4]
    return {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


def server_at(address: str, **options: Any) -> Server:
    return Server(address, "mining.teacher.url", KEY, **options)


def test_every_pair_is_one_request_with_the_rubric_and_gets_its_grade() -> None:
    queries, items = [f"q{n // 4}" for n in range(40)], [f"i{n % 12}" for n in range(40)]
    with serving(chat, "/v1/chat/completions") as server:
        make = MakeJudge(server_at(server.address, at_once=4), "a-model", "temperature 0", RUBRIC)
        grades = np.full(40, np.nan)
        for places, some in make().answers(queries, items):
            grades[places] = some
        assert grades.tolist() == [3.0 if n // 4 == n % 12 else 0.0 for n in range(40)]
        body = server.bodies[0]
    assert (body["model"], body["temperature"], body["messages"][0]) == ("a-model", 0, {"role": "system", "content": RUBRIC})
    assert body["messages"][1]["content"].endswith("one of 0, 1, 2, 3.")
    assert len(body_of("plain", "m", RUBRIC, "q" * 10**6, "i" * 10**6)["messages"][1]["content"]) < 20_000


def test_a_model_that_takes_no_temperature_is_asked_without() -> None:
    def answer(asked: Asked) -> Any:
        return Reply(400, {"error": {"message": "temperature is not supported"}}) if "temperature" in asked.body else chat(asked)

    with serving(answer) as server:
        assert find_form(server_at(server.address), "m", RUBRIC) == "plain"
    with (
        serving(lambda _: Reply(400, {"error": "no such model: m"})) as server,
        pytest.raises(ConfigError, match="no such model"),
    ):
        find_form(server_at(server.address), "m", RUBRIC)


def test_a_few_answers_without_a_grade_are_unread_pairs_and_many_are_refused() -> None:
    def answer(share: int) -> Any:
        return lambda asked: {"choices": [{"message": {"content": "perhaps" if asked.number % share == 0 else "2"}}]}

    with serving(answer(25)) as server:
        read = list(Judge(MakeJudge(server_at(server.address), "m", "plain", RUBRIC)).answers(["q"] * 100, ["i"] * 100))
        assert sum(math.isnan(float(grade[0])) for _, grade in read) == 4
    with serving(answer(2)) as server, pytest.raises(DataError, match="found none in 6 of 100 answers, for example 'perhaps'"):
        list(Judge(MakeJudge(server_at(server.address, at_once=1), "m", "plain", RUBRIC)).answers(["q"] * 100, ["i"] * 100))


# whether it is believed


def slow_kappa(says: list[bool | None], is_so: list[bool]) -> tuple[float, float]:
    count = len(is_so)
    agrees = sum(a == b for a, b in zip(says, is_so, strict=True)) / count
    yes = sum(bool(a) for a in says) / count
    known = sum(is_so) / count
    chance = yes * known + (1 - yes) * (1 - known)
    return agrees, (agrees - chance) / (1 - chance)


def test_agreement_is_kappa_of_the_upper_half_of_the_scale() -> None:
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 4, 60).astype(np.float32)
    grades[[3, 50]] = np.nan
    relevant = np.arange(60) < 25
    got = agreement(grades, relevant, GRADES, drawn=True)
    says = [None if math.isnan(grade) else bool(grade >= 2) for grade in grades.tolist()]
    assert (got.accuracy, got.kappa) == pytest.approx(slow_kappa(says, relevant.tolist()))
    assert (got.relevant, got.irrelevant, got.drawn) == (25, 35, True)
    perfect = agreement(np.array([1.0, 1.0, 0.0, 0.0], np.float32), np.array([True, True, False, False]), [0, 1], drawn=False)
    assert (perfect.accuracy, perfect.kappa) == (1.0, 1.0)
    always = agreement(np.full(4, 3.0, np.float32), np.array([True, True, False, False]), GRADES, drawn=False)
    assert (always.accuracy, always.kappa) == (0.5, 0.0), "who says yes to all knows nothing"


def test_known_pairs_are_labels_of_the_queries_that_may_be_looked_at() -> None:
    judged = {
        (query, item): int(item % 2) for query in range(0, 300, 2) for item in (query % 50, (query + 1) % 50, (query + 2) % 50)
    }
    labels: Labels = labels_of(judged, 300, 50)
    queries, items, relevant, drawn = known_pairs(labels, np.arange(0, 290), 3)
    assert (int(relevant.sum()), int((~relevant).sum()), drawn) == (OF_EACH, OF_EACH, False)
    for query, item, is_so in zip(queries.tolist(), items.tolist(), relevant.tolist(), strict=True):
        assert judged[query, item] == int(is_so)
        assert query < 290
    assert len(set(queries[relevant].tolist())) == OF_EACH, "one pair of a query on each side"
    again = known_pairs(labels, np.arange(0, 290), 3)
    assert again[1].tolist() == items.tolist()


def test_without_judged_negatives_random_items_that_are_not_known_stand_in() -> None:
    labels: Labels = labels_of({(query, query): 1 for query in range(60)}, 60, 60)
    queries, items, relevant, drawn = known_pairs(labels, np.arange(60), 0)
    assert drawn
    assert all(query != item for query, item in zip(queries[~relevant].tolist(), items[~relevant].tolist(), strict=True))
    assert 50 < int((~relevant).sum()) <= 60
