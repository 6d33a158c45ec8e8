"""An export, opened: every byte checked against its stamp, then searched. Nothing is searched that does not belong together.

Memory: the index, and ids and metadata of the items; their vectors are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.digests import described
from cluster.storage.model_folders import Manifest, fetch_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64
from eval.reranking.order import reorder
from jobs.serving.export.index import set_effort
from jobs.serving.export.marks import model_marks
from jobs.serving.export.quantized import quantized_encoder
from jobs.serving.export.stamp import INDEX, ITEMS, MODEL, Stamp, first_problem, open_home, read_stamp
from jobs.serving.search.query_encoder import Encode, describe_query, query_encoder
from jobs.serving.search.reranking import CANDIDATES, Rerank, open_reranker
from jobs.serving.search.where import Mask, mask_of

NARROW_ITEMS, NARROW_SHARE = 20_000, 0.05
"""Where so few items fit a filter, a graph or lists would find too few of them: all that fit are read instead."""
TITLES = ("title", "name")
SHOWN = 160
"""Characters of a text shown where an item has no title."""


@dataclass(frozen=True)
class Hits:
    """What a search found for Q queries."""

    rows: I64
    """[Q, K] positions of items, best first; -1: fewer fit."""
    scores: F32
    """[Q, K] cosine; of ivfpq and sq8 it is that of the shortened vector. -inf is padding."""


class Opened:
    """An export that passed its check."""

    def __init__(self, stamp: Stamp, folder: Path, model: Path | None, path: str, rerank: Rerank | None = None) -> None:
        import faiss

        self.rerank = rerank

        self._faiss: Any = faiss
        self.stamp, self.path, self.folder, self.model = stamp, path, folder, model
        if stamp.quantized is None:
            self._encode: Encode = query_encoder(model, stamp.reads, stamp.dimension)
        else:
            assert model is not None
            self._encode = quantized_encoder(model, folder / stamp.quantized)
        self._index: Any = faiss.read_index(str(folder / INDEX))
        if (self._index.ntotal, self._index.d) != (stamp.items, stamp.dimension):
            raise ArtifactError(
                f"{path}: the index holds {self._index.ntotal:,} vectors of {self._index.d} dimensions, its stamp says "
                f"{stamp.items:,} of {stamp.dimension}; export again"
            )
        set_effort(self._index, int(stamp.index["setting"]))
        self.items = _metadata(folder, stamp)

    @property
    def name(self) -> str:
        """Of the export."""
        return self.stamp.name

    @property
    def ids(self) -> pa.ChunkedArray:
        """Ids of the items, by position."""
        return self.items["id"]

    def encode(self, queries: Sequence[str]) -> F32:
        """Vectors of queries, float32 [Q, D] of unit length. Raises DataError: the model cannot read one."""
        return self._encode(queries)

    def mask(self, where: Sequence[str]) -> Mask | None:
        """[N] the items that fit the conditions; None: there is none. Raises ConfigError: one cannot be read."""
        return mask_of(where, self.items)

    def search(self, vectors_QD: F32, hits: int, mask: Mask | None = None) -> Hits:
        """The nearest items of each query, among those of the mask. Equal scores are ordered by position."""
        fitting = self.stamp.items if mask is None else int(mask.sum())
        wanted = min(hits, fitting)
        rows = np.full((len(vectors_QD), hits), -1, np.int64)
        scores = np.full((len(vectors_QD), hits), -np.inf, np.float32)
        if wanted:
            selector = None
            if mask is not None:
                selector = self._faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            index, options = self._how(selector, fitting)
            queries = np.ascontiguousarray(vectors_QD, np.float32)
            found_scores, found = index.search(queries, wanted, params=options) if options else index.search(queries, wanted)
            order = np.lexsort((found, -found_scores), axis=1)
            rows[:, :wanted] = np.take_along_axis(found, order, axis=1)
            scores[:, :wanted] = np.take_along_axis(np.where(found < 0, -np.inf, found_scores), order, axis=1)
        return Hits(rows, scores)

    def ranked(self, query: str, vectors_1D: F32, hits: int, mask: Mask | None = None) -> Hits:
        """The nearest items of one query, in the order of the export's re-ranker if it was opened with it, with its scores."""
        if self.rerank is None:
            return self.search(vectors_1D, hits, mask)
        found = self.search(vectors_1D, max(hits, CANDIDATES), mask)
        texts = self.items["text"].take(pa.array(found.rows[0][found.rows[0] >= 0])).to_pylist()
        scores = np.full(found.rows.shape, np.nan, np.float32)
        scores[0, : len(texts)] = self.rerank(query, [text or "" for text in texts])
        rows, ordered = reorder(found.rows, scores)
        return Hits(rows[:, :hits], ordered[:, :hits])

    def _how(self, selector: Any, fitting: int) -> tuple[Any, Any]:
        """(index to ask, search parameters) under a filter; the whole of what fits is read where that is little."""
        index, faiss = self._index, self._faiss
        if selector is None:
            return index, None
        narrow = fitting <= max(NARROW_ITEMS, NARROW_SHARE * self.stamp.items)
        if hasattr(index, "hnsw"):
            if narrow:
                return index.storage, faiss.SearchParameters(sel=selector)
            return index, faiss.SearchParametersHNSW(sel=selector, efSearch=max(index.hnsw.efSearch, 64))
        if hasattr(index, "nprobe"):
            return index, faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist if narrow else index.nprobe)
        return index, faiss.SearchParameters(sel=selector)

    def titles(self, ids: Sequence[Sequence[str]]) -> list[list[str]]:
        """Titles of items by id, or how their texts begin."""
        import pyarrow.compute as pc

        flat = pa.array([name for names in ids for name in names], self.ids.type)
        table = self.items.take(pc.index_in(flat, value_set=self.ids))
        titles = iter([_title(item) for item in table.to_pylist()])
        return [[next(titles) for _ in names] for names in ids]

    def shown(self, hits: Hits, query: int = 0) -> list[dict[str, Any]]:
        """The hits of one query for a person: {"position", "id", "title", "score", "metadata"}."""
        rows = hits.rows[query]
        real = rows >= 0
        table = self.items.take(pa.array(rows[real]))
        result = []
        for position, (item, score) in enumerate(zip(table.to_pylist(), hits.scores[query][real].tolist(), strict=True), start=1):
            text = str(item.pop("text", "") or "")
            row = {"position": position, "id": item.pop("id"), "title": _title(item | {"text": text}), "score": round(score, 4)}
            result.append(row | {"text": text, "metadata": {key: _plain(value) for key, value in item.items()}})
        return result


