"""The table of retrievers and re-rankers for a person: nothing is cut off at 80 columns, and what to ship is the last line."""

from __future__ import annotations

from rich.console import Console

from jobs.finished.show_reranker import show_reranker
from jobs.record.reranking import cell_rows, columns, speed_rows
from tests.support.reranking import SENTENCE, reranking_table


def shown() -> list[str]:
    console = Console(width=80, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    show_reranker(console, reranking_table())
    return console.export_text().splitlines()


def test_every_cell_has_its_row_and_its_change_and_nothing_is_cut_off() -> None:
    lines = shown()
    assert not any("…" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "100 candidates re-ranked, 400 dev queries" in text
    assert "fine-tuned * fine-tuned 0.750 0.850 0.750 0.750 25.0%" in text
    assert "off-the-shelf + fine-tuned: Recall@3: change +2.0 [-1.0, +5.0], p = 0.002 (chance?); 3 tie at the top" in text
    assert "100 1,200.0 ms 1,500.0 ms 0.750" in text
    assert text.endswith(SENTENCE)


def test_the_reference_is_named_as_such_and_the_retriever_alone_has_no_ties() -> None:
    rows = {(row[0].removesuffix(" *"), row[1]): row for row in cell_rows(reranking_table())}
    assert rows["fine-tuned", "–"][-3:] == ["reference", "–", "–"]
    assert rows["fine-tuned", "fine-tuned"][-3:] == ["+7.0 [+4.0, +10.0]", "0.002", "3"]
    assert all(len(row) == len(columns(reranking_table())) for row in rows.values())
    assert [row[0] for row in speed_rows(reranking_table())] == ["10", "20", "50", "100"]


def test_a_run_without_a_re_ranker_shows_nothing() -> None:
    console = Console(record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    show_reranker(console, None)
    assert console.export_text() == ""
