"""`hardmine pairs` in this process, without Ray: the tasks run one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.session.progress import Progress
from cluster.session.resources import ClusterSettings, ClusterSize
from jobs.pairs import make, tasks, work
from jobs.pairs.settings import load_settings

Row = dict[str, Any]
START = 1_767_225_600_000
MINUTE = 60_000


@dataclass
class Made:
    """What came out."""

    folder: Path
    summary: dict[str, Any]

    def table(self, name: str) -> list[Row]:
        """Rows of `queries` or `qrels`."""
        folder = self.folder / "tables" / name
        return pq.read_table(folder).to_pylist() if folder.exists() else []

    @property
    def labels(self) -> dict[tuple[str, str], tuple[int, str]]:
        """(text, item) -> (score, source)"""
        text = {row["id"]: row["text"] for row in self.table("queries")}
        return {(text[row["query_id"]], row["item_id"]): (row["score"], row["source"]) for row in self.table("qrels")}

    @property
    def weights(self) -> dict[tuple[str, str], float]:
        """(text, item) -> weight"""
        text = {row["id"]: row["text"] for row in self.table("queries")}
        return {(text[row["query_id"]], row["item_id"]): row["weight"] for row in self.table("qrels")}


def query(name: str, text: str, shown: Sequence[str], *, user: str = "u1", time: int = START) -> Row:
    """A line of UBI's queries."""
    return {"query_id": name, "client_id": user, "user_query": text, "timestamp": time, "query_response_hit_ids": list(shown)}


def event(
    name: str,
    item: str,
    action: str = "click",
    *,
    user: str = "u1",
    time: int = START + 1000,
    position: int = 1,
    dwell: float | None = None,
) -> Row:
    """A line of UBI's events."""
    attributes: Row = {"object": {"object_id": item}, "position": {"ordinal": position}}
    if dwell is not None:
        attributes["dwell_time"] = dwell
    return {"query_id": name, "client_id": user, "action_name": action, "timestamp": time, "event_attributes": attributes}


def lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run here."""

    def run(store: Any, folder: str, task: Any, inputs: Sequence[Any], *, progress: Any, **_: Any) -> list[Row]:
        return [tasks.committed(task, store, folder, number, value) for number, value in enumerate(inputs)]

    @contextmanager
    def no_ray(_: ClusterSettings) -> Iterator[ClusterSize]:
        yield ClusterSize(nodes=1, cpus=2, gpus=0)

    monkeypatch.setattr(work, "run_tasks", run)
    monkeypatch.setattr(make, "ray_session", no_ray)


Make = Callable[..., Made]


@pytest.fixture
def pairs(tmp_path: Path, without_ray: None) -> Make:
    """Make pairs of files: name -> rows, or bytes as they are. Settings are overrides; `before`: further logs."""
    turn = iter(range(100))

    def run(files: Mapping[str, bytes | Sequence[Row]], *settings: str, before: Sequence[str] = ()) -> Made:
        number = next(turn)
        logs, to = tmp_path / f"logs-{number}", tmp_path / f"out-{number}"
        for name, content in files.items():
            path = logs / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else lines(content))
        given = [*before, *([str(logs)] if files else [])]
        summary = make.make_pairs(given, str(to), load_settings(None, settings), progress=Progress(quiet=True))
        return Made(to, summary)

    return run
