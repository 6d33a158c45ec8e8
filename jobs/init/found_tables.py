"""The tables in a folder: their columns and first rows. Reads the beginning of each, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from cluster.errors import ConfigError, DataError
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store, join
from jobs.stages.ingest.reading.files import ALONE, ENDINGS, read_head

FILES = {
    "labels": re.compile(r"qrel|label|judg|relevan|rating|annotation"),
    "queries": re.compile(r"quer|question|search|topic"),
    "items": re.compile(r"corpus|collection|item|product|doc|passage|article|catalog|book|movie|answer"),
}
"""Part of a file's name -> what it probably holds."""
MOST_TABLES = 50
"""Tables of a folder that are looked at."""


@dataclass(frozen=True)
class FoundTable:
    """A file of rows, or a folder of such files."""

    url: str
    name: str
    """Below the folder that was given; ends with / for a folder."""
    head: pa.Table

    @property
    def columns(self) -> list[str]:
        """Their names as in the file."""
        return list(self.head.column_names)

    @property
    def described(self) -> str:
        """For messages."""
        shown = ", ".join(self.columns[:8]) + (", …" if len(self.columns) > 8 else "")
        return f"{self.name} (columns {shown})"


@dataclass(frozen=True)
class Folder:
    """What is in the folder."""

    url: str
    tables: list[FoundTable]
    others: list[str] = field(default_factory=list)
    """Files that are no tables, each with the reason where it looked like one."""
    beir: bool = False
    """It is a folder in BEIR layout, with labels of the training queries."""
    inner: list[str] = field(default_factory=list)
    """Folders in it that seem to hold all tables."""

    @property
    def described(self) -> str:
        """For messages."""
        names = [table.described for table in self.tables] + self.others[:5]
        return "; ".join(names) or "no file"


def look_into(url: str, storage: StorageSettings) -> Folder:
    """The tables in a folder on a disk or S3: each file at its top, and each folder in it.

    Raises:
        ConfigError: it is no folder. ClusterError: the storage does not answer.
    """
    parent, _, name = url.rstrip("/").rpartition("/")
    if name and Store(parent or ("/" if url.startswith("/") else "."), storage).size(name) is not None:
        raise ConfigError(
            f"expected a folder with tables of items, queries and labels, found the file {url}; give the folder it is in"
        )
    store = Store(url, storage)
    paths = [path for path in store.list() if not any(part.startswith(("_", ".")) for part in path.split("/"))]
    if not paths:
        raise ConfigError(
            f"expected a folder with tables of items, queries and labels, found no file in {url}; check the address"
        )
    data = [path for path in paths if path.endswith((*ENDINGS, *ALONE))]
    names = dict.fromkeys(path if "/" not in path else path.partition("/")[0] + "/" for path in data)
    tables, others = [], [path for path in paths if path not in data and "/" not in path]
    for name in list(names)[:MOST_TABLES]:
        address = join(store.root, name.rstrip("/"))
        try:
            head = read_head(address, storage)
        except DataError as error:
            others.append(f"{name} ({str(error).removeprefix(address)[:120]}…)")
            continue
        if head is not None:
            tables.append(FoundTable(address, name, head.table))
    beir = {"corpus.jsonl", "queries.jsonl", "qrels/train.tsv"} <= set(paths)
    return Folder(store.root, tables, others, beir, _whole(paths))


def _whole(paths: Iterable[str]) -> list[str]:
    """Folders with files of queries and of labels, by their names."""
    names: dict[str, str] = {}
    for path in paths:
        folder, slash, rest = path.partition("/")
        names[folder] = names.get(folder, "") + (rest.lower() + " " if slash else "")
    return [folder for folder, files in names.items() if FILES["queries"].search(files) and FILES["labels"].search(files)]
