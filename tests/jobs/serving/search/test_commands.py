"""`hardmine export`, `live` and `search` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.jobs.serving.conftest import Shop


def test_from_a_run_to_an_answer(shop: Shop, tmp_path: Path, case: Any) -> None:
    home = str(tmp_path / "exports")
    words = ("export", str(shop.run.folder), "--to", home)
    first = json.loads(case.hardmine(*words, "--json").out)
    assert (first["index"]["kind"], first["items"], first["live"], first["kept"]) == ("flat", 240, first["name"], False)
    shown = case.hardmine(*words, "--round", "-1", "--index", "hnsw").out
    assert "index: hnsw (efSearch 32), recall@10" in shown
    assert f"live in {home} is still {first['name']}" in shown
    base = next(name for name in case.hardmine("live", home).out.split() if name.startswith("shop-baseline"))
    back = json.loads(case.hardmine("live", home, base, "--json").out)
    assert back == {"live": base, "before": first["name"], "exports": sorted([base, first["name"]])}
    case.hardmine("live", home, first["name"])
    found = case.hardmine("search", home, "crime4", "-k", "3", "--where", "year>=1950", "--beside", f"{home}/{base}")
    assert found.code == 0
    assert first["name"] in found.out
    assert "95th percentile" in found.out
    answer = json.loads(case.hardmine("search", home, "crime4", "-k", "3", "--json").out)
    (one,) = answer["answers"]
    assert [hit["position"] for hit in one["hits"]] == [1, 2, 3]
    assert {hit["metadata"]["genre"] for hit in one["hits"]} == {"crime"}


def test_mistakes_are_one_paragraph(shop: Shop, tmp_path: Path, case: Any, refused: Any) -> None:
    home, run = str(shop.home), str(shop.run.folder)
    for words, said in (
        (("search", run, "crime"), ["is a run, not an export"]),
        (("search", str(tmp_path / "run.toml"), "crime"), ["is a configuration, not an export", "`hardmine hits`"]),
        (("search", home), ["expected a query", "--serve"]),
        (("search", home, "crime", "--serve"), ["--serve without one"]),
        (("search", str(tmp_path), "crime"), ["expected an export", "hardmine export OUTPUT --to FOLDER"]),
        (("search", home, "crime", "--where", "colour=red"), ["found 'colour'"]),
        (("export", str(tmp_path), "--to", home), ["is not a run"]),
        (("export", run, "--to", home, "--index", "ivfpq"), ["--index ivfpq needs 10,000 items", "found 240"]),
        (("export", run, "--to", run), ["the folder of a run"]),
        (("live", home, "nothing"), ["expected a finished export", shop.live]),
        (("live", str(tmp_path)), ["expected exports in", "found none"]),
    ):
        refused(case.hardmine(*words), 2, said)
