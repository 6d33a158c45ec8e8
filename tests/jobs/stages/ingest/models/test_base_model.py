"""Tokens of a run's texts: those of which the model reads nothing are counted alike for every kind of encoder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from cluster.commits import Commit
from cluster.errors import DataError
from cluster.storage.model_folders import upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs.config.config import load_config
from jobs.stages.ingest.models.base_model import tokenise_parts
from jobs.stages.stage_0_ingest import _report_blank
from tests.support.model_kinds import BERT
from tests.support.tiny_models import Kind, encoder_folder
from training.encoders.prepare.prepare import build_base
from training.settings import EncoderSettings


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", "transformer"])
def test_blank_texts_are_counted_and_the_first_is_named(kind: str, case: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "run"))
    if kind == "static":
        settings = EncoderSettings(kind="static", dimension=8, vocabulary=300)
        folder = build_base(settings, StorageSettings(), ["the dog", "the dog", "red shoe", "red shoe"], 0, tmp_path / "base")
    else:
        _, folder, settings = encoder_folder(Kind("", BERT), tmp_path)
        case.set("encoder", {"kind": "transformer", "model": settings.model})
    base = Commit("base", "k", {}, files=upload_folder(folder, store, "base/model"), figures={"prefix": "base/model"})
    texts = ["the dog", " \x00", "red shoe", "🙂", "\u200b"]
    table = pa.table({"row": range(5), "id": [f"i{row}" for row in range(5)], "text": texts})
    parts = [
        ("corpus", write_part(store, "corpus/part-0.parquet", table)),
        ("queries", write_part(store, "q/part-0.parquet", table[:1])),
    ]
    config = load_config(case.write())
    for _ in range(2):  # an interrupted attempt left its parts
        items, queries = tokenise_parts(config, store, "tokens", base, parts)
        assert (items.table, items.blank, items.first_blank) == ("corpus", 3, "i1")
        assert (queries.table, queries.blank, queries.first_blank) == ("queries", 0, None)


def test_blank_texts_are_told_and_a_table_of_nothing_else_is_refused() -> None:
    lines: list[str] = []
    context: Any = SimpleNamespace(progress=SimpleNamespace(say=lines.append))
    _report_blank(context, "corpus", 3, 5, "i1")
    assert len(lines) == 1
    assert all(word in lines[0] for word in ("! 3 of 5 items", "'i1'", "empty texts"))
    with pytest.raises(DataError, match=r"5 of 5 queries .* encoder\.model"):
        _report_blank(context, "queries", 5, 5, "q0")
