"""A cross-encoder as a teacher: what is taken for one, and that it reads pairs as sentence-transformers does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.storage.model_folders import upload_folder
from cluster.storage.store import Store
from training.encoders.cross_encoder import REPORT_EVERY, MakeCrossEncoder, check_reads_pairs, copy_cross_encoder, read_sorted

QUERIES = [f"query {'x' * (n % 7)} {n}" for n in range(40)]
ITEMS = [f"item {n} {'long words ' * (n % 5)}" for n in range(40)]


def folder_with(folder: Path, config: dict[str, Any], modules: Sequence[str] = ()) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for n in range(1, len(modules)):
        (folder / f"{n}").mkdir()
    if modules:
        (folder / "modules.json").write_text(
            json.dumps(
                [
                    {"idx": n, "name": str(n), "path": "" if n == 0 else f"{n}", "type": f"sentence_transformers.models.{name}"}
                    for n, name in enumerate(modules)
                ]
            )
        )
    return folder


# what is a cross-encoder


@pytest.mark.parametrize(
    ("config", "modules", "says"),
    [
        ({"architectures": ["BertModel"]}, (), r"found BertModel.*kind = \"encoder\""),
        ({"architectures": ["BertModel"]}, ("Transformer", "Pooling"), r"an embedding model.*Transformer, Pooling.*\"encoder\""),
        ({}, ("StaticEmbedding",), "an embedding model"),
        ({}, (), "a model of no architecture"),
        ({"architectures": None}, ("Transformer",), "a model of no architecture"),
    ],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, config: dict[str, Any], modules: Sequence[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_reads_pairs(folder_with(tmp_path / "m", config, modules))


@pytest.mark.parametrize(
    ("config", "modules"),
    [
        ({"architectures": ["XLMRobertaForSequenceClassification"]}, ()),
        ({"architectures": ["Qwen3ForCausalLM"]}, ("Transformer", "LogitScore")),
        ({"architectures": ["ModernBertModel"]}, ("Transformer", "Dense")),
    ],
)
def test_what_scores_pairs_is_accepted(tmp_path: Path, config: dict[str, Any], modules: Sequence[str]) -> None:
    check_reads_pairs(folder_with(tmp_path / "m", config, modules))


@pytest.mark.slow
def test_a_copy_reads_pairs_as_the_original_does(cross_encoder: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    copied = tmp_path / "copied"
    copy_cross_encoder(cross_encoder, 32, copied)
    store = Store(str(tmp_path))
    files = upload_folder(copied, store, "teacher/model")
    reader = MakeCrossEncoder(store, files, "teacher/model", 1, False, False, 32)()
    want = CrossEncoder(str(cross_encoder), max_length=32, device="cpu").predict(
        list(zip(QUERIES, ITEMS, strict=True)), batch_size=1, show_progress_bar=False
    )
    got = reader(QUERIES, ITEMS, lambda pairs: None)
    assert np.ptp(want) > 0.1, "the pairs differ"
    np.testing.assert_allclose(got, want, atol=1e-6)
    halved = MakeCrossEncoder(store, files, "teacher/model", 1, False, True, 32)()(QUERIES, ITEMS, lambda pairs: None)
    np.testing.assert_allclose(halved, want, atol=0.1)
    assert not np.array_equal(halved, got)


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_scores_near_one_are_told_apart_in_bfloat16(cross_encoder: Path, tmp_path: Path, stored: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    sure = Path(shutil.copytree(cross_encoder, tmp_path / "sure"))
    weights = load_file(sure / "model.safetensors")
    weights["classifier.bias"] += 10.0
    save_file(
        {name: value.to(getattr(torch, stored)) for name, value in weights.items()},
        sure / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((sure / "config.json").read_text())
    (sure / "config.json").write_text(json.dumps(config | {"dtype": stored}))
    copied, store = tmp_path / "copied", Store(str(tmp_path))
    copy_cross_encoder(sure, 32, copied)
    files = upload_folder(copied, store, "teacher/model")
    reader = MakeCrossEncoder(store, files, "teacher/model", 1, False, True, 32)()
    scores = reader(QUERIES, ITEMS, lambda pairs: None)
    assert scores.min() > 0.99
    different = len({*zip(QUERIES, ITEMS, strict=True)})
    assert len(np.unique(scores)) > 0.5 * different, "a sigmoid in bfloat16 knows no more than 0.9922, 0.9961 and 1"


@pytest.mark.slow
def test_weights_that_are_pickles_are_kept_as_safetensors(cross_encoder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    source = Path(shutil.copytree(cross_encoder, tmp_path / "old"))
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    copied = tmp_path / "copied"
    copy_cross_encoder(source, None, copied)
    assert not list(copied.rglob("*.bin"))
    kept, want = load_file(copied / "model.safetensors"), load_file(cross_encoder / "model.safetensors")
    assert kept.keys() == want.keys()
    assert all(torch.equal(kept[name], want[name]) for name in want)


@pytest.mark.slow
def test_classes_too_many_tokens_and_damaged_weights_are_told_at_once(cross_encoder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import BertForSequenceClassification

    with pytest.raises(ConfigError, match=r"max_length = 65 is more than the 64 tokens"):
        copy_cross_encoder(cross_encoder, 65, tmp_path / "copy-65")
    classes = Path(shutil.copytree(cross_encoder, tmp_path / "classes"))
    BertForSequenceClassification.from_pretrained(cross_encoder, num_labels=3, ignore_mismatched_sizes=True).save_pretrained(
        classes
    )
    with pytest.raises(ConfigError, match="a classifier of 3 classes"):
        copy_cross_encoder(classes, None, tmp_path / "copy-classes")
    damaged = Path(shutil.copytree(cross_encoder, tmp_path / "damaged"))
    weights = load_file(damaged / "model.safetensors")
    weights["classifier.weight"] = torch.full_like(weights["classifier.weight"], float("nan"))
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="gives nan for a pair"):
        copy_cross_encoder(damaged, None, tmp_path / "copy-damaged")


# batches


class Lengths:
    """A "model" whose score is the pair's length; out of memory for more than `fits` pairs at once."""

    def __init__(self, fits: int = 1000) -> None:
        self.fits, self.batches = fits, list[list[int]]()

    def predict(self, pairs: list[tuple[str, str]], *, batch_size: int, show_progress_bar: bool) -> Any:
        import torch

        if batch_size > self.fits:
            raise torch.cuda.OutOfMemoryError("out of memory")
        lengths = [len(query) + len(item) for query, item in pairs]
        self.batches += [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
        return np.array(lengths, np.float32)


def read(model: Lengths, batch: int, report: Callable[[int], None] = lambda pairs: None) -> Any:
    return read_sorted(model, QUERIES, ITEMS, batch, report)


@pytest.mark.parametrize("batch", [1, 3, 40, 64])
def test_batches_hold_pairs_of_like_length_and_scores_keep_their_order(batch: int) -> None:
    model = Lengths()
    scores = read(model, batch)
    assert scores.tolist() == [len(query) + len(item) for query, item in zip(QUERIES, ITEMS, strict=True)]
    assert [length for some in model.batches for length in some] == sorted(scores.tolist(), reverse=True)
    assert max(map(len, model.batches)) == min(batch, 40)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    model = Lengths(fits=5)
    assert read(model, 32).tolist() == read(Lengths(), 32).tolist()
    assert {len(batch) for batch in model.batches} == {4}
    with pytest.raises(Exception, match="out of memory"):
        read(Lengths(fits=0), 4)


def test_progress_counts_pairs() -> None:
    told: list[int] = []
    read(Lengths(), 1, told.append)
    assert told == [REPORT_EVERY, 40]
