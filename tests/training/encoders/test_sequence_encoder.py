"""The sequence encoder: what a history's order, length and company do to its vector, and what is trained and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from cluster.errors import ArtifactError, DataError
from cluster.tables.tables import F32, offsets_of
from training.encoders.load import load_encoder
from training.encoders.sequence import TABLE, SequenceEncoder, history_tokens, item_tokens, new_sequence_folder
from training.encoders.tokens.features import Tokens, Vectors

ITEMS, DIMENSION = 30, 16
TOLERANCE = 1e-5


@pytest.fixture
def vectors() -> F32:
    return np.random.default_rng(0).standard_normal((ITEMS, DIMENSION), dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path, vectors: F32) -> Path:
    new_sequence_folder(tmp_path / "new", vectors, [f"i{row}" for row in range(ITEMS)], hidden=12, max_length=8, seed=1)
    return tmp_path / "new"


@pytest.fixture
def encoder(folder: Path) -> SequenceEncoder:
    """An encoder whose GRU has a say: after some training its output layer is no longer zero."""
    found = load_encoder(folder)
    assert isinstance(found, SequenceEncoder)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for layer in (found.out, found.items.down):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return found


def queries(*histories: list[int], max_length: int = 8) -> Tokens:
    rows = np.array([row for history in histories for row in history], np.int64)
    return history_tokens(offsets_of(np.array([len(history) for history in histories])), rows, max_length)


def test_a_history_is_a_marker_and_its_newest_items() -> None:
    tokens = queries([4, 0, 9], [7], [1, 2, 3, 4, 5], max_length=3)
    assert [tokens.values[a:b].tolist() for a, b in zip(tokens.offsets, tokens.offsets[1:], strict=False)] == [
        [0, 5, 1, 10],
        [0, 8],
        [0, 4, 5, 6],
    ]
    assert item_tokens(3, 2).values.tolist() == [4, 5]


def test_the_order_of_a_history_matters(encoder: SequenceEncoder) -> None:
    ab, ba = encoder.encode(queries([3, 11, 5], [5, 11, 3]))
    assert np.abs(ab - ba).max() > 1e-3


def test_neither_padding_nor_company_changes_a_vector(encoder: SequenceEncoder) -> None:
    histories = [[3, 11, 5], [7], [1, 2, 3, 4, 5, 6, 7, 8], [9, 9]]
    together = encoder.encode(queries(*histories), budget_tokens=10_000)
    alone = np.concatenate([encoder.encode(queries(history)) for history in histories])
    assert np.abs(together - alone).max() < TOLERANCE
    mixed = {
        name: torch.from_numpy(value)
        for name, value in {
            "input_ids": np.array([[5, 0, 0, 0], [0, 4, 12, 6], [0, 8, 0, 0], [30, 0, 0, 0]]),
            "attention_mask": np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]),
        }.items()
    }
    with torch.inference_mode():
        found = encoder(mixed).numpy()
    want = np.stack([encoder.encode(item_tokens(4, 1))[0], alone[0], alone[1], encoder.encode(item_tokens(29, 1))[0]])
    assert np.abs(found - want).max() < TOLERANCE


def test_what_is_cut_of_a_long_history_is_the_oldest(encoder: SequenceEncoder) -> None:
    long = [f"i{row}" for row in range(20)]
    of_long, of_newest, of_oldest = (encoder.encode(encoder.read([history])) for history in (long, long[-8:], long[:8]))
    assert np.abs(of_long - of_newest).max() < TOLERANCE
    assert np.abs(of_long - of_oldest).max() > 1e-3


def test_an_untrained_encoder_is_the_mean_of_the_history_with_more_weight_on_what_came_last(folder: Path, vectors: F32) -> None:
    encoder = load_encoder(folder)
    history = [3, 11, 5]
    base = functional.normalize(torch.from_numpy(vectors), dim=-1)
    items = functional.normalize(functional.layer_norm(base, [DIMENSION]), dim=-1)
    weights = torch.tensor([0.49, 0.7, 1.0]) / 2.19
    want = functional.normalize(functional.layer_norm(weights @ items[history], [DIMENSION]), dim=-1).numpy()
    # the table holds 11 bits of each number
    assert np.abs(encoder.encode(queries(history))[0] - want).max() < 2e-3
    assert np.abs(encoder.encode(item_tokens(0, ITEMS)) - items.numpy()).max() < 2e-3


def test_all_vectors_have_unit_length(encoder: SequenceEncoder) -> None:
    found = np.concatenate([encoder.encode(item_tokens(0, ITEMS)), encoder.encode(queries([1, 2], [3]))])
    assert found.dtype == np.float32
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < TOLERANCE


def test_an_item_that_came_later_needs_only_its_base_vector(encoder: SequenceEncoder, vectors: F32) -> None:
    assert np.abs(encoder.items.encode(Vectors(vectors[:5])) - encoder.encode(item_tokens(0, 5))).max() < 2e-3


def test_a_saved_encoder_gives_the_same_vectors(encoder: SequenceEncoder, tmp_path: Path) -> None:
    state = {name: value.detach().clone() for name, value in encoder.state_dict().items()}
    assert not any("table" in name for name in state), "the table is no weight: no checkpoint should hold it"
    (tmp_path / "saved").mkdir()
    encoder.save(tmp_path / "saved", state)
    again = load_encoder(tmp_path / "saved")
    features = queries([3, 11, 5], [7])
    assert np.array_equal(again.encode(features), encoder.encode(features))
    assert np.array_equal(again.encode(item_tokens(0, ITEMS)), encoder.encode(item_tokens(0, ITEMS)))


def test_the_gradient_reaches_every_weight_and_not_the_table(encoder: SequenceEncoder) -> None:
    table = encoder.table.clone()
    queried = encoder(encoder.collate(queries([3, 11, 5], [7, 1])))
    found = encoder(encoder.collate(item_tokens(0, ITEMS)))
    functional.cross_entropy(queried @ found.T / 0.05, torch.tensor([4, 9])).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    optimizer.step()
    assert not encoder.table.requires_grad
    assert torch.equal(encoder.table, table)


@pytest.mark.parametrize("features", [item_tokens(0, 3), queries([1, 2])], ids=["items", "queries"])
def test_every_backward_pass_has_a_gradient_for_every_weight(encoder: SequenceEncoder, features: Tokens) -> None:
    encoder(encoder.collate(features)).sum().backward()  # a pass over items alone: zeros for the GRU, but not nothing
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_bfloat16_weights_give_nearly_the_same_vectors(encoder: SequenceEncoder) -> None:
    features = queries([3, 11, 5], [7])
    want = encoder.encode(features)
    found = encoder.bfloat16().encode(features)
    assert found.dtype == np.float32
    assert (found * want).sum(axis=1).min() > 0.999


def test_histories_that_cannot_be_read_are_refused(encoder: SequenceEncoder) -> None:
    with pytest.raises(DataError, match=r"30 items .* found 'nobody' and 1 more"):
        encoder.read([["i1", "nobody"], ["nor me"]])
    with pytest.raises(DataError, match="found an empty history"):
        encoder.read([["i1"], []])


def test_a_table_of_another_model_is_refused(folder: Path, tmp_path: Path, vectors: F32) -> None:
    new_sequence_folder(tmp_path / "other", vectors[:10], [f"i{row}" for row in range(10)], hidden=12, max_length=8, seed=1)
    (folder / TABLE).write_bytes((tmp_path / "other" / TABLE).read_bytes())
    with pytest.raises(ArtifactError, match=r"items\.safetensors: expected base vectors of 30 items .* found \[10, 16\]"):
        load_encoder(folder)
