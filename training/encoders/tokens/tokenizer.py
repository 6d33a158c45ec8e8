"""Texts as the token lists that an encoder reads, prompts included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cluster.errors import ConfigError, one_paragraph
from cluster.tables.tables import I64, csr_to_lists, lists_to_csr, offsets_of
from training.encoders import st_format
from training.encoders.prepare.check import first_config
from training.encoders.tokens.lengths import model_limit
from training.settings import EncoderSettings

ITEM_NAMES = ("document", "passage", "corpus")
"""Names under which models keep the prompt of their items."""


@dataclass(frozen=True)
class Prompts:
    """What is put before the texts of each side."""

    query: str
    item: str


def read_prompts(folder: Path, settings: EncoderSettings) -> Prompts:
    """The prompts in force: the settings', else the folder's own for that side, else its default prompt."""
    own, default = st_format.prompts(folder), st_format.default_prompt(folder)
    query, item = settings.query_prompt, settings.item_prompt
    if query is None:
        query = own.get("query") or ("" if default in ITEM_NAMES else own.get(default, ""))
    if item is None:
        item = next((own[name] for name in ITEM_NAMES if name in own), "" if default == "query" else own.get(default, ""))
    return Prompts(query, item)


class Tokenizer:
    """Texts to token lists, as the encoder's own `SentenceTransformer.encode` would see them."""

    def __init__(self, folder: Path, settings: EncoderSettings) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._static = settings.kind == "static"
        root = folder / st_format.module_path(folder, 0)
        self._leaves_prompt_out = False
        if self._static:
            from tokenizers import Tokenizer as Fast

            self._tokenizer: Any = Fast.from_file(str(root / "tokenizer.json"))
            self._tokenizer.no_padding()
            added = self._tokenizer.get_added_tokens_decoder()
            special = {number for number, token in added.items() if token.special}
            unknown = [self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "")]
        else:
            options = first_config(root)
            self._tokenizer = load_tokenizer(folder, root, options.get("processor_kwargs") or options.get("tokenizer_args") or {})
            self._max_length = model_limit(root)
            self._leaves_prompt_out = not st_format.pools_prompt(folder)
            if options.get("do_lower_case"):
                lower_case(self._tokenizer)
            special, unknown = set(self._tokenizer.all_special_ids), [self._tokenizer.unk_token_id]
        self._says_nothing = np.array([*special, *(token for token in unknown if token is not None)], np.int64)

    def __call__(self, texts: Sequence[str], prompt: str) -> pa.ListArray:
        """The tokens of each text behind the prompt, list<i32>, special tokens included, cut to the model's length.

        Tokens of a prompt that the model's pooling leaves out are -1 - id (see `training.encoders.transformer`).
        """
        ids = self._ids([prompt + text for text in texts])
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        flat = np.fromiter((token for row in ids for token in row), np.int32, int(lengths.sum()))
        offsets = offsets_of(lengths)
        if prompt and self._leaves_prompt_out:
            at = np.arange(len(flat)) - np.repeat(offsets[:-1], lengths)
            flat = np.where(at < self._prompt_length(prompt), ~flat, flat)
        return csr_to_lists(offsets, flat)

    def blank(self, tokens: pa.ListArray, prompt: str) -> npt.NDArray[np.bool_]:
        """[N] texts that leave no token of their own, or only such as stand for unknown words: a vector says nothing of them.

        Args:
            tokens: what calling the tokenizer gave with this prompt.
        """
        prompt_tokens = self._telling(self([""], prompt))[0] if prompt else 0
        return self._telling(tokens) <= prompt_tokens

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if self._static:
            return [encoding.ids for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        ids: list[list[int]] = self._tokenizer(
            texts, truncation=True, max_length=self._max_length, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return ids

    def _telling(self, tokens: pa.ListArray) -> I64:
        """[N] tokens that stand for something of the prompt or the text."""
        offsets, flat = lists_to_csr(pa.chunked_array([tokens]))
        owner = np.repeat(np.arange(len(tokens)), np.diff(offsets))
        tells = ~np.isin(np.where(flat < 0, ~flat, flat), self._says_nothing)
        return np.bincount(owner[tells], minlength=len(tokens))

    def _prompt_length(self, prompt: str) -> int:
        """Tokens of the prompt with the start token and without the end token, as sentence-transformers counts them."""
        ids = self._ids([prompt])[0]
        return len(ids) - (ids[-1] in self._tokenizer.all_special_ids) if ids else 0


def load_tokenizer(folder: Path, root: Path, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(root), **options)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the tokenizer of {folder} cannot be loaded ({one_paragraph(str(error))[:300]}); give a "
            f"complete model folder as encoder.model"
        ) from error


def lower_case(tokenizer: Any) -> None:
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
    backend.normalizer = normalizers.Sequence(steps)
