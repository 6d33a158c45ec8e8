"""A teacher in a mining: what it reads, that it reads each pair once, what it drops, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.commits import Commit, Ledger
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from cluster.tables.tables import read_parts
from mining.teacher.cut import Pairs
from tests.support.json_server import Asked, Reply, serving

QUERIES, ITEMS = 12, 40
PairScores = dict[tuple[int, int], float]


def unit(values: Any) -> list[float]:
    vector = np.asarray(values, np.float64)
    return [float(value) for value in vector / np.linalg.norm(vector)]


def with_vectors(case: Any, teacher: dict[str, Any]) -> None:
    """A case that is mined with its own vectors; query n asks for item n, and some for item n + 20 too."""
    generator = np.random.default_rng(7)
    items = generator.normal(size=(ITEMS, 6))
    words = ["red", "blue", "old", "new", "cat", "dog"]
    case.items = [
        {"id": f"i{n}", "title": "", "text": f"{words[n % 6]} {words[n % 5]} {n}", "vector": unit(items[n])} for n in range(ITEMS)
    ]
    case.queries = [
        {
            "id": f"q{n}",
            "text": f"{words[n % 4]} {n}",
            "vector": unit(items[n] + generator.normal(size=6)),
            "split": "dev" if n == QUERIES - 1 else "train",
        }
        for n in range(QUERIES)
    ]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 1} for n in range(QUERIES)]
    case.labels += [{"query_id": f"q{n}", "item_id": f"i{n + 20}", "score": 1} for n in range(0, QUERIES, 3)]
    case.set("encoder", {"kind": "vectors"})
    case.set("cluster.query_block", 4)
    case.set("mining", {"num_hits": 20, "num_negatives": 4, "relative_margin": "off", "min_score": -0.2, "teacher": teacher})


def commit_of(case: Any, name: str) -> Commit:
    found = Ledger(Store(str(case.folder / "out/run"))).find(name)
    assert found is not None, name
    return found


def table_of(case: Any, name: str, table: str) -> Any:
    return read_parts(Store(str(case.folder / "out/run")), commit_of(case, name).parts(table))


def scores_of(case: Any, name: str, table: str) -> PairScores:
    pairs = Pairs.from_table(table_of(case, name, table))
    return {(int(q), int(i)): float(s) for q, i, s in zip(pairs.query_rows, pairs.item_rows, pairs.scores, strict=True)}


def asked_of(case: Any, name: str) -> set[tuple[int, int]]:
    return set(scores_of(case, name, "pairs"))


def wanted_pairs(case: Any, depth: int, min_score: float) -> set[tuple[int, int]]:
    """The first survivors of every training query, by hand, and its relevant items."""
    items = np.array([item["vector"] for item in case.items], np.float32)
    wanted = set()
    for row, query in enumerate(case.queries[: QUERIES - 1]):
        relevant = {int(label["item_id"][1:]) for label in case.labels if label["query_id"] == query["id"]}
        scores = items @ np.array(query["vector"], np.float32)
        order = [int(item) for item in np.argsort(-scores, kind="stable") if int(item) not in relevant][:20]
        wanted |= {(row, item) for item in [item for item in order if scores[item] >= min_score][:depth]}
        wanted |= {(row, item) for item in relevant}
    return wanted


def check_negatives(case: Any, scores: PairScores, margin: float) -> None:
    """No negative scores above the teacher's limit, and no better candidate within it was left out."""
    for row in table_of(case, "mine", "negatives").to_pylist():
        query = row["query_row"]
        mean = np.mean([scores[query, item] for item in row["positive_rows"]])  # mining.margin_reference
        limit = mean - abs(mean) * margin
        given = {item: negative["teacher_score"] for item, negative in zip(row["negative_rows"], row["negatives"], strict=True)}
        assert all(
            scores[query, item] == pytest.approx(score, abs=1e-6) and score <= limit + 1e-6 for item, score in given.items()
        )
        allowed = sum(
            score <= limit - 1e-6
            for (owner, item), score in scores.items()
            if owner == query and item not in row["positive_rows"]
        )
        assert len(given) >= min(4, allowed)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_a_cross_encoder_reads_survivors_once_and_drops_what_it_finds_relevant(ray_case: Any, cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder

    case = ray_case
    with_vectors(case, {"model": str(cross_encoder), "depth": 6, "relative_margin": 0.1})
    answer = case.run(command="mine")
    assert answer.code == 0, answer.err
    asked = asked_of(case, "mine-teacher-pairs")
    assert asked == wanted_pairs(case, 6, -0.2)
    model = CrossEncoder(str(cross_encoder), device="cpu")
    texts = [(case.queries[query]["text"], case.items[item]["text"]) for query, item in sorted(asked)]
    want = dict(zip(sorted(asked), model.predict(texts, show_progress_bar=False), strict=True))
    got = scores_of(case, "mine-teacher", "scores")
    assert got == pytest.approx(want, abs=1e-5)
    check_negatives(case, got, 0.1)
    figures = commit_of(case, "mine").figures
    assert figures["dropped"]["teacher"] > 0
    assert figures["dropped"]["teacher:unread"] > 0
    assert commit_of(case, "mine-teacher").figures == {"pairs": len(asked), "read": len(asked)}

    made = {name: commit_of(case, name).created for name in ("teacher", "mine-teacher-pairs", "mine-teacher")}
    case.set("mining.teacher.relative_margin", 0.3)  # only the cut is another one
    assert case.run(command="mine").code == 0
    assert {name: commit_of(case, name).created for name in made} == made
    check_negatives(case, got, 0.3)

    case.set("mining.teacher.depth", 8)
    case.set("mining.min_score", 0.0)
    case.set("cluster.query_block", 3)
    assert case.run(command="mine").code == 0
    more = asked_of(case, "mine-teacher-pairs")
    assert more == wanted_pairs(case, 8, 0.0)
    assert commit_of(case, "mine-teacher").figures == {"pairs": len(more), "read": len(more - asked)}
    assert set(scores_of(case, "mine-teacher", "scores")) == asked | more


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_an_embedding_model_teaches_by_its_cosines(ray_case: Any, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from training.encoders.prepare.prepare import build_base
    from training.settings import EncoderSettings

    case = ray_case
    with_vectors(case, {"kind": "encoder", "depth": 6, "relative_margin": 0.05})
    texts = [row["text"] for row in [*case.items, *case.queries]]
    folder = build_base(
        EncoderSettings(kind="static", dimension=16, vocabulary=256), StorageSettings(), texts, 3, tmp_path / "teacher"
    )
    case.set("mining.teacher.model", str(folder))
    answer = case.run(command="mine")
    assert answer.code == 0, answer.err
    asked = asked_of(case, "mine-teacher-pairs")
    assert asked == wanted_pairs(case, 6, -0.2)
    model = SentenceTransformer(str(folder), device="cpu")
    items, queries = (
        model.encode([row["text"] for row in rows], normalize_embeddings=True, show_progress_bar=False)
        for rows in (case.items, case.queries)
    )
    got = scores_of(case, "mine-teacher", "hits")
    assert got == pytest.approx({(query, item): float(queries[query] @ items[item]) for query, item in asked}, abs=1e-5)
    check_negatives(case, got, 0.05)

    case.set("mining.num_hits", 15)  # a new search, whose blocks are others
    case.set("cluster.query_block", 5)
    assert case.run(command="mine").code == 0
    assert all(
        score == pytest.approx(got[pair], abs=1e-6)
        for pair, score in scores_of(case, "mine-teacher", "hits").items()
        if pair in got
    )
    case.set("mining.teacher.depth", 5)  # the hits are there, cut as they are
    case.set("cluster.query_block", 3)
    answer = case.run(command="mine")
    assert answer.code == 0, answer.err
    assert [part.rows for part in commit_of(case, "mine-teacher").parts("hits")] == [3, 3, 3, 2]
    check_negatives(case, scores_of(case, "mine-teacher", "hits"), 0.05)

    case.set("mining.positive_quantile", 0.5)  # cuts that are calibrated once, for the pairs, hold for the choice too
    assert case.run(command="mine").code == 0
    pairs, mined = (commit_of(case, name).figures["cuts"] for name in ("mine-teacher-pairs", "mine"))
    relevant = [score for scores in table_of(case, "mine", "negatives")["positive_scores"].to_pylist() for score in scores]
    assert pairs == mined
    assert mined["ceiling"] == pytest.approx(np.quantile(relevant, 0.5, method="inverted_cdf"), abs=2e-4)
    check_negatives(case, scores_of(case, "mine-teacher", "hits"), 0.05)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_a_later_round_reads_only_new_pairs(ray_case: Any, cross_encoder: Path) -> None:
    case = ray_case
    case.items = [{"id": f"i{n}", "title": f"Title {n}", "text": f"a text about thing {n}"} for n in range(30)]
    case.queries = [{"id": f"q{n}", "text": f"thing {n}", "split": "dev" if n > 11 else "train"} for n in range(14)]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 1} for n in range(14)]
    case.set(
        "mining",
        {
            "num_hits": 10,
            "num_negatives": 3,
            "relative_margin": "off",
            "teacher": {"model": str(cross_encoder), "relative_margin": "off", "max_score": 0.9},
        },
    )
    case.set("rounds", {"warmup_epochs": 0, "mined": 1})
    case.set("training", {"batch_size": 4, "hard_negatives": 2})
    case.set("evaluation", {"num_hits": 20})
    answer = case.run("--json")
    assert answer.code == 0, answer.err
    seconds = json.loads(answer.out)["rounds"][0]["seconds"]
    assert seconds["mine"] >= commit_of(case, "round-01-teacher").seconds["wall"]

    stages = json.loads(case.run("--dry-run", "--json").out)["stages"]
    assert [stage["name"] for stage in stages if not stage["kept"]] == []
    assert case.hardmine("train", str(case.folder / "run.toml"), "--round", "1").code == 0, "all before it is there"

    case.set("rounds.mined", 2)
    answer = case.run("--round", "2", command="mine")
    assert answer.code == 0, answer.err
    first, second = (asked_of(case, f"round-{number:02d}-teacher-pairs") for number in (1, 2))
    assert second - first, "the second model finds others"
    assert first & second
    assert commit_of(case, "round-02-teacher").figures == {"pairs": len(second), "read": len(second - first)}
    assert set(scores_of(case, "round-02-teacher", "scores")) == first | second


