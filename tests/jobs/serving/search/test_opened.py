"""Opening an export: what belongs together is opened, whatever it is called; everything else is refused, each in a paragraph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ConfigError, DamagedObject, HardmineError
from cluster.storage.store import Store
from jobs.record.stages import BASELINE, ModelName
from jobs.serving.export.index import KINDS, Budget, IndexKind
from jobs.serving.export.ship import export_run
from jobs.serving.export.stamp import open_home
from jobs.serving.search import opened as module
from jobs.serving.search.opened import Opened, open_export
from tests.jobs.serving.conftest import Shop
from tests.support.shipped_run import ShippedRun

PART = "items/part-00001.parquet"


def cut(a: Path, _: Path) -> None:
    file = a / "index/index.faiss"
    file.write_bytes(file.read_bytes()[:-200])


def lost(a: Path, _: Path) -> None:
    (a / PART).unlink()


def flipped(a: Path, _: Path) -> None:
    data = bytearray((a / PART).read_bytes())
    data[len(data) // 2] ^= 1
    (a / PART).write_bytes(data)


def mixed_index(a: Path, b: Path) -> None:
    shutil.copy(b / "index/index.faiss", a / "index/index.faiss")


def mixed_items(a: Path, b: Path) -> None:
    shutil.rmtree(a / "items")
    shutil.copytree(b / "items", a / "items")


def newer_model(a: Path, b: Path) -> None:
    shutil.rmtree(a / "model")
    shutil.copytree(b / "model", a / "model")


def newer_prompt(a: Path, _: Path) -> None:
    path = a / "model/config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompts": {"query": "search: "}}))


def no_model(a: Path, _: Path) -> None:
    shutil.rmtree(a / "model")


def no_tokenizer(a: Path, _: Path) -> None:
    (a / "model/tokenizer.json").unlink()


def unfinished(a: Path, _: Path) -> None:
    (a / "stamp.json").unlink()


def edited_stamp(a: Path, _: Path) -> None:
    stamp = json.loads((a / "stamp.json").read_text())
    stamp["model"]["weights"] = "0" * 64
    (a / "stamp.json").write_text(json.dumps(stamp))


def other_stamp(a: Path, b: Path) -> None:
    shutil.copy(b / "stamp.json", a / "stamp.json")


def foreign(a: Path, _: Path) -> None:
    shutil.rmtree(a)
    a.mkdir()
    faiss.write_index(faiss.IndexFlatIP(32), str(a / "index.faiss"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, ["index.faiss has", "cut off", "hardmine export"]),
        (lost, ["part-00001.parquet is missing", "only partly copied"]),
        (flipped, ["part-00001.parquet does not have the SHA-256", "damaged"]),
        (mixed_index, ["index.faiss does not have the SHA-256", "from another export"]),
        (mixed_items, ["part-00000.parquet", "stamp", "another"]),
        (newer_model, ["another model than the one that made the vectors", "its weights differ", "whatever their dimensions"]),
        (newer_prompt, ["another model", "its prompts differ"]),
        (no_model, ["model is missing", "queries into vectors (a text)"]),
        (no_tokenizer, ["another model", "tokenizer"]),
        (unfinished, ["not finished", "written last", "finishes it"]),
        (edited_stamp, ["stamp.json was changed"]),
        (other_stamp, ["its stamp"]),
        (foreign, ["expected an export", "found no stamp.json"]),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_paragraph(
    shop: Shop, tmp_path: Path, spoil: Callable[[Path, Path], None], words: list[str]
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    shutil.copytree(shop.home / shop.live, a)
    shutil.copytree(shop.home / shop.base, b)
    open_export(str(a))
    spoil(a, b)
    with pytest.raises(HardmineError) as refused:
        open_export(str(a))
    message = str(refused.value)
    assert isinstance(refused.value, ConfigError | DamagedObject)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message
    assert 60 < len(message) < 600


def test_the_same_weights_under_another_name_are_accepted(shop: Shop, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(shop.home / shop.live, moved)
    file = moved / "model/model.safetensors"
    state = load_file(file)
    file.unlink()
    save_file(state, moved / "model/weights-00001-of-00001.safetensors", {"written": "by another library"})
    (moved / "model/README.md").write_text("licence: filled in\n")
    assert module.model_marks(moved / "model") == module.model_marks(shop.home / shop.live / "model")
    shutil.copytree(shop.home / shop.live / "model", tmp_path / "my-model-v7")
    opened = open_export(str(shop.home), model=str(tmp_path / "my-model-v7"))
    np.testing.assert_array_equal(opened.encode(["crime1"]), open_export(str(shop.home)).encode(["crime1"]))


def test_another_model_of_the_same_width_is_refused_as_the_one_that_encodes(shop: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shop.home / shop.live / "model", other)
    state = load_file(other / "model.safetensors")
    save_file({name: value + 1e-4 * torch.randn_like(value) for name, value in state.items()}, other / "model.safetensors")
    with pytest.raises(ConfigError, match=r"--model .*other is another model .*its weights differ, by SHA-256"):
        open_export(str(shop.home), model=str(other))
    with pytest.raises(ConfigError, match="expected the folder of a model, found none"):
        open_export(str(shop.home), model=str(tmp_path / "nothing"))


def test_a_pointer_to_an_export_that_is_gone_names_those_that_are_there(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.home, tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / shop.live)
    with pytest.raises(ConfigError, match=f"{shop.live}.* is live, but there is no such .*{shop.base}.*hardmine live"):
        open_home(str(tmp_path / "home"))
    (tmp_path / "home/live.json").write_text('{"live": "../../etc"}')
    with pytest.raises(ConfigError, match="expected the name of an export"):
        open_home(str(tmp_path / "home"))
    with pytest.raises(ConfigError, match=r"is a run, not an export; write one first: `hardmine export"):
        open_export(str(shop.run.folder))


def test_a_query_gets_the_vector_that_the_run_measured_it_with(shop: Shop) -> None:
    for name, number in ((shop.live, ModelName(1)), (shop.base, BASELINE)):
        got = open_export(str(shop.home / name)).encode(shop.run.query_texts)
        np.testing.assert_array_equal(got, shop.run.encoder(number)(shop.run.query_texts))


@pytest.mark.parametrize("where", [[], ["genre=crime"], ["year>=2000", "tags=odd"], ["genre!=law", "year<1950"]])
def test_a_search_gives_the_nearest_that_fit_as_a_slow_reference_does(shop: Shop, where: list[str]) -> None:
    opened = open_export(str(shop.home))
    queries, items = opened.encode(shop.run.query_texts), opened.encode(shop.run.texts)
    mask = opened.mask(where)
    hits = opened.search(queries, 7, mask)
    genre, year = np.array(opened.items["genre"].to_pylist()), np.array(opened.items["year"].to_pylist())
    fits = {
        "genre=crime": genre == "crime",
        "year>=2000": year >= 2000,
        "tags=odd": np.arange(240) % 2 == 1,
        "genre!=law": genre != "law",
        "year<1950": year < 1950,
    }
    wanted = np.logical_and.reduce([fits[one] for one in where]) if where else np.ones(240, bool)
    scores = np.where(wanted, queries @ items.T, -np.inf)
    np.testing.assert_allclose(hits.scores, -np.sort(-scores, axis=1)[:, :7], rtol=1e-5)
    assert wanted[hits.rows].all()


def test_where_fewer_fit_than_are_wanted_all_that_fit_are_found(shop: Shop) -> None:
    opened = open_export(str(shop.home))
    hits = opened.search(opened.encode(["law1"]), 5, opened.mask(["year<1903"]))
    assert sorted(hits.rows[0].tolist()) == [-1, -1, 0, 1, 2]
    assert len(opened.shown(hits)) == 3
    none = opened.search(opened.encode(["law1"]), 5, opened.mask(["year<1900"]))
    assert (none.rows == -1).all()
    assert opened.shown(none) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("narrow", [True, False])
def test_every_kind_of_index_keeps_to_the_filter(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: IndexKind, narrow: bool
) -> None:
    if not narrow:
        monkeypatch.setattr(module, "NARROW_ITEMS", 0)
        monkeypatch.setattr(module, "NARROW_SHARE", 0.0)
    monkeypatch.setattr("jobs.serving.export.index.LEAST_FOR_LISTS", 100)
    monkeypatch.setattr("jobs.serving.export.index.LEAST_FOR_PQ", 200)
    monkeypatch.setattr("jobs.serving.export.index.sub_vectors", lambda dimension: dimension)
    store = Store(str(tmp_path))
    run = Store(str(shop.run.folder))
    if kind == "ivfpq":  # its centroids need 256 items
        run = ShippedRun(tmp_path / "run", items=600, queries=8).write()
    exported = export_run(run, Store(store.url("exports")), Budget(kind=kind, min_recall=0.5))
    opened = open_export(exported.path)
    mask = opened.mask(["tags=even", "year<2100"])
    assert mask is not None
    hits = opened.search(opened.encode(["crime4 thing4", "poetry1"]), 20, mask)
    assert (hits.rows >= 0).all() or not narrow
    assert mask[hits.rows[hits.rows >= 0]].all()
    assert (hits.scores[:, 1:] <= hits.scores[:, :-1]).all()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("genre", ["--where 'genre'", "expected a column, a sign", "genre=crime"]),
        ("colour=red", ["found 'colour'", "genre, tags, year"]),
        ("year=soon", ["year holds int64", "'soon' is none"]),
    ],
)
def test_a_filter_that_cannot_be_read_is_told(shop: Shop, where: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        open_export(str(shop.home)).mask([where])
    assert [word for word in words if word not in str(refused.value)] == []


def test_an_export_on_s3_is_opened_and_checked(
    shop: Shop, s3_bucket: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.storage.settings import StorageSettings

    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    settings = StorageSettings(endpoint=s3_endpoint, attempts=2)
    remote = Store(f"{s3_bucket}/exports", settings)
    local = Store(str(shop.home))
    for path in local.list():
        remote.write_bytes(path, local.read_bytes(path))
    opened: Opened = open_export(remote.root, settings)
    here = open_export(str(shop.home))
    vectors = here.encode(["travel2"])
    np.testing.assert_array_equal(opened.search(opened.encode(["travel2"]), 9).rows, here.search(vectors, 9).rows)
    path = f"{shop.live}/index/index.faiss"
    data = remote.read_bytes(path)
    remote.write_bytes(path, data[:-4] + b"0000")
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "another"))
    with pytest.raises(DamagedObject, match="does not have the SHA-256 of its stamp"):
        open_export(remote.root, settings)
