"""The one voice that says what to do after a run: `run`, `status` and the report all print what stands here.

It speaks from the run's record and the diagnosis, whose rules work from what the run was told and name the user's own file.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Any

from cluster.storage.store import Store
from eval.diagnosis.findings import Finding
from jobs.finished.diagnose import diagnose_output
from jobs.record.origin import run_verb, run_words
from jobs.record.record import MeasuredModel, RunRecord

MOST = 2


@dataclass(frozen=True)
class NextStep:
    """What to do, and why."""

    text: str
    command: str | None
    """Ready to be typed; None: the text says it all."""

    def as_json(self) -> dict[str, Any]:
        """As the report and `--json` have it."""
        return asdict(self)


def read_next_steps(store: Store, primary: str) -> list[NextStep]:
    """The next steps of the run at `store`, from what is committed now."""
    record = RunRecord.read(store)
    findings = diagnose_output(store).findings
    return next_steps(store.root, record, findings, primary, (*run_verb(store), *words) if (words := run_words(store)) else ())


def next_steps(
    output: str, record: RunRecord, findings: list[Finding], primary: str, words: tuple[str, ...] = ()
) -> list[NextStep]:
    """What to do next, most urgent first, at most two.

    Args:
        findings: worst first. words: what follows `hardmine` to start this run again; (): not known.
    """
    if record.finish is None:
        command = shlex.join(["hardmine", *words]) if words else None
        return [NextStep("The run is not finished: the same command again resumes it.", command)]
    of_kept = [finding for finding in findings if finding.arm != "random"] or findings
    steps = [_step(finding) for finding in of_kept if finding.severity != "note"] or [_step(finding) for finding in of_kept[:1]]
    best = record.best(primary)
    if best is not None and _is_better(best, primary):
        gate = NextStep(f"{best.label.capitalize()} is better than off the shelf: may it be shipped?", _command("gate", output))
        critical = bool(of_kept) and of_kept[0].severity == "critical"
        steps = [step for step in steps if step.command != gate.command]
        steps.insert(1 if critical else 0, gate)
    return steps[:MOST] or [NextStep("Look at the gradient before you change anything.", _command("diagnose", output))]


def _is_better(model: MeasuredModel, primary: str) -> bool:
    change = model.change("baseline").get(primary) or {}
    return bool(change.get("significant")) and float(change["mean"]) > 0


def _step(finding: Finding) -> NextStep:
    """A finding as a step; its `next` is a command where it begins like one."""
    if finding.next.startswith("hardmine "):
        return NextStep(finding.summary, finding.next)
    return NextStep(f"{finding.summary} Next: {finding.next}.", None)


def _command(name: str, output: str) -> str:
    return shlex.join(["hardmine", name, output])