# mistakes


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "./none"}, ["mining.teacher.model", "there is no folder", "/none"]),
        ({"model": "nobody/nothing-at-all"}, ["mining.teacher.model", "'nobody/nothing-at-all'", "the hub did not give it"]),
        ({"model": "empty"}, ["mining.teacher.model", "without config.json"]),
        ({"model": "embedding"}, ["mining.teacher.model", "found BertModel", 'mining.teacher.kind = "encoder"']),
        ({"model": "broken"}, ["mining.teacher.model", "cannot be read", "broken"]),
        (
            {"model": "pairs", "kind": "encoder"},
            ["mining.teacher.model", "BertForSequenceClassification", 'mining.teacher.kind = "cross_encoder"'],
        ),
        (
            {"model": "embedding", "kind": "encoder"},
            ["mining.teacher.model", "expected a tokenizer", "give a complete model folder"],
        ),
        ({"model": "s3://key:secret@bucket/model"}, ["mining.teacher.model", "must not hold keys"]),
        ({"model": "http://hub/model"}, ["mining.teacher.model", "expected a local path or s3://"]),
        ({"model": "pairs", "relative_margin": "off"}, ["mining.teacher", "neither max_score nor relative_margin"]),
    ],
)
def test_a_wrong_teacher_is_told_before_anything_is_embedded(case: Any, refused: Any, settings: Any, words: list[str]) -> None:
    with_vectors(case, settings)
    case.files |= {
        "empty/notes.txt": b"",
        "broken/config.json": b"{",
        "embedding/config.json": b'{"architectures": ["BertModel"], "hidden_size": 8}',
        "pairs/config.json": b'{"architectures": ["BertForSequenceClassification"]}',
    }
    refused(case.run(command="mine"), 2, words)
    assert not (case.folder / "out/run/embeddings").exists()


