"""Queries and items as the pairs that a cross-encoder reads: each text is tokenised once, in however many pairs it is.

A pair's tokens are its texts' tokens between special ones, cut to the model's length as the tokenizer itself cuts them. Tokens
of the second segment are -1 - id (a Hugging Face model's token_type_ids).

P pairs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.errors import ConfigError
from cluster.tables.tables import I64, offsets_of
from training.encoders import st_format
from training.encoders.prepare.check import first_config
from training.encoders.tokens.features import Tokens
from training.encoders.tokens.lengths import model_limit
from training.encoders.tokens.tokenizer import load_tokenizer, lower_case

PROBES = ("one two", "three, four five", "", "a", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich " * 3)
"""Texts on which the joining is compared with the tokenizer's own."""
PROBE_LENGTHS = (12, 13, 31)
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Texts:
    """The tokens of texts, each alone, without special ones; no more of a text than fit a pair."""

    tokens: Tokens
    lengths: I64
    """[N] how many each text has: of two that are cut, the longer one may keep a token more."""

    @classmethod
    def joined(cls, blocks: Sequence[Texts]) -> Texts:
        """The texts of all blocks, one after another."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(block.lengths for block in blocks)])
        return cls(Tokens.joined([block.tokens for block in blocks]), lengths)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Template:
    """How a pair is made of the tokens of two texts: what stands before, between and behind them, and how long it may be."""

    before: I32
    """Special tokens; of the second segment as -1 - id."""
    between: I32
    behind: I32
    second: bool
    """Whether the item is the second segment."""
    max_length: int

    def join(self, queries: Texts, items: Texts, query_rows: I64, item_rows: I64) -> Tokens:
        """The tokens of P pairs, in their order: `query_rows` of the one, `item_rows` of the other, both [P].

        A pair that is too long loses tokens of the longer text first, until both have as many (the tokenizer's "longest_first").
        """
        before, between, behind = len(self.before), len(self.between), len(self.behind)
        special = before + between + behind
        room = self.max_length - special
        first, second = cut_lengths(queries.lengths[query_rows], items.lengths[item_rows], room)
        offsets = offsets_of(first + second + special)
        values, starts = np.empty(int(offsets[-1]), np.int32), offsets[:-1]
        for fixed, at in ((self.before, starts), (self.between, starts + before + first), (self.behind, offsets[1:] - behind)):
            values[at[:, None] + np.arange(len(fixed))] = fixed
        for texts, rows, counts, at, flips in (
            (queries, query_rows, first, starts + before, False),
            (items, item_rows, second, starts + before + first + between, self.second),
        ):
            owner = np.repeat(np.arange(len(rows)), counts)
            within = np.arange(len(owner)) - offsets_of(counts)[:-1][owner]
            own = texts.tokens.values[texts.tokens.offsets[rows][owner] + within]
            values[at[owner] + within] = ~own if flips else own
        return Tokens(offsets, values)


class PairTokenizer:
    """Texts to tokens, each alone; `template` joins them."""

    def __init__(self, folder: Path, max_length: int | None = None) -> None:
        """
        Args:
            folder: of the model; its tokenizer lies there, or in the sub-folder of its first module.
            max_length: of a pair; None: what the model reads.

        Raises:
            ConfigError: it joins the texts of a pair in a way of its own.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        root = folder / st_format.module_path(folder, 0)
        options = first_config(root)
        self._tokenizer = load_tokenizer(folder, root, options.get("processor_kwargs") or options.get("tokenizer_args") or {})
        if options.get("do_lower_case"):
            lower_case(self._tokenizer)
        self._folder = folder
        self.template = self._find_template(max_length or model_limit(root))
        self._check()

    def __call__(self, texts: Sequence[str]) -> Texts:
        """The tokens of each text."""
        if not texts:
            return Texts.joined([])
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        ids = self._tokenizer(list(texts), add_special_tokens=False, truncation=False, **options)["input_ids"]
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        kept = np.minimum(lengths, self.template.max_length)
        flat = (token for row in ids for token in row[: self.template.max_length])
        return Texts(Tokens(offsets_of(kept), np.fromiter(flat, np.int32, int(kept.sum()))), lengths)

    def queries(self, texts: Sequence[str]) -> Texts:
        """The tokens of queries, which are read as items are."""
        return self(texts)

    def _find_template(self, max_length: int) -> Template:
        first, second = (self._ids(text, None)[0] for text in ("one two", "three four five"))
        ids, types = self._ids("one two", "three four five")
        at = _position(ids, first, 0)
        to = _position(ids, second, at + len(first))
        if not first or not second or at < 0 or to < 0 or not set(types) <= {0, 1}:
            raise self._unlike()
        signed = np.where(np.array(types, bool), ~np.array(ids, np.int32), np.array(ids, np.int32)).astype(np.int32)
        between, behind = signed[at + len(first) : to], signed[to + len(second) :]
        return Template(signed[:at], between, behind, bool(types[to]), max_length)

    def _check(self) -> None:
        """The template is only true if it gives what the tokenizer gives, also where pairs are cut."""
        texts = self(PROBES)
        queries, items = np.indices((len(PROBES), len(PROBES))).reshape(2, -1).astype(np.int64)
        for length in sorted({min(self.template.max_length, length) for length in (*PROBE_LENGTHS, self.template.max_length)}):
            joined = replace(self.template, max_length=length).join(texts, texts, queries, items)
            for pair, (query, item) in enumerate(zip(queries.tolist(), items.tolist(), strict=True)):
                ids, types = self._ids(PROBES[query], PROBES[item], length)
                got = joined.values[joined.offsets[pair] : joined.offsets[pair + 1]]
                if np.where(got < 0, ~got, got).tolist() != ids or (got < 0).tolist() != [kind == 1 for kind in types]:
                    raise self._unlike()

    def _ids(self, first: str, second: str | None, length: int | None = None) -> tuple[list[int], list[int]]:
        """(ids, types) as the tokenizer gives them: of a pair, or of a text without special tokens."""
        options: dict[str, Any] = {"truncation": "longest_first", "max_length": length} if length else {}
        both = ([first],) if second is None else ([first], [second])  # lists: an empty text alone would count as none
        got = self._tokenizer(*both, add_special_tokens=second is not None, **options)
        ids = list(got["input_ids"][0])
        typed = "token_type_ids" in self._tokenizer.model_input_names
        return ids, list(got["token_type_ids"][0]) if typed else [0] * len(ids)

    def _unlike(self) -> ConfigError:
        return ConfigError(
            f"reranker.model: the tokenizer in {self._folder} does not put the tokens of a pair one text after the other, which "
            f"hardmine needs; give a model of another family (BERT, RoBERTa, DeBERTa, ModernBERT …)"
        )


def cut_lengths(first: I64, second: I64, room: int) -> tuple[I64, I64]:
    """How many tokens of each text stay where both together have `room`: the longer one is cut first, then both alike.

    (tokenizers' `TruncationStrategy::LongestFirst`.)
    """
    short, long = np.minimum(first, second), np.maximum(first, second)
    kept = np.where(short > room, long, np.maximum(short, room - short))
    fits, half = short + long <= room, short + kept > room
    short_kept = np.where(fits, short, np.where(half, room // 2, short))
    long_kept = np.where(fits, long, np.where(half, room // 2 + room % 2, kept))
    swapped = first > second
    return np.where(swapped, long_kept, short_kept), np.where(swapped, short_kept, long_kept)


def _position(ids: list[int], part: list[int], start: int) -> int:
    """Where `part` first stands in `ids` from `start` on; -1: nowhere."""
    return next((at for at in range(start, len(ids) - len(part) + 1) if ids[at : at + len(part)] == part), -1)
