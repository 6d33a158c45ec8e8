"""How many mined negatives are unlabelled positives under each cut: known labels are withheld, and looked for.

    python -m benchmarks.mining.false_negatives [--case "no cut"] [DATA --withhold labels --teacher MODEL_FOLDER]

DATA is a folder with corpus.parquet, queries.parquet and qrels.parquet (default: the demo's catalogue). `--withhold labels`
hides a share of the relevant items of every training query (one is always left); `--withhold COLUMN` keeps the best label of
every query only and calls every item that shares its COLUMN (a source package, a franchise) relevant in truth. Each case
mines through `hardmine mine` on the same embeddings and the same search; only the training split is used. docs/mining.md
quotes `--case all`.

With a teacher, `--relabel 0.8` also asks how many of the items that it relabels (here with a score of at least 0.8) are relevant
in truth, and `--weak-positive 20` how many queries it leaves out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.shared.command import EMPTY, chosen_cases, emit, make_parser
from benchmarks.shared.inputs import generated_data, packaged_model, temporary_folder

OFF = "mining.relative_margin=off"
LOWEST, HIGHEST = "mining.margin_reference=lowest", "mining.margin_reference=highest"
SETTINGS: dict[str, list[str]] = {
    "no cut": [OFF],
    "relative 0.95 of the lowest positive": [LOWEST],
    "relative 0.95 of the mean positive": [],
    "relative 0.95 of the highest positive": [HIGHEST],
    "relative 0.90 of the mean positive": ["mining.relative_margin=0.10"],
    "relative 0.80 of the mean positive": ["mining.relative_margin=0.20"],
    "absolute margin 0.05 from the lowest positive": [OFF, LOWEST, "mining.absolute_margin=0.05"],
    "absolute margin 0.05 from the mean positive": [OFF, "mining.absolute_margin=0.05"],
    "absolute margin 0.10 from the lowest positive": [OFF, LOWEST, "mining.absolute_margin=0.10"],
    "calibrated: drop 50 %, mean positive": [OFF, "mining.target_discard_rate=0.5"],
    "below the median positive": [OFF, "mining.positive_quantile=0.5"],
    "below the lowest 10 % of positives": [OFF, "mining.positive_quantile=0.1"],
    "skip the first 10": [OFF, "mining.skip_first=10"],
}

FEW = ("no cut", "relative 0.95 of the mean positive", "below the median positive")
"""What runs without --case."""
TITLES = 400
"""Of the generated catalogue."""


def teacher_settings(folder: str, kind: str, relabel: float | None, weak: int | None) -> dict[str, list[str]]:
    """A second model that says which survivors are relevant after all, alone and with the relative cut."""
    more = {"relabel": relabel, "weak_positive": weak}
    judging = [f"mining.teacher.{name}={value}" for name, value in more.items() if value is not None]
    teacher = [f"mining.teacher.model={folder}", f"mining.teacher.kind={kind}", "mining.teacher.depth=128"]
    strict = [*teacher, "mining.teacher.relative_margin=0.2"]
    return {
        "teacher 0.95, lowest positive": [OFF, LOWEST, *teacher],
        "teacher 0.95, mean positive": [OFF, *teacher],
        "teacher 0.80, mean positive": [OFF, *strict],
        "teacher 0.80 and relative 0.95, mean positive": strict,
    } | ({"teacher 0.80, mean positive, judging labels": [OFF, *strict, *judging]} if judging else {})


Pairs = set[tuple[str, str]]


def withhold(data: Path, target: Path, what: str, share: float, seed: int) -> Pairs:
    """Write a copy of the training data with labels withheld; returns the (query, item) pairs that are relevant in truth."""
    corpus, queries = pq.read_table(data / "corpus.parquet"), pq.read_table(data / "queries.parquet")
    labels = pq.read_table(data / "qrels.parquet")
    queries = queries.filter(pc.equal(queries["split"], "train"))
    labels = labels.filter(pc.and_(pc.greater(labels["score"], 0), pc.is_in(labels["query_id"], queries["id"])))
    truth, kept = _by_label(labels, share, seed) if what == "labels" else _by_column(labels, corpus, what)
    target.mkdir(parents=True)
    pq.write_table(corpus, target / "corpus.parquet")
    pq.write_table(queries, target / "queries.parquet")
    pq.write_table(kept, target / "qrels.parquet")
    return truth


def _by_label(labels: pa.Table, share: float, seed: int) -> tuple[Pairs, pa.Table]:
    order = np.random.default_rng(seed).random(labels.num_rows)
    codes = labels["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    place = np.empty(len(codes), np.int64)
    by_query = np.lexsort((order, codes))
    starts = np.searchsorted(codes[by_query], codes[by_query])
    place[by_query] = np.arange(len(codes)) - starts
    keep = place < np.maximum(1, np.floor((1 - share) * np.bincount(codes)[codes]))
    return _pairs(labels), labels.filter(pa.array(keep))


def _by_column(labels: pa.Table, corpus: pa.Table, column: str) -> tuple[Pairs, pa.Table]:
    best = labels.group_by("query_id").aggregate([("score", "max")])
    joined = labels.join(best, "query_id")
    kept = joined.filter(pc.equal(joined["score"], joined["score_max"])).drop_columns(["score_max"])
    value = dict(zip(corpus["id"].to_pylist(), corpus[column].to_pylist(), strict=True))
    mates: dict[Any, list[str]] = {}
    for item, group in value.items():
        mates.setdefault(group, []).append(item)
    truth = _pairs(labels)
    truth |= {(query, mate) for query, item in _pairs(kept) for mate in mates[value[item]]}
    return truth, kept


def _pairs(labels: pa.Table) -> Pairs:
    return set(zip(labels["query_id"].to_pylist(), labels["item_id"].to_pylist(), strict=True))


def train_teacher(config: Path, overrides: list[str]) -> str:
    """A model of the same withheld labels, trained with random negatives only; where it lies."""
    quick = ["name=teacher", "encoder.model=null", "rounds.mined=0", "training.batch_size=64", "training.hard_negatives=0"]
    return str(run("run", config, [*quick, *overrides])["model"])


def run(command: str, config: Path, overrides: list[str]) -> dict[str, Any]:
    """Run a hardmine command and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", command, str(config), "--json", *overrides], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def measure(printed: dict[str, Any], truth: Pairs) -> dict[str, Any]:
    """What share of the mined negatives is relevant in truth, and what was left to train on."""
    folder = Path(printed["negatives"])
    parts = sorted(folder.glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in parts])
    lists = table["negatives"].combine_chunks()
    items = lists.flatten().field("item_id").to_pylist()
    counts: npt.NDArray[np.int64] = np.diff(lists.offsets.to_numpy())
    owners = np.repeat(np.array(table["query_id"].to_pylist(), object), counts)
    false = np.fromiter(((query, item) in truth for query, item in zip(owners, items, strict=True)), bool, len(items))
    return {
        "false_negatives": float(false.mean()) if len(false) else 0.0,
        "negatives_per_query": float(counts.mean()),
        "queries_without": float((counts == 0).mean()),
        "hit_rate": printed["hit_rate"],
        "hardness_median": printed["hardness"].get("p50"),
    } | (relabelled(folder, table, truth) if printed["relabelled"] or printed["weak_queries"] else {})


