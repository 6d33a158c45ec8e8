"""What an export is made from: the folder of a model, the vectors that it made, and their items. Here: of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from cluster.commits import Commit, Ledger
from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.digests import record_digest
from cluster.storage.model_folders import fetch_folder
from cluster.storage.records import read_if_there
from cluster.tables.rows import read_rows
from cluster.tables.tables import F32, I64, Part, column_to_vectors, parts_between, read_part
from jobs.finished.finished_run import FinishedRun
from jobs.record.record import MeasuredModel
from jobs.record.stages import BASELINE, Kind, ModelName
from jobs.record.usage import Reads

OURS = ("row", "text_code", "group_code", "vector")
"""Columns of the corpus that are the run's own, or the vectors that the model read."""
MOST_QUERIES = 1_000
"""Queries that recall is measured with."""

EmbedAgain = Callable[[ModelName], object]
"""Makes the vectors of a model again where they are gone."""


class Source(Protocol):
    """A model with the vectors of its items."""

    @property
    def stem(self) -> str:
        """How the export's name begins: run and round."""

    @property
    def label(self) -> str:
        """The model for a person."""

    @property
    def key(self) -> str:
        """Digest of what the vectors depend on."""

    @property
    def texts(self) -> str:
        """Digest of the items: their ids, texts and metadata, in order."""

    @property
    def corpus(self) -> list[Part]:
        """The items, in parts."""

    @property
    def items(self) -> int:
        """How many there are."""

    @property
    def reads(self) -> Reads:
        """What the model reads."""

    @property
    def dtype(self) -> str:
        """In which the vectors are stored."""

    @property
    def query_text(self) -> str:
        """Template of the queries that the model was trained on."""

    @property
    def about(self) -> dict[str, Any]:
        """Name, round, figures and data of the run, for the stamp."""

    def folder(self, scratch: Path) -> Path | None:
        """The model as a folder, below `scratch` if it has to be made; None: the data's own vectors are the embeddings."""

    def blocks(self) -> Iterator[tuple[Part, pa.Table, F32]]:
        """(part of the corpus, its ids and metadata, its vectors float32 [N, D]) one after another."""

    def queries(self) -> F32:
        """Vectors of some queries, float32 [Q, D]; at least one."""

    def query_texts(self) -> list[str]:
        """Texts of some queries; none where the data has queries of another kind."""


