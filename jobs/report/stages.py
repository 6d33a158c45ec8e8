"""Time and storage of a run, stage by stage."""

from __future__ import annotations

from typing import Any

from jobs.record.record import RunRecord
from jobs.record.stages import ModelName, parse_name


def stage_rows(record: RunRecord) -> list[dict[str, Any]]:
    """A dict per commit, oldest first: {"name", "kind", "round", "wall", "work", "overhead", "rows", "bytes", "created",
    "requests", "read_bytes", "written_bytes", "peak_bytes"}.

    "wall", "work" and "overhead" in seconds; "bytes" of the objects that the commit lists; "peak_bytes" of the largest process.
    """
    rows = []
    for commit in record.all:
        stage = parse_name(commit.name)
        assert stage is not None, "the record holds only stages"
        parts = [part for parts in commit.tables.values() for part in parts]
        size = sum(part["bytes"] for part in parts) + sum(info.get("bytes", 0) for info in commit.files.values())
        rows.append(
            {
                "name": commit.name,
                "kind": stage.kind.work,
                "round": stage.of.round if isinstance(stage.of, ModelName) and stage.of.round >= 0 else None,
                "wall": commit.seconds.get("wall", 0.0),
                "work": commit.seconds.get("work", 0.0),
                "overhead": commit.seconds.get("overhead", 0.0),
                "rows": sum(part["rows"] for part in parts),
                "bytes": size,
                "created": commit.created,
            }
            | commit.used
        )
    return rows
