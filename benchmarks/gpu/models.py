"""Models of known sizes with random weights, and texts: a machine without network has no others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared.inputs import generated_data
from benchmarks.shared.texts import base_model
from jobs.demo.transformer import write_small_transformer
from training.encoders.tokens.features import Tokens

TITLES = 1000
LONGEST = 256


@dataclass(frozen=True)
class Size:
    """The shape of a BERT."""

    name: str
    layers: int
    hidden: int
    inner: int

    def operations(self, tokens: Tokens) -> float:
        """Of a forward pass over the real tokens: per layer and text of T tokens 2 T (4 D² + 2 D M) + 4 T² D
        (Kaplan 2020, arXiv 2001.08361, section 2.1)."""
        lengths = tokens.lengths.astype(np.float64)
        wide, inner = self.hidden, self.inner
        return float(self.layers * (lengths * 2 * (4 * wide * wide + 2 * wide * inner) + 4 * lengths**2 * wide).sum())


SIZES = {"minilm": Size("MiniLM-sized", 6, 384, 1536), "base": Size("BERT-base-sized", 12, 768, 3072)}
TINY = Size("tiny", 2, 64, 128)


def write_model(folder: Path, size: Size) -> Path:
    """A model of this size as a run keeps it, with the tokenizer of the demo's catalogue; its folder."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(write_small_transformer(catalogue(folder)))
    tokenizer.model_max_length = LONGEST
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=30_522,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=max(1, size.hidden // 64),
            intermediate_size=size.inner,
            max_position_embeddings=LONGEST,
            hidden_dropout_prob=0.0,  # the first loss is compared with the CPU's
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )
    plain = folder / f"{size.name}-plain"
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    return base_model(str(plain), folder / size.name)


def catalogue(folder: Path) -> Path:
    """Corpus, queries and labels of the demo."""
    return generated_data(folder / "catalogue", TITLES)


def random_tokens(count: int, seed: int = 0) -> Tokens:
    """Texts of 8 to 256 tokens, most of them short, as texts are."""
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.lognormal(4.2, 0.7, count), 8, LONGEST).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(offsets, generator.integers(5, 8000, int(offsets[-1])).astype(np.int32))
