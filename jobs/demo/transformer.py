"""A small transformer for the demo: a tokenizer trained on the catalogue, and a BERT of two layers that knows nothing."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

VOCABULARY = 8000
LENGTH = 128


def write_small_transformer(catalogue: Path) -> Path:
    """Write a Hugging Face model folder beside the catalogue's tables and return it; kept if it is there."""
    folder = catalogue / "small-transformer"
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    table = pq.read_table(catalogue / "corpus.parquet", columns=["title", "author", "text"])
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    texts = (" ".join(row.values()) for row in table.to_pylist())
    tokenizer.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    BertTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), model_max_length=LENGTH).save_pretrained(str(folder))
    torch.manual_seed(7)
    model = BertModel(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=384,
            max_position_embeddings=LENGTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )
    model.save_pretrained(str(folder))
    return folder
