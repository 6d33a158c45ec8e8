"""What a gate judges: which round of a finished run, on which split, against which commits of the off-the-shelf model."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import ConfigError
from jobs.finished.finished_run import FinishedRun
from jobs.record.record import MeasuredModel
from jobs.record.stages import BASELINE, Chosen, ModelName


@dataclass(frozen=True)
class Subject:
    """What is judged, against what."""

    round: int
    split: str
    model: MeasuredModel
    baseline: MeasuredModel
    notes: tuple[str, ...] = ()
    """What a person should know about this choice."""

    @property
    def is_baseline(self) -> bool:
        """The off-the-shelf model itself."""
        return self.round == BASELINE.round


def choose(run: FinishedRun, number: int | None) -> Subject:
    """The round and the split to judge: the test split where the run looked at it, else dev.

    Args:
        number: a round, -1 the off-the-shelf model; None: the round that was kept.

    Raises:
        ConfigError: no such round. ArtifactError: its commits are not there, or of another configuration.
    """
    best, record = run.best_round, run.record
    wanted = best if number is None else number
    rounds = [BASELINE.round, *(int(row["round"]) for row in run.summary["rounds"])]
    if wanted not in rounds:
        raise ConfigError(
            f"--round {wanted}: expected a round of this run, found {', '.join(map(str, rounds))} (-1 is the "
            f"off-the-shelf model); leave --round out for the round that was kept, {best}"
        )
    tested = bool(run.summary["test"])
    if tested and wanted in (best, BASELINE.round):
        chosen = Chosen.BEST if wanted == best else Chosen.BASELINE
        return Subject(wanted, "test", record.expect(chosen), record.expect(Chosen.BASELINE))
    note = (
        f"judged on the dev split, as the run looked at the test split with round {best} only"
        if tested
        else "judged on the dev split, which also chose the round, so these figures flatter it a little; evaluation.split = "
        '"test" adds a look at the test split'
    )
    return Subject(wanted, "dev", record.expect(ModelName(wanted)), record.expect(BASELINE), (note,))
