"""`hardmine status`: what is committed, who is writing, and the figures so far. Reads storage, starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.errors import ArtifactError, ConfigError
from cluster.lease import PATH, Owner, is_gone
from cluster.storage.store import Store
from jobs.finished.next_steps import NextStep, read_next_steps
from jobs.finished.show import seconds_table, show_summary
from jobs.record.record import RunRecord
from jobs.record.summary import rounds_json, summary_of


@dataclass(frozen=True)
class Status:
    """The state of a run, read from its storage."""

    store: Store
    writer: str | None
    """Who is writing the run now; None: nobody."""
    record: RunRecord

    @property
    def summary(self) -> dict[str, Any] | None:
        """What `hardmine run --json` printed; None: the run is not finished."""
        return summary_of(self.record.finish, self.store) if self.record.finish else None

    def with_next(self) -> dict[str, Any]:
        """The same with what to do next, which reads the telemetry too."""
        return self.as_json() | {"next": [step.as_json() for step in self.next_steps]}

    @property
    def next_steps(self) -> list[NextStep]:
        """What to do now; []: a writer is at work."""
        if self.writer and not self.record.finish:
            return []
        primary = self.summary["primary"] if self.summary else "recall@3"
        return read_next_steps(self.store, primary)

    def as_json(self) -> dict[str, Any]:
        """What `hardmine status --json` prints: the summary of a finished run, or the figures so far."""
        so_far = {
            "name": self.store.root.rsplit("/", 1)[-1],
            "output": self.store.root,
            "model": None,
            "best_round": None,
        } | rounds_json(self.record)
        return (self.summary or so_far) | {
            "finished": self.summary is not None,
            "writer": self.writer,
            "stages": [{"name": c.name, "key": c.key, "seconds": c.seconds, "usage": c.usage} for c in self.record.all],
        }


def read_status(store: Store) -> Status:
    """Read the status of the run at `store`.

    Raises:
        ConfigError: there is no run at this address.
    """
    if not store.exists("identity.json"):
        names = sorted({path.split("/", 1)[0] for path in store.list()})[:8]
        raise ConfigError(
            f"{store.root} is not a run: it has no identity.json"
            f"{' (found ' + ', '.join(names) + ')' if names else ' (nothing is there)'}; name the run's "
            f"folder, <output>/<name>"
        )
    return Status(store, _writer(store), RunRecord.read(store))


def _writer(store: Store) -> str | None:
    try:
        owner = Owner(**store.read_json(PATH))
        return owner.describe() + (" (dead: run the same command again)" if is_gone(owner) else "")
    except (ArtifactError, TypeError):
        return None


def show_status(console: Console, status: Status) -> None:
    """Print the status."""
    summary, writer = status.summary, status.writer
    console.print(
        f"{status.store.root}: "
        + (
            f"{writer} is writing it"
            if writer
            else "finished"
            if summary
            else "not finished; run the same command again to resume"
        ),
        highlight=False,
        soft_wrap=True,
    )
    table = Table(
        title="committed stages: seconds in all and of work; MiB read, written, most memory; requests",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("stage", "wall", "work", "rows", "read", "wrote", "memory", "requests"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for commit in status.record.all:
        rows = sum(part["rows"] for parts in commit.tables.values() for part in parts)
        used = commit.used
        table.add_row(
            commit.name,
            *(f"{commit.seconds[key]:.1f}" for key in ("wall", "work")),
            f"{rows:,}",
            *(f"{used[key] / 2**20:,.1f}" for key in ("read_bytes", "written_bytes")),
            f"{used['peak_bytes'] / 2**20:,.0f}",
            f"{used['requests']:,}",
        )
    console.print(table)
    if summary:
        console.print(seconds_table(summary["rounds"]))
        show_summary(console, summary | {"next": [step.as_json() for step in status.next_steps]})
    else:
        for step in status.next_steps:
            console.print(f"next:   {step.command or step.text}", highlight=False, markup=False, soft_wrap=True)
