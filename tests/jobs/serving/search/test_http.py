"""The service: a real uvicorn on loopback, asked as clients ask it, and its page in a real browser."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ConfigError
from eval.live.interleaving import team_draft
from jobs.serving.search.http import QueryLog, Service, make_app, serve
from jobs.serving.search.opened import open_export
from tests.jobs.serving.conftest import Shop
from tests.support.browser import Window, find_chromium, look


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "logs" / "queries.jsonl"


@pytest.fixture(scope="module")
def address(shop: Shop, log: Path) -> Iterator[str]:
    """A service of both exports."""
    import uvicorn

    service = Service([open_export(str(shop.home / name)) for name in (shop.live, shop.base)], QueryLog(log))
    server = uvicorn.Server(uvicorn.Config(make_app(service), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def ask(address: str, path: str, **words: Any) -> Any:
    query = urllib.parse.urlencode(words, doseq=True)
    with urllib.request.urlopen(f"{address}/{path}?{query}", timeout=30) as answer:
        return json.loads(answer.read())


def refusal(address: str, path: str, **words: Any) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, path, **words)
    return refused.value.code, json.loads(refused.value.read())["error"]


def test_the_service_answers_as_the_export_does(shop: Shop, address: str, log: Path) -> None:
    opened = open_export(str(shop.home))
    answer = ask(address, "search", q="crime4", k=4, where=["tags=odd", "year>=1950"])
    mask = opened.mask(["tags=odd", "year>=1950"])
    assert answer["hits"] == opened.shown(opened.search(opened.encode(["crime4"]), 4, mask))
    assert (answer["export"], answer["query"]) == (shop.live, "crime4")
    assert answer["ms"].keys() == {"encode", "search"}
    assert ask(address, "search", q="crime4", export=shop.base)["export"] == shop.base
    line = json.loads(log.read_text().splitlines()[0])
    assert line["query_id"] == answer["query_id"]
    assert line["user_query"] == "crime4"
    assert line["query_response_hit_ids"] == [hit["id"] for hit in answer["hits"]]
    assert line["query_attributes"] == {"export": shop.live, "where": ["tags=odd", "year>=1950"]}


def test_interleaving_mixes_both_exports_and_logs_the_teams(shop: Shop, address: str, log: Path) -> None:
    import uuid

    import numpy as np

    answer = ask(address, "interleave", q="poetry4", k=6)
    sides = [
        [hit["id"] for hit in ask(address, "search", q="poetry4", k=6, export=name)["hits"]] for name in (shop.live, shop.base)
    ]
    want = team_draft(*sides, 6, np.random.default_rng(uuid.UUID(answer["query_id"]).int))
    assert [hit["id"] for hit in answer["hits"]] == want.items
    assert [hit["team"] for hit in answer["hits"]] == want.teams
    assert answer["exports"] == {"a": shop.live, "b": shop.base}
    line = next(json.loads(line) for line in log.read_text().splitlines() if answer["query_id"] in line)
    assert line["query_attributes"]["teams"] == want.teams


def test_whoever_watches_it_sees_health_and_counts(shop: Shop, address: str) -> None:
    health = ask(address, "health")
    assert health["status"] == "ok"
    assert [export["name"] for export in health["exports"]] == [shop.live, shop.base]
    before = metrics(address)
    ask(address, "search", q="law1")
    refusal(address, "search", q="law1", where="colour=red")
    after = metrics(address)
    count = f'hardmine_searches_total{{export="{shop.live}"}}'
    assert after[count] == before.get(count, 0) + 1
    assert after["hardmine_refused_total"] == before["hardmine_refused_total"] + 1
    assert after[f'hardmine_items{{export="{shop.live}"}}'] == 240
    assert any(name.startswith("hardmine_seconds_bucket") for name in after)


def metrics(address: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"q": "  "}, "expected a text as query 1, found an empty one"),
        ({"q": "law", "where": "colour=red"}, "expected a column of the items, found 'colour'"),
        ({"q": "law", "export": "other"}, "export=other: expected shop-"),
        ({"q": "law", "k": 0}, "k: Input should be greater than or equal to 1"),
        ({}, "q: Field required"),
    ],
)
def test_what_cannot_be_answered_says_why(address: str, words: dict[str, Any], said: str) -> None:
    code, message = refusal(address, "search", **words)
    assert code == 422
    assert said in message


def test_many_clients_at_once_get_their_own_answers(address: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    queries = [f"{genre}{n} thing{n}" for genre in ("crime", "law", "travel") for n in range(6)]
    one_by_one = [ask(address, "search", q=query)["hits"] for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: ask(address, "search", q=query)["hits"], queries)) == one_by_one


def test_two_exports_must_be_two_that_read_the_same(shop: Shop) -> None:
    opened = open_export(str(shop.home))
    with pytest.raises(ConfigError, match="twice; name another one with --beside"):
        Service([opened, opened])
    with pytest.raises(ConfigError, match="interleaving needs two exports"):
        Service([opened]).interleave("law", 3, [])


def test_a_port_that_is_taken_is_told(shop: Shop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"--port \d+ on 127.0.0.1 cannot be used"):
            serve(Service([open_export(str(shop.home))]), "127.0.0.1", taken.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
def test_the_page_shows_both_exports_at_every_width(shop: Shop, address: str) -> None:
    page = f"{address}/?" + urllib.parse.urlencode({"q": "crime4 thing4", "where": "year>=1900"})
    for seen in look(page, [Window(1360), Window(820), Window(390, dark=True)]):
        assert seen.errors == []
        assert seen.width <= seen.window, "nothing is cut off or scrolls sideways"
        assert f"A: {shop.live}" in seen.text
        assert f"B: {shop.base}" in seen.text
        assert "genre: crime" in seen.text
        assert "only in A" in seen.text or "in B: " in seen.text
        assert all(request.startswith(address) for request in seen.requests), "the page loads nothing from elsewhere"


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
def test_the_page_says_why_a_search_was_refused(address: str) -> None:
    page = f"{address}/?" + urllib.parse.urlencode({"q": "crime4", "where": "colour=<b>red</b>"})
    (seen,) = look(page, [Window(820)])
    assert "expected a column of the items, found 'colour'" in seen.text
