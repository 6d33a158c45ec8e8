"""`load_run` and `run_config`: a run as an object, with its figures, negatives, telemetry and charts.

from jobs import load_run, run_config

run = run_config("catalogue.toml", "training.epochs=2")     # or load_run("runs/catalogue")
run.rounds.to_pandas()
run.charts["loss"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from cluster.errors import ConfigError, HardmineError, unwrap
from cluster.session.progress import Progress
from cluster.storage.settings import StorageSettings
from cluster.storage.store import Store
from eval.diagnosis.findings import Finding
from jobs.config.config import Config, load_config, parse_config
from jobs.finished.status import Status, read_status
from jobs.notebook.tables import metrics_table, models_table, negatives_table, telemetry_of_all
from jobs.record.stages import Kind, ModelName, Stage

if TYPE_CHECKING:
    from jobs.notebook.chart import RunChart

Split = Literal["dev", "test", "general"]


@dataclass(frozen=True)
class Run:
    """A run as it was when it was loaded; load it again to see more of one that is still running."""

    status: Status

    def __repr__(self) -> str:
        kept = "not finished" if not self.finished else f"kept round {self.best_round}"
        return f"Run({self.output!r}, {kept})"

    def _repr_html_(self) -> str:
        table = self.rounds.to_pandas().to_html(index=False, na_rep="–", float_format="{:.3f}".format)
        return f"<p>{escape(repr(self))}</p>{table}"

    @property
    def output(self) -> str:
        """Address of the run's folder."""
        return self.status.store.root

    @property
    def finished(self) -> bool:
        """Whether all stages are committed."""
        return self.status.summary is not None

    @property
    def best_round(self) -> int | None:
        """The round whose model is kept; -1: the off-the-shelf model; None: the run is not finished."""
        return None if self.status.summary is None else int(self.status.summary["best_round"])

    @property
    def model(self) -> str | None:
        """Address of the kept model's folder; None: the run is not finished, or the vectors in the data were best."""
        return self.status.summary["model"] if self.status.summary else None

    @property
    def usage(self) -> str | None:
        """Python code that computes vectors with the model."""
        return self.status.summary["usage"] if self.status.summary else None

    @cached_property
    def rounds(self) -> pa.Table:
        """A row per model: off the shelf, warm-up, mined rounds, random arm; training and dev figures as columns."""
        return models_table(self.status.record, self.best_round)

    def metrics(self, split: Split | None = None) -> pa.Table:
        """A row per model, split and metric: value, and difference from the off-the-shelf model with its interval.

        Args:
            split: only this one; None: all that were measured.
        """
        table = metrics_table(self.status.record)
        return table if split is None else table.filter(pa.compute.equal(table["split"], split))

    def negatives(self, round_number: int | None = None, *, queries: int | None = None) -> pa.Table:
        """A row per query and mined negative, with ids, texts, score, position among the hits and source.

        Args:
            round_number: of the mined round; None: the last one.
            queries: only the first so many queries; those without any negative are left out and not counted. The table is
                held in memory: ask for fewer of a large run.

        Raises:
            ConfigError: nothing is mined for this round. ArtifactError: a part is damaged.
        """
        record = self.status.record
        mined = [stage.of.round for stage in record.commits if stage.kind is Kind.MINE and isinstance(stage.of, ModelName)]
        if not mined or (round_number is not None and round_number not in mined):
            rounds = ", ".join(map(str, sorted(mined))) or "none"
            raise ConfigError(f"expected a mined round of {self.output}, found {round_number}; mined rounds so far: {rounds}")
        commit = record.commits[Stage(Kind.MINE, ModelName(max(mined) if round_number is None else round_number))]
        return negatives_table(self.status.store, commit, record.commits[Stage(Kind.INGEST)], queries=queries)

    @cached_property
    def telemetry(self) -> pa.Table:
        """A row per micro-step of every training: model, arm, step, loss, and what the gradient does."""
        return telemetry_of_all(self.status.store, self.status.record)

    @cached_property
    def charts(self) -> dict[str, RunChart]:
        """The charts of the report by their ids ("loss", "recall", "uplift-recall-3" …)."""
        from jobs.notebook.chart import drawn
        from jobs.report.charts.curves import step_rows
        from jobs.report.gather import gather
        from jobs.report.page import run_charts

        report = gather(self.status.store)
        return {chart.id: drawn(chart, {"steps": step_rows(report)}) for chart in run_charts(report)}

    @cached_property
    def diagnosis(self) -> list[Finding]:
        """What `hardmine diagnose` says."""
        from jobs.finished.diagnose import diagnose_output

        return diagnose_output(self.status.store).findings


def load_run(output: str | PathLike[str], *, endpoint: str | None = None) -> Run:
    """The run in the folder <output>/<name>. Reads its commits, starts nothing.

    Args:
        endpoint: of S3, if not in AWS_ENDPOINT_URL.

    Raises:
        ConfigError: there is no run. ArtifactError: it is damaged. ClusterError: the storage does not answer.
    """
    return Run(read_status(Store(str(output), StorageSettings(endpoint=endpoint, attempts=2))))


def run_config(
    config: Config | Mapping[str, Any] | str | PathLike[str], *overrides: str, takeover: bool = False, quiet: bool = False
) -> Run:
    """Run all rounds, as `hardmine run` does; what is committed is kept, so the same call again resumes.

    Args:
        config: the TOML file, or its content as a mapping, whose relative paths count from the working folder.
        overrides: "section.key=value", for a file.
        takeover: take the run over from a writer that died.
        quiet: print no progress.

    Raises:
        HardmineError: as the command line says it, in one paragraph.
    """
    from jobs.run.driver import run

    settings = _settings(config, overrides)
    with _own_errors():
        run(settings, progress=Progress(quiet=quiet), takeover=takeover)
    return Run(read_status(Store(settings.root, settings.storage)))


def _settings(config: Config | Mapping[str, Any] | str | PathLike[str], overrides: tuple[str, ...]) -> Config:
    if isinstance(config, str | PathLike):
        return load_config(Path(config), overrides)
    if overrides:
        raise ConfigError('expected overrides ("section.key=value") for a file only; put the values into the mapping')
    return config if isinstance(config, Config) else parse_config(dict(config), source="the mapping", folder=Path.cwd())


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raises the HardmineError inside whatever Ray wrapped it into."""
    try:
        yield
    except Exception as error:
        cause = unwrap(error)
        if isinstance(cause, HardmineError) and cause is not error:
            raise cause from None
        raise
