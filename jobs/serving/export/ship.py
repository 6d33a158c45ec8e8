"""`hardmine export`: a model of a finished run, its vectors and an index as one folder that a service opens.

An export lies in a folder named after all that it depends on, so the same command again finds it, and a killed one goes on
with what is there. Nothing in it ever changes: another model is another folder, and live.json names the one that is served.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.commits import digest
from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.digests import described
from cluster.storage.model_folders import describe_folder, upload_folder
from cluster.storage.records import read_record, write_record
from cluster.storage.store import Store
from cluster.storage.usable import check_writable
from cluster.tables.tables import F32, Part, left_parts, part_name, vectors_to_column, write_part
from jobs.finished.finished_run import open_finished
from jobs.serving.export.index import Budget, Choice, choose_index
from jobs.serving.export.marks import model_marks, reranker_mark
from jobs.serving.export.parts_of_run import EmbedAgain, RunSource, Source
from jobs.serving.export.quantized import MEASURED, QUANTIZED, Quantized, write_quantized
from jobs.serving.export.stamp import (
    CHOICE,
    FORMAT,
    INDEX,
    ITEMS,
    LIVE,
    MODEL,
    STAMP,
    Stamp,
    exports_in,
    first_problem,
    live_name,
    read_stamp,
    set_live,
    write_stamp,
)

Say = Callable[[str], None]
CARD = "README.md"
WITHOUT_MODEL = "The vectors that came with the data are the embeddings: there is no model. Give queries as vectors.\n"


@dataclass(frozen=True)
class Exported:
    """What `hardmine export` printed."""

    name: str
    path: str
    live: str | None
    """The export that is live in this folder."""
    kept: bool
    """It was there before."""
    stamp: Stamp
    choice: Choice
    quantized: Quantized | None
    """What its queries in 8 bits measured; None: they are encoded in float32."""

    def as_json(self) -> dict[str, Any]:
        """As `--json` has it."""
        stamp = asdict(replace(self.stamp, files={}))
        size = sum(int(info["bytes"]) for info in self.stamp.files.values())
        return {"name": self.name, "path": self.path, "live": self.live, "kept": self.kept, "bytes": size} | {
            "index": self.choice.as_json(),
            "int8": None if self.quantized is None else asdict(self.quantized),
            **{name: stamp[name] for name in ("items", "dimension", "reads", "model", "texts", "run")},
        }


def export_run(
    store: Store,
    home: Store,
    budget: Budget,
    *,
    number: int | None = None,
    live: bool = False,
    quantize: bool = False,
    embed_again: EmbedAgain | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Write an export of the run at `store` into the folder `home`.

    Args:
        number: the round whose model it is, -1: off the shelf; None: the model that was kept.
        live: let it be the live one; the first export of a folder is it anyway.
        quantize: queries are to be encoded in 8 bits.

    Raises:
        ConfigError: no finished run, no such round, no index within the budget, or something else lies in the folder.
        ArtifactError: something of the run is missing or damaged.
    """
    source = RunSource.of(open_finished(store), number, embed_again)
    return export_source(source, home, budget, live=live, quantize=quantize, say=say)


def export_source(
    source: Source, home: Store, budget: Budget, *, live: bool = False, quantize: bool = False, say: Say = lambda _: None
) -> Exported:
    """Write an export of a model and its vectors. Raises as `export_run`."""
    check_home(home)
    with tempfile.TemporaryDirectory(prefix="hardmine-export-") as scratch:
        folder = source.folder(Path(scratch) / "model")
        marks = model_marks(folder) if folder else {}
        name = export_name(source, marks, budget, reranker_mark(folder), quantize=quantize)
        export = Store(home.url(name), home.settings)
        kept = is_whole(export, folder)
        if kept:
            say(f"✓ {name} is there already")
        else:
            _write(source, export, folder, marks, budget, Path(scratch), say, quantize=quantize)
    if live or live_name(home) is None:
        set_live(home, name)
    choice = Choice(**read_record(export, CHOICE)["choice"])
    measured = Quantized(**read_record(export, MEASURED)["measured"]) if quantize else None
    return Exported(name, export.root, live_name(home), kept, read_stamp(export), choice, measured)


def is_whole(export: Store, folder: Path | None) -> bool:
    """Whether an export is there with every byte; an edited model card is no damage. Args: folder: of its model."""
    try:
        stamp = read_stamp(export) if export.exists(STAMP) else None
        if stamp is None or first_problem(export, stamp) is not None or not export.exists(CHOICE):
            return False
        if stamp.quantized is not None and not export.exists(MEASURED):
            return False
        wanted = describe_folder(folder, MODEL) if folder else {}
        return all(described(export.read_bytes(path)) == info for path, info in wanted.items() if path != f"{MODEL}/{CARD}")
    except ArtifactError:
        return False


def check_home(home: Store) -> None:
    """Raises ConfigError: the folder holds something that is no export. ClusterError: it cannot be written."""
    check_writable(home)
    if home.exists(STAMP):
        raise ConfigError(f"--to {home.root} is an export itself, and exports never change; name the folder above it")
    names = home.folders()
    if home.exists("commits") or home.exists("identity.json"):
        raise ConfigError(f"--to {home.root} is the folder of a run; name another folder for exports")
    if names and not home.exists(LIVE) and not exports_in(home) and not any(home.exists(f"{one}/{MODEL}") for one in names):
        raise ConfigError(
            f"--to {home.root}: expected an empty folder or a folder of exports, found {names[0]} in it; name another folder"
        )


