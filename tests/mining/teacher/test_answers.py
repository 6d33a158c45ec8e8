"""What a server has answered is not asked again, however the process that asked it ends."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.http import Server
from cluster.storage.store import Store
from cluster.tables.tables import part_name, read_part
from mining.teacher import answers as module
from mining.teacher.answers import Answers
from mining.teacher.cut import Pairs
from mining.teacher.reading import ReadTask, _rows_to_do
from mining.teacher.server import KEY, MakeReranker
from tests.mining.teacher.test_reading import QUERIES, run_here, scores_in, task_of, write_blocks
from tests.support.json_server import Asked, Reply, serving

WANTED = {query: list(range(query, query + 3)) for query in range(QUERIES)}
READ_ONE_BLOCK = """
import pickle, sys
from mining.teacher import answers
from mining.teacher.reading import PairActor
answers.KEEP_EVERY_S = 0.0
task, make, batch = pickle.load(open(sys.argv[1], "rb"))
PairActor(task, make, threads=1, mailbox=None, total_rows=1)(batch)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


def fit(query: str, item: str) -> float:
    return float(np.float32(int(query[1:]) / 10 + int(item[1:]) / 1000))


def scores(asked: Asked) -> Any:
    query, items = asked.body["query"], asked.body["documents"]
    return {"results": [{"index": n, "relevance_score": fit(query, item)} for n, item in enumerate(items)]}


def asked_pairs(bodies: list[Any]) -> list[tuple[int, int]]:
    return sorted((int(body["query"][1:]), int(item[1:])) for body in bodies for item in body["documents"])


def maker(address: str) -> MakeReranker:
    return MakeReranker(Server(address, "mining.teacher.url", KEY, at_once=2), "m", "documents")


def all_wanted(pairs: dict[int, list[int]]) -> dict[tuple[int, int], float]:
    return {(query, item): fit(f"q{query}", f"i{item}") for query, items in pairs.items() for item in items}


def kill_after(requests: int, task: ReadTask, folder: Path) -> list[tuple[int, int]]:
    """Let another process ask for the first block, and SIGKILL it once so many requests are answered; what was answered."""
    enough, never = threading.Event(), threading.Event()

    def answer(asked: Asked) -> Any:
        if asked.number >= requests:
            enough.set()
            never.wait(20)
        return scores(asked)

    with serving(answer) as server:
        row = {name: np.array([value]) for name, value in _rows_to_do(task, set())[0].items()}
        (folder / "call.pickle").write_bytes(pickle.dumps((task, maker(server.address), row)))
        process = subprocess.Popen([sys.executable, "-c", READ_ONE_BLOCK, str(folder / "call.pickle")])
        try:
            assert enough.wait(60), "the server was not asked so often"
            for _ in range(200):  # what was answered last is being written
                if len(Answers(task.store, task.target(0)).earlier()) == 3 * requests:
                    break
                never.wait(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            never.set()
        return asked_pairs(server.bodies[:requests])


def test_after_a_kill_only_what_was_not_answered_is_asked(store: Store, tmp_path: Path) -> None:
    task = task_of(store, write_blocks(store, "pairs", WANTED, QUERIES))
    first = kill_after(4, task, tmp_path)
    assert len(first) == 12
    assert not store.exists(task.target(0))
    with serving(scores) as server:
        assert run_here(task, maker(server.address)) == [3 * QUERIES - 12]
        assert not set(asked_pairs(server.bodies)) & set(first)
    assert scores_in(store) == all_wanted(WANTED), "nothing of it is lost, and no answer lies beside the part any more"


def test_a_refusal_in_the_middle_keeps_what_came_before_it(store: Store) -> None:
    task = task_of(store, write_blocks(store, "pairs", WANTED, QUERIES))
    with serving(lambda asked: Reply(401) if asked.number >= 5 else scores(asked)) as server:
        with pytest.raises(ConfigError, match="HTTP 401"):
            run_here(task, maker(server.address))
        kept = Answers(store, task.target(0)).earlier()
        assert set(zip(kept.query_rows.tolist(), kept.item_rows.tolist(), strict=True)) <= set(asked_pairs(server.bodies[:5]))
        assert len(kept) >= 9, "all but what was under way"
    with serving(scores) as server:
        run_here(task, maker(server.address))
        assert len(asked_pairs(server.bodies)) == 3 * QUERIES - len(kept)
    assert scores_in(store) == all_wanted(WANTED)


def test_answers_are_written_by_and_by_and_a_damaged_file_only_costs_its_pairs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(to: Answers, query: int) -> None:
        to.add(np.array([query]), np.array([7]), np.array([query / 10], np.float32))

    one = Answers(store, f"scores/{part_name(3)}")
    add(one, 1)
    assert store.list("scores") == {}, "five seconds have not passed"
    monkeypatch.setattr(module, "KEEP_EVERY_S", 0.0)
    add(one, 2)
    add(one, 3)
    two = Answers(store, f"scores/{part_name(3)}")
    assert two.earlier().query_rows.tolist() == [1, 2, 3]
    add(two, 4)
    assert len(store.list("scores")) == 3, "no earlier file is overwritten"
    first = min(store.list("scores"))
    store.write_bytes(first, store.read_bytes(first)[:-9])
    assert Answers(store, f"scores/{part_name(3)}").earlier().query_rows.tolist() == [3, 4]
    two.delete()
    assert store.list("scores") == {}


def test_what_an_earlier_round_has_read_is_not_asked(store: Store) -> None:
    earlier = write_blocks(store, "earlier", {0: [0, 1], 4: [4]}, QUERIES, scored=True)
    task = task_of(store, write_blocks(store, "pairs", WANTED, 4), earlier)
    with serving(scores) as server:
        run_here(task, maker(server.address))
        assert set(asked_pairs(server.bodies)) == set(all_wanted(WANTED)) - {(0, 0), (0, 1), (4, 4)}
    parts = [read_part(store, task.target(number)) for number in range(3)]
    assert sum(len(Pairs.from_table(part)) for part in parts) == 3 * QUERIES
