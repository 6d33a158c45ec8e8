"""The loaders of docs/serving.md, run as they stand there: what a database finds is what `hardmine search` finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.serving.search.opened import open_export
from tests.jobs.serving.conftest import Shop

PAGE = Path(__file__).parents[4] / "docs" / "serving.md"
QUERY = "crime4 thing4"


def run_snippet(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> dict[str, Any]:
    """The names that the one Python block with this word leaves."""
    section = PAGE.read_text().partition("## Vector databases")[2]
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if word in block]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exports").symlink_to(shop.home)
    names: dict[str, Any] = {}
    exec(code.replace("NAME", shop.live).replace('"a query"', repr(QUERY)), names)
    return names


def wanted(shop: Shop) -> tuple[list[float], list[str]]:
    """(vector of the query, ids of its five nearest items of the even ones)."""
    opened = open_export(str(shop.home))
    vectors = opened.encode([QUERY])
    hits = opened.shown(opened.search(vectors, 5, opened.mask(["year<2000"])))
    return vectors[0].tolist(), [hit["id"] for hit in hits]


@pytest.mark.slow
def test_qdrant_finds_the_same_with_its_own_filter(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qdrant = pytest.importorskip("qdrant_client", exc_type=ImportError)
    client = run_snippet(shop, tmp_path, monkeypatch, "QdrantClient")["client"]
    vector, ids = wanted(shop)
    early = qdrant.models.FieldCondition(key="year", range=qdrant.models.Range(lt=2000))
    found = client.query_points(shop.live, query=vector, limit=5, query_filter=qdrant.models.Filter(must=[early])).points
    assert [point.payload["id"] for point in found] == ids
    assert client.count(shop.live).count == 240
    client.close()


@pytest.mark.slow
def test_lancedb_finds_the_same_with_its_own_filter(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb", exc_type=ImportError)
    table = run_snippet(shop, tmp_path, monkeypatch, "lancedb")["table"]
    vector, ids = wanted(shop)
    found = table.search(vector).distance_type("cosine").where("year < 2000", prefilter=True).limit(5).to_arrow()
    assert found["id"].to_pylist() == ids


@pytest.mark.slow
def test_sentence_transformers_gives_the_vector_of_the_search(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = run_snippet(shop, tmp_path, monkeypatch, "SentenceTransformer")["vector"]
    assert got == pytest.approx(wanted(shop)[0], abs=2e-6)
