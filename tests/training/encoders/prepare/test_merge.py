"""Merged models: the weights are the average, the rest of the folder is the trained model's, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file

from cluster.errors import ArtifactError
from tests.support.model_kinds import BERT, dense, normalize
from tests.support.tiny_models import Kind, encoder_folder, pipeline
from training.encoders.adapter import new_adapter_folder
from training.encoders.load import load_encoder
from training.encoders.lora import add_lora
from training.encoders.prepare.merge import merge_folders
from training.encoders.static import write_static_folder
from training.settings import LoraSettings


def static(folder: Path) -> Path:
    write_static_folder(folder, "{}", torch.randn(12, 8))
    return folder


def model2vec(folder: Path) -> Path:
    """The same weights by another library's name and type."""
    static(folder)
    weights = load_tensors(folder / "model.safetensors")["embedding.weight"]
    save_file({"embeddings": weights.half()}, folder / "model.safetensors")
    return folder


def adapter(folder: Path) -> Path:
    new_adapter_folder(folder, 8, 16, 0)
    return folder


def bert(folder: Path) -> Path:
    return encoder_folder(Kind("", BERT), folder)[1]


def layers(folder: Path) -> Path:
    return encoder_folder(Kind("", pipeline(BERT, dense, normalize)), folder)[1]


def trained_from(start: Path, target: Path, lora: bool = False) -> Path:
    """A model with other weights, saved as training saves it."""
    encoder = load_encoder(start)
    if lora:
        add_lora(encoder, LoraSettings(rank=2))
    generator = torch.Generator().manual_seed(1)
    state = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in encoder.state_dict().items()
    }
    target.mkdir()
    encoder.save(target, {name: value.detach() for name, value in state.items()})
    return target


def weights_in(folder: Path) -> dict[str, np.ndarray]:
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in folder.rglob("*.safetensors")
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize(
    ("make", "lora"), [(adapter, False), (static, False), (model2vec, False), (bert, False), (bert, True), (layers, False)]
)
def test_weights_are_the_average_and_everything_else_is_the_trained_model_s(
    tmp_path: Path, make: Callable[[Path], Path], lora: bool
) -> None:
    torch.manual_seed(0)
    (tmp_path / "start").mkdir()
    start = make(tmp_path / "start")
    trained = trained_from(start, tmp_path / "trained", lora)
    same = trained_from_nothing(start, tmp_path / "same")
    cosine = merge_folders(trained, start, 0.25, tmp_path / "merged")
    first, last, merged = weights_in(same), weights_in(trained), weights_in(tmp_path / "merged")
    assert merged.keys() == last.keys()
    for name, value in merged.items():
        want = 0.75 * first[name].astype(np.float64) + 0.25 * last[name].astype(np.float64)
        assert value.dtype == last[name].dtype
        np.testing.assert_array_equal(value, want.astype(value.dtype) if want.dtype.kind == "f" else last[name])
    a, b = (np.concatenate([each[name].ravel() for name in sorted(last)]).astype(np.float64) for each in (first, last))
    assert cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    files = {path.relative_to(trained) for path in trained.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "merged") for path in (tmp_path / "merged").rglob("*") if path.is_file()}
    for path in files:
        if path.suffix != ".safetensors":
            assert (tmp_path / "merged" / path).read_bytes() == (trained / path).read_bytes()
    assert load_encoder(tmp_path / "merged").dimension == load_encoder(start).dimension


def trained_from_nothing(start: Path, target: Path) -> Path:
    """The start as training would save it."""
    encoder = load_encoder(start)
    target.mkdir()
    encoder.save(target, {name: value.detach() for name, value in encoder.state_dict().items()})
    return target


def test_the_ends_of_the_line_are_both_models_and_the_same_bytes_come_again(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    start = adapter(tmp_path / "start")
    trained = trained_from(start, tmp_path / "trained")
    for share, want in ((0.0, start), (1.0, trained)):
        merge_folders(trained, start, share, tmp_path / f"{share}")
        assert (tmp_path / f"{share}/adapter.safetensors").read_bytes() == (want / "adapter.safetensors").read_bytes()
    for name in ("one", "two"):
        merge_folders(trained, start, 0.3, tmp_path / name)
    assert (tmp_path / "one/adapter.safetensors").read_bytes() == (tmp_path / "two/adapter.safetensors").read_bytes()


def test_models_of_other_shapes_are_refused(tmp_path: Path) -> None:
    for name, hidden in (("start", 16), ("trained", 24)):
        (tmp_path / name).mkdir()
        new_adapter_folder(tmp_path / name, 8, hidden, 0)
    with pytest.raises(ArtifactError, match=r"rounds\.merge: expected weights of the same names and shapes.*down\.weight"):
        merge_folders(tmp_path / "trained", tmp_path / "start", 0.5, tmp_path / "merged")
