"""Late interaction (ColBERT: Khattab 2020, arXiv 2004.12832) as a re-ranker: it reads query and item apart, a vector per token.

A pair's score is MaxSim: for every token of the query the highest similarity to any token of the item, summed. Lengths, prompts,
query expansion and the tokens that do not count (padding; of items also punctuation, the skiplist) are those of the folder, as
sentence-transformers' MultiVectorEncoder has them: it tokenises, makes the vectors and compares them.

A pair's features are the tokens of the query, then those of the item as -1 - id. N pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.tables.tables import I64, offsets_of
from training.encoders.prepare.check import read_modules
from training.encoders.st_format import read_json
from training.encoders.tokens.features import Features, Tokens
from training.encoders.tokens.pairs import Template, Texts
from training.encoders.transformer import TextEncoder, pad_tokens, quiet

TASKS = ("query", "document")
"""What sentence-transformers calls the two sides of a pair."""
TOKENISED_AT_ONCE = 1024
ANY_LENGTH = 2**30
"""Each text is cut by itself, and a pair never."""


def is_late(folder: Path) -> bool:
    """Whether a model of late interaction lies in `folder`: sentence-transformers', PyLate's or Stanford's."""
    if any(module.kind == "MultiVectorMask" for module in read_modules(folder)):
        return True
    own, config = folder / "config_sentence_transformers.json", folder / "config.json"
    kind = read_json(own).get("model_type") if own.exists() else None
    architectures = read_json(config).get("architectures") if config.exists() else None
    return kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in (architectures or [])


def open_late(folder: Path) -> Any:
    """sentence-transformers' model in `folder`, in float32 on the CPU. Code of the model's own is never run."""
    from sentence_transformers import MultiVectorEncoder

    quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # weights that the folder lacks (a pooler) are drawn: the same on every rank and run
        model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    return model.float()


class LateTokenizer:
    """Texts to tokens, each alone, special ones included; `template` puts them side by side."""

    def __init__(self, model: Any) -> None:
        """Args: model: of `open_late`."""
        self._model = model
        nothing = np.zeros(0, np.int32)
        self.template = Template(nothing, nothing, nothing, second=True, max_length=ANY_LENGTH)

    def __call__(self, texts: Sequence[str]) -> Texts:
        """The tokens of items."""
        return self._tokens(texts, "document")

    def queries(self, texts: Sequence[str]) -> Texts:
        """The tokens of queries, without expansion."""
        return self._tokens(texts, "query")

    def _tokens(self, texts: Sequence[str], task: str) -> Texts:
        blocks = []
        for start in range(0, len(texts), TOKENISED_AT_ONCE):
            inputs = _preprocessed(self._model, list(texts[start : start + TOKENISED_AT_ONCE]), task)
            real = inputs["attention_mask"].bool()
            if "query_expansion_positions" in inputs:
                real &= ~inputs["query_expansion_positions"]
            blocks.append(Tokens(offsets_of(real.sum(dim=1).numpy()), inputs["input_ids"][real].numpy().astype(np.int32)))
        tokens = Tokens.joined(blocks)
        return Texts(tokens, tokens.lengths)


def _preprocessed(model: Any, texts: list[str], task: str) -> dict[str, Any]:
    """What the model makes of texts before its first module, prompts included."""
    names = ("query",) if task == "query" else ("document", "passage", "corpus")
    name = next((name for name in names if name in model.prompts), model.default_prompt_name)
    inputs: dict[str, Any] = model.preprocess(texts, prompt=model.prompts.get(name) if name else None, task=task)
    return inputs


