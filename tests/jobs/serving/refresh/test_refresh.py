"""`hardmine refresh` on a real run: nothing new, new items, new labels; each decision with its reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from jobs.record.plan import plan_run
from jobs.record.stages import Kind
from jobs.serving.export.stamp import live_name
from jobs.serving.refresh.refresh import refresh_config
from jobs.trials.probe import probe_config
from tests.jobs.serving.conftest import Shop
from tests.support.configs import config_with


def test_without_a_live_export_there_is_nothing_to_refresh(case: Any, tmp_path: Path, refused: Any) -> None:
    config = str(case.write())
    refused(case.hardmine("refresh", config, "--to", str(tmp_path / "exports")), 2, ["no export is live", "hardmine export"])


def test_a_model_that_reads_no_texts_is_trained_anew(case: Any, shop: Shop, refused: Any, monkeypatch: Any) -> None:
    from dataclasses import replace

    from jobs.serving.refresh import refresh as module

    real = module.open_export

    def of_histories(*arguments: Any) -> Any:
        opened = real(*arguments)
        opened.stamp = replace(opened.stamp, reads="histories")
        return opened

    monkeypatch.setattr(module, "open_export", of_histories)
    refused(case.hardmine("refresh", str(case.write()), "--to", str(shop.home)), 2, ["a model of texts", "a history: item ids"])


@pytest.mark.parametrize(
    ("encoder", "rounds"),
    [
        ({"kind": "static", "dimension": 64, "vocabulary": 500}, {"warmup_epochs": 6, "mined": 3, "compare_random": True}),
        ({"kind": "transformer", "model": "sentence-transformers/all-MiniLM-L6-v2", "query_prompt": "query: "}, {}),
        ({"kind": "adapter", "model": "sentence-transformers/all-MiniLM-L6-v2"}, {"mined": 1}),
    ],
)
def test_a_round_goes_on_from_the_live_model_and_can_be_probed(encoder: dict[str, Any], rounds: dict[str, Any]) -> None:
    config = config_with({"name": "n" * 100, "encoder": encoder, "rounds": rounds})
    data = {"corpus:all": {"corpus.parquet": "1"}}
    got = refresh_config(config, Store("s3://bucket/exports"), "shop-round-01-12345678", data)
    assert got.encoder.model == "s3://bucket/exports/shop-round-01-12345678/model"
    assert got.encoder.kind == encoder["kind"]
    assert [stage.name for stage in plan_run(got) if stage.kind is Kind.TRAIN] == ["round-01-train"]
    assert got.name != refresh_config(config, Store("s3://bucket/exports"), "shop-round-02-12345678", data).name
    assert got.name != refresh_config(config, Store("s3://bucket/exports"), "shop-round-01-12345678", {}).name
    assert probe_config(got).name == f"{got.name}-probe"


def test_new_items_are_served_by_the_model_that_is_live(case: Any, shop: Shop, tmp_path: Path) -> None:
    """Its data is another shop's: all items are new, and too few labels to train on."""
    home = str(tmp_path / "exports")
    shutil.copytree(shop.home, home)
    case.items[0] |= {"id": "i0", "text": shop.run.texts[0]}
    case.set("data.item_text", "{text}")
    words = ("refresh", str(case.write()), "--to", home)
    got = json.loads(case.hardmine(*words, "--json").out)
    assert (got["action"], got["live"], got["embedded"]) == ("items", got["export"], 11)
    counts = {name: got["changes"][name] for name in ("items_new", "items_changed", "items_gone", "items_same")}
    assert counts == {"items_new": 0, "items_changed": 11, "items_gone": 228, "items_same": 1}
    assert got["changes"]["labels_new"] is None, "the run of the live model is not below this output"
    assert "10 labels, of which it is not known how many are new, too few to train on" in got["reason"]
    again = case.hardmine(*words)
    assert again.out.startswith("Nothing to do: the data is as it was: decided at 20")
    back = json.loads(case.hardmine("live", home, shop.live, "--json").out)
    assert back["before"] == got["live"], "and the export before is still there"
    history = json.loads(Path(home, "refresh.json").read_text())["decisions"]
    assert [one["action"] for one in history] == ["items", "nothing"]


@pytest.mark.cluster
def test_from_new_data_to_a_decision(ray_case: Any, ray_local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del ray_local
    ray_case.set("probe.fraction", 1.0)  # a tenth of eight queries is none
    home, config = str(tmp_path / "exports"), str(ray_case.write())
    assert ray_case.hardmine("run", config, "rounds.warmup_epochs=2", "rounds.mined=0").code == 0
    first = json.loads(ray_case.hardmine("export", str(tmp_path / "out" / "run"), "--to", home, "--json").out)

    def refresh(*words: str) -> dict[str, Any]:
        answer = ray_case.hardmine("refresh", config, "--to", home, "--json", *words)
        assert answer.code == 0, answer.err
        result: dict[str, Any] = json.loads(answer.out)
        return result

    nothing = refresh()
    assert (nothing["action"], nothing["live"]) == ("nothing", first["name"])
    assert "the data is as it was" in nothing["reason"]

    ray_case.items[3]["text"] = "another text about thing 3"
    ray_case.items.append({"id": "i12", "title": "Title 12", "text": "a text about thing 12", "genres": ["crime"], "year": 2002})
    ray_case.write()
    items = refresh()
    assert (items["action"], items["embedded"], items["live"]) == ("items", 2, items["export"])
    assert "0 of 10 labels are new, too few to train on" in items["reason"]
    assert {name: items["changes"][name] for name in ("items_new", "items_changed", "items_gone", "items_same")} == {
        "items_new": 1,
        "items_changed": 1,
        "items_gone": 0,
        "items_same": 11,
    }
    found = json.loads(ray_case.hardmine("search", home, "thing 12", "-k", "13", "--json").out)["answers"][0]["hits"]
    assert "i12" in [hit["id"] for hit in found]
    assert refresh()["action"] == "nothing"

    monkeypatch.setattr("jobs.serving.refresh.decide.LEAST_NEW_LABELS", 1)
    ray_case.labels.append({"query_id": "q1", "item_id": "i12", "score": 1})
    ray_case.write()
    trained = refresh()
    assert trained["changes"]["labels_new"] == 1
    assert trained["probe"]["verdict"] == "cannot tell", "ten queries tell nothing"
    assert "passed" in trained["gate"]
    if trained["action"] == "train":
        assert trained["export"] != trained["live"] == items["export"], "a new model is live when somebody says so"
    else:
        assert (trained["action"], trained["live"]) == ("nothing", items["export"])
        assert "the gate says no" in trained["reason"]
    assert refresh()["action"] == "nothing"
    history = json.loads(Path(home, "refresh.json").read_text())["decisions"]
    assert [one["action"] for one in history] == ["nothing", "items", "nothing", trained["action"], "nothing"]
    assert live_name(Store(home)) == items["export"]
