"""Requests to a real server on loopback that fails in every way a server fails."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from cluster import http as module
from cluster.errors import ClusterError, ConfigError
from cluster.http import Client, Refused, Server, http_address
from tests.support.json_server import Asked, JsonServer, Reply, serving

KEY = "HARDMINE_KEY_FOR_TESTS"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds; no key unless a test sets one."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.delenv(KEY, raising=False)


def server_at(address: str, **options: Any) -> Server:
    return Server(address, "mining.teacher.url", KEY, **options)


def ask(server: JsonServer, body: Any = 0, read: Callable[[Any], Any] = lambda answer: answer, **options: Any) -> Any:
    with Client(server_at(server.address, **options)) as client:
        return client.ask(body, read)


def doubled(answer: Any) -> int:
    if not isinstance(answer, dict) or "doubled" not in answer:
        raise ValueError("has no doubled number")
    return int(answer["doubled"])


def test_every_item_is_answered_by_a_server_that_fails_one_request_in_ten() -> None:
    failures = [Reply(500), Reply(503), Reply(cut=True, body=["half"]), Reply(body=b"<html>"), Reply(424), Reply(body={"no": 1})]

    def answer(asked: Asked) -> Any:
        time.sleep(0.002)
        if asked.number % 10 == 3:
            return failures[asked.number // 10 % len(failures)]
        return {"doubled": 2 * asked.body["number"]}

    with serving(answer) as server, Client(server_at(server.address, at_once=4)) as client:
        got = dict(client.over(range(300), lambda number: client.ask({"number": number}, doubled)))
        assert got == {number: 2 * number for number in range(300)}
        assert client.retries == len(server.asked) - 300 >= 30
        assert server.most_at_once == 4


@pytest.mark.parametrize("by_date", [False, True], ids=["seconds", "a date"])
def test_a_server_that_says_when_to_come_back_is_left_alone_until_then_by_all(by_date: bool) -> None:
    until: list[float] = []

    def answer(asked: Asked) -> Any:
        if asked.number == 5:
            until.append(time.monotonic() + (0.9 if by_date else 1.0))
            when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if by_date else "1"
            return Reply(429, headers={"Retry-After": when})
        time.sleep(0.02)
        return 1

    with serving(answer) as server, Client(server_at(server.address, at_once=3)) as client:
        assert len(list(client.over(range(20), lambda number: client.ask(number, int)))) == 20
        early = [asked for asked in server.asked[6:] if asked.at < until[0] - 0.05]
        assert len(early) <= 2  # they were on their way already


def test_a_busy_server_is_no_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """More "later"s than there are attempts; only minutes without any answer end it."""

    def answer(asked: Asked) -> Any:
        return Reply(429) if asked.number < 20 else 7

    with serving(answer) as server:
        assert ask(server, attempts=2) == 7
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    with serving(lambda _: Reply(429, "slow down")) as server, pytest.raises(ClusterError, match="slow down"):
        ask(server, attempts=2)


@pytest.mark.parametrize("options", [{"body": ["half of it"], "cut": True}, {"status": 500}, {"body": b"no json"}])
def test_a_server_that_never_gives_a_good_answer_is_told_in_one_paragraph(options: dict[str, Any]) -> None:
    with serving(lambda _: Reply(**options)) as server, pytest.raises(ClusterError) as error:
        ask(server, attempts=3)
    assert len(server.asked) == 3
    assert f"mining.teacher.url = {server.address}: no usable answer after 3 attempts" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_is_silent_or_absent_is_told() -> None:
    with serving(lambda _: time.sleep(1)) as server, pytest.raises(ClusterError, match="ReadTimeout"):
        ask(server, attempts=2, timeout_s=0.1)
    with pytest.raises(ClusterError, match="ConnectError"):
        ask(server, attempts=2)


def test_a_wrong_answer_is_asked_for_again_and_then_refused() -> None:
    with serving(lambda asked: {"doubled": 4} if asked.number else [1]) as server:
        assert ask(server, read=doubled) == 4
    with serving(lambda _: {"text": "x" * 1000}) as server, pytest.raises(ConfigError, match="has no doubled number") as error:
        ask(server, read=doubled)
    assert len(server.asked) == module.BAD_ANSWERS
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401, "who?"), [f"({KEY} is not set)", "HTTP 401", "who?"]),
        (Reply(403), [KEY, "HTTP 403"]),
        (Reply(404), ["the whole address", "HTTP 404"]),
        (Reply(307, headers={"Location": "http://other/rerank"}), ["leads to http://other/rerank"]),
        (Reply(422, {"detail": "texts\nmissing"}), ["refuses a request (HTTP 422", "missing"]),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else "",
)
def test_what_no_second_try_mends_is_not_tried_again(reply: Reply, words: list[str]) -> None:
    with serving(lambda _: reply) as server, pytest.raises(ConfigError) as error:
        ask(server)
    assert len(server.asked) == 1
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    if reply.status == 422:
        assert isinstance(error.value, Refused)
        assert error.value.status == 422


def test_the_key_is_sent_as_a_token_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: 1) as server:
        ask(server)
        assert "authorization" not in server.asked[0].headers
        monkeypatch.setenv(KEY, " hush-1234\n")
        ask(server)
        assert server.asked[1].headers["authorization"] == "Bearer hush-1234"
    with serving(lambda _: Reply(401, "no such key: hush-1234")) as server, pytest.raises(ConfigError) as error:
        ask(server)
    assert "hush" not in str(error.value)
    assert f"refuses the key in {KEY}" in str(error.value)
    assert b"hush" not in pickle.dumps(server_at(server.address))
    monkeypatch.setenv(KEY, "two\nlines")
    with pytest.raises(ConfigError, match=KEY) as error:
        ask(server)
    assert "lines" not in str(error.value).replace("line breaks", "")


def test_the_first_error_ends_the_others_soon() -> None:
    def answer(asked: Asked) -> Any:
        return Reply(401) if asked.body == 3 else Reply(500)

    with serving(answer) as server:
        started = time.monotonic()
        with pytest.raises(ConfigError, match="HTTP 401"), Client(server_at(server.address, at_once=4, attempts=1000)) as client:
            list(client.over(range(100), lambda number: client.ask(number, int)))
        assert time.monotonic() - started < 5
        assert len({asked.body for asked in server.asked}) < 20


def test_items_are_read_as_they_are_needed() -> None:
    pulled: list[int] = []

    def items() -> Any:
        for number in range(1000):
            pulled.append(number)
            yield number

    with serving(lambda asked: asked.body) as server, Client(server_at(server.address, at_once=2)) as client:
        done = client.over(items(), lambda number: client.ask(number, int))
        assert next(done)[0] in range(4)
        assert len(pulled) <= 4
        done.close()


@pytest.mark.parametrize("address", ["http://host/rerank", "https://host:8080/v1/rerank?version=2"])
def test_an_address_that_can_be_asked_passes(address: str) -> None:
    assert http_address(address) == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("host:8080", "expected an address like"),
        ("ftp://host/x", "expected an address like"),
        ("http:///rerank", "expected an address like"),
        ("http://host:port/rerank", "expected an address like"),
        ("http://me:hush@host/rerank", "must not hold keys"),
        ("http://host/rerank?api-key=hush", "must not hold keys"),
    ],
)
def test_an_address_that_is_none_or_holds_a_key_is_refused(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        http_address(address)
    if "hush" in address:
        assert "hush" not in str(error.value)