class LateEncoder(TextEncoder):
    """A MultiVectorEncoder whose "embedding" of a pair is its score."""

    kind = "reranker"
    dimension = 1

    def __init__(self, model: Any, *, source: Path) -> None:
        pad = model.tokenizer.pad_token_id
        super().__init__(model, pad_id=0 if pad is None else int(pad), source=source)
        self.head = frozenset(name for name, _ in model.named_parameters() if not name.startswith("0."))
        for name, parameter in model.named_parameters():
            if "pooler" in name.split("."):  # BERT's own is not on the path of a token's vector
                parameter.requires_grad_(False)
        empty = _preprocessed(model, [""], "query")
        expanded = empty.get("query_expansion_positions", torch.zeros(1, 0, dtype=torch.bool))[0].nonzero()[:, 0]
        self._width = int(model[0].query_expansion["length"]) if len(expanded) else 0
        """Tokens that a shorter query is filled up to; 0: it is not."""
        if self._width:
            first = int(expanded[0])
            self._filler, self._attends = int(empty["input_ids"][0, first]), bool(empty["attention_mask"][0, first])

    @classmethod
    def load(cls, folder: Path) -> LateEncoder:
        """From a folder that `is_late`."""
        return cls(open_late(folder), source=folder)

    def collate(self, features: Features) -> dict[str, Tensor]:
        """Of each side the distinct texts, padded, and [N] which of them a pair has."""
        assert isinstance(features, Tokens)
        owner, item = np.repeat(np.arange(len(features)), features.lengths), features.values < 0
        inputs: dict[str, Tensor] = {}
        for task, own in zip(TASKS, (~item, item), strict=True):
            values = features.values[own]
            side = Tokens(offsets_of(np.bincount(owner[own], minlength=len(features))), ~values if task == "document" else values)
            first, rows = _distinct(side)
            padded = pad_tokens(side.take(first), self._pad_id)
            if task == "query" and self._width:
                padded = self._expanded(padded)
            inputs |= {f"{task}_{name}": value for name, value in padded.items()} | {f"{task}_rows": torch.from_numpy(rows)}
        return inputs

    def _expanded(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Queries filled up to the model's width; a token that fills one is scored, whether or not others attend to it."""
        missing = max(0, self._width - inputs["input_ids"].shape[1])
        ids, mask = (torch.nn.functional.pad(inputs[name], (0, missing)) for name in ("input_ids", "attention_mask"))
        fills = (mask == 0) & (torch.arange(ids.shape[1]) < self._width)
        attended = mask.masked_fill(fills, 1) if self._attends else mask
        ids = ids.masked_fill(mask == 0, self._pad_id).masked_fill(fills, self._filler)
        return {"input_ids": ids, "attention_mask": attended, "query_expansion_positions": fills}

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """MaxSim [N, 1] float32."""
        sides = []
        for task in TASKS:
            names = ("input_ids", "attention_mask", "query_expansion_positions")
            features = {name: inputs[f"{task}_{name}"] for name in names if f"{task}_{name}" in inputs}
            read, rows = self.model({**features, "modality": "text"}, task=task), inputs[f"{task}_rows"]
            sides.append((read["token_embeddings"].float()[rows], read["attention_mask"].bool()[rows]))
        (queries, query_mask), (items, item_mask) = sides
        with torch.autocast(queries.device.type, enabled=False):  # a sum in bfloat16 makes ties of good pairs
            scores: Tensor = self.model.similarity_pairwise(queries, items, a_mask=query_mask, b_mask=item_mask)
        return scores[:, None]

    def _save_plain(self, folder: Path, state: dict[str, Tensor]) -> None:
        # into a fresh model: with ZeRO 3 this one's weights are spread over ranks, with bfloat16 they are rounded
        fresh = open_late(self.source)
        fresh.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
        fresh.save(str(folder), create_model_card=False)


def _distinct(texts: Tokens) -> tuple[I64, I64]:
    """(the first row of each text, [N] the number of each row's text)."""
    numbers: dict[bytes, int] = {}
    first: list[int] = []
    rows = np.empty(len(texts), np.int64)
    for row in range(len(texts)):
        key = texts.values[texts.offsets[row] : texts.offsets[row + 1]].tobytes()
        rows[row] = numbers.setdefault(key, len(first))
        if rows[row] == len(first):
            first.append(row)
    return np.array(first, np.int64), rows
