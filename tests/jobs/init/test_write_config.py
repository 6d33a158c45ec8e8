"""`hardmine init` on the layouts that users have: what it writes runs, and what it does not know it says."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from cluster.session.resources import ClusterSize
    from tests.jobs.conftest import Case

SHARED = Path(__file__).parents[4] / "shared" / "data"
QUERIES, ITEMS = 400, 60
Columns = dict[str, Any]


def tables(**changes: Columns) -> dict[str, Columns]:
    """400 queries, every fifth of dev, each looking for one of 60 items."""
    numbers = range(QUERIES)
    data = {
        "corpus": {
            "id": [f"i{n}" for n in range(ITEMS)],
            "title": [f"Thing {n}" for n in range(ITEMS)],
            "text": [f"a text about number {n} of kind {n % 7}" for n in range(ITEMS)],
        },
        "queries": {
            "id": [f"q{n}" for n in numbers],
            "text": [f"looking for number {n % ITEMS} in place {n}" for n in numbers],
            "split": ["dev" if n % 5 == 0 else "train" for n in numbers],
        },
        "qrels": {
            "query_id": [f"q{n}" for n in numbers],
            "item_id": [f"i{n % ITEMS}" for n in numbers],
            "score": [1 for _ in numbers],
        },
    }
    for name, change in changes.items():
        data[name] = {column: values for column, values in (data[name] | change).items() if values is not None}
    return data


def as_parquet(folder: Path, data: dict[str, Columns]) -> None:
    for name, columns in data.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def jsonl(columns: Columns) -> str:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(folder: Path) -> None:
    as_parquet(folder, tables())


def beir(folder: Path) -> None:
    data = tables()
    (folder / "qrels").mkdir()
    (folder / "README.md").write_text("# a data set")
    (folder / "corpus.jsonl").write_text(jsonl({"_id": data["corpus"]["id"]} | data["corpus"] | {"metadata": [{}] * ITEMS}))
    (folder / "queries.jsonl").write_text(jsonl({"_id": data["queries"]["id"], "text": data["queries"]["text"]}))
    for split in ("train", "dev"):
        rows = [n for n in range(QUERIES) if data["queries"]["split"][n] == split]
        lines = "".join(f"q{n}\ti{n % ITEMS}\t1\n" for n in rows)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)


def integer_ids(folder: Path) -> None:
    numbers = list(range(QUERIES))
    ids = {"query_id": numbers, "item_id": [n % ITEMS for n in numbers]}
    as_parquet(folder, tables(corpus={"id": list(range(ITEMS))}, queries={"id": numbers}, qrels=ids))


def shop_csv(folder: Path) -> None:
    """As a shop exports it: every name is another one, prices, judged pairs."""
    data = tables()
    products = {
        "product_id": data["corpus"]["id"],
        "product_name": data["corpus"]["title"],
        "product_description": [f"{text}, with a comma" for text in data["corpus"]["text"]],
        "price": [n / 4 for n in range(ITEMS)],
    }
    queries = {"query_id": data["queries"]["id"], "query": data["queries"]["text"]}
    pairs = {
        "id": list(range(2 * QUERIES)),
        "query_id": data["queries"]["id"] * 2,
        "product_id": data["qrels"]["item_id"] + [f"i{(n + 1) % ITEMS}" for n in range(QUERIES)],
        "label": [1] * QUERIES + [0] * QUERIES,
    }
    for name, columns in (("products", products), ("queries", queries), ("judgements", pairs)):
        pyarrow.csv.write_csv(pa.table(columns), folder / f"{name}.csv")


def trec(folder: Path) -> None:
    """MS MARCO: no header anywhere, labels in TREC's format, one file for each split."""
    data = tables()
    (folder / "collection.tsv").write_text("".join(f"{n}\t{text}\n" for n, text in enumerate(data["corpus"]["text"])))
    (folder / "queries.tsv").write_text("".join(f"{n}\t{text}\n" for n, text in enumerate(data["queries"]["text"])))
    for split, rows in (("train", range(300)), ("dev", range(300, 400))):
        (folder / f"qrels.{split}.tsv").write_text("".join(f"{n}\t0\t{n % ITEMS}\t1\n" for n in rows))


