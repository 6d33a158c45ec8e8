"""An export that takes its run's re-ranker along: the hits come in its order, and another model in its place is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit
from cluster.errors import ConfigError, DamagedObject
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run
from jobs.serving.search.answer import answer
from jobs.serving.search.opened import open_export
from tests.support.shipped_run import ShippedRun
from training.encoders.prepare.late import prepare_late

pytestmark = pytest.mark.slow


@dataclass
class WithReranker(ShippedRun):
    """A run whose model has a re-ranker beside it."""

    reranker: Path = field(default_factory=Path)

    def finished_files(self, best: Commit) -> dict[str, dict[str, Any]]:
        files = super().finished_files(best)
        return files | upload_folder(self.reranker, self.store, f"{self.prefix}/reranker")


def cross_encoded(folder: Path, query: str, texts: list[str]) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu").predict([(query, text) for text in texts])


def late(folder: Path, query: str, texts: list[str]) -> Any:
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), device="cpu")
    return model.similarity(model.encode_query([query]), model.encode_document(texts))[0].numpy()


@pytest.mark.parametrize("score", [cross_encoded, late])
def test_hits_come_in_the_order_of_the_export_s_re_ranker(tmp_path: Path, cross_encoder: Path, score: Any) -> None:
    reranker = cross_encoder
    if score is late:
        prepare_late(cross_encoder, reranker := tmp_path / "late")
    run, home = WithReranker(tmp_path / "runs" / "shop", reranker=reranker), Store(str(tmp_path / "exports"))
    exported = export_run(run.write(), home, Budget())
    plain, opened = open_export(home.root), open_export(home.root, rerank=True)
    query = run.query_texts[3]
    before, after = (answer([one], query, 10, [])["answers"][0] for one in (plain, opened))
    first = plain.shown(plain.search(plain.encode([query]), 100))
    scores = score(reranker, query, [hit["text"] for hit in first])
    want = [first[place]["id"] for place in np.argsort(-scores, kind="stable")[:10]]
    assert [hit["id"] for hit in after["hits"]] == want != [hit["id"] for hit in before["hits"]]
    assert (set(after["ms"]), set(before["ms"])) == ({"encode", "search", "search and re-rank"}, {"encode", "search"})

    assert export_run(run.store, home, Budget()).kept, "the same run is the same export"
    file = tmp_path / "exports" / exported.name / "model/reranker/config.json"
    file.write_text(file.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(DamagedObject, match="not the one that was exported"):
        open_export(home.root, rerank=True)
    assert open_export(home.root).name == exported.name, "which retrieval does not need"


def test_an_export_without_a_re_ranker_is_refused(shop: Any) -> None:
    with pytest.raises(ConfigError, match="--rerank: expected an export with a re-ranker"):
        open_export(str(shop.home), rerank=True)
