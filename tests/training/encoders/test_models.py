"""Every kind of model either gives the vectors of sentence-transformers, before and after training, or is refused with the
reason before anything is computed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from cluster.errors import ConfigError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import lists_to_csr
from tests.support.model_kinds import BERT, KINDS, ST, half
from tests.support.tiny_models import SMALL, TEXTS, Kind, encoder_folder, measure, ours, pipeline, plain
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.prepare.new_static import MOST_LETTERS
from training.encoders.prepare.prepare import build_base
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.tokenizer import Tokenizer, read_prompts
from training.encoders.transformer import TransformerEncoder
from training.engine.engine import Place
from training.feed.feed import Pack
from training.rank.forward import Pass
from training.settings import EncoderSettings

pytestmark = pytest.mark.slow

WORKING = [kind for kind in KINDS if not kind.refused]
REFUSED = [kind for kind in KINDS if kind.refused]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("kind", WORKING, ids=lambda kind: kind.name)
def test_a_kind_of_model_gives_the_vectors_of_sentence_transformers(kind: Kind, tmp_path: Path) -> None:
    figures = measure(kind, tmp_path)
    assert min(figures.values()) >= 0.9999, figures


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.name)
def test_a_kind_of_model_is_refused_with_the_reason(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        encoder_folder(kind, tmp_path)
    message = str(caught.value)
    assert kind.refused in message
    assert "\n" not in message
    assert len(message) < 1000
    assert "weights_only" not in message, "torch's advice to load it unsafely"


def loaded(kind: Kind, folder: Path) -> tuple[Encoder, Path, EncoderSettings]:
    _, base, settings = encoder_folder(kind, folder)
    return load_encoder(base), base, settings


@pytest.mark.parametrize("name", ["RoBERTa, 66 positions", "MPNet, 66 positions"])
def test_a_text_is_cut_where_the_positions_behind_the_padding_end(name: str, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    _, base, settings = loaded(kind, tmp_path)
    assert len(Tokenizer(base, settings)(["dog " * 200], "")[0]) == 64


def test_a_longer_length_than_the_models_own_is_taken_up_to_its_positions(tmp_path: Path) -> None:
    short = plain("Bert", **SMALL, max_position_embeddings=48, tokenizer={"model_max_length": 16})
    _, base, settings = loaded(Kind("", short, {"max_length": 40}), tmp_path)
    assert len(Tokenizer(base, settings)(["dog " * 200], "")[0]) == 40


def test_all_parameters_are_float32_whatever_the_files_hold(tmp_path: Path) -> None:
    encoder, base, _ = loaded(Kind("", half(ST, torch.bfloat16)), tmp_path)
    assert {value.dtype for value in load_file(base / "2_Dense" / "model.safetensors").values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_the_vector_of_a_text_does_not_depend_on_its_batch_under_left_padding_and_cls_pooling(tmp_path: Path) -> None:
    left = pipeline(plain("Bert", **SMALL, max_position_embeddings=64, tokenizer={"padding_side": "left"}), pooling="cls")
    encoder, base, settings = loaded(Kind("", left), tmp_path)
    texts = ["dog cat", "quick fox " * 30]
    alone, together = (ours(encoder, base, settings, texts, "", alone=alone) for alone in (True, False))
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_prompt_tokens_that_are_not_pooled_still_change_the_vector(tmp_path: Path) -> None:
    source = pipeline(BERT, include_prompt=False, prompts={"query": "find: the quick "})
    encoder, base, settings = loaded(Kind("", source), tmp_path)
    query = ours(encoder, base, settings, TEXTS, read_prompts(base, settings).query, alone=True)
    assert (query * ours(encoder, base, settings, TEXTS, "", alone=True)).sum(axis=1).max() < 0.9999


# texts of which a model reads nothing

LONG_WORD = "x" * 150_000
NOTHING = ["", " ", "\n\t", "\x00\x01\x02", "\u200b\ufeff", "🙂🙂", "ж"]
SOMETHING = ["dog", "北京", "🙂 dog", LONG_WORD, "the " * 40_000]


@pytest.mark.parametrize("kind", ["static", "transformer"])
@pytest.mark.parametrize("prompt", ["", "find: "])
def test_texts_of_which_nothing_is_read_are_told_from_others_alike_by_all_kinds(kind: Any, prompt: str, tmp_path: Path) -> None:
    if kind == "static":
        settings = EncoderSettings(kind="static", dimension=8, vocabulary=300)
        words = ["the dog", "the dog", "北京", "北京", "x x", "xxx xxx", "find: it", "find: it"]
        base = build_base(settings, StorageSettings(), words, 0, tmp_path / "static")
    else:
        _, base, settings = loaded(Kind("", BERT), tmp_path)
    tokenizer = Tokenizer(base, settings)
    texts = [*NOTHING, *SOMETHING]
    if kind == "transformer":
        texts.remove(LONG_WORD)  # for WordPiece a word of more than 100 letters is an unknown one
    blank = tokenizer.blank(tokenizer(texts, prompt), prompt)
    assert blank.tolist() == [text in NOTHING for text in texts]


def test_a_prompt_that_is_not_pooled_is_no_token_of_the_text(tmp_path: Path) -> None:
    _, base, settings = loaded(Kind("", pipeline(BERT, include_prompt=False, prompts={"query": "the quick "})), tmp_path)
    tokenizer = Tokenizer(base, settings)
    assert tokenizer.blank(tokenizer([" ", "dog"], "the quick "), "the quick ").tolist() == [True, False]


def test_text_without_any_token_has_a_finite_vector_of_unit_length(tmp_path: Path) -> None:
    source = plain("GPT2", n_embd=32, n_layer=2, n_head=4, n_positions=48, tokenizer={"template": "$A"})
    encoder, base, settings = loaded(Kind("", source), tmp_path)
    vectors = ours(encoder, base, settings, ["", "dog", "dog cat red"], "", alone=False)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_tokenizer_is_trained_on_a_long_word_in_seconds_and_the_same_every_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dna = "".join(rng.choice(list("ACGT"), 2_000_000))
    settings = EncoderSettings(kind="static", dimension=8, vocabulary=1000)
    started = time.process_time()
    for name in ("one", "two"):
        build_base(settings, StorageSettings(), [dna, "a dog", "a dog"], 0, tmp_path / name)
    assert time.process_time() - started < 20
    first, second = ((tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "two"))
    assert first == second
    tokenizer = Tokenizer(tmp_path / "one", settings)
    tokens = tokenizer([dna[: 3 * MOST_LETTERS]], "")
    assert not tokenizer.blank(tokens, "").any(), "a long word is read piece by piece"


# what is left behind


@pytest.mark.parametrize("name", ["BERT", "weights cut off", "custom_st.Transformer", "pickle with code"])
def test_no_temporary_folder_is_left_behind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(kind for kind in KINDS if kind.name == name)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    try:
        encoder_folder(kind, tmp_path / "scratch")
    except ConfigError:
        assert kind.refused
    assert not list((tmp_path / "temporary").iterdir())


class Bare:
    """What `Pass` asks of DeepSpeed's engine, without DeepSpeed."""

    def __init__(self, module: Encoder) -> None:
        self.module = module

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        vectors: torch.Tensor = self.module(inputs)
        return vectors

    def zero_optimization_stage(self) -> int:
        return 1


@pytest.mark.parametrize("cached", [True, False])
def test_a_training_step_leaves_the_prompt_out_of_pooling_as_embedding_does(cached: bool, tmp_path: Path) -> None:
    source = pipeline(BERT, include_prompt=False, prompts={"query": "find: the quick "})
    encoder, base, settings = loaded(Kind("", source), tmp_path)
    assert isinstance(encoder, TransformerEncoder)
    tokenizer, prompt = Tokenizer(base, settings), read_prompts(base, settings).query
    offsets, values = lists_to_csr(pa.chunked_array([tokenizer(TEXTS, prompt), tokenizer(TEXTS, "")]))
    tokens = Tokens(offsets, values.astype(np.int32))  # queries and items in one pack
    encoder.find_token_table()
    assert encoder.token_table is not None
    packs = [Pack(rows, encoder.collate(tokens.take(rows)), 0) for rows in (np.arange(6), np.arange(6, 10))]
    got = Pass(Bare(encoder.eval()), packs, Place(0, 1, torch.device("cpu"), False), cached=cached).forward()
    np.testing.assert_allclose(got.detach().numpy(), encoder.encode(tokens), atol=1e-5)
