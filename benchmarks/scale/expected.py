"""What `--dry-run` expects of each stage of the benchmark, beside which the benchmark prints what it measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.config.config import load_config
from jobs.run.dry_run import make_plan


@dataclass(frozen=True)
class Expected:
    """Of one stage."""

    process: str
    """The kind of process whose memory is predicted."""
    figures: dict[str, int]


def expected_of(config: Path) -> dict[str, Expected]:
    """By the name of a stage, that of an embedding without its digest.

    Args:
        config: as of `hardmine mine`; an encoder that is trained reads the same vectors.
    """
    plan = make_plan(load_config(config, ['encoder.kind="adapter"']))
    requests, reads, held = plan["requests"], plan["reads"], plan["estimates"]
    return {
        "ingest": Expected("read_slice_items", plan["expected"]["ingest"]),
        "embed": Expected("copy_parts", plan["expected"]["embed"]),
        "mine-search": Expected(
            "ShardActor",
            {
                "requests": requests["search_gets"] + requests["search_puts"],
                "read_bytes": reads["search_reads_bytes"],
                "peak_bytes": held["search_actor_bytes"],
            },
        ),
        "mine": Expected(
            "_mine_group",
            {
                "requests": requests["mine_gets"] + requests["mine_puts"],
                "read_bytes": reads["mine_reads_bytes"],
                "peak_bytes": held["mining_task_bytes"] + held["mining_node_bytes"],
            },
        ),
    }
