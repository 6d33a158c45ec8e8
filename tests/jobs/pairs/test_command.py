"""`hardmine pairs` as a command: its mistakes are one paragraph each, and nothing is started for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.jobs.conftest import Answer, Case
from tests.jobs.pairs.conftest import lines, query


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing", "--to", "out"], ["expected logs", "missing"]),
        (["log.txt", "--to", "out"], ["log.txt", "JSONL"]),
        (["log.jsonl", "--to", "out", "--config", "wrong.toml"], ["wrong.toml", "signal is not a setting", "'signals'"]),
        (["log.jsonl", "--to", "out", "--set", "bot_queries=-1"], ["bot_queries", "at least 0"]),
        (["log.jsonl", "--to", "out", "--accept", "no.csv"], ["no.csv"]),
        (["log.jsonl", "--to", "full"], ["full", "tables", "empty folder"]),
        (["log.jsonl"], ["--to"]),
        (["full", "--to", "full/pairs"], ["outside of the logs"]),
    ],
)
def test_a_mistake_is_one_paragraph(
    case: Case, refused: Callable[[Answer, int, Sequence[str]], None], arguments: list[str], words: list[str]
) -> None:
    case.patch.chdir(case.folder)
    (case.folder / "log.jsonl").write_bytes(lines([query("q1", "shoe", ["a"])]))
    (case.folder / "log.txt").write_text("text")
    (case.folder / "wrong.toml").write_text("[signal]\ndwell_s = 3.0\n")
    (case.folder / "full" / "tables").mkdir(parents=True)
    (case.folder / "full" / "tables" / "mine.parquet").write_bytes(b"")
    refused(case.hardmine("pairs", *arguments), 2, words)