def _title(item: Mapping[str, Any]) -> str:
    return next((str(item[name]) for name in (*TITLES, "text") if item.get(name)), "")[:SHOWN]


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)


def open_export(root: str, settings: Any = None, *, model: str | None = None, rerank: bool = False) -> Opened:
    """Open the export at `root`, or the live one of a folder of exports.

    Args:
        model: folder of the model that encodes queries, in place of the export's own.
        rerank: with its re-ranker.

    Raises:
        ConfigError: there is no finished export, it has no re-ranker, or the model is another one than made the vectors.
        DamagedObject: a file is missing, cut off or another one than the stamp says.
    """
    store = open_home(root, settings)
    stamp = read_stamp(store)
    folder = _checked_files(store, stamp)
    own = _model_folder(store, folder, stamp) if stamp.model else None
    encoder = Path(model).expanduser() if model is not None else own
    if model is not None:
        assert encoder is not None
        _check_model(encoder, stamp, f"--model {model}")
    elif own is not None:
        _check_model(own, stamp, store.url(MODEL))
    return Opened(stamp, folder, encoder, store.root, open_reranker(own, stamp, store.root) if rerank else None)


def _checked_files(store: Store, stamp: Stamp) -> Path:
    """The folder of the export on this machine, all files but the model's checked.

    Raises:
        DamagedObject: a file is missing, cut off, or not the one that was exported.
    """
    if store.remote:
        return _fetched(store, stamp)
    problem = first_problem(store, stamp)
    if problem is not None:
        raise _refused(store, *problem)
    return Path(store.root)