def vectors_only(folder: Path) -> None:
    """Ids that queries and items have in common, and no text."""
    random = np.random.default_rng(3)
    items = random.standard_normal((ITEMS, 12)).astype(np.float32)
    queries = items[np.arange(QUERIES) % ITEMS] + random.standard_normal((QUERIES, 12)).astype(np.float32)
    ids = [str(n) for n in range(QUERIES)]
    as_parquet(
        folder,
        {
            "items": {"id": ids[:ITEMS], "embedding": list(items)},
            "queries": {"id": ids, "embedding": list(queries)},
            "labels": {"query_id": ids, "item_id": [str(n % ITEMS) for n in range(QUERIES)]},
        },
    )


def hub(folder: Path) -> None:
    """As on the Hugging Face hub: a folder of Parquet files for each table, the labels' files named after splits."""
    data = tables(queries={"split": None})
    for name in ("corpus", "queries", "qrels"):
        (folder / name).mkdir()
    for name in ("corpus", "queries"):
        pq.write_table(pa.table({"_id": data[name].pop("id")} | data[name]), folder / name / "train-00000-of-00001.parquet")
    for split, rows in (("train", slice(0, 300)), ("validation", slice(300, 400))):
        columns = {theirs: data["qrels"][ours][rows] for ours, theirs in (("query_id", "query-id"), ("item_id", "corpus-id"))}
        pq.write_table(pa.table(columns), folder / "qrels" / f"{split}-00000-of-00001.parquet")


def stars(folder: Path) -> None:
    """Fractional scores."""
    as_parquet(folder, tables(qrels={"score": [0.2 if n % 3 else 0.9 for n in range(QUERIES)]}))


def capitals(folder: Path) -> None:
    as_parquet(
        folder,
        {
            "corpus": {"ID": [f"i{n}" for n in range(ITEMS)], "Text": [f"number {n}" for n in range(ITEMS)]},
            "queries": {"ID": [f"q{n}" for n in range(QUERIES)], "Text": [f"looking for {n}" for n in range(QUERIES)]},
            "qrels": {"query_id": [f"q{n}" for n in range(QUERIES)], "item_id": [f"i{n % ITEMS}" for n in range(QUERIES)]},
        },
    )


LAYOUTS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "Parquet": (parquet, {"corpus": "corpus.parquet", "item_text": "{title} {text}"}),
    "BEIR": (beir, {"folder": "."}),
    "integers as ids": (integer_ids, {}),
    "CSV with other names": (
        shop_csv,
        {
            "corpus": "products.csv",
            "qrels": "judgements.csv",
            "columns": {"item_id": "product_id", "score": "label"},
            "item_text": "{product_name} {product_description}",
            "query_text": "{query}",
        },
    ),
    "MS MARCO": (trec, {"corpus": "collection.tsv", "qrels": "qrels.train.tsv", "item_text": "{text}"}),
    "vectors only": (
        vectors_only,
        {"columns": {"vector": "embedding"}, "item_text": "{id} (item)", "query_text": "{id} (query)"},
    ),
    "folders of the hub": (hub, {"corpus": "corpus", "queries": "queries", "qrels": "qrels"}),
    "fractional scores": (stars, {"relevant_from": 0.55}),
    "names in capitals": (capitals, {"columns": {"id": "ID", "text": "Text"}}),
}


@pytest.fixture
def data(case: Case) -> Path:
    """An empty folder, which is the current one."""
    case.patch.chdir(case.folder)
    return case.folder