@dataclass(frozen=True)
class RunSource:
    """A model of a run with the vectors that it made."""

    run: FinishedRun
    model: MeasuredModel
    vectors: Commit

    @classmethod
    def of(cls, run: FinishedRun, number: int | None, embed_again: EmbedAgain | None = None) -> RunSource:
        """The model of a round of `run`.

        Args:
            number: -1: off the shelf; None: the model that was kept.
            embed_again: called where the vectors are not committed or damaged; None: they are expected.

        Raises:
            ConfigError: there is no such round.
            ArtifactError: its vectors are gone, and embedding did not bring them back.
        """
        name = ModelName(run.best_round if number is None else number)
        known = [model.name.round for model in run.record.models if isinstance(model.name, ModelName) and not model.name.random]
        if name.round not in known:
            raise ConfigError(
                f"--round {name.round}: expected a round of this run, found {', '.join(map(str, known))} (-1 is the "
                f"off-the-shelf model); leave --round out for the model that was kept, {run.best_round}"
            )
        model = run.record.expect(name)
        vectors = _vectors(run, model)
        if vectors is None and embed_again is not None:
            embed_again(name)
            vectors = _vectors(FinishedRun(run.store, run.record.read(run.store), run.summary, run.settings), model)
        if vectors is None:
            raise ArtifactError(
                f"expected the vectors of {model.label} in {run.store.root}, found no commit of them; make them again with "
                f"`hardmine embed CONFIG --round {name.round}`"
            )
        return cls(run, model, vectors)

    @property
    def stem(self) -> str:
        """Run and round."""
        return f"{self.run.summary['name']}-{self.model.name}"

    @property
    def label(self) -> str:
        """The model for a person."""
        return self.model.label

    @property
    def key(self) -> str:
        """Of the commit of the vectors."""
        return self.vectors.key

    @property
    def dtype(self) -> str:
        """In which the vectors are stored."""
        return str(self.vectors.inputs.get("dtype", "float32"))

    @property
    def query_text(self) -> str:
        """Template of the queries that the model was trained on."""
        return str(self.run.setting("data", "query_text", "{text}"))

    @property
    def about(self) -> dict[str, Any]:
        """Name, round, figures and data of the run, for the stamp."""
        primary = str(self.run.summary["primary"])
        data = (read_if_there(self.run.store, "run.json") or {}).get("data") or {}
        return {
            "name": self.run.summary["name"],
            "round": self.model.round,
            "label": self.model.label,
            "primary": primary,
            "figure": self.model.metrics.get(primary),
            "against_baseline": self.model.change("baseline").get(primary),
            "data": {name: mark for name, mark in data.items() if name != "model"},
        }

    @property
    def corpus(self) -> list[Part]:
        """The items, in parts."""
        return self.run.commit(Kind.INGEST).parts("corpus")

    @property
    def items(self) -> int:
        """How many there are."""
        return sum(part.rows for part in self.corpus)

    @property
    def texts(self) -> str:
        """Digest of the items: their ids, texts and metadata, in order."""
        return record_digest([part.sha256 for part in self.corpus])

    @property
    def reads(self) -> Reads:
        """What the model reads."""
        kind = self.run.setting("encoder", "kind", "transformer")
        if kind == "sequence":
            return "histories"
        return "vectors" if kind in ("adapter", "vectors") and "prefix" not in self.run.commit(Kind.BASE).figures else "texts"

    def folder(self, scratch: Path) -> Path | None:
        """The model as a folder, below `scratch` if it has to be made; None: the data's own vectors are the embeddings.

        Raises:
            DamagedObject: a file is not what was committed.
        """
        run, name = self.run, self.model.name
        assert isinstance(name, ModelName)
        base = run.commit(Kind.BASE)
        if name.round == run.best_round:
            commit = run.commit(Kind.FINISH)
            return fetch_folder(run.store, commit.files, commit.figures["prefix"]) if run.summary["model"] else None
        if name == BASELINE:
            commit = run.commit(Kind.SEQUENCE) if self.reads == "histories" else base
            return fetch_folder(run.store, commit.files, commit.figures["prefix"]) if "prefix" in commit.figures else None
        from training.encoders.adapter import servable_folder

        commit = run.commit(name.source.kind, name)
        trained = fetch_folder(run.store, commit.files, commit.figures["prefix"])
        frozen = fetch_folder(run.store, base.files, base.figures["prefix"]) if "prefix" in base.figures else None
        return servable_folder(trained, None if self.reads == "histories" else frozen, scratch)

    def blocks(self) -> Iterator[tuple[Part, pa.Table, F32]]:
        """(part of the corpus, its ids and metadata, its vectors float32 [N, D]) one after another."""
        vectors = sorted(self.vectors.parts("corpus"), key=lambda part: part.first_row)
        for part in sorted(self.corpus, key=lambda part: part.first_row):
            table = read_part(self.run.store, part)
            kept = [name for name in table.column_names if name not in OURS]
            stop = part.first_row + part.rows
            some = [
                column_to_vectors(read_part(self.run.store, one, ["vector"])["vector"].slice(start, end - start))
                for one, start, end in parts_between(vectors, part.first_row, stop)
            ]
            block = np.concatenate(some) if some else np.zeros((0, 0), np.float32)
            if len(block) != part.rows:
                raise ArtifactError(
                    f"expected {part.rows:,} vectors of items from row {part.first_row:,} on in commit {self.vectors.name}, "
                    f"found {len(block):,}; delete that commit and run `hardmine embed` again"
                )
            yield part, table.select(kept), block

    def queries(self, seed: int = 0) -> F32:
        """Vectors of some queries of the split that was measured, float32 [Q, D]; of items where no query has vectors."""
        rows = self._query_rows()
        parts = self.vectors.tables.get("queries")
        table, wanted = ("queries", rows) if parts and len(rows) else ("corpus", np.arange(self.items))
        drawn = np.sort(np.random.default_rng(seed).permutation(wanted)[:MOST_QUERIES])
        return column_to_vectors(read_rows(self.run.store, self.vectors.parts(table), drawn, ["vector"])["vector"])

    def query_texts(self, seed: int = 0) -> list[str]:
        """Texts of some queries of the split that was measured; none where the data has queries of another kind."""
        parts = self.run.commit(Kind.INGEST).parts("queries")
        drawn = np.sort(np.random.default_rng(seed).permutation(self._query_rows())[:MOST_QUERIES])
        texts = read_rows(self.run.store, parts, drawn, ["text"])["text"].to_pylist() if len(drawn) else []
        return [text for text in texts if text and text.strip()]

    def _query_rows(self) -> I64:
        parts = self.model.hits.parts("hits")
        return np.concatenate([read_part(self.run.store, part, ["query_row"])["query_row"].to_numpy() for part in parts])


def _vectors(run: FinishedRun, model: MeasuredModel) -> Commit | None:
    """The commit of the vectors that a model was measured with; None: it is gone, or a part of it is damaged."""
    commit = next((commit for commit in run.record.vectors if commit.key == model.hits.inputs["vectors"]), None)
    if commit is None:
        return None
    try:
        Ledger(run.store).verify(commit)
    except DamagedObject:
        return None
    return commit
