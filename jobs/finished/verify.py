"""`hardmine verify`: are the commits of a run, what they list, and its records still what was written there? Changes nothing."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from cluster.commits import Ledger
from cluster.errors import ArtifactError, ConfigError, DamagedObject
from cluster.storage.records import read_if_there
from cluster.storage.store import Store

RECORDS = ("identity.json", "run.json")
ADVICE = (
    "To have them made anew, delete them and commits/finish.json, and give the commands that made them again (`hardmine run`)"
)
"""Without commits/finish.json, because a finished run checks its model only; what is missing is made anew."""


def verify(store: Store) -> dict[str, Any]:
    """{"output", "stages", "objects", "bytes", "damaged": [{"path", "problem"}]} of all that commits list, and of the commits.

    Raises:
        ConfigError: there is no run at this address.
    """
    ledger = Ledger(store)
    names = ledger.names()
    if not names and not store.exists("identity.json"):
        raise ConfigError(f"{store.root} is not a run: nothing is committed there; give the run's own folder, <output>/<name>")
    damaged: dict[str, str] = {}
    listed: dict[str, int] = {}
    for path in RECORDS:
        try:
            read_if_there(store, path)
        except DamagedObject:
            damaged[path] = "is not what hardmine wrote there"
    for name in names:
        try:
            commit = ledger.find(name)
        except ArtifactError:
            damaged[ledger.path(name)] = "is not a commit that this version of hardmine wrote there"
            continue
        if commit is not None:
            damaged.update(ledger.problems(commit, content=True))
            listed |= {path: int(info["bytes"]) for path, info in commit.listed().items()}
    return {
        "output": store.root,
        "stages": len(names),
        "objects": len(listed),
        "bytes": sum(listed.values()),
        "damaged": [{"path": store.url(path), "problem": problem} for path, problem in damaged.items()],
    }


def show_verified(console: Console, checked: dict[str, Any]) -> None:
    """Print the answer for a person."""
    lines = [f"{one['path']} {one['problem']}" for one in checked["damaged"]]
    size = f"{checked['stages']} stages, {checked['objects']:,} objects, {checked['bytes'] / 1e6:,.1f} MB"
    lines.append(
        f"{len(lines)} damaged, of {size}. {ADVICE}"
        if lines
        else f"parts, model files, commits, identity.json and run.json are as they were written: {size}"
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
