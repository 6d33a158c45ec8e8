"""The `sequence` encoder: next-item retrieval. A query is a history, the items that a reader met, oldest first.

    e(i) = normalise(LayerNorm(x_i + W₂ relu(W₁ x_i + b₁) + b₂))          an item: its projected base vector (`adapter`)
    q(h) = normalise(LayerNorm(√D · Σ_t w_t e(h_t) + W · GRU(√D · e(h_1), √D · e(h_2), …) + b))       W = 0 at the start

with w_t in proportion to γ^(items that came after t), γ learned: an untrained encoder ranks by the recent items of the
history, and an item that came later needs no training, only a base vector. The GRU is that of Cho et al. 2014 (arXiv
1406.1078), for sessions Hidasi et al. 2016 (arXiv 1511.06939).

Both sides are token lists: token r + 1 stands for item row r, and a query starts with QUERY. The base vectors of all items
lie in the model's folder as a table that no optimizer ever sees.

N inputs, T tokens (padded), D dimensions, Q queries among the inputs, S steps (items of a history, padded), H the
GRU's width, U distinct items.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from cluster.errors import ArtifactError, DataError
from cluster.tables.tables import F32, I64, offsets_of
from training.encoders.adapter import AdapterEncoder
from training.encoders.base import Encoder
from training.encoders.st_format import read_json, write_json
from training.encoders.tokens.features import Features, Tokens
from training.encoders.transformer import pad_tokens

QUERY = 0
"""First token of every query, and padding; item row r is token r + 1."""
DEFAULT_HISTORY = 200
"""Items of a history that are kept, the newest."""
RECENCY = 0.7
"""γ at the start: the last item has 30 % of the weight, the last five 83 %."""
CPU_BUDGET = 16_384
"""Tokens encoded at once on a CPU: each step of the GRU reads all its weights, so many histories share one."""
CONFIG, WEIGHTS, TABLE, IDS = "sequence.json", "sequence.safetensors", "items.safetensors", "items.json"


def item_tokens(first_row: int, count: int) -> Tokens:
    """The features of items first_row … first_row + count - 1."""
    return Tokens(np.arange(count + 1, dtype=np.int64), np.arange(first_row + 1, first_row + count + 1, dtype=np.int32))


def history_tokens(offsets: I64, item_rows: I64, max_length: int) -> Tokens:
    """The features of queries.

    Args:
        offsets: [N+1] where each history starts in `item_rows`.
        item_rows: item rows, oldest first.
        max_length: items kept of each history, the newest.

    Returns:
        QUERY and then the items' tokens, of N queries.
    """
    kept = np.minimum(np.diff(offsets), max_length)
    starts = offsets_of(kept + 1)
    step = np.arange(starts[-1]) - np.repeat(starts[:-1], kept + 1)  # 0 is the marker
    place = np.repeat(offsets[1:] - kept, kept + 1) + step - 1
    values = np.full(len(step), QUERY, np.int32)
    values[step > 0] = item_rows[place[step > 0]] + 1
    return Tokens(starts, values)


class SequenceEncoder(Encoder):
    """Items: a residual MLP on their base vectors. Queries: a GRU over the items of a history, added to their weighted mean."""

    kind = "sequence"
    table: Tensor

    def __init__(self, table_ND: Tensor, *, hidden: int, max_length: int, source: Path) -> None:
        """
        Args:
            table_ND: frozen base vectors of all items, of unit length, float16.
            hidden: width of the GRU's state and of the item MLP.
            source: the folder whose table and ids `save` copies.
        """
        super().__init__()
        self.dimension = int(table_ND.shape[1])
        self.max_length = max_length
        self.items = AdapterEncoder(self.dimension, hidden)
        self.gru = nn.GRU(self.dimension, hidden, batch_first=True)
        self.out = nn.Linear(hidden, self.dimension)
        self.norm = nn.LayerNorm(self.dimension)
        self.recency = nn.Parameter(torch.tensor([math.log(RECENCY / (1 - RECENCY))]))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # not persistent: neither checkpoints nor what is kept of a training hold it once more
        self.register_buffer("table", table_ND, persistent=False)
        self._source = source

    @classmethod
    def load(cls, folder: Path) -> SequenceEncoder:
        """From a folder that `save` or `new_sequence_folder` wrote. Raises ArtifactError: table and settings differ."""
        config = read_json(folder / CONFIG)
        table = load_file(folder / TABLE)["base"]
        if list(table.shape) != [config["items"], config["dimension"]]:
            raise ArtifactError(
                f"{folder}/{TABLE}: expected base vectors of {config['items']} items with {config['dimension']} "
                f"numbers as {CONFIG} says, found {list(table.shape)}; take all files of one model"
            )
        encoder = cls(table, hidden=config["hidden"], max_length=config["max_length"], source=folder)
        encoder.load_state_dict(load_file(folder / WEIGHTS))
        return encoder

    def read(self, histories: Sequence[Sequence[str]]) -> Tokens:
        """The features of histories of item ids, oldest first.

        Raises:
            DataError: a history is empty, or names an item that is not in the table.
        """
        row_of = {name: row for row, name in enumerate(read_json(self._source / IDS))}
        unknown = [name for history in histories for name in history if name not in row_of]
        if unknown or not all(histories):
            found = f"{unknown[0]!r} and {len(unknown) - 1} more that it has not" if unknown else "an empty history"
            raise DataError(
                f"expected histories of the {len(row_of):,} items of {self._source / IDS}, found {found}; leave them out"
            )
        rows = np.array([row_of[name] for history in histories for name in history], np.int64)
        return history_tokens(offsets_of(np.array([len(history) for history in histories])), rows, self.max_length)

    def collate(self, features: Features) -> dict[str, Tensor]:
        """input_ids and attention_mask."""
        assert isinstance(features, Tokens)
        return pad_tokens(features, QUERY)

    def encode(self, features: Features, *, budget_tokens: int | None = None, **options: Any) -> F32:
        """As `Encoder.encode`, with larger micro-batches on a CPU."""
        if budget_tokens is None and self.table.device.type == "cpu":
            budget_tokens = CPU_BUDGET
        return super().encode(features, budget_tokens=budget_tokens, **options)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """[N, D] float32 of items and queries in any order.

        Every call runs the same modules in the same order, over an item of weight zero where there is no query: ZeRO 3
        gathers their weights on all ranks together, and a backward pass in pieces must reach every weight in each of them.
        """
        ids_NT, real_NT = inputs["input_ids"], inputs["attention_mask"].bool()
        asks_N = ids_NT[:, 0] == QUERY
        real_NT = real_NT & (ids_NT != QUERY)
        rows_U, place = torch.unique(ids_NT[real_NT] - 1, return_inverse=True)  # popular items are in many histories
        items_UD: Tensor = self.items({"vectors": self.table[rows_U].float()})
        place_NT = torch.zeros_like(ids_NT)
        place_NT[real_NT] = place
        result_ND = items_UD[place_NT[:, 0]]
        if bool(asks_N.any()):
            queries_QD = self._histories(items_UD[place_NT[asks_N, 1:]], real_NT[asks_N, 1:])
            return result_ND.masked_scatter(asks_N[:, None], queries_QD)
        one = torch.ones((1, 1), dtype=torch.bool, device=ids_NT.device)
        return result_ND + 0.0 * self._histories(items_UD[:1, None], one).sum()

    def _histories(self, items_QSD: Tensor, real_QS: Tensor) -> Tensor:
        """[Q, D] float32 from the items of each history."""
        lengths_Q = real_QS.sum(dim=1)
        steps_QSD = self.dimension**0.5 * items_QSD  # as long as a LayerNorm's output: a unit vector would hardly move the GRU
        age_QS = (real_QS.flip(1).cumsum(dim=1).flip(1) - 1).clamp(min=0)
        weights_QS = (age_QS * functional.logsigmoid(self.recency.float())).exp() * real_QS
        mean_QD = torch.einsum("qs,qsd->qd", weights_QS / weights_QS.sum(dim=1, keepdim=True), steps_QSD)
        kind = self.out.weight.dtype
        with torch.autocast(items_QSD.device.type, enabled=False):  # it would run a GRU in float16, whatever was asked for
            # padded, not packed: padding comes last and a state knows only what was before it; the backward pass of a packed
            # sequence fills memory that grows with the square of its length
            states_QSH, _ = self.gru(steps_QSD.to(kind))
            last_QH = states_QSH[torch.arange(len(lengths_Q), device=lengths_Q.device), lengths_Q - 1]
            moved_QD = mean_QD.to(kind) + self.out(last_QH)
            return functional.normalize(self.norm(moved_QD).float(), dim=-1)

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """As a folder with the table and the ids of the folder this encoder is from."""
        for name in (TABLE, IDS):
            shutil.copyfile(self._source / name, folder / name)
        _write_weights(folder, self, state)


def new_sequence_folder(
    folder: Path, vectors_ND: F32, item_ids: Sequence[str], *, hidden: int, max_length: int, seed: int
) -> None:
    """An untrained encoder on the base vectors of items."""
    torch.manual_seed(seed)
    table = functional.normalize(torch.from_numpy(vectors_ND), dim=-1).half().contiguous()
    encoder = SequenceEncoder(table, hidden=hidden, max_length=max_length, source=folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"base": table}, folder / TABLE)
    write_json(folder / IDS, list(item_ids))
    _write_weights(folder, encoder, {name: value.detach() for name, value in encoder.state_dict().items()})


def _write_weights(folder: Path, encoder: SequenceEncoder, state: dict[str, Tensor]) -> None:
    write_json(
        folder / CONFIG,
        {
            "items": len(encoder.table),
            "dimension": encoder.dimension,
            "hidden": encoder.gru.hidden_size,
            "max_length": encoder.max_length,
        },
    )
    save_file({name: value.contiguous() for name, value in state.items()}, folder / WEIGHTS)
