"""`hardmine status`: what is committed, who is writing, and the figures so far. Reads storage, starts nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cluster.commits import Commit
from cluster.errors import ArtifactError, ConfigError
from cluster.lease import PATH, Owner, is_gone
from cluster.session.pace import duration
from cluster.storage.store import Store
from cluster.storage.usage import Used
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
    now: dict[str, Any]
    """The stage that the writer told of a few seconds ago; see `Progress.now`."""
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
            "now": self.now or None,
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
    return Status(store, *_writer(store), RunRecord.read(store))


def _writer(store: Store) -> tuple[str | None, dict[str, Any]]:
    """(who writes the run, what they do)."""
    try:
        owner = Owner(**store.read_json(PATH))
    except (ArtifactError, TypeError):
        return None, {}
    if is_gone(owner):
        return f"{owner.describe()} (dead: run the same command again)", {}
    return owner.describe(), owner.now


def describe_now(now: dict[str, Any]) -> str:
    """The stage that runs, or the two, for a person."""
    left = now.get("left_seconds")
    text = f"now:    {now['stage']}, for {duration(now['seconds'])}" + ("" if left is None else f"; about {duration(left)} left")
    return text + (f"\n{describe_now(now['beside'])}" if "beside" in now else "")


def stages_table(commits: Sequence[Commit]) -> Table:
    """A row for each commit, and one for all: what a stage cost, in time, in processors, in storage."""
    table = Table(
        title="committed stages: seconds, also of all CPUs and GPUs; bytes; requests to storage",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    seconds = ["wall", "cpu"] + (["gpu"] if any(commit.seconds.get("gpu") for commit in commits) else [])
    used = {"read_bytes": "read", "written_bytes": "wrote", "peak_bytes": "memory", "requests": "requests"}
    for name in ("stage", *seconds, *used.values()):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    total, took = Used(), dict.fromkeys(seconds, 0.0)
    for commit in commits:
        table.add_row(
            commit.name, *(short(commit.seconds.get(key, 0.0)) for key in seconds), *map(short, by_key(commit.used, used))
        )
        total.add(Used(**commit.used))
        took = {key: took[key] + commit.seconds.get(key, 0.0) for key in seconds}
    if commits:
        table.add_section()
        table.add_row("all", *map(short, took.values()), *map(short, by_key(asdict(total), used)))
    return table


def by_key(figures: Mapping[str, int], keys: Iterable[str]) -> list[float]:
    """Some of them, in this order."""
    return [figures[key] for key in keys]


def short(figure: float) -> str:
    """In five characters: 7.3, 812, 12.3k, 5.37G."""
    units = ["T", "G", "M", "k", ""]
    while figure >= 999.5 and len(units) > 1:
        units.pop()
        figure /= 1000
    return f"{figure:.3g}{units[-1]}"


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
    if status.now:
        console.print(describe_now(status.now), highlight=False, soft_wrap=True)
    console.print(stages_table(status.record.all))
    if summary:
        console.print(seconds_table(summary["rounds"]))
        show_summary(console, summary | {"next": [step.as_json() for step in status.next_steps]})
    else:
        for step in status.next_steps:
            console.print(f"next:   {step.command or step.text}", highlight=False, markup=False, soft_wrap=True)
