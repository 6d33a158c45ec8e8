"""Vectors of a base model that another run below the same `output` has committed, copied instead of computed again.

Copied, never referred to: either run can be deleted, and `hardmine verify` needs no other one. A sibling's vectors are taken
only where everything that they depend on is the same: its commit has the same key (model, texts' commit, precision), the parts
that the model read have the same SHA-256, and the same versions computed them. Each part is checked against its seal and its
commit while it is copied. A sibling that is half-written has no commit; one that is damaged, or deleted meanwhile, is left out,
and what is missing is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.commits import Commit, Ledger
from cluster.errors import HardmineError
from cluster.storage.store import Store
from cluster.tables.tables import TOGETHER, Part, read_sealed
from jobs.stages.context import Context

MADE_BY = "made_by"
"""The figure of an embed commit that says which versions computed it."""


@dataclass(frozen=True)
class Vectors:
    """The commit that is wanted."""

    name: str
    key: str
    made_by: Mapping[str, str]
    features: Commit
    """What the model reads."""
    tables: Sequence[str]


def copy_from_sibling(context: Context, wanted: Vectors) -> dict[str, list[Part]] | None:
    """The parts of the tables, copied into this run; None: no other run has them whole."""
    for sibling, commit in siblings_with(context.store, wanted):
        parts = [(table, part) for table in wanted.tables for part in commit.parts(table)]
        if _copy(context, sibling, [part for _, part in parts]):
            context.progress.say(
                f"  {wanted.name}: copied from {sibling.root}, which embedded the same texts with the same model"
            )
            return {table: commit.parts(table) for table in wanted.tables}
    return None


def siblings_with(store: Store, wanted: Vectors) -> Iterator[tuple[Store, Commit]]:
    """Other runs beside this one that have the same vectors, and their commits."""
    output, _, own = store.root.rpartition("/")
    hasty = store.settings.model_copy(update={"attempts": 1})  # a wrong answer costs an embedding, no run
    try:
        names = Store(output, hasty).folders()
    except HardmineError:  # this user may see the run's own folder only
        return
    runs = [Store(f"{output}/{name}", hasty) for name in names if name != own]

    def find(run: Store) -> Commit | None:
        try:
            return _same(Ledger(run), wanted)
        except HardmineError:  # another version's, damaged, or not readable for this user
            return None

    with ThreadPoolExecutor(TOGETHER) as pool:
        for run, commit in zip(runs, pool.map(find, runs), strict=True):
            if commit is not None:
                yield run, commit


def _same(ledger: Ledger, wanted: Vectors) -> Commit | None:
    commit = ledger.find(wanted.name, wanted.key)
    if commit is None or commit.figures.get(MADE_BY) != wanted.made_by or set(commit.tables) != set(wanted.tables):
        return None
    read = ledger.find(wanted.features.name, wanted.features.key)
    same = read is not None and all(_content(read, table) == _content(wanted.features, table) for table in wanted.tables)
    return commit if same else None


def _content(commit: Commit, table: str) -> list[tuple[int, int, str]]:
    return [(part.first_row, part.rows, part.sha256) for part in commit.parts(table)]


def _copy(context: Context, sibling: Store, parts: list[Part]) -> bool:
    """Copy the parts in Ray tasks; False where one of them is damaged or gone."""
    import ray

    count = max(1, context.size.cpus)
    remote = ray.remote(copy_parts).options(num_cpus=1, max_retries=context.config.cluster.retries)
    groups = [parts[start::count] for start in range(min(len(parts), count))]
    return all(ray.get([remote.remote(sibling, context.store, group) for group in groups]))


def copy_parts(source: Store, target: Store, parts: list[Part]) -> bool:
    """Copy parts to the same addresses, each checked; False where one is damaged or gone."""
    for part in parts:
        try:
            data, _ = read_sealed(source, part)
        except HardmineError:
            return False
        target.write_bytes(part.path, data)
    return True