def init(case: Case, *words: str) -> dict[str, Any]:
    """What `hardmine init . --json` says."""
    answer = case.hardmine("init", ".", "--json", *words)
    assert answer.code == 0, answer.err
    value: dict[str, Any] = json.loads(answer.out)
    return value


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_configuration_of_every_layout_passes_a_dry_run(case: Case, data: Path, layout: str) -> None:
    write, want = LAYOUTS[layout]
    write(data)
    result = init(case)
    values = tomllib.loads((data / "hardmine.toml").read_text())
    assert {key: values["data"].get(key) for key in want} == want
    assert len((data / "hardmine.toml").read_text().splitlines()) <= 35
    answer = case.hardmine("run", "hardmine.toml", "--dry-run", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["rows"]["corpus"] == result["data"]["items"] == ITEMS
    assert result["data"]["with_positive"]["train"] > 100


@pytest.mark.cluster
@pytest.mark.parametrize("layout", ["CSV with other names", "vectors only"])
def test_the_configuration_of_an_odd_layout_runs(ray_case: Case, ray_local: ClusterSize, layout: str) -> None:
    case = ray_case
    case.patch.chdir(case.folder)
    LAYOUTS[layout][0](case.folder)
    static = ["encoder.kind=static", "encoder.dimension=16", "encoder.vocabulary=256", "rounds.mined=0"]
    small = ["rounds.mined=1"] if layout == "vectors only" else static
    figures = init(case, *small, "cluster.cpus=2")["data"]
    answer = case.hardmine("run", "hardmine.toml", "--json")
    assert answer.code == 0, answer.err
    measured = json.loads(answer.out)
    assert measured["rounds"][-1]["metrics"]["ndcg@10"] > 0
    told = next(line for line in answer.err.splitlines() if "[data]" in line)
    splits = figures["splits"]
    assert f"{figures['items']} items, {figures['queries']} queries ({splits['train']} train, {splits['dev']} dev)" in told
    if layout == "vectors only":  # a query and an item of one id are two things
        assert "queries that are items" not in answer.err
        assert measured["baseline"]["recall@3"] > 0.5


def test_a_file_that_is_there_is_kept(case: Case, data: Path) -> None:
    parquet(data)
    (data / "hardmine.toml").write_text("mine")
    answer = case.hardmine("init", ".")
    assert (answer.code, (data / "hardmine.toml").read_text()) == (2, "mine")
    assert "--force" in answer.message
    assert case.hardmine("init", ".", "--to", "other/new.toml").code == 0
    assert tomllib.loads((data / "other" / "new.toml").read_text())["data"]["corpus"] == str(data / "corpus.parquet")
    assert case.hardmine("init", ".", "--force").code == 0
    assert "name = " in (data / "hardmine.toml").read_text()


def test_words_after_the_folder_are_written_as_they_are(case: Case, data: Path) -> None:
    parquet(data)
    init(case, "name=shop", "encoder.kind=static", "training.batch_size=4", 'mining.rules=[{column="title",keep="different"}]')
    values = tomllib.loads((data / "hardmine.toml").read_text())
    assert (values["name"], values["encoder"], values["training"]["batch_size"]) == ("shop", {"kind": "static"}, 4)
    assert values["mining"]["rules"] == [{"column": "title", "keep": "different"}]
    answer = case.hardmine("init", ".", "--force", "training.batch=4")
    assert answer.code == 2
    assert "training.batch" in answer.message


def test_reasons_count_with_what_the_user_says(case: Case, data: Path) -> None:
    parquet(data)
    reasons = init(case, "output=s3://bucket/runs/", "training.batch_size=16", "training.epochs=3")["reasons"]
    assert reasons["name"].startswith("the run's folder is s3://bucket/runs/")
    assert "runs//" not in reasons["name"]
    assert init(case, "--force")["reasons"]["name"].startswith("the run's folder is runs/")
    reasons = init(case, "--force", "training.batch_size=16")["reasons"]
    assert reasons["training.epochs"].startswith("40 steps a round"), "320 queries: 20 steps an epoch"


@pytest.mark.parametrize("offline", [True, False])
def test_it_says_that_the_model_has_to_be_downloaded(
    case: Case, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    parquet(data)
    (warning,) = [text for text in init(case, "encoder.model=owner/not-here")["warnings"] if "encoder.model" in text]
    assert ("forbids its download" if offline else "the run downloads it") in warning
    assert not [text for text in init(case, "--force", "encoder.kind=static")["warnings"] if "encoder.model" in text]


TITLED = [f"Thing {n}: a text about number {n}" for n in range(ITEMS)]
WARNED: dict[str, tuple[dict[str, Columns], str]] = {
    "titles in the texts": ({"corpus": {"text": TITLED}}, "100% of the texts begin with their title"),
    "titles in some texts": ({"corpus": {"text": TITLED[:30] + ["else"] * 30}}, "50% of the texts begin with their title"),
    "equal items": (
        {"corpus": {"title": None, "text": ["one", "ONE.", "One", *TITLED[3:]]}},
        "2 of the first 60 items have the text",
    ),
    "equal queries": ({"queries": {"text": ["a question"] * QUERIES}}, "399 of the first 400 queries have the text"),
    "a text in two splits": ({"queries": {"text": ["x", "X!", *map(str, range(398))]}}, "2 of the first 400 queries have a text"),
    "no dev split": ({"queries": {"split": None}}, "the data has no dev split: "),
    "few dev queries": ({"queries": {"split": ["dev"] * 20 + ["train"] * 380}}, "20 dev queries: one query is 5.0 points"),
    "few training queries": ({"queries": {"split": ["train"] * 100 + ["dev"] * 300}}, "100 training queries"),
    "thin labels": ({}, "labels are thin: 1.0 relevant items a query and none judged irrelevant"),
    "fractions": ({"qrels": {"score": [n % 2 / 2 + 0.25 for n in range(QUERIES)]}}, "data.relevant_from = 0.5 is a guess"),
    "stars": ({"qrels": {"score": [1 + n % 5 for n in range(QUERIES)]}}, "scores go from 1 to 5 and none is 0"),
    "queries without a label": (
        {"queries": {"id": [f"q{n}" for n in range(QUERIES)]}, "qrels": {"query_id": [f"q{n % 200}" for n in range(QUERIES)]}},
        "200 of 400 queries have no relevant item",
    ),
    "empty texts": ({"corpus": {"title": None, "text": ["", *TITLED[1:]]}}, "1 of the first 60 items have no text"),
    "long texts": ({"corpus": {"text": ["long " * 900] * 30 + TITLED[30:]}}, "a tenth of the items have over 90"),
}


@pytest.mark.parametrize("what", WARNED)
def test_it_warns_of(case: Case, data: Path, what: str) -> None:
    changes, words = WARNED[what]
    as_parquet(data, tables(**changes))
    assert any(words in warning for warning in init(case)["warnings"]), init(case, "--force")["warnings"]


def test_good_data_has_no_warning(case: Case, data: Path) -> None:
    numbers = range(QUERIES)
    judged = {
        "query_id": [f"q{n}" for n in numbers] * 2,
        "item_id": [f"i{n % ITEMS}" for n in numbers] + [f"i{(n + 7) % ITEMS}" for n in numbers],
        "score": [1] * QUERIES + [0] * QUERIES,
    }
    as_parquet(data, tables(qrels=judged))
    assert init(case, "encoder.kind=static")["warnings"] == []


def test_the_title_stays_where_it_is_not_doubled(case: Case, data: Path) -> None:
    as_parquet(data, tables(corpus={"text": TITLED}))
    init(case)
    assert tomllib.loads((data / "hardmine.toml").read_text())["data"]["item_text"] == "{text}"


def only(**columns: Columns) -> Callable[[Path], None]:
    """A folder of these tables."""
    return lambda folder: as_parquet(folder, columns)


def broken(**changes: Columns) -> Callable[[Path], None]:
    """The usual tables with other columns."""
    return lambda folder: as_parquet(folder, tables(**changes))


def with_vectors(items: list[list[float]], queries: list[list[float]] | None) -> Callable[[Path], None]:
    """The usual tables, all with a vector but the first items and queries, which have these."""
    every = {
        "corpus": [*items, *[[1.0, 2.0]] * (ITEMS - len(items))],
        "queries": None if queries is None else [*queries, *[[1.0, 2.0]] * (QUERIES - len(queries))],
    }
    return broken(**{name: {"vector": vectors} for name, vectors in every.items()})


UNKNOWN: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "an empty folder": (lambda _: None, ("found no file",)),
    "other files": (
        lambda folder: (folder / "notes.xlsx").write_bytes(b"PK"),
        ("found notes.xlsx", "BEIR layout", "missing: items"),
    ),
    "pairs": (
        only(train={"anchor": ["a"], "positive": ["b"]}),
        ("columns anchor, positive", "missing: items, queries, labels", "pairs"),
    ),
    "no labels": (
        only(corpus={"id": ["a"], "text": ["b"]}, queries={"id": ["q"], "text": ["x"]}),
        ("missing: labels", "corpus.parquet"),
    ),
    "vectors of numpy": (lambda folder: np.save(folder / "items.npy", np.ones(3)), ("items.npy", "a column `vector`")),
    "a folder in it holds the tables": (
        lambda folder: ((folder / "shop").mkdir(), as_parquet(folder / "shop", tables())),
        ("missing: queries, labels", "The tables seem to be in shop/", "/shop`"),
    ),
    "no texts and no vectors": (
        broken(corpus={"title": None, "text": None, "year": list(range(ITEMS))}),
        ("corpus.parquet (columns id, year)", "a column with the text"),
    ),
    "a broken file": (
        lambda folder: (folder / "corpus.parquet").write_bytes(b"PAR1"),
        ("corpus.parquet", "not a readable Parquet"),
    ),
    "grades in words": (broken(qrels={"score": ["Exact"] * QUERIES}), ("expected a number in 'score'", "'Exact'")),
    "labels of unknown items": (broken(qrels={"item_id": ["x9"] * QUERIES}), ("'x9'", "not in the table of items")),
    "labels of a test split only": (broken(queries={"split": ["test"] * QUERIES}), ("expected training queries", "400 of test")),
    "a split of another name": (broken(queries={"split": ["valid"] * QUERIES}), ("'valid'", "a validation split is called dev")),
    "an item's id twice": (
        broken(corpus={"id": ["i1", *(f"i{n}" for n in range(1, ITEMS))]}),
        ("1 id(s) of items occur more than once: 'i1'", "corpus.parquet row 1", "corpus.parquet row 2"),
    ),
    "a query's id twice": (
        broken(queries={"id": ["q1", *(f"q{n}" for n in range(1, QUERIES))]}),
        ("1 id(s) of queries occur more than once: 'q1'", "queries.parquet row 1"),
    ),
    "query vectors of another model": (
        with_vectors([], [[1.0, 2.0, 3.0]] * QUERIES),
        ("the corpus has vectors of 2 numbers, the queries have vectors of 3",),
    ),
    "no query vectors": (with_vectors([], None), ("the corpus has vectors of 2 numbers, the queries have no vectors",)),
    "a query vector of zeros": (with_vectors([], [[1.0, 2.0]] * 300 + [[0.0, 0.0]]), ("row 301 (id 'q300')", "is all zero")),
    "an item's vector with NaN": (
        with_vectors([[1.0, 2.0]] * 30 + [[float("nan"), 1.0]], []),
        ("corpus.parquet, row 31 (id 'i30')", "NaN"),
    ),
    "nothing relevant": (broken(qrels={"score": [0] * QUERIES}), ("relevant",)),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_it_does_not_know_is_one_paragraph(case: Case, data: Path, refused: Any, what: str) -> None:
    write, words = UNKNOWN[what]
    write(data)
    refused(case.hardmine("init", "."), 2, words)
    assert not (data / "hardmine.toml").exists()


def test_a_file_instead_of_a_folder_is_refused(case: Case, data: Path, refused: Any) -> None:
    parquet(data)
    refused(case.hardmine("init", "corpus.parquet"), 2, ("found the file corpus.parquet", "the folder it is in"))
    refused(case.hardmine("init", "nowhere"), 2, ("found no file in nowhere",))


def test_tables_on_s3_are_read_where_they_are(case: Case, data: Path, s3_bucket: str, s3_endpoint: str) -> None:
    from cluster.storage.settings import StorageSettings
    from cluster.storage.store import Store

    parquet(data)
    store = Store(f"{s3_bucket}/shop", StorageSettings(endpoint=s3_endpoint))
    for name in ("corpus", "queries", "qrels"):
        store.write_bytes(f"{name}.parquet", (data / f"{name}.parquet").read_bytes())
    answer = case.hardmine("init", f"{s3_bucket}/shop", "--json", f"storage.endpoint={s3_endpoint}")
    assert answer.code == 0, answer.err
    values = tomllib.loads((data / "hardmine.toml").read_text())
    assert values["data"]["corpus"] == f"{s3_bucket}/shop/corpus.parquet"
    assert values["storage"] == {"endpoint": s3_endpoint}
    assert case.hardmine("run", "hardmine.toml", "--dry-run", "--json").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["banking77", "goodbooks", "products", "scifact", "tldr"])
def test_real_data_gets_a_configuration_that_passes_a_dry_run(case: Case, data: Path, name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not here")
    answer = case.hardmine("init", str(SHARED / name), "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["settings"]["data.item_text"] == ("{text}" if name == "products" else "{title} {text}")
    assert (result["settings"].get("evaluation.primary") == "ndcg@10") is (name in ("banking77", "goodbooks"))
    assert ("paraphrase-multilingual" in result["settings"]["encoder.model"]) is (name == "tldr")
    assert case.hardmine("run", "hardmine.toml", "--dry-run").code == 0
