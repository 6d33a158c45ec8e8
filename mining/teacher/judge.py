"""A language model that grades pairs by a rubric, behind an OpenAI-compatible chat address; the grade is the teacher's score.

asked     {"model", "messages": [{"role": "system", "content": rubric}, {"role": "user", "content": query and item}]}
answered  {"choices": [{"message": {"content": "2"}}]}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError, DataError
from cluster.http import Client, Refused, Server
from cluster.tables.tables import F32, I64

RUBRIC = """You judge whether a search result is what a query asks for. Grades:

0: it has nothing to do with the query
1: it is about the same subject, but not what the query asks for
2: it answers the query in part, or next to much else
3: it is exactly what the query asks for
"""
"""Where mining.teacher.rubric is not set."""
LINE = re.compile(r"^[ \t]*(?:[-*][ \t]*)?(\d{1,3})[ \t]*[:.)=–—-]", re.MULTILINE)
"""A line of a rubric that says what a grade means."""
NAMED = re.compile(r"(?:grade|score|rating|relevance)\W{0,8}(\d+)", re.IGNORECASE)
LETTERS = 6000
"""Of a query or an item that are sent."""
FORMS = ("temperature 0", "plain")
"""How a request can be written, tried in this order: some models take no temperature."""
MOST_UNGRADED = 0.05
"""Share of the answers of a block that may have no grade."""


def read_rubric(path: str) -> str:
    """The text of a rubric file. Raises ConfigError: it cannot be read, or has not two lines that say what a grade means."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mining.teacher.rubric = {path} cannot be read ({error}); give a text file in UTF-8") from error
    if len(grades_of(text)) < 2:
        raise ConfigError(
            f'mining.teacher.rubric = {path}: expected a line for each grade, such as "2: answers the query", found '
            f"{len(grades_of(text))}; add at least two"
        )
    return text


def grades_of(rubric: str) -> list[int]:
    """The grades that a rubric explains, ascending."""
    return sorted({int(grade) for grade in LINE.findall(rubric)})


def body_of(form: str, model: str, rubric: str, query: str, item: str) -> dict[str, Any]:
    """One request."""
    grades = ", ".join(map(str, grades_of(rubric)))
    asked = f"Query: {query[:LETTERS]}\n\nResult: {item[:LETTERS]}\n\nAnswer with the grade alone, one of {grades}."
    messages = [{"role": "system", "content": rubric}, {"role": "user", "content": asked}]
    return {"model": model, "messages": messages} | ({"temperature": 0} if form == "temperature 0" else {})


def text_of(answer: Any) -> str:
    """What the model wrote, without what it thought before. Raises ValueError: the answer is not of a chat server."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = 0
    if content is not None and not isinstance(content, str):
        raise ValueError('has no text: expected {"choices": [{"message": {"content": …}}]}')
    return (content or "").rpartition("</think>")[2]


def grade_of(text: str, grades: Sequence[int]) -> float:
    """The grade that a text gives; NaN: none, or more than one."""
    plain = text.strip().strip("*`\"'.#() \n")
    named = NAMED.findall(text)
    numbers = [plain] if plain.isdecimal() else named or re.findall(r"(?<![\d.])\d+(?![\d.]*\d)", text)
    given = {int(number) for number in numbers}
    return float(given.pop()) if len(given) == 1 and given <= set(grades) else math.nan


def find_form(server: Server, model: str, rubric: str) -> str:
    """How the server wants its requests, found by one.

    Raises:
        ConfigError: it takes none, or is no chat server. ClusterError: it does not answer.
    """
    refusals: list[Refused] = []
    with Client(server) as client:
        for form in FORMS:
            try:
                client.ask(body_of(form, model, rubric, "how to bake bread", "flour, water, salt and yeast"), text_of)
            except Refused as error:
                refusals.append(error)
            else:
                return form
    raise refusals[0]


@dataclass(frozen=True)
class MakeJudge:
    """Makes the reader; called in the process that asks."""

    server: Server
    model: str
    form: str
    rubric: str

    def __call__(self) -> Judge:
        """The reader."""
        return Judge(self)


class Judge:
    """Grades pairs, one request each."""

    def __init__(self, how: MakeJudge) -> None:
        self._how, self._grades = how, grades_of(how.rubric)

    def answers(self, queries: Sequence[str], items: Sequence[str]) -> Iterator[tuple[I64, F32]]:
        """(place of a pair, its grade; NaN: the model gave none), as they are answered.

        Raises:
            DataError: too many answers have no grade.
        """
        ungraded, last = 0, ""
        with Client(self._how.server) as client:

            def ask(place: int) -> str:
                body = body_of(self._how.form, self._how.model, self._how.rubric, queries[place], items[place])
                return client.ask(body, text_of)

            for place, text in client.over(range(len(queries)), ask):
                grade = grade_of(text, self._grades)
                if math.isnan(grade):
                    ungraded, last = ungraded + 1, text
                if ungraded > max(5, MOST_UNGRADED * len(queries)):
                    raise DataError(
                        f"mining.teacher: expected one of the grades {', '.join(map(str, self._grades))}, found none in "
                        f"{ungraded} of {len(queries)} answers, for example {last[:200]!r}; give another model, or a rubric "
                        f"that asks for the number alone"
                    )
                yield np.array([place]), np.array([grade], np.float32)
