"""Taking the negatives elsewhere: Parquet with the columns that sentence-transformers' trainers read, ids beside it.

    DIR/part-*.parquet       texts only, columns in the order that losses expect: usable as it is
    DIR/ids/part-*.parquet   row for row the same, as ids and scores
    DIR/README.md            a dataset card, so that loading the folder gives the texts and not the ids
    DIR/export.json          what was exported; its presence says that this folder is ours to replace

    n-tuple        anchor, positive, negative_1 … negative_N: a row per (query, relevant item) that has all N
    triplet        anchor, positive, negative: a row per (query, relevant item, negative)
    labeled-list   anchor, positive (list: the relevant item, then negatives), labels (1, 0, 0 …)

as `sentence_transformers.util.mine_hard_negatives` returns them. Queries come in the order of the data.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.commits import Commit
from cluster.errors import ConfigError
from cluster.storage.store import Store
from cluster.storage.usable import check_writable
from cluster.tables.rows import group_blocks, read_rows, rows_at_once
from cluster.tables.tables import I64, Part, lists_to_csr, part_name, read_part
from jobs.config.config import Config
from jobs.finished.negatives.columns import Columns, Rows
from jobs.stages.context import Context

OURS = re.compile(r"(ids/)?part-\d{5}\.parquet|README\.md|export\.json")
CELLS = 65_536
"""Texts of one row group."""


@dataclass(frozen=True)
class Export:
    """Where to, and how."""

    target: str
    """Local folder or s3:// prefix."""
    columns: Columns = "n-tuple"
    num: int | None = None
    """Negatives per row; None: mining.num_negatives."""

    def count(self, config: Config) -> int:
        """Negatives per row."""
        return self.num or config.mining.num_negatives


def check_export(export: Export, config: Config) -> None:
    """Check the export before anything runs.

    Raises:
        ConfigError: more negatives than are mined, or something else lies in the folder.
        ClusterError: the folder cannot be written.
    """
    mined = config.mining.num_negatives
    if not 1 <= export.count(config) <= mined:
        raise ConfigError(
            f"--num {export.num}: expected 1 to mining.num_negatives = {mined}, which is what is kept for each "
            f"query; ask for fewer, or raise mining.num_negatives"
        )
    target = Store(export.target, config.storage)
    check_writable(target)
    found = list(target.list())
    other = [name for name in found if "export.json" not in found or not OURS.fullmatch(name)]
    if other:
        raise ConfigError(
            f"--export {export.target}: expected an empty folder or an earlier export, found {len(other)} other "
            f"file(s), {other[0]} among them; name another folder, or empty this one"
        )


@dataclass(frozen=True)
class ExportTask:
    """What a worker needs to write some blocks."""

    store: Store
    target: Store
    negatives: list[Part]
    corpus: list[Part]
    queries: list[Part]
    columns: Columns
    num: int


@dataclass(frozen=True)
class Written:
    """What one block gave; adds up."""

    rows: int = 0
    left_out: int = 0
    """Pairs of a query and a relevant item with too few negatives, or whose query a teacher leaves out."""
    longest: int = 0
    """Negatives of the query that has most."""
    files: int = 0

    def add(self, other: Written) -> Written:
        """Both together."""
        return Written(
            self.rows + other.rows, self.left_out + other.left_out, max(self.longest, other.longest), self.files + other.files
        )


@dataclass(frozen=True)
class Exported:
    """What an export wrote: export.json, and "export" of `hardmine mine --json`."""

    path: str
    columns: Columns
    num: int
    """Negatives of a row, at most."""
    run: str
    stage: str
    key: str
    """Of the stage's commit."""
    rows: int
    left_out: int
    """Pairs of a query and a relevant item with too few negatives, or whose query a teacher leaves out."""
    files: int


def export_negatives(context: Context, mined: Commit, export: Export) -> Exported:
    """Write the negatives of stage `mined`.

    Raises:
        ConfigError: no row has enough negatives, or the cluster's nodes do not share the folder.
    """
    config, ingested = context.config, context.ledger.find("ingest")
    assert ingested is not None
    target, num = Store(export.target, config.storage), export.count(config)
    if not target.remote and context.size.nodes > 1:
        raise ConfigError(
            f"--export {export.target} is a local folder, but the cluster has {context.size.nodes} nodes that "
            f"cannot all write there; use s3://"
        )
    context.progress.say("· export")
    started = time.monotonic()
    for name in target.list():  # of an earlier export: it was checked before anything ran
        target.delete(name)
    head = {"columns": export.columns, "num": num, "run": context.store.root, "stage": mined.name, "key": mined.key}
    target.write_json("export.json", head | {"complete": False})
    negatives, corpus, queries = mined.parts("negatives"), ingested.parts("corpus"), ingested.parts("queries")
    total = _write_all(ExportTask(context.store, target, negatives, corpus, queries, export.columns, num), context)
    exported = Exported(
        target.root, export.columns, num, context.store.root, mined.name, mined.key, total.rows, total.left_out, total.files
    )
    target.write_bytes("README.md", card(exported).encode())
    counts = {"rows": total.rows, "left_out": total.left_out, "files": total.files}
    target.write_json("export.json", head | counts | {"complete": True})
    context.progress.say(f"✓ {'export':24} {time.monotonic() - started:.1f} s")
    return exported


