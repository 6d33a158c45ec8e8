"""The model that is kept, as a folder that sentence-transformers opens; nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.commits import Commit
from cluster.errors import ArtifactError
from cluster.storage.model_folders import fetch_folder, upload_folder
from cluster.storage.store import Store
from jobs.stages.finish.finish import export_model
from jobs.stages.stage_1_embed import Model
from tests.support.cards import card
from tests.support.model_kinds import BERT
from tests.support.tiny_models import TEXTS, Kind, cosine, encoder_folder, ours, theirs
from training.encoders.adapter import new_adapter_folder
from training.encoders.load import load_encoder
from training.encoders.tokens.features import Vectors

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(store, adapter, the commit of its base, what the vectors of the texts should be, the folder for temporary files)."""
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    temporary, scratch = tmp_path / "temporary", tmp_path / "scratch"
    temporary.mkdir()
    scratch.mkdir()
    store = Store(str(tmp_path / "run"))
    _, base, settings = encoder_folder(Kind("", BERT), scratch)
    new_adapter_folder(scratch / "adapter", 32, 16, 0)
    want = load_encoder(scratch / "adapter").encode(Vectors(ours(load_encoder(base), base, settings, TEXTS, "", alone=True)))
    files = upload_folder(scratch / "adapter", store, "adapter")
    commit = Commit("base", "k", {}, files=upload_folder(base, store, "base/model"), figures={"prefix": "base/model"})
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return store, Model("d", "adapter", files, reads_base=True), commit, want, temporary


def test_an_adapter_is_exported_with_its_base_and_nothing_is_left_behind(run: Any) -> None:
    store, model, base, want, temporary = run
    files = export_model(store, "model", model, base, card())
    assert not list(temporary.iterdir())
    assert cosine(want, theirs(fetch_folder(store, files, "model"), 0, TEXTS)) > 0.9999


def test_nothing_is_left_behind_by_an_export_that_fails(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, model, base, _, temporary = run

    def full(*arguments: Any) -> None:
        assert list(temporary.iterdir()), "it is made there"
        raise ArtifactError("the disk is full")

    monkeypatch.setattr("jobs.stages.finish.finish.upload_folder", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        export_model(store, "model", model, base, card())
    assert not list(temporary.iterdir())
