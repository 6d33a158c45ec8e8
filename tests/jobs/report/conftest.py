"""A made-up run, and its report as a dict and as a page, once for all tests of the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from jobs.report.gather import gather
from jobs.report.page import render_run
from tests.support.synthetic_run import Size, write_run

HOSTILE = "</script><script>alert('owned')</script><img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_run(tmp_path_factory.mktemp("runs") / "made-up", Size(title=HOSTILE), reranker=True)


@pytest.fixture(scope="session")
def report(made_up: Store) -> dict[str, Any]:
    return gather(made_up)


@pytest.fixture(scope="session")
def page(report: dict[str, Any]) -> str:
    return render_run(report)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run without an end, and without an arm of random negatives."""
    return write_run(tmp_path_factory.mktemp("runs") / "first", random_arm=False, finish=False)


@pytest.fixture
def written(tmp_path: Path, page: str) -> Path:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
