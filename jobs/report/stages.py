"""Where a run's time and storage went, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cluster.commits import Commit

KINDS = (
    ("embed", ("embed",)),
    ("search", ("search", "hits", "pairs", "score")),
    ("mine", ("mine", "report", "teacher", "teacher-pairs", "near")),
    ("train", ("train", "guide")),
    ("evaluate", ("evaluate", "events")),
)
"""Kind of work -> ends of the names of its commits."""
ROUND = re.compile(r"round-(\d+)(-random)?-(.+)")


def stage_rows(commits: Sequence[Commit]) -> list[dict[str, Any]]:
    """A dict per commit, oldest first: {"name", "kind", "round", "wall", "work", "overhead", "rows", "bytes", "created"}.

    Seconds; `bytes` are those of the objects that the commit lists.
    """
    rows = []
    for commit in commits:
        found = ROUND.fullmatch(commit.name)
        parts = [part for parts in commit.tables.values() for part in parts]
        size = sum(part["bytes"] for part in parts) + sum(info.get("bytes", 0) for info in commit.files.values())
        rows.append(
            {
                "name": commit.name,
                "kind": kind_of(found[3] if found else commit.name),
                "round": int(found[1]) if found else None,
                "wall": commit.seconds.get("wall", 0.0),
                "work": commit.seconds.get("work", 0.0),
                "overhead": commit.seconds.get("overhead", 0.0),
                "rows": sum(part["rows"] for part in parts),
                "bytes": size,
                "created": commit.created,
            }
        )
    return rows


def kind_of(name: str) -> str:
    """The kind of work of a stage's name without its round."""
    if name.startswith("embed-"):
        return "embed"
    # the whole name first: teacher-pairs are not the pairs of a search
    return next((kind for kind, ends in KINDS if name in ends), None) or next(
        (kind for kind, ends in KINDS if any(name.endswith(f"-{end}") for end in ends)), "prepare"
    )
