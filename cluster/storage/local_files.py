"""Listing a folder on a disk as a person sees it: what a symbolic link leads to is there, too."""

from __future__ import annotations

import os
import stat


def list_files(folder: str, *, leave_out: str, above: frozenset[str] = frozenset()) -> dict[str, int]:
    """All ordinary files below a folder -> size; 0 for a link that leads nowhere.

    Args:
        leave_out: ending of the files that are not listed.
        above: real paths of the folders on the way here: a link to one of them is a circle.

    Raises:
        OSError: a folder may not be read.
    """
    real = os.path.realpath(folder)
    if real in above:
        return {}
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):  # gone in the meantime, or never there
        return {}
    sizes: dict[str, int] = {}
    for path in (os.path.join(folder, name) for name in names if not name.endswith(leave_out)):
        try:
            info = os.stat(path)
        except OSError:
            if os.path.islink(path):
                sizes[path] = 0
            continue
        if stat.S_ISDIR(info.st_mode):
            sizes |= list_files(path, leave_out=leave_out, above=above | {real})
        elif stat.S_ISREG(info.st_mode):
            sizes[path] = info.st_size
    return sizes