def _write_all(task: ExportTask, context: Context) -> Written:
    """Write all blocks in Ray tasks. Raises ConfigError: no row has enough negatives."""
    import ray

    groups = group_blocks(task.negatives, rows_at_once(task.corpus), 2 + task.num, max(1, context.size.cpus))
    remote = ray.remote(export_blocks).options(num_cpus=1, max_retries=context.config.cluster.retries)
    total = Written()
    for written in ray.get([remote.remote(task, group) for group in groups]):
        total = total.add(written)
    if not total.rows:
        raise ConfigError(
            f"--export: expected rows with {task.num} negatives, found none among {total.left_out:,} pairs of a "
            f"query and a relevant item (the longest list has {total.longest}); ask for fewer with --num, or mine "
            f"more: see the report's warnings"
        )
    return total


def export_blocks(task: ExportTask, numbers: Sequence[int]) -> Written:
    """Write some blocks; every text of an item is read once for all of them."""
    wanted: I64 = np.zeros(0, np.int64)
    for number in numbers:
        table = read_part(task.store, task.negatives[number], ["positive_rows", "negative_rows"])
        wanted = np.union1d(wanted, np.concatenate([lists_to_csr(table[name])[1] for name in table.column_names]))
    texts = read_rows(task.store, task.corpus, wanted, ["text"])["text"]
    total = Written()
    for number in numbers:
        total = total.add(_export_block(task, number, wanted, texts))
    return total


def _export_block(task: ExportTask, number: int, wanted: I64, texts: pa.ChunkedArray) -> Written:
    table = read_part(task.store, task.negatives[number])
    rows = Rows(table, task.columns, task.num)
    done = Written(len(rows), rows.left_out, int(rows.lengths.max(initial=0)), int(len(rows) > 0))
    if not len(rows):
        return done
    queries = read_rows(task.store, task.queries, table["query_row"].to_numpy(), ["text"])["text"]
    step = max(1, CELLS // (2 + task.num))
    slices = [slice(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]

    def items(found: I64) -> pa.ChunkedArray:
        return texts.take(pa.array(np.searchsorted(wanted, found)))

    _write(task.target, part_name(number), (rows.texts(some, queries, items) for some in slices))
    _write(task.target, f"ids/{part_name(number)}", (rows.ids(some) for some in slices))
    return done


def _write(target: Store, path: str, slices: Iterator[pa.Table]) -> None:
    """Write slices of a table as the row groups of one Parquet object."""
    sink = io.BytesIO()
    first = next(slices)
    with pq.ParquetWriter(sink, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for some in slices:
            writer.write_table(some)
    target.write_bytes(path, sink.getvalue())


def card(exported: Exported) -> str:
    """README.md of the folder; its first lines tell the `datasets` library which files are which."""
    package, model, loss = "sentence_transformers", "SentenceTransformer", "MultipleNegativesRankingLoss"
    if exported.columns == "labeled-list":  # what rerankers learn from
        package, model, loss = f"{package}.cross_encoder", "CrossEncoder", "LambdaLoss"
    imports = f"from {package} import {model}, {model}Trainer\nfrom {package}.losses import {loss}"
    return f"""---
configs:
- config_name: default
  data_files: "*.parquet"
- config_name: ids
  data_files: "ids/*.parquet"
---

# Hard negatives: {exported.columns}

{exported.rows:,} rows with {exported.num} negatives at most, mined by hardmine ({exported.stage} of {exported.run}).
{exported.left_out:,} pairs of a query and a relevant item are left out: too few negatives, or a weak label. `ids/` holds the
same rows as ids and scores.

```python
from datasets import load_dataset
{imports}

model = {model}("…")
rows = load_dataset("parquet", data_files="…/*.parquet", split="train")
{model}Trainer(model, train_dataset=rows, loss={loss}(model)).train()
```
"""
