"""What a dry run expects a stage to read and write is what the store counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import store as store_module
from cluster.storage.store import Store
from cluster.storage.usage import Meter, Used
from jobs.config.config import load_config
from jobs.run.dry_run import _expected, _sizes
from jobs.stages.ingest import items as items_module
from jobs.stages.ingest.reading import slices
from jobs.stages.stage_0_ingest import _ingest_tables

ITEMS = 30_000


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_bytes_and_requests_of_ingest_are_as_expected(
    case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(items_module, "SMALLEST_PART", 2**18)
    monkeypatch.setattr(slices, "SLICE_BYTES", 2**21)
    case.items = [
        {
            "id": f"i{n}" if n < 10 else f"{n * 2654435761 % 2**32:08x}",
            "title": f"The title of {n}",
            "text": f"a text about {n * 7919}",
        }
        for n in range(ITEMS)
    ]
    if kind == "parquet":
        vectors = np.random.default_rng(0).standard_normal((ITEMS, 32)).astype(np.float32)
        table = pa.Table.from_pylist(case.items).append_column("vector", pa.array(list(vectors)))
        pq.write_table(table, case.folder / "corpus.parquet", row_group_size=10_000)
        case.set("data.corpus", "corpus.parquet")
        case.set("encoder", {"kind": "adapter"})
        for query in case.queries:
            query["vector"] = [1.0] * 32
    config = load_config(case.write())
    sizes = _sizes(config, {"corpus": ITEMS, "queries": 10, "labels": 10})
    expected = _expected(config, sizes, 32 if kind == "parquet" else None)
    meter = Meter()
    monkeypatch.setattr(store_module, "METER", meter)
    monkeypatch.setattr("cluster.storage.usage.METER", meter)
    _ingest_tables(config, Store(str(tmp_path / "run")), "tables", config.data)
    used, want = meter._counts, expected["ingest"]
    assert used.read_bytes == pytest.approx(want.read_bytes, rel=0.3)
    assert 0.5 < used.written_bytes / want.written_bytes < 1.5, "how well texts can be compressed is not known before"
    assert used.requests == pytest.approx(want.requests, rel=0.35, abs=10)
    assert ("embed" in expected) == (kind == "parquet")
    if kind == "parquet":
        assert expected["embed"].read_bytes == (ITEMS + 10) * 32 * 4
    assert isinstance(want, Used)
