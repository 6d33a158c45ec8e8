"""`hardmine diagnose`: what is wrong with a run or with another trainer's log, and what to try next. Starts nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.errors import ConfigError
from cluster.storage.store import Store
from eval.diagnosis.findings import Finding
from eval.diagnosis.rank import diagnose
from jobs.finished.evidence import read_evidence
from jobs.finished.foreign_logs import ForeignLog, headline, read_log
from jobs.record.origin import shown

LOG_ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".log", ".txt")
STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
"""Folders in which the Hugging Face Trainer writes it."""
STYLES = {"critical": "bold red", "warning": "yellow", "note": "green"}


@dataclass(frozen=True)
class Diagnosis:
    """The findings, and what they were read from."""

    output: str
    findings: list[Finding]
    log: ForeignLog | None = None
    """None: a run of hardmine."""

    def as_json(self) -> dict[str, Any]:
        """What `hardmine diagnose --json` prints."""
        value: dict[str, Any] = {"output": self.output, "findings": [finding.as_json() for finding in self.findings]}
        if self.log is not None:
            value["log"] = {"lines": self.log.lines, "loss": self.log.loss, "metric": self.log.metric, "runs": self.log.runs}
        return value


def diagnose_output(store: Store, *, config: tuple[str, ...] | None = None) -> Diagnosis:
    """Diagnose the run in the folder `store`, or the log file at that address.

    Args:
        config: what follows `hardmine run` in the proposed commands; None: the file that the run was started with.

    Raises:
        ConfigError: it is neither a run nor a log.
        DataError: the log cannot be read.
        ArtifactError: a commit cannot be read.
    """
    folder, _, name = store.root.rpartition("/")
    if name.endswith(LOG_ENDINGS):
        return _of_log(Store(folder or "/", store.settings), name)
    if store.exists("identity.json") or store.exists("commits"):
        evidence = read_evidence(store, config=config)
        return Diagnosis(store.root, diagnose(evidence))
    state = newest_state(store)
    if state is not None:
        return _of_log(store, state)
    raise ConfigError(
        f"{store.root} is neither a run (it has no identity.json), nor another trainer's output folder (no {STATE}, nor one in "
        f"checkpoint-N), nor a log ({', '.join(LOG_ENDINGS)}); name the run's folder, <output>/<name>, or a file with "
        f"another trainer's steps, losses and recalls"
    )


def newest_state(store: Store) -> str | None:
    """The last state of a Hugging Face Trainer below its output folder: its own, else that of the highest checkpoint-N."""
    if store.exists(STATE):
        return STATE
    steps = sorted((int(found[1]) for name in store.folders() if (found := CHECKPOINT.fullmatch(name))), reverse=True)
    states = (f"checkpoint-{step}/{STATE}" for step in steps)
    return next((state for state in states if store.exists(state)), None)


def _of_log(store: Store, name: str) -> Diagnosis:
    if not store.exists(name):
        raise ConfigError(
            f"there is no log at {store.url(name)}; name a file with another trainer's steps, losses and recalls, "
            f"or a run's folder, <output>/<name>"
        )
    folder = store.url(name).rpartition("/")[0]
    folder = folder if store.remote else shown(Path(folder))
    log = read_log(name, store.read_bytes(name), checkpoint=folder if name.endswith(STATE) else None)
    return Diagnosis(store.url(name), diagnose(log.evidence), log)


def show_diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    """Print the findings, worst first, each with its figures and the next experiment."""
    console.print(diagnosis.output, highlight=False, soft_wrap=True)
    for line in headline(diagnosis.log) if diagnosis.log else ():
        console.print(line, highlight=False)
    if not diagnosis.findings:
        console.print("Nothing has been trained yet, so there is nothing to diagnose.")
    for finding in diagnosis.findings:
        _show(console, finding)


def _show(console: Console, finding: Finding) -> None:
    style = STYLES[finding.severity]
    arm = "" if finding.arm == "log" else f"  {finding.arm} negatives"
    console.print(f"\n[{style}]{finding.severity:<8}  {finding.name.replace('_', ' ')}[/]{arm}")
    console.print(f"  {escape(finding.summary)}", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
    for _ in range(2):
        table.add_column()
    for figure in finding.evidence:
        table.add_row(escape(figure.text), f"[dim]{escape(figure.where)}[/]")
    console.print(table)
    console.print(f"  next: {escape(finding.next)}", highlight=False, soft_wrap=True)
