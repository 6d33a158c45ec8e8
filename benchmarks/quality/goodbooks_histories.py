"""Next-item retrieval on readers' histories (goodbooks): makes the data of a run, and measures what the run has learned.

    python -m benchmarks.quality.goodbooks_histories             # all three steps, small, on generated readers
    python -m benchmarks.quality.goodbooks_histories make GOODBOOKS FOLDER --model MODEL     # tables and run.toml
    hardmine run FOLDER/run.toml
    python -m benchmarks.quality.goodbooks_histories measure FOLDER [--json]

A query is what a reader liked (rating >= 4) before a book, that book is its one relevant item. Readers are split train / dev /
test by a hash of their id, so no reader is in two splits. Compared on test: how often a book was liked in train (popularity),
the history's base vectors with more weight on recent ones (the untrained encoder), their mean, the last one alone, and what
was trained; each with what the reader has read among the candidates (as in the run's own figures), and without (as such a
system would serve). One control: the trained encoder on shuffled histories, which tells how much of it is order.

Caution: the order within a reader is the file's order, and not known to be that of reading. It is no random one: the first ten
books are among the most rated 420 (median), the next one is number 1,343, so popularity is a weak rival here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared.command import EMPTY, Row, emit, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder
from cluster.commits import Ledger
from cluster.storage.model_folders import fetch_folder
from cluster.storage.store import Store
from cluster.tables.tables import F32, I64

LIKED = 4
SHORTEST = 5
"""Books of the shortest history."""
TRAIN_PREFIXES, HELD_OUT_PREFIXES = 4, 5
"""Queries of one reader: drawn from all prefixes, or the last ones."""
CUTS = (1, 5, 10)
F64 = npt.NDArray[np.float64]
TITLES, READERS = 300, 150
"""Of the generated readers' catalogue."""
SMALL = ("rounds.warmup_epochs=1", "rounds.mined=0", "mining.num_hits=50")
"""What the run on generated readers changes."""
CONFIG = """name = "goodbooks-histories"
output = "runs"
[data]
corpus = "corpus.parquet"
queries = "queries.parquet"
qrels = "qrels.parquet"
item_text = "{{title}} by {{authors}} | {{genres}}"
[encoder]
kind = "sequence"
max_length = 50
model = "{model}"
[rounds]
warmup_epochs = 3
mined = 2
[mining]
num_hits = 200
[training]
epochs = 2
batch_size = 64
[evaluation]
primary = "hit@10"
split = "test"
"""


def split_of(user: str) -> str:
    """The split of a reader: 80 % train, 10 % dev, 10 % test."""
    number = zlib.crc32(user.encode()) % 10
    return "train" if number < 8 else ("dev" if number == 8 else "test")


def queries_of(user: str, liked: list[str]) -> list[dict[str, Any]]:
    """The queries of one reader, each with its next book as `item_id`."""
    split = split_of(user)
    ends = np.arange(SHORTEST, len(liked))
    if split == "train":
        drawn = np.random.default_rng(zlib.crc32(user.encode())).permutation(ends)[:TRAIN_PREFIXES]
        ends = np.sort(drawn)
    else:
        ends = ends[-HELD_OUT_PREFIXES:]
    return [{"id": f"{user}-{end}", "user": user, "split": split, "history": liked[:end], "next": liked[end]} for end in ends]


