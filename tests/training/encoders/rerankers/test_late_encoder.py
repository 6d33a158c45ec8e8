"""Late interaction: MaxSim against a slow reference, the library's own scores, masks, expansion, a new projection, LoRA."""

from __future__ import annotations

import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ConfigError
from training.encoders.lora import add_lora
from training.encoders.prepare.late import prepare_late
from training.encoders.prepare.reranker import prepare_reranker
from training.encoders.rerankers.late_encoder import LateEncoder, LateTokenizer, is_late, open_late
from training.encoders.rerankers.load import load_reranker
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.features import Tokens
from training.engine.budget import probe_budget
from training.settings import LoraSettings

QUERIES = ["a red shoe", "fox", "a b c d e f g h i j k l m n o p", "", "fox"]
ITEMS = ["the quick brown fox", "!!! (,) .", "a, b; c! " * 5, "x", "a red fox, quick"]


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT that knows letters and signs, without dropout."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("body")
    letters = [*string.ascii_lowercase, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = BertConfig(vocab_size=len(words), max_position_embeddings=64, initializer_range=0.5, **sizes, **none)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def late(body: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It with a new projection."""
    folder = tmp_path_factory.mktemp("late")
    assert prepare_late(body, folder, seed=5)
    return folder


def pairs_of(encoder: LateEncoder) -> Tokens:
    tokenizer, rows = LateTokenizer(encoder.model), np.arange(len(QUERIES))
    return tokenizer.template.join(tokenizer.queries(QUERIES), tokenizer(ITEMS), rows, rows)


def ours(folder: Path, budget: int | None = None) -> list[float]:
    encoder = LateEncoder.load(folder)
    return encoder.encode(pairs_of(encoder), budget_tokens=budget)[:, 0].tolist()


def theirs(folder: Path) -> list[float]:
    model = open_late(folder)
    return model.similarity_pairwise(model.encode_query(QUERIES), model.encode_document(ITEMS)).tolist()


def by_hand(folder: Path) -> list[float]:
    """MaxSim of each pair alone, token by token: no padding, and of items neither signs nor anything else that is masked."""
    model = open_late(folder)
    scores = []
    for query, item in zip(QUERIES, ITEMS, strict=True):
        vectors, signs = [], set(model.tokenizer.convert_tokens_to_ids(list(string.punctuation)))
        for text, skipped in ((query, set()), (item, signs)):
            ids = model.tokenizer(text)["input_ids"]
            with torch.no_grad():
                hidden = model[0].model(input_ids=torch.tensor([ids])).last_hidden_state[0]
                projected = hidden @ model[1].linear.weight.T
            rows = [row / row.norm() for row, token in zip(projected, ids, strict=True) if token not in skipped]
            vectors.append(rows)
        asked, shown = vectors
        scores.append(sum(max(float(one @ other) for other in shown) for one in asked))
    return scores


@pytest.mark.parametrize("budget", [None, 40, 100_000])
def test_scores_are_maxsim_worked_out_by_hand_whatever_is_padded_together(late: Path, budget: int | None) -> None:
    assert ours(late, budget) == pytest.approx(by_hand(late), abs=1e-5)
    assert ours(late, budget) == pytest.approx(theirs(late), abs=1e-5)


@pytest.mark.parametrize(
    "expansion",
    [
        {"strategy": "fixed", "length": 8},
        {"strategy": "fixed", "length": 8, "attend": True},
        {"strategy": "min", "length": 8},
        {"strategy": "min", "length": 8, "attend": True, "token": "[UNK]"},
    ],
)
def test_queries_that_are_filled_up_and_marked_score_as_in_the_library(
    late: Path, tmp_path: Path, expansion: dict[str, Any]
) -> None:
    model = open_late(late)
    model[0].query_length = None
    model[0].query_expansion, model[0].document_length = expansion, 12
    model.prompts = {"query": "q ", "document": "d "}
    model.save(str(tmp_path / "source"), create_model_card=False)
    assert not prepare_late(tmp_path / "source", tmp_path / "made")
    assert ours(tmp_path / "made", 60) == pytest.approx(theirs(tmp_path / "source"), abs=1e-5)
    assert ours(tmp_path / "made") != pytest.approx(ours(late), abs=1e-2)


def test_a_checkpoint_of_stanford_keeps_its_markers_its_expansion_and_its_skiplist(body: Path, tmp_path: Path) -> None:
    weights = load_file(body / "model.safetensors")
    shutil.copytree(body, tmp_path / "source")
    projection = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    save_file(
        {f"bert.{name}": value for name, value in weights.items()} | {"linear.weight": projection},
        tmp_path / "source/model.safetensors",
    )
    write_json(tmp_path / "source/config.json", read_json(body / "config.json") | {"architectures": ["HF_ColBERT"]})
    own = {"query_token_id": "q", "doc_token_id": "d", "query_maxlen": 9, "doc_maxlen": 14, "mask_punctuation": True}
    write_json(tmp_path / "source/artifact.metadata", own)
    assert not prepare_late(tmp_path / "source", tmp_path / "made")
    assert ours(tmp_path / "made") == pytest.approx(theirs(tmp_path / "source"), abs=1e-5)
    tokenizer = LateTokenizer(open_late(tmp_path / "made"))
    assert tokenizer(["a " * 30]).lengths.tolist() == [14]
    assert (
        LateEncoder.load(tmp_path / "made").collate(pairs_of(LateEncoder.load(tmp_path / "made")))["query_input_ids"].shape[1]
        == 9
    )


def test_a_body_gets_the_same_new_projection_every_time_and_items_are_cut_at_the_length_that_is_set(
    body: Path, late: Path, tmp_path: Path
) -> None:
    prepare_late(body, tmp_path / "again", seed=5)
    prepare_late(body, tmp_path / "other", seed=6)
    assert ours(tmp_path / "again") == ours(late) != ours(tmp_path / "other")
    assert not prepare_late(late, tmp_path / "short", max_length=8)
    tokenizer = LateTokenizer(open_late(tmp_path / "short"))
    assert tokenizer(["a b c d e f g h i j k"]).lengths.tolist() == [8]
    with pytest.raises(ConfigError, match=r"reranker\.max_length = 65 is more than the 64 tokens"):
        prepare_late(body, tmp_path / "long", max_length=65)


def test_the_gradient_is_that_of_each_pair_alone(late: Path) -> None:
    def gradient(rows: list[list[int]]) -> torch.Tensor:
        encoder = LateEncoder.load(late)
        pairs, total = pairs_of(encoder), torch.zeros(())
        for some in rows:
            total = total + (encoder(encoder.collate(pairs.take(np.array(some))))[:, 0] * (torch.tensor(some) + 1.0)).sum()
        total.backward()
        return torch.cat([each.grad.flatten() for each in encoder.parameters() if each.grad is not None])

    together, alone = gradient([[0, 1, 2, 3, 4]]), gradient([[0], [1], [2], [3], [4]])
    assert float((together - alone).norm() / alone.norm()) < 1e-5
    assert float(alone.norm()) > 0


def test_how_many_tokens_are_read_at_once_is_found_by_a_trial(late: Path) -> None:
    encoder = LateEncoder.load(late)
    assert probe_budget(encoder, pairs_of(encoder), candidates=(20, 40), repeats=1) in (20, 40)


def test_lora_trains_the_projection_whole_and_leaves_a_plain_model(late: Path, tmp_path: Path) -> None:
    encoder = add_lora(LateEncoder.load(late), LoraSettings(rank=2), load_reranker)
    assert isinstance(encoder, LateEncoder)
    trained = {name for name, parameter in encoder.model.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if ".lora_" not in name} == encoder.head == {"1.linear.weight"}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    encoder.save(tmp_path / "kept", dict(encoder.state_dict()))
    want = encoder.encode(pairs_of(encoder))[:, 0].tolist()
    assert ours(tmp_path / "kept") == pytest.approx(want, abs=1e-5)
    assert theirs(tmp_path / "kept") == pytest.approx(want, abs=1e-5)
    assert want != pytest.approx(ours(late), abs=1e-2)


def test_each_kind_of_re_ranker_is_told_by_its_folder_and_refused_as_the_other(
    late: Path, cross_encoder: Path, tmp_path: Path
) -> None:
    assert (is_late(late), is_late(cross_encoder)) == (True, False)
    assert type(load_reranker(cross_encoder)).__name__ == "PairEncoder"
    with pytest.raises(ConfigError, match=r'found a model of late interaction in .*set reranker\.kind = "late_interaction"'):
        prepare_reranker(late, tmp_path / "made")
    broken = Path(shutil.copytree(late, tmp_path / "broken"))
    model = open_late(broken)
    with torch.no_grad():
        model[1].linear.weight.fill_(float("nan"))
    model.save(str(broken), create_model_card=False)
    with pytest.raises(ConfigError, match="weights are damaged"):
        prepare_late(broken, tmp_path / "never")
