"""The folder of logs and sockets that a local Ray leaves: removed by the driver that started it, or by the next one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MARK = "hardmine-driver"
"""File in a Ray session's folder that holds the process number of the hardmine driver that started it."""
KEEP = "HARDMINE_DEBUG"
"""Set: the folder stays, to look at Ray's logs."""


def mark(folder: Path) -> None:
    """Say that this process started the Ray of this session folder, and remove what killed drivers left beside it."""
    (folder / MARK).write_text(str(os.getpid()))
    for left in folder.parent.glob(f"session_*/{MARK}"):
        if left.parent != folder and not left.parent.is_symlink() and _is_dead(left):
            shutil.rmtree(left.parent, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove the folder of a Ray that has ended, unless someone wants to look at it."""
    if not os.environ.get(KEEP):
        shutil.rmtree(folder, ignore_errors=True)
        latest = folder.parent / "session_latest"
        if latest.is_symlink() and not latest.exists():
            latest.unlink(missing_ok=True)


def _is_dead(mark: Path) -> bool:
    try:
        os.kill(int(mark.read_text()), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:  # another user's
        return False
    return False
