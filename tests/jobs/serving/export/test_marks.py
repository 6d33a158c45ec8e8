"""What tells models apart: content that vectors depend on, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ArtifactError
from cluster.storage.settings import StorageSettings
from jobs.serving.export.marks import model_marks, reranker_mark
from tests.support.tiny_models import SMALL, plain
from training.encoders.prepare.prepare import build_base
from training.settings import EncoderSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder of a tiny BERT."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    plain("Bert", **SMALL, max_position_embeddings=64)(source)
    return build_base(EncoderSettings(kind="transformer", model=str(source)), StorageSettings(), [], 0, target / "base")


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def other_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    first = sorted(state)[0]
    save_file(state | {first: state[first] + 1e-3}, folder / "model.safetensors")


def other_name(folder: Path) -> None:
    change_json(folder / "config.json", _name_or_path="/another/place", transformers_version="9.9")
    (folder / "README.md").write_text("# another card\n")


def two_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    (folder / "model.safetensors").unlink()
    for number, some in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: state[name] for name in some}, folder / f"model-0000{number}-of-00002.safetensors", {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text("{}")


def other_prompt(folder: Path) -> None:
    change_json(folder / "config_sentence_transformers.json", prompts={"query": "query: "})


def other_pooling(folder: Path) -> None:
    pooling = next(folder.glob("*_Pooling/config.json"))
    change_json(pooling, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)


def other_words(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {word: -number for word, number in tokenizer["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def another_length(folder: Path) -> None:
    change_json(folder / "sentence_bert_config.json", max_seq_length=7)


def other_type(folder: Path) -> None:
    state = {name: value.to(torch.float16) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (other_name, []),
        (two_shards, []),
        (other_weights, ["weights"]),
        (other_type, ["weights"]),
        (other_prompt, ["prompts"]),
        (other_pooling, ["pooling"]),
        (other_words, ["tokenizer"]),
        (another_length, ["architecture"]),
    ],
)
def test_a_model_is_told_by_its_content(folder: Path, tmp_path: Path, change: Callable[[Path], None], differ: list[str]) -> None:
    copy = tmp_path / "another name"
    shutil.copytree(folder, copy)
    before = model_marks(folder)
    change(copy)
    after = model_marks(copy)
    assert [name for name in before if before[name] != after[name]] == differ


@pytest.mark.slow
def test_weights_that_were_cut_off_are_no_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    whole = file.read_bytes()
    for data in (whole[:-100], whole[:40], b""):
        file.write_bytes(data)
        with pytest.raises(ArtifactError, match="cut off"):
            model_marks(tmp_path / "copy")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file of one"):
        model_marks(tmp_path)


def test_a_re_ranker_beside_a_model_makes_it_no_other_model(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert reranker_mark(copy) is None
    shutil.copytree(folder, copy / "reranker")
    assert model_marks(copy) == model_marks(folder)
    before = reranker_mark(copy)
    other_prompt(copy / "reranker")
    assert before not in (None, reranker_mark(copy))
