"""What a gate judges: which round of a finished run, on which split, against which commits of the off-the-shelf model."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.commits import Commit
from cluster.errors import ArtifactError, ConfigError
from jobs.finished.finished_run import FinishedRun
from jobs.stages.summary import BASELINE


@dataclass(frozen=True)
class Measured:
    """One model's commits on one split."""

    evaluation: Commit
    hits: Commit


@dataclass(frozen=True)
class Subject:
    """What is judged, against what."""

    round: int
    split: str
    model: Measured
    baseline: Measured
    notes: tuple[str, ...] = ()
    """What a person should know about this choice."""

    @property
    def is_baseline(self) -> bool:
        """The off-the-shelf model itself."""
        return self.round == BASELINE


def choose(run: FinishedRun, number: int | None) -> Subject:
    """The round and the split to judge: the test split where the run looked at it, else dev.

    Args:
        number: a round, -1 the off-the-shelf model; None: the round that was kept.

    Raises:
        ConfigError: no such round. ArtifactError: its commits are not there, or of another configuration.
    """
    best = run.best_round
    wanted = best if number is None else number
    measured = [BASELINE, *(int(row["round"]) for row in run.summary["rounds"])]
    if wanted not in measured:
        raise ConfigError(
            f"--round {wanted}: expected a round of this run, found {', '.join(map(str, measured))} (-1 is the "
            f"off-the-shelf model); leave --round out for the round that was kept, {best}"
        )
    tested = bool(run.summary.get("test"))
    if tested and wanted in (best, BASELINE):
        model = "test-best" if wanted == best else "test-baseline"
        return Subject(wanted, "test", _measured(run, model), _measured(run, "test-baseline"))
    names = ["baseline" if one == BASELINE else f"round-{one:02d}" for one in (wanted, BASELINE)]
    note = (
        f"judged on the dev split, as the run looked at the test split with round {best} only"
        if tested
        else "judged on the dev split, which also chose the round, so these figures flatter it a little; evaluation.split = "
        '"test" adds a look at the test split'
    )
    return Subject(wanted, "dev", _measured(run, names[0]), _measured(run, names[1]), (note,))


def _measured(run: FinishedRun, name: str) -> Measured:
    found = Measured(run.commit(f"{name}-evaluate"), run.commit(f"{name}-hits"))
    if found.evaluation.inputs["hits"] != found.hits.key:
        raise ArtifactError(
            f"expected commit {name}-evaluate to be of the hits that are there, found others: another "
            f"configuration was begun in {run.store.root}; let `hardmine run` finish, then ask again"
        )
    return found
