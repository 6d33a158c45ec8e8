"""When mining starts to pay: arms from a weak base, by batch and catalogue, at equal steps.

    python -m benchmarks.quality.weak_base --data DIR --work DIR [--sets products tldr] [--batch 16 32 128] [--seeds 3] [--json]

The base is a static model with random weights that first sees `--queries` training queries with random negatives, as round 0
does. It mines, and every arm goes on from it for as many queries again, with the negatives of `benchmarks.quality` (random,
in-batch, mined) and the product's defaults otherwise (8 negatives a query). All figures are of dev. `coverage` is the share of
the catalogue that a step of random negatives compares each query with; `gradient left` is what the arm of random negatives
still has at its end: 1 - the positive's probability, mean over queries. A finished arm lies in DIR of --work.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.quality.__main__ import read_rows, start_ranks
from benchmarks.quality.data import Features, Prepared, mined_by, prepare, settings_of
from benchmarks.quality.study import ARMS, Arm, Study
from benchmarks.quality.table import as_markdown, compare, difference
from benchmarks.shared.command import emit, make_parser
from benchmarks.shared.machine import describe_machine

WARM = "warm-up"
"""The training that makes the base: random negatives from random weights."""
DEFAULT_SETS = ["products", "banking77", "tldr", "debian-5000", "debian-15000", "debian"]
COMPARED = ("random", "in-batch", "mined 0.05")


def part_of(data: Path, name: str, work: Path) -> Path:
    """A folder with the data set `name`; "debian-5000" is about that many items of debian, whole groups, and the queries that
    look for nothing else."""
    whole, _, size = name.partition("-")
    if not size:
        return data
    folder = work / "data" / name
    if not folder.exists():
        corpus, queries, qrels = (pq.read_table(data / whole / f"{table}.parquet") for table in ("corpus", "queries", "qrels"))
        column = settings_of(whole).columns.get("group", "id")
        groups = np.asarray(corpus[column].to_pylist())
        names, sizes = np.unique(groups, return_counts=True)
        order = np.random.default_rng(7).permutation(len(names))
        kept = names[order[: np.searchsorted(np.cumsum(sizes[order]), int(size)) + 1]]
        corpus = corpus.filter(np.isin(groups, kept))
        away = pc.invert(pc.is_in(qrels["item_id"], corpus["id"]))
        qrels = qrels.filter(pc.invert(pc.is_in(qrels["query_id"], qrels.filter(away)["query_id"])))
        queries = queries.filter(pc.is_in(queries["id"], qrels["query_id"]))
        folder.mkdir(parents=True)
        for table, rows in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
            pq.write_table(rows, folder / f"{table}.parquet")
    return folder.parent


class WeakBase(Study):
    """The arms of one data set and batch."""

    def __init__(self, given: argparse.Namespace, name: str, batch: int) -> None:
        self.work, self.threads, self.name, self.kind = given.work, given.threads, name, "static"
        self.label, self.settings = f"static {batch}", {"batch_size": batch}
        self.kept, self.teacher, self.general = {WARM}, [], None
        self.arms = {WARM: Arm()} | {arm: ARMS[arm] for arm in COMPARED}
        self.steps = max(1, round(given.queries / batch))
        self.prepared = prepare(name, part_of(given.data, name, given.work), given.work, None, given.threads)
        self.features = self._features(self.prepared)
        self._mined: dict[int, Prepared] = {}

    def _features(self, prepared: Prepared) -> Features:
        assert prepared.tokens is not None
        return prepared.tokens.parts("corpus"), prepared.tokens.parts("queries")

    def _of(self, arm: Arm, seed: int) -> Prepared:
        """The data as the base of this seed has mined it; for the base itself, as it came."""
        if arm is self.arms[WARM]:
            return self.prepared
        if seed not in self._mined:
            variant = f"{self.name}-{self.label.replace(' ', '-')}-{seed}"
            self._mined[seed] = mined_by(self.path(WARM, seed, ".model"), self.name, variant, Path(self.work), self.threads)
        return self._mined[seed]


def regime(rows: Sequence[dict[str, Any]], items: Mapping[str, int]) -> list[dict[str, Any]]:
    """Where mining pays, one row for each set and batch, by coverage: how far mined is before the other arms, and why.

    Args:
        rows: of `compare`. items: set -> its items.
    """
    arms = {(row["set"], row["encoder"], row["arm"]): row for row in rows}
    found = []
    for name, label in sorted({(row["set"], row["encoder"]) for row in rows}):
        random, mined = (arms.get((name, label, arm)) for arm in ("random", "mined 0.05"))
        if random is None or mined is None:
            continue
        looks = random["geometry"]
        found.append(
            {
                "set": name,
                "batch": int(label.split()[-1]),
                "items": items[name],
                "coverage": looks["negatives_per_query"] / items[name],
                "gradient_left": 1 - looks["positive_probability"],
                "seeds": min(random["seeds"], mined["seeds"]),
                "mined_against_random": mined["against_random"]["ndcg@10"],
            }
        )
    return sorted(found, key=lambda row: row["coverage"])


def main() -> None:
    """Train what is missing, and print both tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder per data set")
    parser.add_argument("--work", type=Path, required=True, help="where runs and figures are kept")
    parser.add_argument("--sets", nargs="*", default=DEFAULT_SETS)
    parser.add_argument("--batch", nargs="*", type=int, default=[16, 32, 128])
    parser.add_argument("--queries", type=int, default=20_000, help="training queries that the base sees, and then each arm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    start_ranks(given.threads)
    items = {}
    studies = [WeakBase(given, name, batch) for name in given.sets for batch in given.batch]
    for seed in range(1, given.seeds + 1):
        for study in studies:
            items[study.name] = len(study.prepared.item_vectors)
            for arm in study.arms:
                study.train(arm, seed)
    rows = compare([row for row in read_rows(given.work, "dev") if row["set"] in items])
    if given.json:
        emit([{"case": f"{row['set']} {row['batch']}"} | row for row in regime(rows, items)], as_json=True)
        return
    print(as_markdown(rows, describe_machine(), datetime.date.today(), "dev"), end="\n\n")
    print(
        "| data | batch | items | coverage | gradient left | mined - random, NDCG@10 |",
        "|---|---:|---:|---:|---:|---:|",
        sep="\n",
    )
    for row in regime(rows, items):
        shares = f"{row['coverage']:.1%} | {row['gradient_left']:.2f}"
        print(f"| {row['set']} | {row['batch']} | {row['items']:,} | {shares} | {difference(row['mined_against_random'])} |")


if __name__ == "__main__":
    main()
