"""Embedding through the real Ray Data pool with a small encoder: counts, order, what a restart repeats, errors."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ArtifactError, DataError, unwrap
from cluster.session.resources import PoolSize
from cluster.storage.store import Store
from cluster.tables.rows import load_vectors
from cluster.tables.tables import F32, Part, part_name, read_part, write_part
from mining.embed import Embedded, EmbedJob, EncodeParts, PartEncoder, check_counts, embed

PART_ROWS = (16, 16, 5)
TABLES = ("items", "queries")


@dataclass
class FakeEncoder:
    """The unit vector at the angle that the text says; leaves a note of every part it encodes."""

    log: str = "log"

    def __call__(self, store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
        texts = read_part(store, path, ["text"])["text"].to_pylist()
        store.write_bytes(f"{self.log}/{path.replace('/', '-')}-{time.monotonic_ns()}", b"")
        on_progress(len(texts))
        angles = np.array([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def short_encoder(store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
    return FakeEncoder()(store, path, on_progress)[1:]


@dataclass
class CrashingEncoder(FakeEncoder):
    """Takes its process down on the second part, once or always."""

    once: bool = True

    def __call__(self, store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
        if path.endswith(part_name(1)) and (store.create("crashed", b"") or not self.once):
            os._exit(1)
        return super().__call__(store, path, on_progress)


def meeting_encoder(store: Store) -> PartEncoder:
    """Encodes one part at a time, and the first only when another one has been read."""
    one_at_a_time = threading.Lock()

    def encode(store: Store, path: str, on_progress: Callable[[int], None]) -> F32:
        store.write_bytes(f"read/{path}", b"")
        with one_at_a_time:
            deadline = time.monotonic() + 120
            while len(store.list("read")) < 2:
                if time.monotonic() > deadline:
                    raise DataError("no other part was read meanwhile")
                time.sleep(0.01)
            return FakeEncoder()(store, path, on_progress)

    return encode


def no_encoder(store: Store) -> FakeEncoder:
    store.read_bytes("model/weights")
    return FakeEncoder()


@pytest.fixture
def _by_value() -> None:
    """Workers do not import this file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def texts_of(table: str) -> list[str]:
    return [f"{number / 100 + len(table):.2f}" for number in range(sum(PART_ROWS))]


def write_source(store: Store, table: str, texts: list[str]) -> list[Part]:
    edges = np.cumsum([0, *PART_ROWS])
    return [
        write_part(store, f"{table}/{part_name(number)}", pa.table({"text": texts[start : start + rows]}), first_row=int(start))
        for number, (start, rows) in enumerate(zip(edges, PART_ROWS, strict=False))
    ]


def jobs_of(store: Store) -> list[EmbedJob]:
    return [EmbedJob(table, write_source(store, table, texts_of(table)), "embeddings") for table in TABLES]


def run(
    jobs: list[EmbedJob],
    store: Store,
    *,
    actors: int = 1,
    dtype: str = "float32",
    make: Callable[[], PartEncoder] = FakeEncoder,
    retries: int = 0,
) -> Embedded:
    return embed(jobs, make, store, PoolSize(actors, 1, 0), dtype=dtype, retries=retries)


def encoded(store: Store) -> list[str]:
    """Parts that were encoded since the last call."""
    names = sorted(path.removeprefix("log/").rsplit("-", 1)[0] for path in store.list("log"))
    store.delete("log")
    return names


ALL = [f"{table}-{part_name(number)}" for table in TABLES for number in range(3)]


def encode_here(
    store: Store, table: str, texts: list[str], make: Callable[[], PartEncoder] = FakeEncoder, dtype: str = "float32"
) -> list[Part]:
    """Every part in one actor in this process; raises what it hands back as a value."""
    job = EmbedJob(table, write_source(store, table, texts), "embeddings")
    actor = EncodeParts(make, store, dtype, threads=1, mailbox=None, total_rows=sum(PART_ROWS))
    parts = []
    for part in job.sources:
        row = {"table": table, "source": part.path, "target": job.target(part), "first_row": part.first_row, "rows": part.rows}
        answer = actor({name: np.array([value]) for name, value in row.items()})
        if answer["error"][0]:
            raise pickle.loads(answer["error"][0])
        parts.append(Part(answer["path"][0], answer["rows"][0], answer["bytes"][0], answer["first_row"][0]))
    return parts