def rerank_by_length(asked: Asked) -> Any:
    """A /rerank server as Cohere's; one request in ten fails."""
    if asked.number % 10 == 3:
        return Reply(500)
    if asked.body.get("truncate_prompt_tokens"):
        return Reply(400, {"message": "unknown field truncate_prompt_tokens"})
    texts = asked.body["documents"]
    return {"results": [{"index": n, "relevance_score": fit(asked.body["query"], text)} for n, text in enumerate(texts)]}


def fit(query: str, text: str) -> float:
    return float(np.float32(sum(map(ord, query + text)) % 89 / 89))


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_a_server_scores_survivors_once_and_a_later_round_asks_for_new_pairs_only(ray_case: Any, refused: Any) -> None:
    case = ray_case
    with serving(rerank_by_length) as server:
        with_vectors(case, {"model": "a-model", "kind": "http", "url": server.address, "depth": 6, "relative_margin": 0.1})
        answer = case.run(command="mine")
        assert answer.code == 0, answer.err
        asked = asked_of(case, "mine-teacher-pairs")
        assert asked == wanted_pairs(case, 6, -0.2)
        want = {(q, i): fit(case.queries[q]["text"], case.items[i]["text"]) for q, i in asked}
        got = scores_of(case, "mine-teacher", "scores")
        assert got == pytest.approx(want, abs=1e-6)
        check_negatives(case, got, 0.1)
        assert commit_of(case, "mine-teacher").figures == {"pairs": len(asked), "read": len(asked)}
        assert max(len(body["documents"]) for body in server.bodies) > 1, "many items of a query in one request"

        server.asked.clear()
        case.set("mining.teacher.depth", 8)
        assert case.run(command="mine").code == 0
        more = asked_of(case, "mine-teacher-pairs") - asked
        assert commit_of(case, "mine-teacher").figures["read"] == len(more)
        assert sum(len(body["documents"]) for body in server.bodies) <= 1.4 * len(more), "what was read is not asked again"
    case.set("mining.teacher.depth", 10)  # the server is gone: what it said is there, what is new cannot be asked
    case.patch.setattr("cluster.http.FIRST_PAUSE_S", 0.001)
    answer = case.run(command="mine")
    refused(answer, 3, ["mining.teacher.url", "no usable answer after 8 attempts", "run the same command again"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "http"}, ["mining.teacher", 'kind = "http" needs mining.teacher.url']),
        ({"kind": "http", "url": "host:8080"}, ["mining.teacher.url", "expected an address like http://host:8080/path"]),
        ({"kind": "http", "url": "http://me:hush@host/rerank"}, ["mining.teacher.url", "must not hold keys"]),
        ({"url": "http://host/rerank"}, ["mining.teacher.url", 'kind = "cross_encoder" reads a folder']),
    ],
)
def test_a_server_that_cannot_be_one_is_told_by_the_settings(
    case: Any, refused: Any, settings: dict[str, Any], words: list[str]
) -> None:
    with_vectors(case, {"model": "m"} | settings)
    answer = case.run(command="mine")
    refused(answer, 2, words)
    assert "hush" not in answer.err


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Reply(401, "no key"), 2, ["HTTP 401", "HARDMINE_TEACHER_KEY is not set"]),
        (Reply(404, "not here"), 2, ["the whole address with its path"]),
        (Reply(body={"results": []}), 2, ["has 0 scores for 2 items"]),
        (Reply(503), 3, ["mining.teacher.url", "no usable answer"]),
    ],
    ids=["no key", "another address", "no scores", "busy"],
)
def test_a_server_that_gives_no_scores_is_told_before_anything_is_embedded(
    case: Any, refused: Any, reply: Reply, code: int, words: list[str]
) -> None:
    case.patch.setattr("cluster.http.FIRST_PAUSE_S", 0.001)
    case.patch.setattr("cluster.http.PATIENCE_S", 0.1)
    case.patch.delenv("HARDMINE_TEACHER_KEY", raising=False)
    with serving(lambda _: reply) as server:
        with_vectors(case, {"model": "m", "kind": "http", "url": server.address})
        refused(case.run(command="mine"), code, words)
    assert not (case.folder / "out/run/embeddings").exists()


