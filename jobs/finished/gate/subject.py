"""What a gate judges: which round of a finished run, on which split, against which commits of the off-the-shelf model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    reranking: Mapping[str, Any] | None = None
    """The table of retrievers and re-rankers, whose best pair is judged; None: a retriever alone is."""

    @property
    def is_baseline(self) -> bool:
        """The off-the-shelf model itself."""
        return self.round == BASELINE.round and self.reranking is None


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


def choose_pair(run: FinishedRun) -> Subject:
    """The best retriever with a re-ranker, on the split that it was measured on.

    Raises:
        ConfigError: the run has no re-ranker. ArtifactError: its commits are of another configuration.
    """
    pair = run.record.reranked_pair
    if pair is None:
        raise ConfigError(
            f"--with-reranker: expected a run with a re-ranker, found none in {run.store.root}; add [reranker] to its file and "
            f"let `hardmine rerank` train and measure it"
        )
    table = pair.figures["reranking"]
    chosen = f"{table['pair']['retriever']} retriever with the {table['pair']['reranker']} re-ranker"
    baseline = run.record.expect(Chosen.BASELINE if pair.split == "test" else BASELINE)
    note = f"judged: the {chosen}, the best pair of the run, on the {pair.split} split, which also chose it"
    return Subject(pair.round, pair.split, pair, baseline, (note,), table)
