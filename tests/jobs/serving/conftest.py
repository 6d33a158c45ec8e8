"""Two exports of one small run: round 1, which is live, and the off-the-shelf model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.store import Store
from jobs.serving.export.index import Budget
from jobs.serving.export.ship import export_run
from tests.support.shipped_run import ShippedRun


@contextmanager
def interrupted_after(writes: int, root: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done here is interrupted at the next object below `root` after so many were written; it must be."""
    done, real = 0, Store.write_bytes

    def dying(self: Store, path: str, data: Any) -> None:
        nonlocal done
        if self.root.startswith(root) and not path.startswith(".probe"):
            done += 1
            if done > writes:
                raise KeyboardInterrupt
        real(self, path, data)

    with patch.context() as within:
        within.setattr(Store, "write_bytes", dying)
        with pytest.raises(KeyboardInterrupt):
            yield


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
