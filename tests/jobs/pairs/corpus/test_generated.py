"""Queries from a language model behind a real server on loopback that fails one request in ten."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import http
from cluster.errors import ClusterError, ConfigError
from cluster.session.progress import Progress
from jobs.pairs import make
from jobs.pairs.corpus import generated
from jobs.pairs.settings import load_settings
from tests.jobs.pairs.conftest import Made, Make, event, lines, query
from tests.support.json_server import Asked, JsonServer, Reply, serving

COLORS, THINGS = ["red", "blue", "green", "grey", "black", "white"], ["shoe", "hat", "coat", "sock", "glove"]
ITEMS = [{"id": f"i{n}", "title": f"{COLORS[n % 6]} {THINGS[n // 6]}", "text": f"it is model number {n}"} for n in range(30)]
REAL = [
    row
    for n in range(120)
    for row in (
        query(f"q{n}", f"find {n}" if n % 6 else "cheap shoes", [f"i{n % 30}"], user=f"u{n}"),
        event(f"q{n}", f"i{n % 30}", "purchase", user=f"u{n}"),
    )
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, no key."""
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv(generated.KEY, raising=False)


def completion(content: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}}]}


def title(asked: Asked) -> str:
    text: str = asked.body["messages"][1]["content"]
    return re.findall(r"^(\w+ \w+)$", text, re.MULTILINE)[-1]


def write(asked: Asked) -> dict[str, Any]:
    """A good query, one that leads elsewhere, and one that somebody asked already; as models write them."""
    own = title(asked)
    return completion(f"Here you are:\n```json\n{json.dumps([f'{own} please', 'where is my order', 'cheap shoes'])}\n```")


def settings_of(folder: Path, server: JsonServer) -> list[str]:
    (folder / "items.jsonl").write_bytes(lines(ITEMS))
    return [f'corpus.path="{folder}/items.jsonl"', f'generate.url="{server.address}"', 'generate.model="small"', "held_out=0.0"]


def with_server(folder: Path, pairs: Make, answer: Callable[[Asked], Any]) -> tuple[Made, JsonServer]:
    with serving(answer, "/v1/chat/completions") as server:
        return pairs({"log.jsonl": REAL}, *settings_of(folder, server)), server


def test_queries_are_kept_that_lead_back_to_their_item(pairs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(generated.KEY, "secret-key-1")
    failures = [Reply(500), Reply(429, headers={"Retry-After": "0"}), Reply(cut=True, body=["half"]), Reply(body=b"<html>")]

    def answer(asked: Asked) -> Any:
        return failures[asked.number // 10 % len(failures)] if asked.number % 10 == 3 else write(asked)

    made, server = with_server(tmp_path, pairs, answer)
    kept = [row for row in made.table("queries") if row["kind"] == "generated"]
    live = [row for row in made.table("queries") if row["kind"] == "live"]
    assert kept
    titles = {item["id"]: item["title"] for item in ITEMS}
    for row in kept:
        item = next(item for (text, item) in made.labels if text == row["text"])
        assert row["text"] == f"{titles[item]} please"
        assert row["split"] == "train"
    synthetic = [row for row in made.table("queries") if row["kind"] != "live"]
    assert len(synthetic) <= 0.2 * (len(live) + len(synthetic))
    counts = made.summary["synthetic"]["generated"]
    assert counts["items"] == -(-(len(live) // 4) // generated.EACH), "as many as may be synthetic, no more"
    assert len(server.asked) == counts["items"] + counts["requests made again"]
    assert counts["written"] == 3 * counts["items"]
    assert counts["does not lead back to its item"] >= counts["items"]
    assert all(one.headers["authorization"] == "Bearer secret-key-1" for one in server.asked)
    assert "- cheap shoes\n" in server.asked[0].body["messages"][1]["content"], "a frequent query shows how users write"
    for path in made.folder.rglob("*"):
        assert path.is_dir() or b"secret-key-1" not in path.read_bytes()
    assert "does not lead back to its item" in (made.folder / "pairs.md").read_text()


def test_an_item_that_was_answered_is_not_asked_for_again(pairs: Make, without_ray: None, tmp_path: Path) -> None:
    want, server = with_server(tmp_path, pairs, write)
    whole = len(server.asked)
    (tmp_path / "log.jsonl").write_bytes(lines(REAL))
    to = tmp_path / "killed"

    def gives_up(asked: Asked) -> Any:
        return write(asked) if asked.number < 4 else Reply(401)

    def run(server: JsonServer) -> dict[str, Any]:
        settings = load_settings(None, settings_of(tmp_path, server))
        return make.make_pairs([str(tmp_path / "log.jsonl")], str(to), settings, progress=Progress(quiet=True))

    with serving(gives_up) as server, pytest.raises(ConfigError, match=generated.KEY):
        run(server)
    answered = len(list(to.glob("work/*/generated/answers/*/*.json")))
    assert 0 < answered < whole
    with serving(write) as server:  # another port: the address is not part of the result
        again = Made(to, run(server))
        assert len(server.asked) == whole - answered
    assert again.table("queries") == want.table("queries")
    assert again.table("qrels") == want.table("qrels")


def test_what_the_model_writes_beside_a_list_is_counted(pairs: Make, tmp_path: Path) -> None:
    odd = [completion("I cannot do that."), completion(None), completion('["a", 7, "mail me@example.org"]'), Reply(400, body={})]
    made, _ = with_server(tmp_path, pairs, lambda asked: odd[asked.number % 4])
    counts = made.summary["synthetic"]["generated"]
    assert counts["items that the server refused"] >= 1
    assert counts["answers without a list of queries"] >= 2
    assert counts["not usable as a query"] >= 1
    assert not [row for row in made.table("queries") if row["kind"] == "generated"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: {"error": "no"}, ["choices[0].message.content", "generate.url"]),
        (lambda _: Reply(404), ["generate.url", "404"]),
        (lambda _: Reply(400, body={"error": "no such model"}), ["generate.url", "no such model"]),
    ],
    ids=["no chat completion", "no such address", "every request is refused"],
)
def test_a_server_that_cannot_be_used_is_one_paragraph(
    pairs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, words: list[str]
) -> None:
    monkeypatch.setattr(generated, "MOST_REFUSED", 2)
    with pytest.raises((ConfigError, ClusterError)) as caught:
        with_server(tmp_path, pairs, answer)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_queries_that_were_generated_before_are_still_synthetic(pairs: Make, tmp_path: Path) -> None:
    made, _ = with_server(tmp_path, pairs, write)
    again = pairs({}, before=[str(made.folder)])
    assert {row["text"] for row in again.table("queries") if row["kind"] == "live"} == {
        row["text"] for row in made.table("queries") if row["kind"] == "live"
    }
    synthetic = [row for row in again.table("queries") if row["kind"] == "generated"]
    assert synthetic
    assert {row["split"] for row in synthetic} == {"train"}