def generate(folder: Path) -> Path:
    """Write generated readers in the form of goodbooks: each likes titles of one or two genres of the demo's catalogue."""
    corpus = pq.read_table(generated_data(folder / "catalogue", TITLES) / "corpus.parquet")
    corpus = pa.table({name: corpus[name] for name in ("id", "title", "text", "genres")} | {"authors": corpus["author"]})
    genres = corpus["genres"].to_pylist()
    rng, rows = np.random.default_rng(0), []
    names = sorted({genre for some in genres for genre in some})
    for user in range(READERS):
        liked = set(rng.choice(names, 2, replace=False))
        books = [row for row in rng.permutation(len(genres)) if liked & set(genres[row])][:30]
        rows += [(user, corpus["id"][int(row)].as_py(), position, LIKED) for position, row in enumerate(books)]
    columns = dict(zip(("user_id", "item_id", "position", "rating"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(corpus, folder / "corpus.parquet")
    pq.write_table(pa.table(columns), folder / "interactions_train.parquet")
    return folder


def make(source: Path, folder: Path, model: str) -> str:
    """Write corpus, queries, labels and run.toml; says what there is."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = pq.read_table(source / "corpus.parquet", columns=["id", "title", "text", "authors", "genres"])
    read = pq.read_table(source / "interactions_train.parquet").sort_by([("user_id", "ascending"), ("position", "ascending")])
    liked: dict[str, list[str]] = {}
    for user, item, rating in zip(*(read[name].to_pylist() for name in ("user_id", "item_id", "rating")), strict=True):
        if rating >= LIKED:
            liked.setdefault(str(user), []).append(str(item))
    rows = [row for user, items in liked.items() for row in queries_of(user, items)]
    pq.write_table(corpus, folder / "corpus.parquet")
    pq.write_table(
        pa.table({name: [row[name] for row in rows] for name in ("id", "user", "split", "history")}), folder / "queries.parquet"
    )
    pq.write_table(
        pa.table({"query_id": [row["id"] for row in rows], "item_id": [row["next"] for row in rows], "score": [1] * len(rows)}),
        folder / "qrels.parquet",
    )
    (folder / "run.toml").write_text(CONFIG.format(model=model), encoding="utf-8")
    counts = {split: sum(row["split"] == split for row in rows) for split in ("train", "dev", "test")}
    return f"{corpus.num_rows:,} books, {len(liked):,} readers, queries: {counts}"


def measure(folder: Path) -> list[Row]:
    """A row per ranking: hit@k on the test queries, as [mean, lower, upper] of a 95 % interval over readers."""
    corpus = pq.read_table(folder / "corpus.parquet", columns=["id"])["id"].to_pylist()
    queries = pq.read_table(folder / "queries.parquet").to_pylist()
    wanted = dict(
        zip(*(pq.read_table(folder / "qrels.parquet")[name].to_pylist() for name in ("query_id", "item_id")), strict=True)
    )
    row_of = {name: row for row, name in enumerate(corpus)}
    test = [query for query in queries if query["split"] == "test"]
    target = np.array([row_of[wanted[query["id"]]] for query in test])
    read = [np.array([row_of[item] for item in query["history"]]) for query in test]
    users = np.unique([query["user"] for query in test], return_inverse=True)[1]
    counts = {"queries": len(test), "readers": int(users.max()) + 1}
    rows: list[Row] = []
    for name, scores in _rankings(folder, queries, wanted, row_of, test).items():
        for label, left_out in (("read books are candidates", None), ("read books left out", read)):
            place = positions(scores, target, left_out)
            hits = {f"hit@{cut}": interval((place < cut).astype(np.float64), users) for cut in CUTS}
            rows.append(EMPTY | {"case": f"{name}, {label}"} | counts | hits)
    return rows


def _rankings(
    folder: Path, queries: list[dict[str, Any]], wanted: dict[str, str], row_of: dict[str, int], test: list[dict[str, Any]]
) -> dict[str, F32]:
    from training.encoders.load import load_encoder
    from training.encoders.sequence import SequenceEncoder, item_tokens

    popularity = np.zeros(len(row_of), np.float32)
    longest: dict[str, list[str]] = {}
    for query in queries:
        if query["split"] == "train" and len(query["history"]) >= len(longest.get(query["user"], [])):
            longest[query["user"]] = [*query["history"], wanted[query["id"]]]
    for items in longest.values():
        popularity[[row_of[item] for item in items]] += 1
    found = {"popularity": np.broadcast_to(popularity, (len(test), len(row_of)))}
    store = Store(str(folder / "runs" / "goodbooks-histories"))
    histories = [query["history"] for query in test]
    rng = np.random.default_rng(0)
    shuffled = [[history[place] for place in rng.permutation(len(history))] for history in histories]
    rivals = {
        "untrained": ("sequence", histories),
        "the last book alone": ("sequence", [history[-1:] for history in histories]),
        "trained": ("finish", histories),
        "trained, histories shuffled": ("finish", shuffled),
    }
    for name, (stage, read) in rivals.items():
        commit = Ledger(store).find(stage)
        assert commit is not None, f"{stage} is not committed in {store.root}: run `hardmine run` first"
        encoder = load_encoder(fetch_folder(store, commit.files, commit.figures["prefix"]))
        assert isinstance(encoder, SequenceEncoder)
        items_ND = encoder.encode(item_tokens(0, len(row_of)))
        found[name] = encoder.encode(encoder.read(read)) @ items_ND.T
        if name == "untrained":
            means = [items_ND[[row_of[item] for item in history]].mean(axis=0) for history in histories]
            found["mean of the history"] = np.stack(means) @ items_ND.T  # its length does not change the order
    return found


def positions(scores_QN: F32, target_Q: I64, read: list[I64] | None) -> I64:
    """[Q] how many items come before each query's target; of equal scores half, rounded up."""
    scores = np.array(scores_QN, np.float64)
    for row, items in enumerate(read or []):
        scores[row, items] = -np.inf
    own = scores_QN[np.arange(len(target_Q)), target_Q][:, None]
    result: I64 = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1)) // 2
    return result


def interval(values_Q: F64, users_Q: I64, *, resamples: int = 2000) -> list[float]:
    """[mean, lower, upper]: the mean over queries, and its 95 % bootstrap interval over readers."""
    sums, counts = np.bincount(users_Q, weights=values_Q), np.bincount(users_Q)
    drawn = np.random.default_rng(0).integers(0, len(sums), (resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [round(float(value), 4) for value in (values_Q.mean(), low, high)]


def run(config: Path, *overrides: str) -> None:
    """`hardmine run`. Raises SystemExit: it failed; says what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "run", str(config), *overrides], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)


def main() -> None:
    """The command line."""
    parser = make_parser(__doc__)
    commands = parser.add_subparsers(dest="command")
    maker = commands.add_parser("make", help="write the data of a run")
    maker.add_argument("source", type=Path)
    maker.add_argument("folder", type=Path)
    maker.add_argument("--model", help="model folder (default: the packaged all-MiniLM-L6-v2)")
    measurer = commands.add_parser("measure", help="measure a finished run")
    measurer.add_argument("folder", type=Path)
    measurer.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command == "make":
        print(make(given.source, given.folder, given.model or str(packaged_model(given.folder))))
        return
    with temporary_folder() as folder:
        if given.command is None:
            make(generate(folder), folder / "run", str(packaged_model(folder)))
            run(folder / "run" / "run.toml", *SMALL)
        rows = measure(given.folder if given.command else folder / "run")
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
