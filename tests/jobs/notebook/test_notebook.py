"""A run as an object: its tables and charts hold what the commits and the page hold, and the guide's code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.commits import Commit
from cluster.errors import ClusterError, ConfigError, DataError
from cluster.storage.store import Store
from cluster.tables.tables import write_part
from jobs import Run, load_run, run_config
from jobs.notebook.tables import negatives_table
from jobs.record.record import RunRecord
from jobs.report.gather import gather
from jobs.report.page import render_run
from tests.support.synthetic_run import write_run

CATALOGUE = """
name = "catalogue"
output = "runs"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
[encoder]
kind = "static"
dimension = 8
vocabulary = 256
[rounds]
mined = 1
[training]
batch_size = 32
[cluster]
cpus = 2
"""
GUIDE = (Path(__file__).parents[3] / "docs" / "notebook.md").read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_run(tmp_path_factory.mktemp("runs") / "shop")


@pytest.fixture(scope="module")
def shop(store: Store) -> Run:
    return load_run(store.root)


def test_a_finished_run_says_what_was_kept(shop: Run) -> None:
    assert (shop.finished, shop.best_round) == (True, 2)
    assert shop.model == f"{shop.output}/model"
    assert repr(shop) == f"Run({shop.output!r}, kept round 2)"
    assert "round 2" in shop._repr_html_()
    assert "&lt;b&gt;" in Run(load_run(write_run(Path(shop.output).parent / "<b>").root).status)._repr_html_()


def test_an_unfinished_run_has_its_figures_so_far(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "shop", random_arm=False, finish=False).root)
    assert (run.finished, run.best_round, run.model, run.usage) == (False, None, None, None)
    assert run.rounds["kept"].to_pylist() == [False] * 4
    assert len(run.charts) > 3


def test_rounds_are_the_models_of_the_record_with_their_figures(shop: Run, store: Store) -> None:
    record = RunRecord.read(store)
    rows = shop.rounds.to_pylist()
    assert [row["model"] for row in rows] == ["off the shelf", "warm-up", "round 1", "round 2", "random only"]
    assert [row["recall@3"] for row in rows] == [model.metrics["recall@3"] for model in record.models]
    assert [row["kept"] for row in rows] == [False, False, False, True, False], "the random arm is of round 2 as well"


def test_metrics_hold_the_difference_from_the_off_the_shelf_model(shop: Run, store: Store) -> None:
    model = RunRecord.read(store).rounds[-1]
    rows = [row for row in shop.metrics("dev").to_pylist() if row["model"] == "round 2" and row["metric"] == "recall@3"]
    change = model.change("baseline")["recall@3"]
    assert len(rows) == 1
    assert rows[0]["value"] == model.metrics["recall@3"]
    assert [rows[0][name] for name in ("difference", "low", "high")] == [change[name] for name in ("mean", "low", "high")]
    assert shop.metrics("test").num_rows == 0
    assert shop.metrics().num_rows == shop.metrics("dev").num_rows


def test_telemetry_has_every_step_of_every_training(shop: Run) -> None:
    table = shop.telemetry
    assert table.column_names[:2] == ["model", "arm"]
    counts = {row["values"]: row["counts"] for row in table["model"].value_counts().to_pylist()}
    assert counts == dict.fromkeys(("warm-up", "round 1", "round 2", "random only"), 40)


def test_a_run_that_trained_nothing_has_an_empty_telemetry() -> None:
    from jobs.notebook.tables import telemetry_of_all

    table = telemetry_of_all(Store("/nowhere"), RunRecord({}))
    assert (table.num_rows, table.schema.types) == (0, [pa.string(), pa.string()])


def test_charts_are_those_of_the_page_as_drawings_without_its_variables(shop: Run, store: Store) -> None:
    page = render_run(gather(store))
    assert list(shop.charts) == re.findall(r'data-chart="([^"]+)"', page)
    for name, chart in shop.charts.items():
        drawing = chart._repr_svg_()
        ElementTree.fromstring(drawing)
        assert "var(" not in drawing, name
        assert drawing.count("<path") > 3, f"{name} is empty"
        assert chart.title[:12] in drawing
        assert chart.table.num_rows > 0


def test_negatives_are_a_row_each_with_their_texts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    corpus = pa.table({"row": range(4), "text": [f"item {n}" for n in range(4)]})
    queries = pa.table({"row": range(3), "text": [f"query {n}" for n in range(3)]})
    negative = {"position": 7, "source": "model", "teacher_score": None, "round": 1}
    lists = {0: [2, 1], 1: [], 2: [3]}
    mined = [
        pa.table(
            {
                "query_row": pa.array([row], pa.int64()),
                "query_id": [f"q{row}"],
                "negative_rows": pa.array([rows], pa.list_(pa.int64())),
                "negatives": pa.array(
                    [[{"item_id": f"i{item}", "score": item / 4, **negative} for item in rows]],
                    pa.list_(
                        pa.struct(
                            [
                                ("item_id", pa.string()),
                                ("score", pa.float32()),
                                ("position", pa.int64()),
                                ("source", pa.string()),
                                ("teacher_score", pa.float32()),
                                ("round", pa.int32()),
                            ]
                        )
                    ),
                ),
            }
        )
        for row, rows in lists.items()
    ]
    tables = {"corpus": [corpus.slice(0, 2), corpus.slice(2)], "queries": [queries], "negatives": mined}
    parts: dict[str, list[dict[str, Any]]] = {}
    for name, found in tables.items():
        starts = np.cumsum([0, *(part.num_rows for part in found)])
        parts[name] = [
            write_part(store, f"{name}/part-{number:05d}.parquet", part, first_row=int(starts[number])).to_json()
            for number, part in enumerate(found)
        ]
    commit = Commit("any", "k", {}, tables=parts)
    got = negatives_table(store, commit, commit, queries=None)
    assert got.select(["query_id", "query", "item_id", "item"]).to_pylist() == [
        {"query_id": "q0", "query": "query 0", "item_id": "i2", "item": "item 2"},
        {"query_id": "q0", "query": "query 0", "item_id": "i1", "item": "item 1"},
        {"query_id": "q2", "query": "query 2", "item_id": "i3", "item": "item 3"},
    ]
    assert got["score"].to_pylist() == [0.5, 0.25, 0.75]
    assert negatives_table(store, commit, commit, queries=1).num_rows == 2
    two = negatives_table(store, commit, commit, queries=2)
    assert two["query_id"].to_pylist() == ["q0", "q0", "q2"], "the second query has none, and is not counted"
    assert negatives_table(store, commit, commit, queries=0).num_rows == 0


def test_a_round_that_was_not_mined_is_refused(shop: Run) -> None:
    with pytest.raises(ConfigError, match=r"found 7; mined rounds so far: 1, 2"):
        shop.negatives(7)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        load_run(tmp_path)


def test_settings_are_refused_with_the_command_line_s_words(tmp_path: Path) -> None:
    values = {"name": "shop", "output": "runs", "data": {"folder": str(tmp_path / "no")}, "encoder": {"kind": "static"}}
    with pytest.raises(ConfigError, match=r"training\.epoch\b"):
        run_config(values | {"training": {"epoch": 2}})
    with pytest.raises(ConfigError, match="for a file only"):
        run_config(values, "training.epochs=2")
    with pytest.raises(ConfigError, match="there is no config file"):
        run_config(tmp_path / "run.toml", "training.epochs=2")
    with pytest.raises(DataError, match=str(tmp_path / "no")):
        run_config(values | {"output": str(tmp_path)})


def test_an_error_that_ray_wrapped_is_raised_as_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        try:
            raise ClusterError("the storage is away")
        except ClusterError as error:
            raise RuntimeError("a task failed") from error

    monkeypatch.setattr("jobs.run.driver.run", fail)
    values = {"name": "shop", "output": str(tmp_path), "data": {"folder": "no"}, "encoder": {"kind": "static"}}
    with pytest.raises(ClusterError, match="the storage is away"):
        run_config(values)


@pytest.mark.slow
def test_loading_a_run_needs_no_engine(store: Store) -> None:
    code = (
        f"import sys; from jobs import load_run; run = load_run({store.root!r}); run.rounds; run.telemetry; run.charts; "
        "print(sorted({'ray', 'torch', 'faiss', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.cluster
def test_the_guide_s_code_runs_from_top_to_bottom(
    tmp_path: Path, ray_local: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = range(300)
    corpus = {"id": [f"i{n}" for n in numbers], "text": [f"a text about thing {n} of kind {n % 7}" for n in numbers]}
    queries = {"id": [f"q{n}" for n in numbers], "text": [f"thing {n}" for n in numbers]}
    qrels = {"query_id": queries["id"], "item_id": corpus["id"], "score": [1] * len(numbers)}
    for name, table in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    (tmp_path / "catalogue.toml").write_text(CATALOGUE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    variables: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(code, variables)
    run = variables["run"]
    assert run.finished
    assert len(variables["negatives"]["query"].unique()) == 20
    assert set(variables["steps"]["model"]) == {"warm-up", "round 1"}
    assert "training.epochs" in capsys.readouterr().out
