"""The data sets of `benchmarks.quality`, prepared by the command line as a run would be, and scored without one.

V evaluated queries, N items, D dimensions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.commits import Commit, Ledger
from cluster.labels.labels import NO_NEGATIVE
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import (
    F32,
    I64,
    Part,
    csr_to_lists,
    lists_to_csr,
    offsets_of,
    part_name,
    read_part,
    read_parts,
    write_part,
)
from eval.metrics import Judgements, per_query_metrics
from mining.search.topk import Shard, exact_topk

MEASURED = ("recall@3", "ndcg@10", "hit@10", "bad_top1")
NEAR_MISSES = 100
"""Hits of every dev query under the model as it comes, as the evaluate stage gives them to a round's validation."""
LAST = "mine-report"
"""The last stage of `hardmine mine`."""
REPORTED = ("hit_rate", "queries", "queries_short", "queries_empty", "suspected_false_negatives", "hardness", "judged", "chosen")
ROOT = Path(__file__).resolve().parents[2]
Features = tuple[list[Part], list[Part]]
"""Tables of items and of queries."""


@dataclass(frozen=True)
class DataSet:
    """How a folder with corpus, queries and qrels.parquet is read."""

    item_text: str = "{title} {text}"
    columns: dict[str, str] = field(default_factory=dict)
    max_length: int = 64
    """Tokens that a transformer in training reads here; mining and an adapter's frozen vectors are of the model's own limit."""


GENERATED = "demo"
"""The demo's generated catalogue, which needs no data folder."""
SETS = {
    GENERATED: DataSet(item_text="{title} by {author} | {genres} | {text}"),
    "products": DataSet(item_text="{text}"),  # its texts start with the title
    "tldr": DataSet(),
    "goodbooks": DataSet(item_text="{title} by {authors} | {genres} | {text}"),
    "debian": DataSet(columns={"group": "source"}),
    "scifact": DataSet(max_length=128),
    "banking77": DataSet(item_text="{text}"),
}


def settings_of(name: str) -> DataSet:
    """Of a data set, or of a part of one: "debian-5000"."""
    return SETS[name.split("-", maxsplit=1)[0]]


@dataclass(frozen=True)
class Prepared:
    """A data set with its base model's vectors and the negatives that this model mined."""

    store: Store
    codes: list[Part]
    """What items have in common."""
    queries: list[Part]
    labels: list[Part]
    vectors: Features
    """Of the model as it comes: what an adapter reads."""
    tokens: Commit | None
    """What a transformer reads; None: the set came with vectors."""
    negatives: list[Part]
    near_misses: list[Part]
    base: Commit
    item_vectors: F32
    """[N, D] of unit length."""
    query_vectors: F32
    rows: dict[str, I64]
    """Split -> its query rows."""
    judgements: Judgements
    mining: dict[str, Any]
    """What `hardmine mine` said of its negatives."""


def prepare(name: str, data: Path, work: Path, model: str | None, threads: int) -> Prepared:
    """Ingest, embed, search and mine `name` with the model as it comes through `hardmine mine`, unless that is done.

    Args:
        data: folder with a folder per data set. A `vector` column in its corpus and queries stands for the frozen model.
        model: folder of the base model; None: a new static model, which has learnt nothing.

    Raises:
        SystemExit: the command failed; says what it said.
    """
    store = Store(str(work / "runs" / name))
    if Ledger(store).find(LAST) is not None:
        return _read_run(store)
    _mine(_write_config(name, data / name, work, model), threads, [])
    return _read_run(store)


def mined_by(model: Path, name: str, variant: str, work: Path, threads: int) -> Prepared:
    """The data of `name` as the static model at `model` embeds and mines it, in a run called `variant`, unless that is done."""
    store = Store(str(work / "runs" / variant))
    if Ledger(store).find(LAST) is None:
        _mine(work / f"{name}.toml", threads, [f"name={variant}", f"encoder.model={model}"])
    return _read_run(store)


def taught(prepared: Prepared, name: str, variant: str, teacher: Sequence[str], work: Path, threads: int) -> Prepared:
    """The same data with negatives that a teacher had a say in, mined in a copy of the run, unless that is done.

    Args:
        variant: what these negatives are called. teacher: settings of the mining, KEY=VALUE.
    """
    folder = work / "runs" / f"{name}-{variant}"
    store = Store(str(folder))
    if not (folder / "taught").exists():
        shutil.copytree(work / "runs" / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("quality"))
        _mine(work / f"{name}.toml", threads, [f"name={name}-{variant}", *teacher])
        (folder / "taught").touch()
    near = _near_misses(store, prepared.item_vectors, prepared.query_vectors, prepared.rows["dev"])
    mined, report = Ledger(store).find("mine"), Ledger(store).find(LAST)
    assert mined is not None
    assert report is not None
    said = {key: report.figures[key] for key in (*REPORTED, "relabelled", "weak_queries")}
    return replace(prepared, store=store, negatives=mined.parts("negatives"), near_misses=[near], mining=said)


