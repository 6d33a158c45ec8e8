"""The figures of a mining, as mining.json and the commits of the mine and report stages have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mining.choice.filters import Cuts
from mining.report.confusion import Confusion
from mining.report.counts import Counts, Reuse, percentiles
from mining.report.describe import Described
from mining.report.samples import ShownSample
from mining.report.weak import ShownWeak


@dataclass(frozen=True)
class ChoiceFigures:
    """What choosing did, and where the negatives lie: the figures of the mine stage."""

    queries: int
    candidates: int
    survivors: int
    """Candidates that every filter left."""
    chosen: int
    judged: int
    """Chosen because a person judged the item irrelevant."""
    judged_left_out: int
    """Items that a person judged irrelevant and no list has: their query has more of them than mining.num_negatives."""
    new: int
    """Chosen negatives that their query did not have in the round before."""
    queries_short: int
    """Queries with fewer negatives than mining.num_negatives."""
    queries_empty: int
    suspected_false_negatives: int
    """Candidates without a label that score above the query's best relevant item."""
    above_positive: int
    """Chosen negatives that score above it."""
    teacher_read: int
    """Candidates that a teacher has read."""
    teacher_tied: int
    """Of these, candidates that share the teacher's highest score of their query with another or with a relevant item."""
    relabelled: int
    """Candidates that become relevant items in training."""
    weak_queries: int
    """Queries that are left out of training: the teacher scores many candidates above their relevant items."""
    dropped: dict[str, int]
    """Filter -> candidates that it, and none before it, dropped."""
    dropped_short: dict[str, int]
    """The same, of short queries only."""
    sources: dict[str, int]
    """Source -> chosen negatives that it placed best."""
    hit_rate: float
    """survivors / candidates."""
    hardness: dict[str, float]
    """"p5" … "p95": percentiles of negative − best relevant score; empty where no query has both."""
    engine: str
    """Of the search."""
    negatives: str
    """Address of the table's folder."""
    cuts: Cuts | None
    """Calibrated cuts; None: those of the settings."""

    @classmethod
    def of(cls, counts: Counts, *, engine: str = "", negatives: str = "", cuts: Cuts | None = None) -> ChoiceFigures:
        """The figures of finished counts."""
        renamed = {"suspected": "suspected_false_negatives", "from_source": "sources"}
        same = {renamed.get(name, name): value for name, value in vars(counts).items() if name != "hardness"}
        return cls(
            **same,
            hit_rate=counts.survivors / max(1, counts.candidates),
            hardness=percentiles(counts.hardness),
            engine=engine,
            negatives=negatives,
            cuts=cuts,
        )

    @classmethod
    def from_json(cls, figures: Mapping[str, Any]) -> ChoiceFigures:
        """From a commit's figures; what else they hold is left out."""
        cuts = None if figures["cuts"] is None else Cuts(**figures["cuts"])
        return ChoiceFigures(**{field.name: figures[field.name] for field in fields(ChoiceFigures)} | {"cuts": cuts})

    def to_json(self) -> dict[str, Any]:
        """As the commit has them."""
        return asdict(self)


@dataclass(frozen=True)
class MiningFigures(ChoiceFigures):
    """All that mining.json holds."""

    reuse: Reuse
    confusion: Confusion | None
    """None: there is no such column."""
    search: Mapping[str, Any]
    """Figures of the search stage ("mode", "engine", "recall" …), and its "seconds"."""
    report: str
    """Address of mining.md."""
    warnings: list[str]
    """What is unusual, with its numbers."""
    advice: list[str]
    """The same, each with what to change; printed where nothing is trained."""
    samples: list[ShownSample]
    weak: list[ShownWeak]
    """Queries that are left out of training, the worst first."""

    @classmethod
    def joined(cls, choice: ChoiceFigures, described: Described, *, search: Mapping[str, Any], report: str) -> MiningFigures:
        """What choosing did and what the negatives look like; warnings are still to come."""
        return cls(**vars(choice), **vars(described), search=search, report=report, warnings=[], advice=[])
