"""A small finished run with real models, vectors and commits, without Ray: for tests of what ships, serves and compares.

    store = write_shipped_run(tmp_path / "runs" / "shop")

Two static models over a few words: the off-the-shelf one has random vectors, round 1 has learned that the words of a kind of
thing belong together. Vectors are what the models compute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Ledger, Outcome
from cluster.storage.digests import described
from cluster.storage.model_folders import folder_digest, upload_folder
from cluster.storage.records import write_record
from cluster.storage.store import Store
from cluster.tables.tables import F32, csr_to_lists, offsets_of, part_name, vectors_to_column, write_part
from jobs.record.record import RunRecord
from jobs.record.stages import BASELINE, Kind, ModelName, Stage, embedding_name
from jobs.record.summary import summary_json

GENRES = ("crime", "poetry", "travel", "law")
SYNONYMS = 6
"""Words of a genre; a title has one, a query another."""
DIMENSION = 32


@dataclass
class ShippedRun:
    """How large a run to make, and what comes of it."""

    folder: Path
    items: int = 240
    queries: int = 40
    part_rows: int = 100
    seed: int = 3
    learned: float = 0.8
    """How much of a word's vector round 1 takes from its genre."""
    texts: list[str] = field(default_factory=list)
    kind: str = "static"
    """encoder.kind."""

    def write(self) -> Store:
        """The finished run's store."""
        self.store = Store(str(self.folder))
        self.ledger = Ledger(self.store)
        write_record(self.store, "identity.json", {"data": {}, "encoder": {"kind": "static", "model": None}})
        self.rng = np.random.default_rng(self.seed)
        self._tables()
        words = [f"{genre}{n}" for genre in GENRES for n in range(SYNONYMS)] + [f"thing{n}" for n in range(self.items)]
        weights = self.rng.standard_normal((len(words) + 1, DIMENSION)).astype(np.float32)
        self._model(Kind.BASE, None, words, weights)
        learned = weights.copy()
        for number in range(len(GENRES)):
            some = slice(1 + number * SYNONYMS, 1 + (number + 1) * SYNONYMS)
            learned[some] = (1 - self.learned) * weights[some] + self.learned * 2 * weights[some].mean(axis=0)
        self._model(Kind.TRAIN, ModelName(1), words, learned)
        for name in (BASELINE, ModelName(1)):
            self._measure(name)
        self._finish()
        return self.store

    def commit(self, stage: Stage, work: Any, name: str | None = None, **inputs: Any) -> Commit:
        """A stage as the driver commits it."""
        return self.ledger.stage(name or stage.name, inputs=inputs, work=work, folder=stage.folder)

    def parts(self, folder: str, table: pa.Table) -> list[Any]:
        """A table in parts of `part_rows`."""
        starts = range(0, table.num_rows, self.part_rows)
        return [
            write_part(self.store, f"{folder}/{part_name(n)}", table.slice(start, self.part_rows), first_row=start)
            for n, start in enumerate(starts)
        ]

    def _tables(self) -> None:
        kinds, rows = np.arange(self.items) % len(GENRES), np.arange(self.items)
        word = self.rng.integers(0, SYNONYMS // 2, self.items)
        self.texts = [f"{GENRES[kind]}{n} thing{row}" for kind, n, row in zip(kinds, word, rows, strict=True)]
        corpus = pa.table(
            {
                "row": rows,
                "id": [f"i{row}" for row in rows],
                "text": self.texts,
                "title": [f"Title {row}" for row in rows],
                "genre": [GENRES[kind] for kind in kinds],
                "tags": [[GENRES[kind], "even" if row % 2 == 0 else "odd"] for kind, row in zip(kinds, rows, strict=True)],
                "year": 1900 + rows,
                "text_code": rows,
                "group_code": rows,
            }
        )
        asked = np.arange(self.queries)
        self.query_texts = [f"{GENRES[n % 4]}{SYNONYMS // 2 + n % 3} thing{n}" for n in asked]
        queries = pa.table(
            {"row": asked, "id": [f"q{n}" for n in asked], "text": self.query_texts, "split": ["dev"] * self.queries}
            | {"item_row": np.full(self.queries, -1), "text_code": asked}
        )
        labels = pa.table({"query_row": asked, "item_row": asked, "score": np.ones(self.queries)})
        self.ingest = self.commit(
            Stage(Kind.INGEST),
            lambda folder: Outcome(
                tables={
                    name: self.parts(f"{folder}/{name}", table)
                    for name, table in (("corpus", corpus), ("queries", queries), ("labels", labels))
                }
            ),
            seed=self.seed,
            items=self.items,
        )

    def _model(self, kind: Kind, of: ModelName | None, words: list[str], weights: F32) -> None:
        import tempfile

        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers

        from training.encoders.static import write_static_folder

        tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0} | {word: n for n, word in enumerate(words, 1)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()

        def work(folder: str) -> Outcome:
            with tempfile.TemporaryDirectory() as scratch:
                write_static_folder(Path(scratch), tokenizer.to_str(), torch.from_numpy(weights))
                (Path(scratch) / "README.md").write_text("---\nlicense: unknown\n---\n# a card\n")
                files = upload_folder(Path(scratch), self.store, folder)
            figures = {"prefix": folder, "digest": folder_digest(files, folder), "dimension": DIMENSION}
            return Outcome(files=files, figures=figures)

        self.commit(Stage(kind, of), work, weights=float(weights.sum()))

    def encoder(self, name: ModelName) -> Any:
        """What makes texts into vectors."""
        from cluster.storage.model_folders import fetch_folder
        from jobs.serving.search.query_encoder import query_encoder

        commit = self.ledger.find(Stage(Kind.BASE if name == BASELINE else Kind.TRAIN, None if name == BASELINE else name).name)
        assert commit is not None
        return query_encoder(fetch_folder(self.store, commit.files, commit.figures["prefix"]), "texts", DIMENSION)

    def _measure(self, name: ModelName) -> None:
        encode = self.encoder(name)
        items, queries = encode(self.texts), encode(self.query_texts)
        embedded = self.commit(
            Stage(Kind.EMBED),
            lambda folder: Outcome(
                tables={
                    table: self.parts(
                        f"{folder}/{table}", pa.table({"row": np.arange(len(vectors)), "vector": vectors_to_column(vectors)})
                    )
                    for table, vectors in (("corpus", items), ("queries", queries))
                }
            ),
            name=embedding_name(f"{name}0000000000000"),
            model=str(name),
            dtype="float32",
            seed=self.seed,
        )
        rows = np.argsort(-(queries @ items.T), axis=1, kind="stable")[:, :10]
        scores = np.take_along_axis(queries @ items.T, rows, axis=1)
        offsets = offsets_of(np.full(self.queries, 10))
        table = pa.table(
            {"query_row": np.arange(self.queries), "item_rows": csr_to_lists(offsets, rows.ravel())}
            | {"scores": csr_to_lists(offsets, scores.ravel())}
        )
        hits = self.commit(
            Stage(Kind.HITS, name), lambda folder: Outcome(tables={"hits": self.parts(folder, table)}), vectors=embedded.key
        )
        recall = float((rows[:, :3] == np.arange(self.queries)[:, None]).any(axis=1).mean())
        figures: dict[str, Any] = {"queries": self.queries, "queries_without_positive": 0, "split": "dev", "round": name.round}
        figures |= {"metrics": {"recall@3": recall / (1 if name.round > 0 else 2)}}
        if name.round > 0:
            change = {"mean": 0.1, "low": 0.05, "high": 0.15, "significant": True, "p": 0.01}
            figures |= {f"against_{other}": {"recall@3": change, "verdict": "improved"} for other in ("baseline", "best")}
        self.commit(Stage(Kind.EVALUATE, name), lambda _: Outcome(figures=figures), hits=hits.key)

    def finished_files(self, best: Commit) -> dict[str, dict[str, Any]]:
        """The kept model's files; sets where they lie."""
        self.prefix = str(best.figures["prefix"])
        return best.files

    def _finish(self) -> None:
        record = RunRecord.read(self.store)
        best = record.find(Kind.TRAIN, ModelName(1))
        assert best is not None
        summary = summary_json(
            record, name=self.folder.name, output="", primary="recall@3", patience=2, model=best.figures["prefix"]
        )

        def work(_: str) -> Outcome:
            usage = {"reads": "texts", "dimension": DIMENSION}
            files = self.finished_files(best)
            return Outcome(files=files, figures={"prefix": self.prefix, "summary": summary, "usage": usage})

        self.commit(Stage(Kind.FINISH), work, config={"name": self.folder.name})
        config = {"name": self.folder.name, "encoder": {"kind": self.kind}, "data": {"query_text": "{text}"}}
        data = {"corpus:all": {"corpus.parquet": described(json.dumps(self.texts).encode())["sha256"]}}
        write_record(self.store, "run.json", {"config": config, "data": data, "versions": {}})


def write_shipped_run(folder: Path, **size: Any) -> Store:
    """Write a finished run below `folder`."""
    return ShippedRun(folder, **size).write()
