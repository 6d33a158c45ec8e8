"""Texts for `benchmarks.embedding` and `benchmarks.training`: folders with corpus, queries and qrels, as a run reads them.

What a training benchmark needs is written once, as a run's own tables; both sides read the same files.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage.model_folders import upload_folder
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import Part, part_name, vectors_to_column, write_part
from training.encoders.adapter import new_adapter_folder
from training.encoders.prepare.prepare import build_base
from training.encoders.tokens.tokenizer import Tokenizer
from training.engine.schedule import Schedule
from training.settings import EncoderSettings, Kind, TrainingSettings
from training.task import TrainData, TrainTask

NEGATIVES = 3
PART_ROWS = 4096
VOCABULARY = 4000


@dataclass(frozen=True)
class Triples:
    """Queries, each with one relevant item and `NEGATIVES` others."""

    queries: list[str]
    items: list[str]
    positive: npt.NDArray[np.int64]
    """[Q] item row."""
    negative: npt.NDArray[np.int64]
    """[Q, 3] item rows."""


def corpus_texts(folder: Path) -> tuple[list[str], list[str]]:
    """(ids, texts) of the corpus of a data folder; a title goes before its text."""
    table = pq.read_table(folder / "corpus.parquet")
    texts = table["text"].to_pylist()
    if "title" in table.column_names:
        texts = [" ".join(filter(None, pair)) for pair in zip(table["title"].to_pylist(), texts, strict=True)]
    return table["id"].to_pylist(), texts


def mixed_texts(folders: Sequence[Path], count: int) -> list[str]:
    """`count` item texts of all folders together, in a random order that is always the same."""
    texts = [text for folder in folders for text in corpus_texts(folder)[1]]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[place] for place in order]


def read_triples(folder: Path, count: int) -> Triples:
    """`count` training queries of a data folder, with a relevant item and three that are not labelled.

    The negatives are drawn, not mined: who is a negative changes the loss, not the work.
    """
    ids, texts = corpus_texts(folder)
    row_of = {name: row for row, name in enumerate(ids)}
    queries = pq.read_table(folder / "queries.parquet", columns=["id", "text", "split"]).to_pylist()
    train = {row["id"]: row["text"] for row in queries if row["split"] == "train"}
    relevant: dict[str, set[int]] = {}
    for label in pq.read_table(folder / "qrels.parquet", columns=["query_id", "item_id", "score"]).to_pylist():
        if label["score"] > 0 and label["query_id"] in train:
            relevant.setdefault(label["query_id"], set()).add(row_of[label["item_id"]])
    rng = np.random.default_rng(0)
    names = sorted(relevant)
    chosen = [names[place] for place in rng.permutation(len(names))[:count]]
    positive = [int(rng.choice(sorted(relevant[name]))) for name in chosen]
    negative = [_others(rng, len(texts), relevant[name]) for name in chosen]
    used, back = np.unique(np.column_stack([positive, np.array(negative)]), return_inverse=True)
    rows = back.reshape(len(chosen), 1 + NEGATIVES).astype(np.int64)
    return Triples([train[name] for name in chosen], [texts[row] for row in used], rows[:, 0], rows[:, 1:])


def _others(rng: np.random.Generator, count: int, known: set[int]) -> list[int]:
    found: list[int] = []
    while len(found) < NEGATIVES:
        item = int(rng.integers(count))
        if item not in known and item not in found:
            found.append(item)
    return found


def made_triples(count: int) -> Triples:
    """As many as wanted, of made-up words: a query shares half of its relevant item's words."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abdegiklmnoprstuz"), rng.integers(3, 8))) for _ in range(VOCABULARY)]
    items = [list(rng.choice(words, rng.integers(4, 12))) for _ in range(2 * count)]
    queries = [" ".join([*rng.permutation(items[row])[: len(items[row]) // 2], str(rng.choice(words))]) for row in range(count)]
    negative = (np.arange(count)[:, None] + rng.integers(1, 2 * count, (count, NEGATIVES))) % (2 * count)
    return Triples(queries, [" ".join(item) for item in items], np.arange(count), negative)


def write_parts(store: Store, name: str, table: pa.Table) -> list[Part]:
    """A table in parts of 4,096 rows."""
    edges = [*range(0, table.num_rows, PART_ROWS), table.num_rows]
    return [
        write_part(store, f"{name}/{part_name(number)}", table.slice(low, high - low), first_row=low)
        for number, (low, high) in enumerate(pairwise(edges))
    ]


def base_model(name: str, folder: Path) -> Path:
    """The model folder `name` as a run keeps it, in `folder`."""
    return build_base(EncoderSettings(model=name), StorageSettings(), [], 0, folder)


def small_bert(model: str, folder: Path) -> Path:
    """Two layers of 64 with the vocabulary of `model`, untrained, as a run keeps it."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(model)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=128,
        )
    ).save_pretrained(folder)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return base_model(str(folder), folder.with_name(f"{folder.name}-base"))


def write_task(folder: Path, triples: Triples, model: str, settings: TrainingSettings, *, kind: str = "transformer") -> TrainTask:
    """A training task in the store FOLDER/store, and itself and the texts beside it for the sides to read.

    Args:
        model: folder of the base model.
        kind: "transformer": `model`; "bert": a small new one with its tokenizer; "adapter": a new one, on made-up vectors.
    """
    store = Store(str(folder / "store"))
    local = {
        "transformer": lambda: base_model(model, folder / "base"),
        "bert": lambda: small_bert(model, folder / "bert"),
        "adapter": lambda: _new_adapter(folder / "new-adapter"),
    }[kind]()
    features = _vectors(store, triples) if kind == "adapter" else _tokens(store, local, triples)
    queries = len(triples.queries)
    labels = pa.table(
        {
            "query_row": np.arange(queries),
            "item_row": triples.positive,
            "score": np.ones(queries, np.int64),
            "weight": np.ones(queries),
            "source": [""] * queries,
        }
    )
    corpus = pa.table(
        {
            "row": np.arange(len(triples.items)),
            "text_code": np.arange(len(triples.items)),
            "group_code": np.full(len(triples.items), -1),
        }
    )
    table = pa.table({"row": np.arange(queries), "item_row": np.full(queries, -1), "split": ["train"] * queries})
    mined = pa.table({"query_row": np.arange(queries), "negative_rows": pa.array(list(triples.negative), pa.list_(pa.int64()))})
    actual: Kind = "adapter" if kind == "adapter" else "transformer"
    task = TrainTask(
        store=store,
        folder="run",
        kind=actual,
        model=upload_folder(local, store, "model"),
        model_prefix="model",
        data=TrainData(
            codes=write_parts(store, "corpus", corpus),
            queries=write_parts(store, "queries", table),
            labels=write_parts(store, "labels", labels),
            negatives=write_parts(store, "negatives", mined),
            item_features=features["items"],
            query_features=features["queries"],
        ),
        settings=settings,
        schedule=Schedule(settings.epochs),
        threads=2,
    )
    (folder / "task.pkl").write_bytes(pickle.dumps((task, triples, str(local))))
    return task


def read_task(folder: Path) -> tuple[TrainTask, Triples, str]:
    """(task, texts, model folder) that `write_task` wrote."""
    found: tuple[TrainTask, Triples, str] = pickle.loads((folder / "task.pkl").read_bytes())
    return found


def _new_adapter(folder: Path) -> Path:
    folder.mkdir()
    new_adapter_folder(folder, 384, 512, 0)
    return folder


def _tokens(store: Store, local: Path, triples: Triples) -> dict[str, list[Part]]:
    tokenizer = Tokenizer(local, EncoderSettings(model="-"))
    return {
        name: write_parts(store, f"{name}-tokens", pa.table({"row": np.arange(len(texts)), "tokens": tokenizer(texts, "")}))
        for name, texts in (("items", triples.items), ("queries", triples.queries))
    }


def _vectors(store: Store, triples: Triples) -> dict[str, list[Part]]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {
        name: rng.standard_normal((count, 384), dtype=np.float32)
        for name, count in (("items", len(triples.items)), ("queries", len(triples.queries)))
    }
    return {
        name: write_parts(
            store, f"{name}-vectors", pa.table({"row": np.arange(len(values)), "vector": vectors_to_column(values)})
        )
        for name, values in made.items()
    }
