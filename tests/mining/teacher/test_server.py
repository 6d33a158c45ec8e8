"""A teacher behind /rerank: requests and answers of the servers that there are, on real connections."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from cluster import http
from cluster.errors import ClusterError, ConfigError
from cluster.http import Server
from mining.teacher.server import DOCUMENTS, KEY, MakeReranker, find_form, scores_of
from tests.support.json_server import Asked, Reply, serving


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv(KEY, raising=False)


def fit(query: str, item: str) -> float:
    """What every server here says of a pair."""
    return float(np.float32(sum(map(ord, query + item)) % 97 / 97))


def results(query: str, items: list[str], *, text: Any = None) -> list[dict[str, Any]]:
    """Best first, as all of them answer."""
    entries = [{"index": place, "relevance_score": fit(query, item)} for place, item in enumerate(items)]
    if text is not None:
        entries = [entry | {"document": text(items[entry["index"]])} for entry in entries]
    return sorted(entries, key=lambda entry: -entry["relevance_score"])


def cohere(asked: Asked) -> Any:
    body = asked.body
    if set(body) - {"model", "query", "documents", "top_n", "max_tokens_per_doc", "priority"}:
        return Reply(400, {"message": "invalid request: unknown field"})
    scores = results(body["query"], body["documents"])
    return {"results": scores, "id": "07734bd2", "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}}


def jina(asked: Asked) -> Any:
    body = asked.body
    if "truncate_prompt_tokens" in body:
        return Reply(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "truncate_prompt_tokens"]}]})
    scores = results(body["query"], body["documents"], text=lambda text: {"text": text})
    return {"model": body["model"], "object": "list", "usage": {"total_tokens": 15}, "results": scores}


def vllm(asked: Asked) -> Any:
    body = asked.body
    assert body["truncate_prompt_tokens"] == -1, "else it refuses long texts"
    scores = results(body["query"], body["documents"], text=lambda text: {"text": text, "multi_modal": None})
    return {"id": "rerank-1", "model": body["model"], "usage": {"prompt_tokens": 5, "total_tokens": 56}, "results": scores}


def infinity(asked: Asked) -> Any:
    body = asked.body
    answer = {"object": "rerank", "model": body["model"], "usage": {"total_tokens": 3}, "id": "infinity-1", "created": 17}
    return answer | {"results": results(body["query"], body["documents"], text=lambda _: None)}


def tei(asked: Asked) -> Any:
    body = asked.body
    if "texts" not in body:
        reason = b"Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 60"
        return Reply(422, reason)
    if len(body["texts"]) > DOCUMENTS:
        return Reply(413, {"error": f"batch size {len(body['texts'])} > maximum allowed batch size 32"})
    return [{"index": each["index"], "score": each["relevance_score"]} for each in results(body["query"], body["texts"])]


SERVERS = {"cohere": cohere, "jina": jina, "vllm": vllm, "infinity": infinity, "tei": tei}
PAIRS = [(f"query {query}", f"item {item}") for query, count in ((0, 5), (1, 70), (2, 1), (3, 33)) for item in range(count)]


def server_at(address: str, **options: Any) -> Server:
    return Server(address, "mining.teacher.url", KEY, **options)


def ask_all(make: MakeReranker, pairs: list[tuple[str, str]] = PAIRS) -> list[float]:
    scores = np.full(len(pairs), np.nan, np.float32)
    for places, some in make().answers([query for query, _ in pairs], [item for _, item in pairs]):
        assert np.isnan(scores[places]).all(), "each pair is answered once"
        scores[places] = some
    return scores.tolist()


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_asked_in_its_own_form_and_understood(name: str) -> None:
    with serving(SERVERS[name]) as server:
        where = server_at(server.address)
        form = find_form(where, "a-model")
        trial = len(server.asked)
        assert form == {"tei": "texts", "vllm": "documents, cut", "infinity": "documents, cut"}.get(name, "documents")
        assert ask_all(MakeReranker(where, "a-model", form)) == [fit(*pair) for pair in PAIRS]
        sent = server.bodies[trial:]
        assert len(sent) == 1 + 3 + 1 + 2, "one query each, 32 items at most"
        assert all(body.get("model", "a-model") == "a-model" for body in sent)


def test_no_score_is_lost_or_wrong_behind_a_server_that_fails_one_request_in_ten() -> None:
    def answer(asked: Asked) -> Any:
        number = asked.number
        if number % 10 == 3:
            return [Reply(500), Reply(cut=True, body=cohere(asked)), Reply(429, headers={"Retry-After": "0.2"})][number // 10 % 3]
        if number % 10 == 6:  # one score too few
            reply = cohere(asked)
            return reply | {"results": reply["results"][1:]}
        return cohere(asked)

    pairs = [(f"query {query}", f"item {item}") for query in range(120) for item in range(query % 40)]
    with serving(answer) as server:
        assert ask_all(MakeReranker(server_at(server.address, at_once=4), "m", "documents"), pairs) == [fit(*p) for p in pairs]
        assert server.most_at_once <= 4


def test_a_server_that_refuses_a_batch_as_too_large_gets_smaller_ones() -> None:
    def answer(asked: Asked) -> Any:
        return tei(asked) if len(asked.body["texts"]) <= 5 else Reply(413, {"error": "batch size > maximum allowed batch size 5"})

    with serving(answer) as server:
        assert ask_all(MakeReranker(server_at(server.address), "m", "texts")) == [fit(*pair) for pair in PAIRS]
    with serving(lambda _: Reply(413, {"error": "inputs must have less than 512 tokens"})) as server:
        with pytest.raises(ConfigError, match="less than 512 tokens"):
            ask_all(MakeReranker(server_at(server.address), "m", "texts"), PAIRS[:3])
        assert len(server.asked) == 2  # three, then one


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"results": [{"index": 0, "relevance_score": 0.1}]}, "has 1 scores for 2 items"),
        ({"results": []}, "has 0 scores for 2 items"),
        ([{"index": 0, "score": 1.0}, {"index": 0, "score": 0.5}], "the index 0 twice"),
        ([{"index": 0, "score": 1.0}, {"index": 2, "score": 0.5}], "the index 2 twice, or beyond the 2 items"),
        ([{"index": 0, "score": 1.0}, {"index": -1, "score": 0.5}], "the index -1"),
        ([{"index": 0}, {"index": 1, "score": 0.5}], "without an index and a score"),
        ([{"index": 0, "score": "high"}, {"index": 1, "score": 0.5}], "without an index and a score"),
        ([{"index": 0, "score": float("nan")}, {"index": 1, "score": 0.5}], "without an index and a score"),
        ([0.5, 0.25], "no object with index and score"),
        ({"scores": [0.5, 0.25]}, "no list of scores"),
        ("fine", "no list of scores"),
    ],
)
def test_an_answer_that_is_not_one_score_for_each_item_is_refused(answer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scores_of(answer, 2)


def test_a_server_of_another_kind_is_told_with_what_it_said() -> None:
    with (
        serving(lambda _: Reply(400, {"error": "this model only embeds"})) as server,
        pytest.raises(ConfigError, match="this model only embeds") as error,
    ):
        find_form(server_at(server.address), "m")
    assert "found none: mining.teacher.url = " in str(error.value)
    assert "\n" not in str(error.value)
    with serving(lambda _: {"data": [{"embedding": [0.1]}]}) as server, pytest.raises(ConfigError, match="no list of scores"):
        find_form(server_at(server.address), "m")
    with serving(lambda _: Reply(401)) as server, pytest.raises(ConfigError, match=f"{KEY} is not set"):
        find_form(server_at(server.address), "m")
    started = time.monotonic()
    with pytest.raises(ClusterError, match="no usable answer after 2 attempts"):
        find_form(server_at(server.address, attempts=2), "m")
    assert time.monotonic() - started < 5