def export_name(
    source: Source, marks: dict[str, str], budget: Budget, reranker: str | None = None, *, quantize: bool = False
) -> str:
    """Run, round, and a digest of all that the export depends on."""
    depends = {"model": marks, "vectors": source.key, "texts": source.texts, "budget": asdict(budget), "format": FORMAT}
    depends |= {"reranker": reranker} if reranker else {}
    depends |= {"int8": True} if quantize else {}
    return f"{source.stem}-{digest(depends)[:8]}"


def _write(
    source: Source,
    export: Store,
    folder: Path | None,
    marks: dict[str, str],
    budget: Budget,
    scratch: Path,
    say: Say,
    *,
    quantize: bool,
) -> None:
    say(f"· {export.root.rpartition('/')[2]}: {source.items:,} items, model of {source.label}")
    if folder is None:
        export.write_bytes(f"{MODEL}/{CARD}", WITHOUT_MODEL.encode())
    else:
        upload_folder(folder, export, MODEL)
    vectors, parts = write_items(source, export, scratch)
    files = {part.path: {"bytes": part.bytes, "sha256": part.sha256} for part in parts}
    say(f"✓ items: {len(parts)} parts, {sum(part.bytes for part in parts) / 1e6:,.1f} MB")
    choice, index = write_index(export, vectors, source.queries(), budget, scratch)
    say(f"✓ index: {choice.kind}, recall@10 {choice.recall:.3f} against exact search, {choice.megabytes:,.1f} MB")
    files[INDEX] = index
    if quantize:
        measured = write_quantized(export, folder, vectors, source.query_texts(), budget.min_recall, scratch)
        files[QUANTIZED] = described(export.read_bytes(QUANTIZED))
        say(f"✓ int8: finds {measured.recall:.1%} of float32's ten nearest, {measured.p50_ms:.1f} ms a query")
    stamp = _stamp(source, export, marks, reranker_mark(folder), vectors, choice, files)
    write_stamp(export, replace(stamp, quantized=QUANTIZED if quantize else None))


def write_items(source: Source, export: Store, scratch: Path) -> tuple[F32, list[Part]]:
    """Write the items as Parquet; parts that a killed export left whole are kept.

    Returns:
        (all vectors float32 [N, D], a memory map of a file in `scratch`; the parts, whose digests are of whole files).
    """
    corpus = sorted(source.corpus, key=lambda part: part.first_row)
    wanted = [Part(f"{ITEMS}/{part_name(n)}", part.rows, 0, part.first_row) for n, part in enumerate(corpus)]
    there = left_parts(export, wanted)
    vectors: F32 | None = None
    parts = []
    for place, (part, table, block) in zip(wanted, source.blocks(), strict=True):
        if vectors is None:
            vectors = np.memmap(scratch / "vectors", np.float32, "w+", shape=(source.items, block.shape[1]))
        vectors[part.first_row : part.first_row + part.rows] = block
        if place.path not in there:
            columns = {"id": table["id"], "vector": pa.chunked_array([vectors_to_column(block)])}
            others = {name: table[name] for name in table.column_names if name != "id"}
            write_part(export, place.path, pa.table(columns | others), first_row=part.first_row, for_others=True)
        parts.append(replace(place, **described(export.read_bytes(place.path))))
    assert vectors is not None
    return vectors, parts


def write_index(export: Store, vectors: F32, queries: F32, budget: Budget, scratch: Path) -> tuple[Choice, dict[str, Any]]:
    """Build the index and write it; one that a killed export left whole is kept. choice.json comes after it and has its digest.

    Raises:
        ConfigError: none fits the budget.
    """
    import faiss

    try:
        values = read_record(export, CHOICE)
        if described(export.read_bytes(INDEX)) == values["file"]:
            return Choice(**values["choice"]), values["file"]
    except (ArtifactError, DamagedObject):
        pass
    index, choice = choose_index(vectors, queries, budget)
    faiss.write_index(index, str(scratch / "index"))
    with (scratch / "index").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        file = described(bytes(data) if export.remote else data)  # type: ignore[arg-type]  # a map is read like bytes
        export.write_bytes(INDEX, bytes(data) if export.remote else data)  # type: ignore[arg-type]
    write_record(export, CHOICE, {"choice": choice.as_json(), "file": file})
    return choice, file


def _stamp(
    source: Source,
    export: Store,
    marks: dict[str, str],
    reranker: str | None,
    vectors: F32,
    choice: Choice,
    files: dict[str, dict[str, Any]],
) -> Stamp:
    return Stamp(
        format=FORMAT,
        name=export.root.rpartition("/")[2],
        model=marks,
        texts=source.texts,
        items=len(vectors),
        dimension=vectors.shape[1],
        dtype=source.dtype,
        reads=source.reads if marks else "vectors",
        query_text=source.query_text,
        index=choice.lasting,
        run=source.about | ({"reranker": reranker} if reranker else {}),
        files=dict(sorted(files.items())),
    )


def live_command(home: Store, name: str | None) -> dict[str, Any]:
    """`hardmine live`: which export is live; with a name, that one from now on."""
    if name is not None:
        return set_live(home, name)
    names = exports_in(home)
    if not names:
        raise ConfigError(f"expected exports in {home.root}, found none; `hardmine export OUTPUT --to {home.root}` writes one")
    return {"live": live_name(home), "before": None, "exports": names}
