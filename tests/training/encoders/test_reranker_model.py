"""The model that a re-ranker starts from: a cross-encoder as it is, a body with a new head, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.errors import ConfigError
from training.encoders.lora import add_lora
from training.encoders.prepare.reranker import prepare_reranker
from training.encoders.rerankers.pair_encoder import IDENTITY, PairEncoder, activation_of, set_activation
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.pairs import PairTokenizer
from training.settings import LoraSettings

QUERIES, ITEMS = ["ab c", "d", "xyz xyz xyz"], ["c d e", "f g h i j k", "x"]


def logits(folder: Path) -> list[float]:
    tokenizer, rows = PairTokenizer(folder), np.arange(len(QUERIES))
    pairs = tokenizer.template.join(tokenizer(QUERIES), tokenizer(ITEMS), rows, rows)
    return PairEncoder.load(folder).encode(pairs)[:, 0].tolist()


@pytest.fixture(scope="module")
def body(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without its head."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path_factory.mktemp("body")
    AutoModel.from_pretrained(str(cross_encoder)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(cross_encoder)).save_pretrained(folder)
    return folder


def test_a_cross_encoder_is_copied_and_cut_at_the_length_that_is_set(cross_encoder: Path, tmp_path: Path) -> None:
    assert not prepare_reranker(cross_encoder, tmp_path, max_length=12)
    assert logits(tmp_path)[:2] == pytest.approx(logits(cross_encoder)[:2], abs=1e-6)
    assert PairTokenizer(tmp_path).template.max_length == 12
    prepare_reranker(cross_encoder, tmp_path / "usual")
    assert PairTokenizer(tmp_path / "usual").template.max_length == 64, "as many as it has positions"


def test_a_body_gets_the_same_new_head_every_time(body: Path, tmp_path: Path) -> None:
    assert prepare_reranker(body, tmp_path / "one", seed=3)
    prepare_reranker(body, tmp_path / "two", seed=3)
    prepare_reranker(body, tmp_path / "other", seed=4)
    assert logits(tmp_path / "one") == logits(tmp_path / "two") != logits(tmp_path / "other")


@pytest.mark.slow
def test_an_embedding_model_gets_a_head(body: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    first = Transformer(str(body), max_seq_length=8)
    model = SentenceTransformer(modules=[first, Pooling(first.get_embedding_dimension()), Normalize()], device="cpu")
    model.save(str(tmp_path / "embedding"), create_model_card=False)
    assert prepare_reranker(tmp_path / "embedding", tmp_path / "made")
    assert PairTokenizer(tmp_path / "made").template.max_length == 64, "its own limit of 8 tokens is that of one text"
    theirs = CrossEncoder(str(tmp_path / "made"), device="cpu")
    want = theirs.predict(list(zip(QUERIES, ITEMS, strict=True)), activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert logits(tmp_path / "made") == pytest.approx(want.tolist(), abs=1e-5)


def test_the_activation_that_is_set_is_the_folder_s(cross_encoder: Path, tmp_path: Path) -> None:
    prepare_reranker(cross_encoder, tmp_path)
    assert type(activation_of(tmp_path)).__name__ == "Sigmoid"
    set_activation(tmp_path, IDENTITY)
    assert type(activation_of(tmp_path)).__name__ == "Identity"
    assert json.loads((tmp_path / "config.json").read_text())["sentence_transformers"]["activation_fn"] == IDENTITY
    write_json(tmp_path / "config_sentence_transformers.json", {"activation_fn": "own.code.Activation"})
    assert type(activation_of(tmp_path)).__name__ == "Sigmoid", "code of the model's own is not run"


def test_what_cannot_be_trained_is_refused_in_one_paragraph(cross_encoder: Path, tmp_path: Path) -> None:
    def refused(name: str, changes: dict[str, object], file: str = "config.json") -> str:
        folder = Path(shutil.copytree(cross_encoder, tmp_path / name))
        write_json(folder / file, (read_json(folder / file) if (folder / file).exists() else {}) | changes)
        with pytest.raises(ConfigError) as raised:
            prepare_reranker(folder, tmp_path / f"{name}-made")
        return str(raised.value)

    with pytest.raises(ConfigError, match=r"reranker\.max_length = 65 is more than the 64 tokens"):
        prepare_reranker(cross_encoder, tmp_path / "long", max_length=65)
    assert "has code of its own" in refused("code", {"auto_map": {"AutoModel": "own.Model"}})
    assert "an adapter of peft" in refused("adapter", {"base_model_name_or_path": "x"}, "adapter_config.json")
    assert "puts a prompt before its pairs" in refused(
        "prompt", {"prompts": {"query": "q: "}, "default_prompt_name": "query"}, "config_sentence_transformers.json"
    )
    labels = {str(number): f"LABEL_{number}" for number in range(3)}
    from transformers import BertForSequenceClassification

    classes = Path(shutil.copytree(cross_encoder, tmp_path / "classes"))
    BertForSequenceClassification.from_pretrained(
        cross_encoder, num_labels=len(labels), ignore_mismatched_sizes=True
    ).save_pretrained(classes)
    with pytest.raises(ConfigError, match="a classifier of 3 classes"):
        prepare_reranker(classes, tmp_path / "classes-made")


def test_lora_trains_the_head_whole_and_leaves_a_plain_model(cross_encoder: Path, tmp_path: Path) -> None:
    prepare_reranker(cross_encoder, tmp_path / "base")
    encoder = add_lora(PairEncoder.load(tmp_path / "base"), LoraSettings(rank=2), PairEncoder.load)
    assert isinstance(encoder, PairEncoder)
    trained = {name for name, parameter in encoder.model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == encoder.head
    assert "classifier.weight" in encoder.head
    assert not any(".lora_" in name and ("pooler" in name or "classifier" in name) for name in trained)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    (tmp_path / "kept").mkdir()
    encoder.save(tmp_path / "kept", dict(encoder.state_dict()))
    tokenizer, rows = PairTokenizer(tmp_path / "base"), np.arange(len(QUERIES))
    pairs = tokenizer.template.join(tokenizer(QUERIES), tokenizer(ITEMS), rows, rows)
    assert logits(tmp_path / "kept") == pytest.approx(encoder.encode(pairs)[:, 0].tolist(), abs=1e-5)
    assert logits(tmp_path / "kept") != pytest.approx(logits(tmp_path / "base"), abs=1e-2)