def grade_by_vectors(case: Any, *, honest: bool) -> Any:
    """A chat server that knows the labels, or one that says the same of all pairs."""
    relevant = {(label["query_id"], label["item_id"]) for label in case.labels}
    queries = {row["text"]: row["id"] for row in case.queries}
    items = {row["text"]: row["id"] for row in case.items}

    def answer(asked: Asked) -> Any:
        lines = asked.body["messages"][1]["content"].split("\n\n")
        query, item = queries.get(lines[0].removeprefix("Query: ")), items.get(lines[1].removeprefix("Result: "))
        grade = 4 if (query, item) in relevant and honest else 3 if sum(map(ord, f"{item}")) % 5 == 0 else 0
        return {"choices": [{"message": {"content": f"{grade}"}}]}

    return answer


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("ray_local")
def test_a_judge_that_agrees_relabels_and_one_that_does_not_is_never_believed(ray_case: Any, refused: Any) -> None:
    case = ray_case
    with_vectors(case, {})
    case.files["rubric.txt"] = b"Grade it.\n0: wrong\n3: right\n4: perfect\n"
    with serving(grade_by_vectors(case, honest=True)) as server:
        teacher = {"model": "m", "kind": "llm", "url": server.address, "rubric": "rubric.txt", "depth": 8}
        case.set("mining.teacher", teacher | {"relative_margin": 0.3, "relabel": 3})
        answer = case.run(command="mine")
        assert answer.code == 0, answer.err
        assert "the judge agrees with" in answer.err
        assert "random pairs (kappa" in answer.err
        asked = len(server.asked)
        assert case.run(command="mine").code == 0
        assert len(server.asked) == asked, "nothing is asked twice"
    rows = table_of(case, "mine", "negatives").to_pylist()
    assert sum(len(row["relabelled_rows"]) for row in rows) == commit_of(case, "mine").figures["relabelled"] > 0
    assert all(score == 3 for row in rows for score in row["relabelled_scores"])
    assert all(score in (0, None) for row in rows for score in row["negative_teacher_scores"])
    with serving(grade_by_vectors(case, honest=False)) as server:
        case.set("mining.teacher.url", server.address)
        answer = case.run(command="mine")
        refused(answer, 2, ["mining.teacher", "kappa", "expected a kappa of at least 0.4", "mining.teacher.rubric"])
