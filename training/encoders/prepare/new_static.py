"""A new static model: a tokenizer trained on the corpus, and random vectors for its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.encoders.static import write_static_folder
from training.settings import EncoderSettings

MOST_LETTERS = 64
"""Letters of a word; a longer one (base64, DNA, a language without spaces) is cut into words of this length. Training a
tokenizer takes time that grows with the square of a word's length, and WordPiece knows no word of more than 100 letters."""
MOST_TEXT = 20_000
"""Characters of a text that the tokenizer is trained on, the first ones."""


def new_static_folder(folder: Path, texts: Sequence[str], settings: EncoderSettings, seed: int) -> None:
    """An untrained static model as a sentence-transformers folder; the same for the same texts, settings and seed."""
    import torch

    texts = [text[:MOST_TEXT] for text in texts]
    tokenizer = _train_tokenizer(texts, settings.vocabulary)
    if settings.max_length is not None:
        tokenizer.enable_truncation(settings.max_length)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(tokenizer.get_vocab_size(), settings.dimension, generator=generator) * 0.1
    rarity = torch.from_numpy(_rarity(tokenizer, texts))
    # sorted, because the vocabulary is written in an order that differs from run to run
    text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, sort_keys=True)
    write_static_folder(folder, text, weights * rarity[:, None])


def _train_tokenizer(texts: Sequence[str], vocabulary: int) -> Any:
    from tokenizers import Tokenizer, models, trainers

    def empty(**model: Any) -> Any:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", **model))
        tokenizer.normalizer, tokenizer.pre_tokenizer = _word_rules()
        return tokenizer

    tokenizer = empty()
    # the trainer numbers inner characters as a hash map happens to order the words, and breaks ties by these numbers;
    # "special" tokens are numbered first and in the order given, so every run comes to the same tokenizer
    inner = sorted({f"##{character}" for word in set(_words(tokenizer, texts)) for character in word[1:]})
    tokenizer.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=["[UNK]", *inner], min_frequency=2, show_progress=False),
    )
    trained = empty(vocab=tokenizer.get_vocab(with_added_tokens=True))  # where the inner characters are no longer special
    trained.add_special_tokens(["[UNK]"])
    return trained


def _word_rules() -> tuple[Any, Any]:
    """(normalizer, pre-tokenizer): BERT's, with long words cut."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    cut = pre_tokenizers.Split(Regex(f".{{1,{MOST_LETTERS}}}"), behavior="isolated")
    return normalizers.BertNormalizer(lowercase=True), pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), cut])


def _words(tokenizer: Any, texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            yield word


def _rarity(tokenizer: Any, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """a / (a + p(token)), a = 1e-3 (SIF, Arora 2017): frequent tokens start short, an untrained model matches words."""
    counts = np.zeros(tokenizer.get_vocab_size(), np.float64)
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        np.add.at(counts, encoding.ids, 1.0)
    weights: npt.NDArray[np.float32] = (1e-3 / (1e-3 + counts / max(1.0, counts.sum()))).astype(np.float32)
    return weights
