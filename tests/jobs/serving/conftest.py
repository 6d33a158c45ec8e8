"""Two exports of one small run: round 1, which is live, and the off-the-shelf model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.storage.store import Store
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run
from tests.support.shipped_run import ShippedRun


@dataclass(frozen=True)
class Shop:
    """A run and its exports."""

    run: ShippedRun
    home: Path
    live: str
    base: str


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    run = ShippedRun(folder / "runs" / "shop")
    store, home = run.write(), Store(str(folder / "exports"))
    live, base = (export_run(store, home, Budget(), number=number) for number in (None, -1))
    return Shop(run, folder / "exports", live.name, base.name)
