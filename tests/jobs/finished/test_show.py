"""What a finished run prints at its end: the model, and a next step that is another command."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from jobs.finished.show import show_summary
from jobs.finished.status import read_status
from tests.support.synthetic_run import write_run


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    finished = read_status(write_run(tmp_path_factory.mktemp("runs") / "shop")).summary
    assert finished is not None
    return finished


def printed(summary: dict[str, Any]) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    show_summary(console, summary)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_better_round_leads_to_the_gate(summary: dict[str, Any]) -> None:
    lines = printed(summary)
    assert Path(summary["model"]).name == "model"
    assert f'        model = SentenceTransformer("{summary["model"]}")' in lines
    assert '        queries = model.encode_query(["a query"])' in lines, "brackets are no markup"
    assert lines[-1] == f"next:   hardmine gate {summary['output']}"


def test_a_run_in_which_no_round_was_better_leads_to_the_diagnosis(summary: dict[str, Any]) -> None:
    lines = printed(summary | {"best_round": -1, "model": None})
    assert "model:  none: the vectors in your data were best" in lines
    assert lines[-1] == f"next:   hardmine diagnose {summary['output']}"


def test_a_model_on_s3_is_copied_before_it_is_opened(summary: dict[str, Any]) -> None:
    lines = printed(summary | {"model": "s3://shop/model"})
    assert "        copy it to a local folder `model`, then:" in lines
