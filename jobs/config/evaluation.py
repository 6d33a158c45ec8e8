"""[evaluation] of a run: the settings of eval, a general data set, and the event log."""

from __future__ import annotations

from eval.settings import EvaluationSettings
from jobs.config.data import GeneralSettings


class RunEvaluation(EvaluationSettings):
    """How a model is measured, on which data, and what is logged."""

    general: GeneralSettings | None = None
    """A general data set that shows forgetting: corpus, queries and qrels, or folder, as in [data]. The off-the-shelf model and
    every round are measured on all its labelled queries. Nothing is trained on it."""
    events: bool = False
    """Write one JSON line for each evaluated query (`retrieval_eval`) to files below the run's events/. They hold the queries'
    texts."""
