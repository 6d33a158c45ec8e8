"""What the evaluation measures, in this process, on a run's tables made by hand; and what happens to hits before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import ArtifactError, ConfigError
from cluster.storage.store import Store
from cluster.tables.tables import Part, csr_to_lists, offsets_of, part_name, read_parts, vectors_to_column, write_part
from eval.settings import EvaluationSettings
from eval.significance import paired_bootstrap
from jobs.stages.evaluate.leakage_pairs import are_tags, one_of_each, tags_of
from jobs.stages.evaluate.measure import EvaluateTask, measure, measure_queries
from jobs.stages.evaluate.reranker.table import TableTask, in_order_of, make_table
from jobs.stages.evaluate.results import draw_sample
from jobs.stages.evaluate.slice_columns import check_slices, columns_of
from mining.teacher.cut import Pairs

ITEMS, QUERIES, DEV, K = 60, 50, 20, 13
GENRES = ("crime", "poetry", "war")


def in_parts(store: Store, folder: str, table: pa.Table, rows: int) -> list[Part]:
    return [
        write_part(store, f"{folder}/{part_name(number)}", table.slice(start, rows), first_row=start)
        for number, start in enumerate(range(0, table.num_rows, rows))
    ]


class Run:
    """Tables of a run: 60 items in parts of 16, 50 queries of which the last 20 are dev, one of them an item."""

    def __init__(self, folder: Path, low_gain: float = 0.0) -> None:
        self.low_gain = low_gain  # of what is judged irrelevant
        self.store, rng = Store(str(folder)), np.random.default_rng(0)
        self.genres = [[GENRES[n % 3]] + ([GENRES[(n + 1) % 3]] if n % 4 == 0 else []) for n in range(ITEMS)]
        self.kinds = ["plot" if n % 2 else "mood" for n in range(QUERIES)]
        self.labels = [
            (query, int(item), int(score), ("click", "synthetic")[int(item) % 2])
            for query in range(QUERIES)
            if query != 45  # a dev query without a label
            for item, score in zip(np.sort(rng.permutation(ITEMS)[:4]), (0, 1, 2, 1), strict=True)
        ]
        self.own = np.full(QUERIES, -1)
        self.own[33] = 7
        self.items, self.queries = (unit(rng.normal(size=(count, 8))) for count in (ITEMS, QUERIES))
        corpus = pa.table(
            {
                "row": np.arange(ITEMS),
                "id": [f"i{n}" for n in range(ITEMS)],
                "text_code": np.arange(ITEMS),
                "genres": self.genres,
                "text": [f"text {n}" for n in range(ITEMS)],
                "popularity": rng.random(ITEMS),
                "language": ["en" if n % 5 else "fr" for n in range(ITEMS)],
                "year": np.arange(ITEMS) + 1960,
            }
        )
        queries = pa.table(
            {
                "row": np.arange(QUERIES),
                "id": [f"q{n}" for n in range(QUERIES)],
                "text_code": np.arange(QUERIES) + 1000,
                "kind": self.kinds,
                "text": [" ".join(self.first_genres(n)) + " please" for n in range(QUERIES)],
                "language": ["en"] * QUERIES,
                "item_row": self.own,
                "split": ["train"] * (QUERIES - DEV) + ["dev"] * DEV,
            }
        )
        labels = self.label_table()
        self.parts = {
            "corpus": in_parts(self.store, "corpus", corpus, 16),
            "queries": in_parts(self.store, "queries", queries, 16),
            "labels": in_parts(self.store, "labels", labels, 1000),
        }

    def label_table(self) -> pa.Table:
        columns = zip(*self.labels, strict=True)
        table = pa.table(dict(zip(("query_row", "item_row", "score", "source"), map(list, columns), strict=True)))
        return table.append_column("gain", pa.array([max(float(score), self.low_gain) for _, _, score, _ in self.labels]))

    def relevant(self, query: int) -> list[int]:
        return [item for asked, item, score, _ in self.labels if asked == query and score > 0]

    def first_genres(self, query: int) -> list[str]:
        return self.genres[self.relevant(query)[0]] if self.relevant(query) else ["something"]

    def task(self, name: str, items: npt.NDArray[np.float32], others: dict[str, list[Part]], **settings: Any) -> EvaluateTask:
        """An evaluation of a model that gives the items these vectors."""
        scores = self.queries[-DEV:] @ items.T
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        query_rows = np.arange(QUERIES - DEV, QUERIES)
        judged = [[item for asked, item, _, _ in self.labels if asked == query] for query in query_rows]
        lengths = np.array([len(some) for some in judged])
        offsets, flat = offsets_of(lengths), np.array([item for some in judged for item in some], np.int64)
        full = np.arange(0, DEV * K + 1, K)
        hits = pa.table(
            {
                "query_row": query_rows,
                "item_rows": csr_to_lists(full, rows.ravel()),
                "scores": csr_to_lists(full, np.take_along_axis(scores, rows, axis=1).ravel()),
                "label_rows": csr_to_lists(offsets, flat),
                "label_scores": csr_to_lists(offsets, scores[np.repeat(np.arange(DEV), lengths), flat]),
            }
        )
        vectors = {
            table: in_parts(
                self.store, f"{name}/{table}", pa.table({"row": np.arange(len(values)), "vector": vectors_to_column(values)}), 16
            )
            for table, values in (("items", items), ("queries", self.queries))
        }
        return EvaluateTask(
            self.store,
            name,
            in_parts(self.store, f"{name}/hits", hits, 8),
            **self.parts,
            codes=self.parts["corpus"],
            item_vectors=vectors["items"],
            query_vectors=vectors["queries"],
            settings=EvaluationSettings(resamples=500, **settings),
            compatible=None,
            popularity=None,
            others=others,
            first=not others,
        )


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def baseline(run: Run) -> tuple[dict[str, Any], Part]:
    return measure(run.task("baseline", run.items, {}, min_slice_queries=3))


def test_figures_of_the_first_results_equal_a_slow_look(run: Run, baseline: tuple[dict[str, Any], Part]) -> None:
    figures, scores = baseline[0], run.queries[-DEV:] @ run.items.T
    top = [
        [item for item in np.argsort(-row, kind="stable") if item != run.own[QUERIES - DEV + place]][:10]
        for place, row in enumerate(scores)
    ]
    shown = np.bincount(np.concatenate(top), minlength=ITEMS)
    popularity = pa.concat_tables([pa.table({"p": _column(run, part, "popularity")}) for part in run.parts["corpus"]])["p"]
    numbers = np.array(popularity.to_pylist())
    percentile = np.array([(numbers < number).mean() + 0.5 / ITEMS for number in numbers])
    similarity = [np.mean([run.items[a] @ run.items[b] for a, b in combinations(some, 2)]) for some in top]
    relevant = [percentile[run.relevant(query)].mean() for query in range(QUERIES - DEV, QUERIES) if run.relevant(query)]
    got = figures["results"]
    assert got["depth"] == 10
    assert got["coverage"] == (shown > 0).mean()
    assert got["top_share"] == pytest.approx(shown.max() / shown.sum())
    assert got["gini"] == pytest.approx(np.abs(shown[:, None] - shown).mean() / 2 / shown.mean())
    assert got["similarity"] == pytest.approx(np.mean(similarity), abs=1e-6)
    assert got["popularity"] == pytest.approx(np.mean([percentile[some].mean() for some in top]))
    assert got["relevant_popularity"] == pytest.approx(np.mean(relevant))


def _column(run: Run, part: Part, name: str) -> pa.ChunkedArray:
    from cluster.tables.tables import read_part

    return read_part(run.store, part.path, [name])[name]


def test_a_gain_below_the_threshold_changes_ndcg_and_no_other_figure(
    tmp_path: Path, run: Run, baseline: tuple[dict[str, Any], Part]
) -> None:
    other = Run(tmp_path, low_gain=0.5)
    figures, part = measure(other.task("baseline", other.items, {}, min_slice_queries=3))
    rows, want = (pq.read_table(f"{at.store.root}/{table.path}") for at, table in ((other, part), (run, baseline[1])))
    changed = {
        name for name in rows.column_names if not np.array_equal(rows[name].to_numpy(), want[name].to_numpy(), equal_nan=True)
    }
    assert changed == {"ndcg@10"}
    for name in ("scores", "results", "leakage"):
        assert figures[name] == baseline[0][name]
    assert {row["value"]: row["queries"] for row in figures["slices"]["genres"]["slices"]} == {
        row["value"]: row["queries"] for row in baseline[0]["slices"]["genres"]["slices"]
    }


def test_scores_are_those_of_positives_of_the_nearest_others_and_of_random_items(
    run: Run, baseline: tuple[dict[str, Any], Part]
) -> None:
    scores, got = run.queries[-DEV:] @ run.items.T, baseline[0]["scores"]
    positive, hard, random = [], [], []
    sample, drawn = draw_sample(DEV, ITEMS)
    assert sample.tolist() == list(range(DEV)), "few queries: all of them"
    for place, query in enumerate(range(QUERIES - DEV, QUERIES)):
        known = [*run.relevant(query), int(run.own[query])]
        positive += [scores[place, item] for item in run.relevant(query)]
        found = [item for item in np.argsort(-scores[place], kind="stable") if item != run.own[query]][: K - 1]
        hard += [scores[place, item] for item in found if item not in known][:10]
        random += [scores[place, item] for item in drawn[place] if item not in known]
    for kind, values in (("positive", positive), ("hard", hard), ("random", random)):
        assert sum(got[kind]) == len(values)
        assert list(got["percentiles"][kind].values()) == pytest.approx(np.percentile(values, [5, 25, 50, 75, 95]), abs=1e-6)
    assert len(hard) > 9 * DEV


def test_slices_are_of_queries_of_their_relevant_items_and_of_label_sources(
    run: Run, baseline: tuple[dict[str, Any], Part]
) -> None:
    slices = baseline[0]["slices"]
    assert slices.keys() == {"kind", "genres", "item.language", "source", "seen_in_training"}, "one language is no slice"
    assert {row["value"]: row["queries"] for row in slices["kind"]["slices"]} == {"mood": 10, "plot": 9}
    dev = [query for query in range(QUERIES - DEV, QUERIES) if run.relevant(query)]
    for row in slices["genres"]["slices"]:
        members = [query for query in dev if any(row["value"] in run.genres[item] for item in run.relevant(query))]
        assert row["queries"] == len(members)
    trained = {item for query in range(QUERIES - DEV) for item in run.relevant(query)}
    rows = {row["value"]: row["queries"] for row in slices["seen_in_training"]["slices"]}
    assert rows == {
        "true": sum(any(item in trained for item in run.relevant(query)) for query in dev),
        "false": sum(any(item not in trained for item in run.relevant(query)) for query in dev),
    }
    assert min(rows.values()) > 3
    named = measure(run.task("named", run.items, {}, slices=("year", "kind", "kind"), min_slice_queries=2))[0]["slices"]
    assert list(named) == ["year", "kind"]
    assert " to " in named["year"]["slices"][0]["value"], "many numbers are cut into ranges"
    assert len(named["year"]["slices"]) == 4
    assert measure(run.task("none", run.items, {}, slices=()))[0]["slices"] == {}


def with_values(run: Run, table: str, column: str, values: dict[int, Any]) -> None:
    """Other values in some rows of a table of the run."""
    whole = read_parts(run.store, run.parts[table])
    changed = [values.get(row, value) for row, value in enumerate(whole[column].to_pylist())]
    whole = whole.set_column(whole.column_names.index(column), column, pa.array(changed, whole.schema.field(column).type))
    run.parts[table] = in_parts(run.store, f"{table}-{column}", whole, 16)


@pytest.fixture(params=[(0, ITEMS - 1), (ITEMS - 1, 0)], ids=["copy behind", "copy before"])
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """The last query finds its one relevant item first, and an unlabelled copy of it beside it."""
    relevant, copy = request.param
    run, query = Run(tmp_path), QUERIES - 1
    run.labels = [label for label in run.labels if label[0] != query and relevant not in label and copy not in label]
    run.labels.append((query, relevant, 1, "click"))
    run.parts["labels"] = in_parts(run.store, "labels-copied", run.label_table(), 1000)
    with_values(run, "corpus", "text_code", {copy: relevant})
    run.items[copy] = run.items[relevant] = run.queries[query]
    return run


def test_a_copy_of_a_relevant_item_is_that_item_wherever_it_stands_in_the_file(copied: Run) -> None:
    figures, part = measure(copied.task("model", copied.items, {}))
    values = read_parts(copied.store, [part]).to_pylist()[-1]
    assert figures["equal_texts"]["queries_with_copies"] == 1
    assert [values[name] for name in ("recall@1", "ndcg@10", "mrr@10", "bad_top1")] == [1, 1, 1, 0]


def test_who_was_trained_on_a_copy_was_trained_on_the_item(copied: Run) -> None:
    def remembered() -> int:
        slices = measure(copied.task("model", copied.items, {}, min_slice_queries=2))[0]["slices"]["seen_in_training"]["slices"]
        return int(next(row["queries"] for row in slices if row["value"] == "true"))

    before = remembered()
    (relevant,) = copied.relevant(QUERIES - 1)
    labels = read_parts(copied.store, copied.parts["labels"])
    copy = pa.table({"query_row": [0], "item_row": [ITEMS - 1 - relevant], "score": [1], "source": ["click"], "gain": [1.0]})
    copied.parts["labels"] = in_parts(copied.store, "labels-trained", pa.concat_tables([copy, labels]), 1000)
    assert remembered() == before + 1


def test_first_hits_with_the_query_s_own_text_are_counted_unless_they_are_relevant(run: Run, tmp_path: Path) -> None:
    own = Run(tmp_path)
    scores = own.queries[-DEV:] @ own.items.T
    first = {QUERIES - DEV + place: int(np.argmax(row)) for place, row in enumerate(scores)}
    with_values(own, "queries", "text_code", dict(first))
    figures, _ = measure(own.task("model", own.items, {}))
    want = [query for query, item in first.items() if item not in own.relevant(query) and item != own.own[query]]
    assert 5 < figures["equal_texts"]["first_hits_of_own_text"] == len(want) < DEV
    plain, _ = measure(run.task("plain", run.items, {}))
    assert figures["metrics"] == plain["metrics"], "they are counted, not taken out"
    assert plain["equal_texts"] == {"queries_with_copies": 0, "first_hits_of_own_text": 0}


def test_columns_that_are_no_slices_are_refused_with_those_that_are(run: Run) -> None:
    queries = pa.schema([("id", pa.string()), ("kind", pa.string()), ("source", pa.string())])
    items = pa.schema(
        [
            ("id", pa.string()),
            ("kind", pa.string()),
            ("genres", pa.list_(pa.string())),
            ("year", pa.int64()),
            ("extra", pa.struct([("a", pa.string())])),
            ("vector", pa.list_(pa.float32(), 2)),
        ]
    )
    assert list(columns_of(queries, items)) == [
        "kind",
        "source",
        "item.kind",
        "genres",
        "year",
        "label.source",
        "seen_in_training",
    ]
    check_slices(["item.kind", "year"], queries, items)
    check_slices(None, queries, items)
    with pytest.raises(ConfigError, match=r"found 'extra'; there are kind, source, item.kind, genres"):
        check_slices(["extra"], queries, items)


def test_a_model_is_compared_with_each_other_one_on_the_same_queries(run: Run, baseline: tuple[dict[str, Any], Part]) -> None:
    better = run.items.copy()
    for query in range(QUERIES - DEV, QUERIES):
        better[run.relevant(query)] += 0.8 * run.queries[query]
    task = run.task("round-00", unit(better), {"baseline": [baseline[1]], "previous": [baseline[1]]}, min_slice_queries=3)
    figures, part = measure(task)
    assert "leakage" not in figures, "the data has not changed since the baseline"
    assert "against_best" not in figures
    block = figures["against_baseline"]
    assert block == figures["against_previous"]
    assert block["verdict"] == "improved"
    values, other = (_column(run, some, "recall@3").to_numpy() for some in (part, baseline[1]))
    want = paired_bootstrap(values, other, resamples=500)
    assert (block["recall@3"]["mean"], block["recall@3"]["low"], block["recall@3"]["high"]) == (want.mean, want.low, want.high)
    assert block["recall@3"]["p_adjusted"] == block["recall@3"]["p"], "the primary metric decides alone"
    assert block["ndcg@10"]["p_adjusted"] >= block["ndcg@10"]["p"]
    assert block.keys() == {"recall@3", "recall@10", "hit@1", "hit@5", "hit@10", "ndcg@10", "mrr@10", "bad_top1", "verdict"}
    rows = [row for column in figures["slices"].values() for row in column["slices"]]
    assert all(row["against_baseline"].keys() == {"mean", "low", "high", "p", "p_adjusted", "significant"} for row in rows)
    same = measure(replace(task, folder="again", hits=run.task("same", run.items, {}).hits))[0]
    assert same["against_baseline"]["verdict"] == "flat"
    assert not same["against_baseline"]["recall@3"]["significant"]


def test_tags_in_the_queries_are_found_and_columns_of_both_sides_compared(baseline: tuple[dict[str, Any], Part]) -> None:
    leakage = baseline[0]["leakage"]
    assert leakage.keys() == {"language", "text", "text:genres", "text:language"}
    assert leakage["text:genres"]["positives"] > leakage["text:genres"]["random"] + 0.1, "queries were made from a genre"
    assert leakage["text:language"]["positives"] == leakage["text:language"]["random"] == 0
    assert leakage["language"]["positives"] == pytest.approx(leakage["language"]["random"], abs=0.15)


def test_identifiers_and_descriptions_are_no_tags() -> None:
    assert are_tags(tags_of(pa.chunked_array([[["a", None], ["b"], None, ["a", "b"]] * 2])))
    assert not are_tags(tags_of(pa.chunked_array([[f"id-{n}" for n in range(9)]])))
    assert not are_tags(tags_of(pa.chunked_array([["a long description " * 5] * 9])))
    assert not are_tags([])
    assert tags_of(pa.chunked_array([[3, None]])) == [["3"], []]


def test_a_query_with_many_labels_is_one_pair() -> None:
    query_rows = np.array([4] * 50 + [5, 6, 6, 9])
    relevant = np.array([True] * 50 + [True, False, True, False])
    drawn = {tuple(one_of_each(query_rows, relevant, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert all(query_rows[list(places)].tolist() == [4, 5, 6] and relevant[list(places)].all() for places in drawn)
    assert len(drawn) > 5, "any of its labels"


def scores_of_all(run: Run, name: str, score: Callable[[int, int], float]) -> list[Part]:
    """A re-ranker's scores of every dev query with every item, in two parts."""
    query, item = np.divmod(np.arange(DEV * ITEMS), ITEMS)
    values = np.array([score(q + QUERIES - DEV, i) for q, i in zip(query.tolist(), item.tolist(), strict=True)], np.float32)
    pairs = Pairs.ordered(query + QUERIES - DEV, item, values)
    return in_parts(run.store, name, pairs.to_table(np.arange(QUERIES - DEV, QUERIES), scored=True), 11)


