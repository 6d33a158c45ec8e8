"""A model that is not run as its authors meant it is refused at once: one paragraph, exit code 2, nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from cluster.storage.store import Store
from tests.support.model_kinds import BERT, KINDS
from tests.support.tiny_models import Kind

pytestmark = pytest.mark.slow

NAMES = (
    "custom_st.Transformer",
    "module outside the folder",
    "pickle with code",
    "weights cut off",
    "weights of another shape",
    "adapter of peft",
    "tokenizer missing",
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty at the start."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def with_model(case: Any, kind: Kind, encoder: str = "transformer") -> None:
    model = case.folder / "model"
    model.mkdir()
    kind.make(model)
    case.set("encoder", {"kind": encoder, "model": str(model)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoder", ["transformer", "adapter"])
def test_a_model_that_is_not_run_is_refused(name: str, encoder: str, case: Any, refused: Any, temporary: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    with_model(case, kind, encoder)
    refused(case.run(), 2, ["encoder.model", kind.refused])
    assert not list(temporary.glob("hardmine-*"))


@pytest.mark.parametrize("name", ["custom_st.Transformer", "weights of another shape"])
def test_a_teacher_that_is_not_run_is_refused_under_its_own_name(name: str, case: Any, temporary: Path) -> None:
    from jobs.config.config import load_config
    from jobs.stages.ingest.models.second_model import make_teacher

    kind = next(kind for kind in KINDS if kind.name == name)
    teacher = case.folder / "teacher"
    teacher.mkdir()
    kind.make(teacher)
    case.set("mining.teacher", {"kind": "encoder", "model": str(teacher)})
    config = load_config(case.write())
    assert config.mining.teacher is not None
    with pytest.raises(ConfigError, match=rf"^mining\.teacher\.model: .*{kind.refused}"):
        make_teacher(config, Store(str(case.folder / "run")), "teacher", config.mining.teacher, "mining.teacher")
    assert not list(temporary.glob("hardmine-*"))


def test_a_matryoshka_length_above_the_dimension_is_refused_before_training(case: Any, refused: Any, temporary: Path) -> None:
    with_model(case, Kind("", BERT))
    case.set("training.matryoshka", [16, 64])
    refused(case.run(), 2, ["training.matryoshka = [16, 64]", "32 dimensions"])
    assert not list(temporary.glob("hardmine-*"))


@pytest.mark.parametrize("length", [16, 9])
def test_a_new_static_model_has_no_more_dimensions_than_it_says(length: int, case: Any, refused: Any) -> None:
    case.set("training.matryoshka", [length])  # its encoder.dimension is 8
    refused(case.run(), 2, [f"training.matryoshka = [{length}]", "encoder.dimension = 8"])