def relabelled(folder: Path, table: pa.Table, truth: Pairs) -> dict[str, Any]:
    """How many new labels the teacher gave, how many of them are right, and how many queries it leaves out."""
    corpus = pa.concat_tables([pq.read_table(path, columns=["id"]) for path in sorted(_corpus_of(folder).glob("*.parquet"))])
    lists = table["relabelled_rows"].combine_chunks()
    items = corpus["id"].combine_chunks().take(lists.flatten()).to_pylist()
    owners = np.repeat(np.array(table["query_id"].to_pylist(), object), np.diff(lists.offsets.to_numpy()))
    right = np.fromiter(((query, item) in truth for query, item in zip(owners, items, strict=True)), bool, len(items))
    return {
        "relabelled_per_query": len(items) / table.num_rows,
        "relabelled_right": float(right.mean()) if len(right) else None,
        "left_out": float(np.mean(table["left_out"].to_pylist())),
    }


def _corpus_of(negatives: Path) -> Path:
    """The corpus of the run that these negatives belong to."""
    run = next(folder for folder in negatives.parents if (folder / "commits").is_dir())
    return run / Path(json.loads((run / "commits" / "ingest.json").read_text())["tables"]["corpus"][0]["path"]).parent


def write_config(folder: Path, model: Path | None, template: str) -> Path:
    """The configuration of every mining, over the data in FOLDER/data."""
    config = folder / "mine.toml"
    encoder = f'kind = "transformer"\nmodel = "{model.resolve()}"' if model else 'kind = "vectors"'
    config.write_text(
        f'name = "study"\noutput = "{folder}/runs"\n[data]\ncorpus = "data/corpus.parquet"\n'
        f'queries = "data/queries.parquet"\nqrels = "data/qrels.parquet"\n'
        f'item_text = "{template}"\n[encoder]\n{encoder}\n[mining]\nnum_hits = 200\nnum_negatives = 32\n'
    )
    return config


def main() -> None:
    """Mine under every setting and print the table."""
    parser = make_parser(__doc__, cases=[*SETTINGS, "all"], default=FEW)
    parser.add_argument("data", type=Path, nargs="?", help="data folder (default: the demo's catalogue)")
    parser.add_argument("--withhold", default="labels", help="labels, or a column of the corpus")
    parser.add_argument("--share", type=float, default=0.8, help="share of the labels that is withheld")
    parser.add_argument("--model", type=Path, help="embedding model (default: the packaged all-MiniLM-L6-v2)")
    parser.add_argument("--vectors", action="store_true", help="the data has vector columns: no model")
    parser.add_argument("--teacher", help="model folder of a teacher; its cases run too")
    parser.add_argument(
        "--train-teacher",
        nargs="+",
        metavar="KEY=VALUE",
        help="train one on the labels that are left, with these settings, e.g. encoder.kind=static for one from nothing",
    )
    parser.add_argument("--teacher-kind", default="encoder", choices=["encoder", "cross_encoder"])
    parser.add_argument("--relabel", type=float, help="the teacher's score from which a dropped item is relabelled")
    parser.add_argument("--weak-positive", type=int, help="better candidates from which a query is left out")
    parser.add_argument("--template", default="{title} {text}")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = chosen_cases(given)
    with temporary_folder() as folder:
        data = given.data or generated_data(folder / "demo", TITLES)
        truth = withhold(data, folder / "data", given.withhold, given.share, given.seed)
        config = write_config(folder, None if given.vectors else given.model or packaged_model(folder), given.template)
        if given.train_teacher:
            given.teacher = train_teacher(config, given.train_teacher)
        settings = {name: SETTINGS[name] for name in (SETTINGS if "all" in names else names)}
        if given.teacher:
            settings |= teacher_settings(given.teacher, given.teacher_kind, given.relabel, given.weak_positive)
        rows = [EMPTY | {"case": name} | measure(run("mine", config, overrides), truth) for name, overrides in settings.items()]
    emit(rows, as_json=given.json)


if __name__ == "__main__":
    main()