def test_vectors_can_be_stored_in_half_precision(store: Store) -> None:
    parts = encode_here(store, "items", texts_of("items"), dtype="float16")
    assert read_part(store, parts[0].path)["vector"].type == pa.list_(pa.float16(), 2)
    assert np.abs(np.linalg.norm(load_vectors(store, parts), axis=1) - 1).max() < 1e-3


def test_a_nan_is_a_data_error_that_names_the_row_and_leaves_no_part(store: Store) -> None:
    texts = texts_of("items")
    texts[20] = texts[22] = "nan"
    with pytest.raises(DataError) as error:
        encode_here(store, "items", texts)
    assert type(error.value) is DataError
    assert str(error.value).startswith("the model gives NaN or infinite vectors for 2 of 16 texts, the first at row 20;")
    assert "\n" not in str(error.value)
    assert f"embeddings/items/{part_name(1)}" not in store.list()


def test_a_wrong_count_of_vectors_is_an_artifact_error_and_leaves_no_part(store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"gives 15 vectors, but holds 16 rows"):
        encode_here(store, "items", texts_of("items"), make=lambda: short_encoder)
    assert store.list("embeddings") == {}


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local", "_by_value")
@pytest.mark.parametrize("warm", [True, False], ids=["tasks", "actors"])
def test_vectors_come_in_row_order_and_only_missing_parts_are_embedded_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    monkeypatch.setattr("mining.part_pool.stays_warm", lambda pool: warm)
    jobs = jobs_of(store)
    with pytest.raises(ArtifactError, match="model/weights: there is no such object") as error:
        run(jobs, store, make=partial(no_encoder, store))
    assert type(unwrap(error.value)) is ArtifactError
    assert store.list("embeddings") == {}

    first = run(jobs, store, actors=2)  # as many as there are CPUs: the actor of the failed one is gone
    assert encoded(store) == ALL
    assert first.seconds > 0
    for job in jobs:
        parts = first.tables[job.table]
        assert [(part.rows, part.first_row) for part in parts] == [(16, 0), (16, 16), (5, 32)]
        angles = np.array([float(text) for text in texts_of(job.table)])
        want = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        assert np.array_equal(load_vectors(store, parts), want)
        rows = [row for part in parts for row in read_part(store, part.path)["row"].to_pylist()]
        assert rows == list(range(37))
        assert [part.bytes for part in parts] == [store.size(part.path) for part in parts]
    check_counts(first, jobs, store)
    vectors = read_part(store, first.tables["items"][0].path)["vector"]
    assert vectors.type.list_size == 2

    again = run(jobs, store)
    assert (encoded(store), again.tables, again.seconds) == ([], first.tables, 0.0)

    gone = first.tables["items"][1].path
    bytes_before = store.read_bytes(gone)
    store.delete(gone)
    # an actor that dies over it is started again, as often as allowed
    assert run(jobs, store, make=CrashingEncoder, retries=1).tables == first.tables
    assert store.exists("crashed")
    assert encoded(store) == ["items-part-00001.parquet"]
    assert store.read_bytes(gone) == bytes_before
    store.delete(gone)
    with pytest.raises(Exception, match=r"(actor|worker) died"):
        run(jobs, store, make=partial(CrashingEncoder, once=False), retries=1)


def test_a_table_with_too_few_vectors_is_told(store: Store) -> None:
    job = EmbedJob("items", [Part("items/part-00000.parquet", 16, 0)], "embeddings")
    with pytest.raises(DataError, match="expected 16 vectors of items, found 15"):
        check_counts(Embedded({"items": [Part("x", 15, 0)]}, 0.0), [job], store)


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local", "_by_value")
def test_an_actor_reads_and_writes_parts_while_another_one_is_encoded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mining.part_pool.stays_warm", lambda pool: False)
    jobs = jobs_of(store)
    done = run(jobs, store, make=partial(meeting_encoder, store))
    check_counts(done, jobs, store)
    assert encoded(store) == ALL
