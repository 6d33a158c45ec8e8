"""The folder of a local Ray: removed by its driver or the next one, never while a driver lives, never another's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cluster.session.ray_folder import MARK, mark, remove


@pytest.fixture
def sessions(tmp_path: Path) -> dict[str, Path]:
    """Ray's temporary folder: sessions of a driver that is dead, one that lives, and one that hardmine did not start."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    folders = {name: tmp_path / f"session_{name}" for name in ("dead", "alive", "foreign", "mine")}
    for folder in folders.values():
        (folder / "logs").mkdir(parents=True)
    (folders["dead"] / MARK).write_text(str(gone.pid))
    (folders["alive"] / MARK).write_text(str(os.getppid()))
    (tmp_path / "session_latest").symlink_to(folders["mine"])
    return folders


def there(sessions: dict[str, Path]) -> list[str]:
    return [name for name, folder in sessions.items() if folder.exists()]


def test_the_next_driver_removes_what_a_killed_one_left(sessions: dict[str, Path]) -> None:
    mark(sessions["mine"])
    assert there(sessions) == ["alive", "foreign", "mine"]
    mark(sessions["mine"])
    assert there(sessions) == ["alive", "foreign", "mine"]


def test_a_driver_removes_its_own_folder_unless_someone_wants_to_look(
    sessions: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDMINE_DEBUG", "1")
    remove(sessions["mine"])
    assert "mine" in there(sessions)
    monkeypatch.delenv("HARDMINE_DEBUG")
    remove(sessions["mine"])
    assert "mine" not in there(sessions)
    assert not (sessions["mine"].parent / "session_latest").is_symlink()