def _mine(config: Path, threads: int, overrides: Sequence[str]) -> None:
    command = [sys.executable, "-m", "jobs", "mine", str(config), "--json", f"cluster.cpus={threads}", *overrides]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)}
    )
    if done.returncode:
        raise SystemExit(f"{config.stem}: {done.stderr}")


def _write_config(name: str, data: Path, work: Path, model: str | None) -> Path:
    chosen = settings_of(name)
    lines = [
        f'name = "{name}"',
        f'output = "{(work / "runs").resolve()}"',
        "[data]",
        *(f'{table} = "{(data / table).resolve()}.parquet"' for table in ("corpus", "queries", "qrels")),
        f'item_text = "{chosen.item_text}"',
        "columns = {" + ", ".join(f'{ours} = "{theirs}"' for ours, theirs in chosen.columns.items()) + "}",
        "[encoder]",
        f'kind = "{"adapter" if model else "static"}"',
    ]
    if model and "vector" not in pq.read_schema(data / "corpus.parquet").names:
        lines.append(f'model = "{model}"')
    path = work / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _read_run(store: Store) -> Prepared:
    commits = {commit.name: commit for commit in Ledger(store).all()}
    tables = commits["ingest"]
    vectors = next(commit for name, commit in commits.items() if name.startswith("embed-"))
    item_vectors, query_vectors = (load_vectors(store, vectors.parts(table)) for table in ("corpus", "queries"))
    split = np.asarray(read_parts(store, tables.parts("queries"), ["split"])["split"].to_pylist())
    rows = {name: np.flatnonzero(split == name) for name in sorted(set(split))}
    labels = read_parts(store, tables.parts("labels"), ["query_row", "item_row", "gain", "score"])
    judged = labels.filter(pc.not_equal(labels["score"], NO_NEGATIVE))
    query_L, item_L, gain_L, score_L = (judged[name].to_numpy() for name in judged.column_names)
    return Prepared(
        store,
        tables.parts("codes"),
        tables.parts("queries"),
        tables.parts("labels"),
        (vectors.parts("corpus"), vectors.parts("queries")),
        commits.get("tokens"),
        commits["mine"].parts("negatives"),
        [_near_misses(store, item_vectors, query_vectors, rows["dev"])],
        commits["base"],
        item_vectors,
        query_vectors,
        rows,
        Judgements.from_triples(query_L, item_L, gain_L, score_L > 0),
        {key: commits[LAST].figures[key] for key in REPORTED},
    )


def cut_tokens(prepared: Prepared, max_length: int) -> Features:
    """(item, query) token tables with every text cut to `max_length` tokens, the last one (an end mark) kept last.

    Raises:
        SystemExit: the set came with vectors, so there are no tokens.
    """
    if prepared.tokens is None:
        raise SystemExit("this set came with a `vector` column, which a transformer cannot be trained on; leave the column out")
    made = []
    for table in ("corpus", "queries"):
        parts = []
        for number, part in enumerate(prepared.tokens.parts(table)):
            read = read_part(prepared.store, part.path)
            offsets, values = lists_to_csr(read["tokens"])
            lengths = np.minimum(np.diff(offsets), max_length)
            place = np.arange(lengths.sum()) - np.repeat(offsets_of(lengths)[:-1], lengths)
            index = np.repeat(offsets[:-1], lengths) + place
            index[offsets_of(lengths)[1:] - 1] = offsets[1:] - 1
            lists = csr_to_lists(offsets_of(lengths), values[index])
            cut = read.set_column(read.schema.get_field_index("tokens"), "tokens", lists)
            parts.append(
                write_part(
                    prepared.store, f"quality/tokens-{max_length}/{table}/{part_name(number)}", cut, first_row=part.first_row
                )
            )
        made.append(parts)
    return made[0], made[1]


def _near_misses(store: Store, items: F32, queries: F32, dev: I64) -> Part:
    scores, rows = exact_topk(queries[dev], Shard(items, "faiss"), min(NEAR_MISSES, len(items)))
    offsets = np.arange(len(dev) + 1) * rows.shape[1]
    return write_part(
        store,
        "quality/near-misses.parquet",
        pa.table(
            {"query_row": dev, "item_rows": csr_to_lists(offsets, rows.ravel()), "scores": csr_to_lists(offsets, scores.ravel())}
        ),
    )


def measure(prepared: Prepared, item_vectors: F32, query_vectors: F32, query_rows: I64) -> dict[str, Any]:
    """Figures of every query over the whole corpus, searched exactly: name -> [V] float64, NaN without a relevant item.

    Args:
        query_vectors: [V, D], of `query_rows`.
    """
    _, hits = exact_topk(np.ascontiguousarray(query_vectors), Shard(item_vectors, "faiss"), 10)
    figures = per_query_metrics(hits, query_rows, prepared.judgements, ks=(3, 10))
    return {name: figures[name] for name in MEASURED}
