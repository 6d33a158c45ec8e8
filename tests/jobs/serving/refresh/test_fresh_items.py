"""The live model on new items: what changed is embedded, nothing else, and the result is what embedding all would give."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.commits import Commit, Ledger
from cluster.errors import ArtifactError
from cluster.storage.store import Store
from jobs.record.stages import Kind, Stage
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_source
from jobs.serving.export.stamp import LIVE
from jobs.serving.refresh.compare_data import compare_data
from jobs.serving.refresh.fresh_items import FreshItems
from jobs.serving.refresh.history import HISTORY, append, read_history
from jobs.serving.search.opened import open_export
from tests.jobs.serving.conftest import Shop, interrupted_after
from tests.support.shipped_run import ShippedRun


class Grown(ShippedRun):
    """The shop's data a week later: item 5 has another text, item 7 is gone, ten are new at the front."""

    def parts(self, folder: str, table: pa.Table) -> list[Any]:
        if folder.endswith("/corpus") and "text" in table.column_names:
            rows = table.to_pylist()
            rows[5]["text"] = "law0 thing5"
            new = [rows[0] | {"id": f"n{n}", "text": f"poetry{n % 3} thing{n}"} for n in range(10)]
            kept = [*new, *(row for row in rows if row["id"] != "i7")]
            table = pa.Table.from_pylist([row | {"row": n} for n, row in enumerate(kept)], schema=table.schema)
        if folder.endswith("/labels"):
            shifted = pa.array(table["item_row"].to_numpy() + 10 - (table["item_row"].to_numpy() > 7))
            table = table.set_column(1, "item_row", shifted).slice(0, 30)
        return super().parts(folder, table)

    def ingest_only(self) -> tuple[Store, Commit]:
        """Its first stage alone."""
        self.store = Store(str(self.folder))
        self.ledger = Ledger(self.store)
        self.rng = np.random.default_rng(self.seed)
        self._tables()
        return self.store, self.ingest


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Store, Commit]:
    return Grown(tmp_path / "shop-grown").ingest_only()


@pytest.fixture
def home(shop: Shop, tmp_path: Path) -> Store:
    shutil.copytree(shop.home, tmp_path / "exports")
    return Store(str(tmp_path / "exports"))


def test_what_changed_is_counted(shop: Shop, grown: tuple[Store, Commit]) -> None:
    live = open_export(str(shop.home))
    got = compare_data(live, *grown, Store(str(shop.run.folder)))
    assert (got.items_new, got.items_changed, got.items_gone, got.items_same) == (10, 1, 1, 238)
    # item 7's label points elsewhere now, those of queries 30 to 39 are gone
    assert (got.labels, got.labels_new, got.labels_gone) == (30, 1, 11)
    assert (got.queries, got.queries_new, got.drift) == (40, 0, None)
    alone = compare_data(live, *grown, None)
    assert (alone.labels_new, alone.queries_new) == (None, None)


def test_data_that_is_the_same_has_no_changes(shop: Shop) -> None:
    run = Store(str(shop.run.folder))
    ingest = Ledger(run).find(Stage(Kind.INGEST).name)
    assert ingest is not None
    got = compare_data(open_export(str(shop.home)), run, ingest, run)
    assert not got.items
    assert (got.items_same, got.labels_new, got.labels_gone, got.queries_new) == (240, 0, 0, 0)


def test_only_what_changed_is_embedded(shop: Shop, grown: tuple[Store, Commit], home: Store) -> None:
    live = open_export(home.root)
    source = FreshItems(live, *grown, {"corpus:all": {"corpus.parquet": "new"}})
    written = export_source(source, home, Budget(), live=True)
    assert (source.embedded, written.stamp.items, written.live) == (11, 249, written.name)
    assert written.name.startswith("shop-round-01-")
    assert written.stamp.model == live.stamp.model
    assert written.stamp.run["data"] == {"corpus:all": {"corpus.parquet": "new"}}
    fresh = open_export(home.root)
    ids, texts = fresh.items["id"].to_pylist(), fresh.items["text"].to_pylist()
    assert ids[:11] == [*(f"n{n}" for n in range(10)), "i0"]
    assert "i7" not in ids
    got = fresh.search(fresh.encode(["law0 thing5"]), 1)
    assert ids[got.rows[0, 0]] == "i5"
    np.testing.assert_allclose(fresh._index.reconstruct_n(0, 249), shop.run.encoder(shop_model())(texts), atol=1e-6)


def shop_model() -> Any:
    from jobs.record.stages import ModelName

    return ModelName(1)


@pytest.mark.parametrize("writes", [2, 7, 9, 11])
def test_killed_at_any_write_it_ends_with_the_same_bytes(
    grown: tuple[Store, Commit], home: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    shutil.copytree(home.root, tmp_path / "killed")
    live = open_export(home.root)
    name = export_source(FreshItems(live, *grown, {}), home, Budget(), live=True).name
    other = Store(str(tmp_path / "killed"))
    with interrupted_after(writes, other.root, monkeypatch):
        export_source(FreshItems(live, *grown, {}), other, Budget(), live=True)
    assert open_export(other.root).name == live.name, "what was live answers until the new export is whole"
    export_source(FreshItems(live, *grown, {}), other, Budget(), live=True)
    same = [path for path in home.list(name) if not path.endswith("choice.json")]
    assert all(home.read_bytes(path) == other.read_bytes(path) for path in [*same, LIVE])


def test_decisions_are_kept_and_an_edited_history_is_told(tmp_path: Path) -> None:
    home = Store(str(tmp_path))
    assert read_history(home) == []
    for number in range(3):
        append(home, {"action": "nothing", "number": number})
    assert [one["number"] for one in read_history(home)] == [0, 1, 2]
    home.write_bytes(HISTORY, home.read_bytes(HISTORY).replace(b'"number": 1', b'"number": 7'))
    with pytest.raises(ArtifactError, match=r"refresh.json is not what hardmine wrote there; restore it"):
        read_history(home)
