"""The whole command in this process: resume, merge, sheets, privacy, and what a run writes read back."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.errors import ConfigError, HardmineError
from cluster.session.progress import Progress
from cluster.storage.store import Store
from jobs.pairs import make, work
from jobs.pairs.output.logging_advice import PYTHON, UBI_SCHEMA
from jobs.pairs.settings import load_settings
from jobs.stages.evaluate.events import make_records
from tests.jobs.pairs.conftest import MINUTE, START, Made, Make, event, lines, query

DAY = 1440 * MINUTE


def log(count: int = 60, *, start: int = START, prefix: str = "q") -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        user, time = f"secret-user-{number % 9}", start + number * 10 * MINUTE
        rows.append(query(f"{prefix}{number}", f"thing number {number % 7}", [f"i{number % 7}", "x", "y"], user=user, time=time))
        rows.append(event(f"{prefix}{number}", f"i{number % 7}", "click", user=user, time=time + 2000, dwell=50.0))
    return rows


def content(made: Made) -> dict[str, bytes]:
    folder = made.folder / "tables"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_the_order_and_the_number_of_files_do_not_matter(pairs: Make) -> None:
    rows = log()
    whole = pairs({"log.jsonl": rows})
    shuffled = random.Random(4).sample(rows, len(rows))
    halves = pairs({"b.jsonl": shuffled[:50], "a.jsonl": shuffled[50:]})
    assert content(whole) == content(halves)


def test_partitions_do_not_change_the_labels(pairs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [{("session_id" if name == "client_id" else name): value for name, value in row.items()} for row in log()]
    sessions += [
        query("r1", "other words", ["i0", "z"], time=START + 60 * MINUTE),
        query("r2", "thing number 0", ["i0"], time=START + 60 * MINUTE + 9000),
    ]
    sessions += [event("r2", "i0", "purchase", time=START + 60 * MINUTE + 9500)]
    for rows in (log(), sessions):
        want = pairs({"log.jsonl": rows})
        with monkeypatch.context() as patch:
            patch.setattr(work, "PARTITION_BYTES", 2000)
            got = pairs({"log.jsonl": rows})
        assert len(content(got)) > 2 * 2
        assert (got.labels, got.weights) == (want.labels, want.weights)
        same = {"key", "logs", "rejected"}  # the address differs
        assert {k: v for k, v in got.summary.items() if k not in same} == {k: v for k, v in want.summary.items() if k not in same}


def test_a_call_that_died_resumes_with_the_same_bytes(pairs: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    want = pairs({"log.jsonl": log()})
    logs = next(tmp_path.glob("logs-*"))
    for stage in ("sessions", "labels", "rejected"):
        to = tmp_path / f"killed-{stage}"
        run = work.run_tasks

        def die(store: Any, folder: str, task: Any, inputs: Any, *, _stage: str = stage, _run: Any = run, **rest: Any) -> Any:
            if folder.endswith(_stage):
                raise RuntimeError("killed")
            return _run(store, folder, task, inputs, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(work, "run_tasks", die)
            with pytest.raises(RuntimeError):
                make.make_pairs([str(logs)], str(to), load_settings(None), progress=Progress(quiet=True))
        again = Made(to, make.make_pairs([str(logs)], str(to), load_settings(None), progress=Progress(quiet=True)))
        assert content(again) == content(want)
        assert not (to / "work").exists()


def test_another_log_is_not_mixed_into_a_result(pairs: Make, tmp_path: Path) -> None:
    made = pairs({"log.jsonl": log()})
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(log(20)))
    with pytest.raises(ConfigError, match="holds the pairs of other logs"):
        make.make_pairs([str(other)], str(made.folder), load_settings(None), progress=Progress(quiet=True))
    same = make.make_pairs(
        [str(next(tmp_path.glob("logs-*")))], str(made.folder), load_settings(None), progress=Progress(quiet=True)
    )
    assert same == made.summary, "the same call tells what is there"


def test_no_user_is_in_what_comes_out(pairs: Make) -> None:
    made = pairs({"log.jsonl": lines(log()) + b'{"client_id": "secret-user-1", "query_id": "cut'})
    assert made.summary["skipped"]["line is not JSON"] == 1
    for path in made.folder.rglob("*"):
        assert path.is_dir() or b"secret-user" not in path.read_bytes()
    assert {name for row in made.table("queries") for name in row} == {"id", "text", "split", "kind", "item_id", "count"}
    assert {name for row in made.table("qrels") for name in row} == {"query_id", "item_id", "score", "weight", "source", "split"}
    assert not (made.folder / "work").exists(), "hashed users lie there while it runs"


def test_outputs_merge_and_the_older_one_weighs_less(pairs: Make) -> None:
    bought = [query("q1", "red shoe", ["a", "b"]), event("q1", "a", "purchase")]
    old = pairs({"log.jsonl": bought})
    year = START + 180 * DAY
    hidden = [query("q2", "red shoe", ["a", "b"], time=year), event("q2", "b", "purchase", time=year + 1000, position=2)]
    hidden += [event("q2", "a", "hide", time=year + 3000)]
    merged = pairs({"log.jsonl": hidden}, before=[str(old.folder)])
    assert merged.labels["red shoe", "b"] == (3, "purchase")
    assert merged.labels["red shoe", "a"] == (0, "deletion"), "half a year ago it was bought"
    assert merged.weights["red shoe", "a"] == pytest.approx(0.5 + 0.2, abs=0.21)
    alone = pairs({}, before=[str(old.folder)])
    assert alone.labels == old.labels, "an output alone comes back"
    assert [row["split"] for row in alone.table("queries")] == [row["split"] for row in old.table("queries")]


def test_what_was_held_out_stays_held_out(pairs: Make) -> None:
    old = pairs({"log.jsonl": log()}, "held_out=0.4")
    new = pairs({"log.jsonl": log(start=START + 10 * DAY, prefix="r")}, "held_out=0.0", before=[str(old.folder)])
    split = {row["text"]: row["split"] for row in new.table("queries")}
    assert split == {row["text"]: row["split"] for row in old.table("queries")}
    assert "dev" in split.values()


def test_a_sheet_that_a_person_edited_becomes_labels(pairs: Make, tmp_path: Path) -> None:
    items = [{"id": f"s{n}", "title": f"sofa {n}", "text": "a couch", "genre": ["couch", "cosy"]} for n in range(3)]
    items += [
        {"id": "t1", "title": "couch table", "text": "a table for a couch", "genre": ["table"]},
        {"id": "i0", "title": "thing", "text": "it"},
    ]
    corpus = tmp_path / "items.jsonl"
    corpus.write_bytes(lines(items))
    rows = log(8)
    for number in range(4):
        rows.append(query(f"c{number}", "-cosy couch", ["t1"], user=f"v{number}", time=START + number * DAY))
    setting = f'corpus.path="{corpus}"'
    made = pairs({"log.jsonl": rows}, setting)
    sheet = list(csv.DictReader(io.StringIO((made.folder / "rejected.csv").read_text())))
    couch = [row for row in sheet if row["query"] == "'-cosy couch"]
    assert {row["item_id"]: row["score"] for row in couch} == {"s0": "1", "s1": "1", "s2": "1", "t1": "0"}
    for row in sheet:
        row["accept"] = "x" if row["item_id"] in ("s0", "t1") else ""
    edited = io.StringIO()
    writer = csv.DictWriter(edited, sheet[0])
    writer.writeheader()
    writer.writerows(sheet)
    (tmp_path / "edited.csv").write_text(edited.getvalue())
    again = pairs({"log.jsonl": rows}, setting, before=[str(tmp_path / "edited.csv")])
    assert again.labels["-cosy couch", "s0"] == (1, "editorial")
    assert again.labels["-cosy couch", "t1"] == (0, "editorial")
    assert ("-cosy couch", "s1") not in again.labels
    assert not any(item == "i3" for _, item in again.labels), "labels of items that are gone are left out"


def test_lines_of_an_evaluation_are_read_back(pairs: Make) -> None:
    queries = pa.table({"id": ["1", "2"], "text": ["red shoe", "blue hat"]})
    rows = np.array([[0, 1], [1, 0]])
    relevant = np.array([[False, True], [False, False]])
    items = {0: ("a", "A"), 1: ("b", "B")}
    head = {"event": "retrieval_eval", "time": "2026-01-01T00:00:00+00:00", "split": "dev"}
    records = make_records(
        head, queries, np.tile(rows, 5), np.ones((2, 10), np.float32), np.tile(relevant, 5), np.array([True, True]), items
    )
    files = {"events/retrieval_eval-00000.jsonl": list(records), "events/index.json": b'{"files": []}'}
    made = pairs(files, "held_out=0.0")
    assert made.labels == {("red shoe", "b"): (1, "retrieval_eval")}
    assert made.summary["rejected"]["clusters"][0]["examples"] == ["blue hat"]
    shopped = [query("q1", "blue hat", ["c"]), event("q1", "c", "purchase")]
    both = pairs(files | {"log.jsonl": shopped}, "held_out=0.0")
    split = {row["text"]: row["split"] for row in both.table("queries")}
    assert split == {"red shoe": "dev", "blue hat": "dev"}, "what a run was measured on is never trained on"


def test_items_that_are_used_together_are_pairs(pairs: Make, tmp_path: Path) -> None:
    corpus = tmp_path / "items.jsonl"
    corpus.write_bytes(
        lines({"id": f"b{n}", "title": f"Book {n}", "text": "text", "genre": "crime" if n < 3 else "love"} for n in range(6))
    )
    rows = [{"user_id": f"u{n}", "item_id": item, "rating": 5} for n in range(5) for item in ("b0", "b1")]
    rows += [{"user_id": f"u{n}", "item_id": "b2", "rating": 1} for n in range(5)]
    rows += [{"user_id": f"v{n}", "item_id": f"b{3 + n % 3}", "rating": 4} for n in range(30)]
    made = pairs({"ratings.jsonl": rows}, f'corpus.path="{corpus}"', 'corpus.templates=["a {genre} book"]')
    labels = made.labels
    assert labels["Book 0", "b1"] == (1, "co_access")
    assert labels["Book 0", "b2"] == (0, "disliked")
    own = {row["text"]: row["item_id"] for row in made.table("queries")}
    assert own["Book 0"] == "b0", "the item that the query is, so that it is not its own hit"
    kinds = [row["kind"] for row in made.table("queries")]
    assert sum(kind in ("title", "template") for kind in kinds) <= 0.2 * len(kinds) + 1
    assert made.summary["readiness"]["answer"].startswith("Collect more data")


def test_the_logger_that_is_proposed_writes_what_is_read(pairs: Make, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(PYTHON, names)
    path = tmp_path / "ubi.jsonl"
    names["log"].__defaults__ = (str(path),)
    name = names["log_query"]("user", "red shoe", [f"i{n}" for n in range(60)])
    names["log_event"]("user", name, "click", "i4", 5, 40.0)
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(logged[0]["query_response_hit_ids"]) == 40
    for line in logged:
        assert set(UBI_SCHEMA["required"]) <= set(line)
        assert set(line) <= set(UBI_SCHEMA["properties"])
    made = pairs({"ubi.jsonl": path.read_bytes()})
    assert made.labels["red shoe", "i4"] == (2, "dwell")
    assert made.labels["red shoe", "i0"] == (0, "skipped")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["position_bias=cascade"], ["position_bias"]),
        (["signals.actions.like=liked"], ["'liked' is not a signal"]),
        (["signals.weights.clicks=1.0"], ["'clicks' is not a signal"]),
        (["columns.product=sku"], ["'product' is not a meaning"]),
        (["held_out=0.5"], ["held_out", "0.45"]),
        (["corpus.same=genre"], ["set both"]),
        (["generate.url=http://127.0.0.1:1/v1", "corpus.path=items.jsonl"], ["generate.model", "set both"]),
        (["generate.url=http://127.0.0.1:1/v1", "generate.model=small"], ["corpus.path"]),
        (["generate.url=http://me:secret@127.0.0.1/v1", "generate.model=small"], ["must not hold keys"]),
        (["cluster.shards=4"], ["cluster.shards has no effect on pairs"]),
    ],
)
def test_a_wrong_setting_is_one_paragraph(settings: list[str], words: list[str]) -> None:
    with pytest.raises(HardmineError) as caught:
        load_settings(None, settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_logs_items_and_results_on_s3_give_the_same_bytes(
    pairs: Make, tmp_path: Path, s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{"id": f"i{n}", "title": f"thing {n}", "text": "a thing"} for n in range(7)]
    (tmp_path / "items.jsonl").write_bytes(lines(items))
    want = pairs({"log.jsonl": log()}, f'corpus.path="{tmp_path}/items.jsonl"')
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    store = Store(s3_bucket)
    store.write_bytes("logs/log.jsonl", lines(log()))
    store.write_bytes("items.jsonl", lines(items))
    settings = load_settings(None, [f"corpus.path={s3_bucket}/items.jsonl"])
    make.make_pairs([f"{s3_bucket}/logs"], f"{s3_bucket}/pairs", settings, progress=Progress(quiet=True))
    there = {path: store.read_bytes(path) for path in store.list("pairs")}
    assert {path.removeprefix("pairs/tables/"): data for path, data in there.items() if "/tables/" in path} == content(want)
    assert {path for path in there if "/tables/" not in path} == {
        f"pairs/{name}" for name in ("pairs.json", "pairs.md", "pairs.html", "ubi.schema.json", "writer.json")
    }


def test_earlier_queries_do_not_move_the_cut_of_the_log(pairs: Make) -> None:
    old = pairs({"log.jsonl": log(40)})
    new = {"log.jsonl": log(150, start=START + 5 * DAY, prefix="r")}
    alone = pairs(new).summary["cuts"]
    assert alone is not None
    assert pairs(new, before=[str(old.folder)]).summary["cuts"] == alone
