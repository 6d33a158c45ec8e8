"""A small run whose data and settings tests spoil, and the command line in this process, without Ray where it can be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.session.resources import ClusterSettings, ClusterSize

Row = dict[str, Any]
PROGRESS = ("· ", "✓ ", "! ", "  ")
"""How lines start that tell what a run does; anything else on standard error must be the message."""


@dataclass
class Answer:
    """What the command did."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last line of standard error."""
        return self.err.splitlines()[-1] if self.err else ""


@dataclass
class Case:
    """A good run of 12 items, 10 queries and 10 labels; spoil what you like, then `run`."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]
    items: list[Row] = field(default_factory=list)
    queries: list[Row] = field(default_factory=list)
    labels: list[Row] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """Name -> content, instead of or beside the three tables."""

    def set(self, key: str, value: Any) -> None:
        """A setting, e.g. "training.epochs"; None takes it out."""
        *sections, name = key.split(".")
        place = self.settings
        for section in sections:
            place = place.setdefault(section, {})
        place.pop(name, None)
        if value is not None:
            place[name] = value

    def write(self) -> Path:
        """Write data and config; returns the config's path."""
        for name, rows in (("corpus", self.items), ("queries", self.queries), ("qrels", self.labels)):
            self.files.setdefault(f"{name}.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self.files.setdefault("run.toml", as_toml(self.settings).encode())
        for name, content in self.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)
        self.files = {}
        return self.folder / "run.toml"

    def run(self, *words: str, command: str = "run") -> Answer:
        """Write everything and run `hardmine COMMAND run.toml WORDS` in this process."""
        return self.hardmine(command, str(self.write()), *words)

    def hardmine(self, *words: str) -> Answer:
        """Run `hardmine WORDS` in this process."""
        from jobs.cli.app import main

        self.capture.readouterr()
        self.patch.setattr(sys, "argv", ["hardmine", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = self.capture.readouterr()
        return Answer(int(stopped.value.code or 0), out, err)


def as_toml(settings: dict[str, Any]) -> str:
    """Sections of plain values as TOML; values are written as JSON, which TOML reads as well, but for tables."""

    def value(item: Any) -> str:
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in item.items()) + " }"
        if isinstance(item, list):
            return "[" + ", ".join(value(inner) for inner in item) + "]"
        return json.dumps(item)

    lines = [f"{key} = {value(item)}" for key, item in settings.items() if not isinstance(item, dict)]
    for section, values in settings.items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{key} = {value(item)}" for key, item in values.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def ray_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Case:
    """A good run that uses whatever Ray is there."""
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    case = Case(tmp_path, monkeypatch, capsys)
    case.items = [
        {"id": f"i{n}", "title": f"Title {n}", "text": f"a text about thing {n}", "genres": ["crime"], "year": 1990 + n}
        for n in range(12)
    ]
    case.queries = [{"id": f"q{n}", "text": f"thing {n}", "split": "dev" if n > 7 else "train"} for n in range(10)]
    case.labels = [{"query_id": f"q{n}", "item_id": f"i{n}", "score": 1} for n in range(10)]
    case.settings = {
        "name": "run",
        "output": "out",
        "data": {name: f"{name}.jsonl" for name in ("corpus", "queries", "qrels")},
        "encoder": {"kind": "static", "dimension": 8, "vocabulary": 256},
        "rounds": {"mined": 1},
        "training": {"batch_size": 4},
        "cluster": {"cpus": 2},
    }
    return case


@pytest.fixture
def case(ray_case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A good run whose workers are this process: there is no Ray, so it ends where tokens would be made."""

    class OneNode:
        def __init__(self, *_: object) -> None:
            pass

        def now(self) -> ClusterSize:
            return ClusterSize(nodes=1, cpus=2, gpus=0)

    @contextmanager
    def no_ray(_: ClusterSettings) -> Iterator[None]:
        yield

    monkeypatch.setattr("jobs.run.driver.ray_session", no_ray)
    monkeypatch.setattr("jobs.run.driver.Nodes", OneNode)
    monkeypatch.setattr("jobs.run.driver.start_ranks", lambda context: None)
    monkeypatch.setattr("cluster.session.progress.Progress.open_mailbox", lambda self: None)
    here = "jobs.stages.stage_0_ingest.in_worker"
    monkeypatch.setattr(here, lambda function, context, *arguments: function(*arguments))
    return ray_case


@pytest.fixture
def refused() -> Callable[[Answer, int, Sequence[str]], None]:
    """The rule for every mistake: one paragraph on standard error, the right exit code, nothing else."""

    def check(answer: Answer, code: int, words: Sequence[str]) -> None:
        assert "Traceback" not in answer.err
        assert answer.out == ""
        lines = answer.err.splitlines()
        assert lines, "silence"
        assert lines[-1].startswith("hardmine: ")
        assert all(line.startswith(PROGRESS) for line in lines[:-1]), answer.err
        for word in words:
            assert word in lines[-1]
        assert 30 < len(lines[-1]) < 1000, "a paragraph"
        assert answer.code == code

    return check
