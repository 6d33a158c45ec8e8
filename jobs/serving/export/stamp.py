"""The stamp of an export, stamp.json: what belongs together in it, by digest. Written last; without it there is no export.

    DIR/live.json                      the name of the export that is live
    DIR/<name>/model/                  as the run's model/, with its card
    DIR/<name>/items/part-*.parquet    id, vector, and the items' metadata, as vector databases load them
    DIR/<name>/index/index.faiss       by inner product; item row = position in items/
    DIR/<name>/index/choice.json       how the index was chosen and how fast it was, for a person
    DIR/<name>/int8/model.onnx         what encodes queries in 8 bits, where it was asked for; measured.json says how well
    DIR/<name>/stamp.json              digests of model, texts and files

A stamp has no clock and no address, so that the same export is the same bytes again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from typing import Any

from cluster.errors import ConfigError, DamagedObject
from cluster.storage.records import read_record, write_record
from cluster.storage.store import Store
from jobs.record.usage import Reads

STAMP, LIVE = "stamp.json", "live.json"
MODEL, ITEMS, INDEX, CHOICE = "model", "items", "index/index.faiss", "index/choice.json"
FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Stamp:
    """What an export is."""

    format: int
    name: str
    model: dict[str, str]
    """SHA-256 of its weights, tokenizer, prompts, pooling and architecture; {}: the data's own vectors, there is no model."""
    texts: str
    """Digest of the items' ids, texts and metadata, in order."""
    items: int
    dimension: int
    dtype: str
    """In which the vectors were stored when they were made."""
    reads: Reads
    query_text: str
    """Template of the queries that the model was trained on."""
    index: dict[str, Any]
    """Kind, setting, recall@10 against exact search."""
    run: dict[str, Any]
    """Name, round, figures and data of the run that it is from."""
    files: dict[str, dict[str, Any]]
    """Address in the export -> {"bytes", "sha256"}, of all but the model's."""
    quantized: str | None = None
    """Address of what encodes queries in 8 bits; None: the model does, in float32."""


def write_stamp(store: Store, stamp: Stamp) -> None:
    """Write it; from then on there is an export."""
    write_record(store, STAMP, asdict(stamp))


def read_stamp(store: Store) -> Stamp:
    """The stamp of the export at `store`.

    Raises:
        ConfigError: there is no export, or it is not finished. DamagedObject: the stamp was changed.
    """
    if not store.exists(STAMP):
        raise ConfigError(_no_export(store))
    try:
        values = read_record(store, STAMP)
    except DamagedObject as error:
        raise DamagedObject.at(
            store.url(STAMP),
            f"{store.url(STAMP)} was changed after hardmine wrote it, so it is not known what belongs together in this export; "
            f"the same `hardmine export` again mends it",
        ) from error
    if values.get("format") != FORMAT:
        raise ConfigError(
            f"{store.url(STAMP)} has the format {values.get('format')!r}, this version of hardmine reads {FORMAT}; export again"
        )
    return Stamp(**values)


def first_problem(store: Store, stamp: Stamp) -> tuple[str, str] | None:
    """(address, what is wrong) of a file that is missing or not the one that was exported; None: all are. Not of the model's."""
    sizes = store.list()
    for path, info in stamp.files.items():
        if path not in sizes:
            return path, "is missing: the export was only partly copied"
        if sizes[path] != info["bytes"]:
            how = "cut off" if sizes[path] < int(info["bytes"]) else "another file"
            return path, f"has {sizes[path]:,} bytes where its stamp says {info['bytes']:,}: it is {how}"
    for path, info in stamp.files.items():
        with store.open(path) as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != info["sha256"]:
                return path, (
                    "does not have the SHA-256 of its stamp: it was damaged, or is from another export, whose vectors do not "
                    "belong to this model"
                )
    return None


def _no_export(store: Store) -> str:
    if store.root.endswith(".toml"):
        return (
            f"{store.root} is a configuration, not an export; `hardmine hits` runs its search stage, and `hardmine export OUTPUT "
            f"--to FOLDER` writes an export of its finished run"
        )
    names = list(store.list())
    if any(name.startswith("commits/") for name in names):
        return f"{store.root} is a run, not an export; write one first: `hardmine export {store.root} --to FOLDER`"
    if any(name.startswith(("items/", "index/", "model/")) for name in names):
        return (
            f"{store.root} is an export that is not finished: its {STAMP} is written last and is missing. The same "
            f"`hardmine export` again finishes it"
        )
    return f"expected an export in {store.root}, found no {STAMP} and no {LIVE}; `hardmine export OUTPUT --to FOLDER` writes one"


def open_home(root: str, settings: Any = None) -> Store:
    """The export at `root`: itself, or the live one where `root` is a folder of exports.

    Raises:
        ConfigError: there is none, or the pointer names one that is gone.
    """
    store = Store(root, settings)
    if store.exists(STAMP) or not store.exists(LIVE):
        return store
    name = live_name(store)
    export = Store(store.url(str(name)), settings)
    if not export.exists(STAMP):
        others = ", ".join(exports_in(store)) or "none"
        raise ConfigError(
            f"{store.url(LIVE)} says that {name!r} is live, but there is no such finished export (finished: {others}); choose "
            f"one with `hardmine live {root} NAME`"
        )
    return export


def live_name(home: Store) -> str | None:
    """The name of the live export; None: none is."""
    if not home.exists(LIVE):
        return None
    name = home.read_json(LIVE).get("live")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f'{home.url(LIVE)}: expected the name of an export in this folder as "live", found {name!r}')
    return name


def exports_in(home: Store) -> list[str]:
    """Names of the finished exports in a folder of them."""
    return [name for name in home.folders() if home.exists(f"{name}/{STAMP}")]


def set_live(home: Store, name: str) -> dict[str, Any]:
    """Let the pointer name another export; one write, so that readers see the old or the new one.

    Returns:
        {"live", "before", "exports"}.

    Raises:
        ConfigError: there is no such finished export.
    """
    names = exports_in(home)
    if name not in names:
        raise ConfigError(f"expected a finished export in {home.root}, found no {name!r}; there are {', '.join(names) or 'none'}")
    before = live_name(home)
    if before != name:
        home.write_json(LIVE, {"live": name, "before": before})
    return {"live": name, "before": before, "exports": names}