@pytest.fixture(scope="module")
def table(run: Run) -> tuple[Part, Part, dict[str, Any]]:
    """Two retrievers, a re-ranker that says the same of all pairs, and one that knows the labels."""
    worse = unit(run.items + np.random.default_rng(3).normal(size=run.items.shape) / 3)
    tasks = {
        name: replace(run.task(f"table-{name}", items, {}, num_hits=12, slices=("kind",), min_slice_queries=3), first=False)
        for name, items in (("off-the-shelf", worse), ("fine-tuned", run.items))
    }
    grades = {(query, item): score for query, item, score, _ in run.labels}
    scores = {
        "off-the-shelf": scores_of_all(run, "table-same", lambda *_: 0.5),
        "fine-tuned": scores_of_all(run, "table-perfect", lambda query, item: grades.get((query, item), 0) - item / 1000),
    }
    speed = {"p50_ms": {10: 1.0, 12: 2.0}, "p95_ms": {10: 1.5, 12: 2.5}, "queries": 10, "where": "1 CPU thread"}
    return make_table(TableTask(run.store, "table", tasks, scores, speed))


def test_a_re_ranker_that_says_the_same_of_all_pairs_leaves_every_figure_and_ties_everywhere(
    table: tuple[Part, Part, dict[str, Any]],
) -> None:
    cells = {(cell["retriever"], cell["reranker"]): cell for cell in table[2]["reranking"]["cells"]}
    for retriever in ("off-the-shelf", "fine-tuned"):
        same, alone = cells[retriever, "off-the-shelf"], cells[retriever, "none"]
        assert same["metrics"] == alone["metrics"]
        assert (same["tied_at_the_top"], alone["tied_at_the_top"]) == (DEV, None)
        assert cells[retriever, "fine-tuned"]["tied_at_the_top"] == 0


