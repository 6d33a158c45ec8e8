"""The loaders of docs/serving.md, run as they stand there: what a database finds is what `hardmine search` finds."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.serving.search.opened import open_export
from tests.jobs.serving.conftest import Shop

PAGE = Path(__file__).parents[4] / "docs" / "serving.md"
QUERY = "crime4 thing4"


def run_snippet(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, **texts: str) -> dict[str, Any]:
    """The names that the one Python block with this word leaves, `texts` put in place of those of the page."""
    section = PAGE.read_text().partition("## Vector databases")[2]
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if word in block]
    monkeypatch.chdir(tmp_path)
    if not (tmp_path / "exports").exists():
        (tmp_path / "exports").symlink_to(shop.home)
    for old, new in texts.items():
        assert old in code
        code = code.replace(old, new)
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


@pytest.fixture
def postgres() -> Iterator[str]:
    """Address of a PostgreSQL with pgvector. Not below pytest's folder: as root it runs as another user, who must get there."""
    server_of = pytest.importorskip("pgserver", exc_type=ImportError)
    folder = tempfile.mkdtemp(prefix="hardmine-postgres-")
    try:
        server = server_of.get_server(folder, cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_pgvector_finds_the_same_with_and_without_its_index_and_loading_twice_leaves_the_same_rows(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    psycopg, pgvector = (pytest.importorskip(name, exc_type=ImportError) for name in ("psycopg", "pgvector"))
    pgvector_types = pytest.importorskip("pgvector.psycopg", exc_type=ImportError)
    vector, even = wanted(shop)
    opened = open_export(str(shop.home))
    (nearest,) = [[hit["id"] for hit in opened.shown(opened.search(opened.encode([QUERY]), 5))]]
    contents = []
    for _ in range(2):
        run_snippet(shop, tmp_path, monkeypatch, "psycopg", **{"postgresql://localhost/shop": postgres})
        with psycopg.connect(postgres) as connection:
            contents.append(connection.execute(f'SELECT id, vector::text, metadata FROM "{shop.live}" ORDER BY id').fetchall())
    assert len(contents[0]) == 240
    assert contents[0] == contents[1]
    with psycopg.connect(postgres) as connection:
        pgvector_types.register_vector(connection)
        ask = f'SELECT id FROM "{shop.live}" {{}} ORDER BY vector <#> %s LIMIT 5'
        for scan, node in (("seqscan", "Index Scan"), ("indexscan", "Seq Scan")):
            connection.execute(f"SET LOCAL enable_{scan} = off")
            parameter = [pgvector.Vector(vector)]
            plan = str(connection.execute("EXPLAIN " + ask.format(""), parameter).fetchall())
            assert node in plan
            assert [row[0] for row in connection.execute(ask.format(""), parameter)] == nearest
            connection.execute(f"SET LOCAL enable_{scan} = on")
        connection.execute("SET LOCAL enable_indexscan = off")
        filtered = connection.execute(ask.format("WHERE (metadata->>'year')::int < 2000"), parameter)
        assert [row[0] for row in filtered] == even


def test_a_name_that_postgresql_would_cut_is_refused_before_anything_is_loaded(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("psycopg", "pgvector.psycopg"):
        pytest.importorskip(name, exc_type=ImportError)
    with pytest.raises(ValueError, match="at most 63 bytes, found 'nnn"):
        run_snippet(shop, tmp_path, monkeypatch, "psycopg", **{'name = "NAME"': f'name = "{"n" * 64}"'})


@pytest.mark.slow
def test_sentence_transformers_gives_the_vector_of_the_search(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = run_snippet(shop, tmp_path, monkeypatch, "SentenceTransformer")["vector"]
    assert got == pytest.approx(wanted(shop)[0], abs=2e-6)