def _fetched(store: Store, stamp: Stamp) -> Path:
    """A copy of the files on this machine, made once per content, each checked."""
    sizes = store.list()
    for path in stamp.files:
        if path not in sizes:
            raise _refused(store, path, "is missing: the export was only partly copied")
    home, _, name = store.root.rpartition("/")
    files: Manifest = {f"{name}/{path}": info for path, info in stamp.files.items()}
    try:
        return fetch_folder(Store(home, store.settings), files, name)
    except DamagedObject as error:
        path = error.url.removeprefix(f"{store.root}/")
        raise _refused(store, path, "does not have the SHA-256 of its stamp") from error


def _refused(store: Store, path: str, why: str) -> DamagedObject:
    return DamagedObject.at(
        store.url(path),
        f"{store.url(path)} {why}. This export is not opened; copy it again as a whole, or run the same "
        f"`hardmine export` again, which writes what is wrong",
    )


def _model_folder(store: Store, folder: Path, stamp: Stamp) -> Path:
    """The export's own model on this machine."""
    files = [path for path in store.list(MODEL) if path.startswith(f"{MODEL}/")]
    if not files:
        raise _refused(store, MODEL, f"is missing, and with it what makes queries into vectors ({describe_query(stamp.reads)})")
    if not store.remote:
        return folder / MODEL
    manifest: Manifest = {path: described(store.read_bytes(path)) for path in files}
    return fetch_folder(store, manifest, MODEL)


def _check_model(folder: Path, stamp: Stamp, where: str) -> None:
    """Raises ConfigError: another model than the one that made the vectors."""
    if not folder.is_dir():
        raise ConfigError(f"{where}: expected the folder of a model, found none; give a local folder")
    marks = model_marks(folder)
    other = [name for name, mark in stamp.model.items() if marks.get(name) != mark]
    if other or not stamp.model:
        what = f"its {' and '.join(other)} differ" if other else "they are not of any model"
        raise ConfigError(
            f"{where} is another model than the one that made the vectors of {stamp.name} ({what}, by SHA-256): queries and "
            f"items would not be comparable, whatever their dimensions. Use the export's own model, or export this model's run"
        )


def _metadata(folder: Path, stamp: Stamp) -> pa.Table:
    """Ids and metadata of all items, in order."""
    paths = sorted(path for path in stamp.files if path.startswith(f"{ITEMS}/"))
    tables = []
    for path in paths:
        names = [name for name in pq.read_schema(folder / path).names if name != "vector"]
        tables.append(pq.read_table(folder / path, columns=names))
    items = pa.concat_tables(tables, promote_options="permissive")
    if items.num_rows != stamp.items:
        raise ArtifactError(f"{folder / ITEMS}: expected {stamp.items:,} items, found {items.num_rows:,}; export again")
    return items


def refuse_pair(a: Opened, b: Opened) -> None:
    """Raises ConfigError: two exports cannot be compared, as their models read different things."""
    if a.stamp.reads != b.stamp.reads:
        raise ConfigError(
            f"{a.name} reads {describe_query(a.stamp.reads)}, {b.name} {describe_query(b.stamp.reads)}: they cannot answer the "
            f"same queries; compare exports of one kind of model"
        )


def stamp_json(opened: Opened) -> Mapping[str, Any]:
    """What an export says of itself over HTTP."""
    stamp = opened.stamp
    return {"name": stamp.name, "items": stamp.items, "dimension": stamp.dimension, "reads": stamp.reads} | {
        "index": stamp.index,
        "model": stamp.model.get("weights", "")[:12],
        "run": {key: stamp.run[key] for key in ("name", "round", "label", "primary", "figure")},
    }