def test_a_re_ranker_that_knows_the_labels_reaches_what_is_in_reach(run: Run, table: tuple[Part, Part, dict[str, Any]]) -> None:
    values, hits, figures = table
    reranking = figures["reranking"]
    assert reranking["pair"] == {"retriever": "fine-tuned", "reranker": "fine-tuned"} | reranking["pair"]
    task = run.task("alone", run.items, {}, num_hits=12)
    alone = measure_queries(task)
    cells = {(cell["retriever"], cell["reranker"]): cell["metrics"] for cell in reranking["cells"]}
    for metric in ("recall@3", "recall@10", "ndcg@10", "mrr@10"):
        assert cells["fine-tuned", "fine-tuned"][metric] == pytest.approx(np.nanmean(alone.in_reach[metric]))
        assert cells["fine-tuned", "none"][metric] == pytest.approx(np.nanmean(alone.values[metric]))
    own = pq.read_table(f"{run.store.root}/{values.path}")["recall@3"].to_numpy()
    assert figures["metrics"]["recall@3"] == pytest.approx(np.nanmean(own))
    rows = pq.read_table(f"{run.store.root}/{hits.path}")
    assert rows["query_row"].to_pylist() == list(range(QUERIES - DEV, QUERIES))
    for query, items in zip(rows["query_row"].to_pylist(), rows["item_rows"].to_pylist(), strict=True):
        wanted = [item in run.relevant(query) for item in items]
        assert wanted == sorted(wanted, reverse=True), "relevant hits come first"
    assert set(figures) >= {"against_baseline", "slices", "results", "attainable", "queries_without_positive"}
    assert list(reranking["depths"]) == ["10", "12"]
    assert reranking["depths"]["12"] == pytest.approx(figures["metrics"]["recall@3"])


def test_a_pair_that_no_re_ranker_has_read_is_told(run: Run) -> None:
    task = run.task("unread", run.items, {}, num_hits=12)
    few = Pairs.ordered(np.array([QUERIES - DEV]), np.array([0]), np.array([0.5], np.float32))
    parts = in_parts(run.store, "unread/scores", few.to_table(np.arange(QUERIES - DEV, QUERIES), scored=True), 50)
    with pytest.raises(ArtifactError, match="expected a score for every hit"):
        measure_queries(task, in_order_of(run.store, parts))
