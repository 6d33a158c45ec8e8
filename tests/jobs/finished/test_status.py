"""`hardmine status`: what a run does now and for how long, and what its stages cost."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cluster import lease as module
from cluster.lease import PATH, Lease
from cluster.session.pace import Message, Pace
from cluster.session.progress import Progress
from cluster.storage.store import Store
from jobs.finished.status import read_status, short, show_status, stages_table
from tests.support.synthetic_run import write_run


def printed(store: Store, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_status(console, read_status(store))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_run_under_way_tells_its_stage_and_about_how_long_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    store = write_run(tmp_path / "shop")
    (tmp_path / "shop/commits/finish.json").unlink()
    assert "now:" not in printed(store)
    progress, now = Progress(quiet=True), time.monotonic()
    progress.stage, progress.pace = "round-01-train", Pace(now - 300)
    with Lease(store, now=progress.now):
        wait_for(store, "round-01-train")
        assert "now:    round-01-train, for 5 min\n" in printed(store)
        assert read_status(store).as_json()["now"]["left_seconds"] is None
        progress.pace.hear({"train": Message("", 10, 100)}, now - 20)
        progress.pace.hear({"train": Message("", 30, 100)}, now)
        wait_for(store, '"left_seconds": 6')
        assert re.search(r"now:    round-01-train, for 5 min; about (6\d|70) s left\n", printed(store))
        assert 60 < read_status(store).as_json()["now"]["left_seconds"] <= 70
    assert read_status(store).as_json()["now"] is None


def wait_for(store: Store, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in json.dumps(store.read_json(PATH)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_cost_of_each_stage_and_of_all_is_told_in_80_columns(tmp_path: Path) -> None:
    store = write_run(tmp_path / "shop")
    commits = [
        replace(
            commit,
            seconds=commit.seconds | {"wall": 812.3, "work": 700.0, "cpu": 12996.8, "gpu": 1624.6},
            usage={"driver": {"requests": 12_345, "read_bytes": 5 * 2**30, "written_bytes": 2**30, "peak_bytes": 3 * 2**30}},
        )
        for commit in read_status(store).record.all
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(stages_table(commits))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert not any("…" in line for line in lines)
    assert next(line for line in lines if line.startswith(" stage")).split() == [
        *("stage", "wall", "cpu", "gpu", "read", "wrote", "memory", "requests")
    ]
    count = len(commits)
    assert next(line for line in lines if line.startswith(" all")).split() == [
        *("all", short(count * 812.3), short(count * 12996.8), short(count * 1624.6)),
        *(short(count * 5 * 2**30), short(count * 2**30), short(3 * 2**30), short(count * 12_345)),
    ]


@pytest.mark.parametrize(
    ("figure", "text"), [(0, "0"), (7.31, "7.31"), (999.4, "999"), (999.6, "1k"), (12_345, "12.3k"), (5 * 2**30, "5.37G")]
)
def test_a_figure_of_the_table_is_short(figure: float, text: str) -> None:
    assert short(figure) == text
