"""Vectors of a base model that a run below the same `output` has committed, copied instead of computed again.

A part of vectors is copied where the same versions made it with the same model and precision from a part of the same SHA-256: of
the same tokens of the same rows. So a run with another name, other labels, splits or fewer queries takes the vectors of all
texts that are the same. Each part is checked against its seal and its commit while it is copied.

Copied, never referred to: each run can be deleted, and `hardmine verify` needs no other one. A run that is half-written has no
commit; what is damaged, or deleted meanwhile, is left out and computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from cluster.commits import Commit, Ledger
from cluster.errors import HardmineError
from cluster.storage.store import Store
from cluster.tables.tables import TOGETHER, Part, read_sealed
from jobs.record.stages import EMBEDDING
from jobs.stages.context import Context

Inputs = Mapping[str, Any]
DEPENDS_ON = ("model", "dtype", "bfloat16", "budget")
"""Inputs of an embed commit that a part of vectors depends on, beside the part that the model read."""
MADE_BY = "made_by"
READ = "read"


def origin(made_by: Mapping[str, str], features: Commit, tables: Sequence[str]) -> dict[str, Any]:
    """What an embed commit says of its vectors, for other runs: the versions that made them, and the SHA-256 of what was read.

    Args:
        features: what the model reads.
    """
    return {MADE_BY: dict(made_by), READ: {table: [part.sha256 for part in _in_order(features, table)] for table in tables}}


def copy_known(context: Context, inputs: Inputs, made: Mapping[str, Any], targets: Mapping[str, str]) -> dict[str, Part]:
    """Copy the parts of vectors that are known.

    Args:
        inputs: of the wanted commit. made: its `origin`.
        targets: address of a part of vectors -> SHA-256 of the part that the model reads for it.

    Returns:
        Address -> the part of vectors; only what was copied.
    """
    copied: dict[str, Part] = {}
    for run, known in known_vectors(context.store, inputs, made[MADE_BY]):
        new = _copy(
            context, run, [(known[sha256], path) for path, sha256 in targets.items() if sha256 in known and path not in copied]
        )
        if new:
            rows = sum(part.rows for part in new.values())
            context.progress.say(f"  vectors of {rows:,} texts copied from {run.root}, which embedded them with the same model")
        copied |= new
        if len(copied) == len(targets):
            break
    return copied


def known_vectors(store: Store, inputs: Inputs, made_by: Mapping[str, str]) -> Iterator[tuple[Store, dict[str, Part]]]:
    """(run, SHA-256 of a part that the model read -> its vectors) of each run that has some, the own one first."""
    output, _, own = store.root.rpartition("/")
    hasty = store.settings.model_copy(update={"attempts": 1})  # without an answer the vectors are computed, no run fails
    try:
        names = Store(output, hasty).folders()
    except HardmineError:  # this user may see the run's own folder only
        names = []
    runs = [Store(f"{output}/{name}", hasty) for name in sorted({own, *names}, key=lambda name: (name != own, name))]
    pool = ThreadPoolExecutor(TOGETHER)
    try:
        for run, known in zip(runs, pool.map(lambda run: _known(run, inputs, made_by), runs), strict=True):
            if known:
                yield run, known
    finally:
        pool.shutdown(cancel_futures=True)  # whoever has found all vectors does not wait for the other runs


def _known(run: Store, inputs: Inputs, made_by: Mapping[str, str]) -> dict[str, Part]:
    known: dict[str, Part] = {}
    ledger = Ledger(run)
    try:
        names = [name for name in ledger.names() if name.startswith(EMBEDDING)]
    except HardmineError:
        return {}
    for name in names:
        try:
            commit = ledger.find(name)
            if commit and commit.figures.get(MADE_BY) == made_by and _same(commit, inputs):
                for table, read in commit.figures[READ].items():
                    known |= zip(read, _in_order(commit, table), strict=True)
        except HardmineError:  # damaged, or another version's
            continue
    return known


def _same(commit: Commit, inputs: Inputs) -> bool:
    return all(commit.inputs.get(name) == inputs[name] for name in DEPENDS_ON)


def _in_order(commit: Commit, table: str) -> list[Part]:
    return sorted(commit.parts(table), key=lambda part: part.first_row)


def _copy(context: Context, run: Store, jobs: Sequence[tuple[Part, str]]) -> dict[str, Part]:
    import ray

    count = max(1, context.size.cpus)
    remote = ray.remote(copy_parts).options(num_cpus=1, max_retries=context.config.cluster.retries)
    groups = [jobs[start::count] for start in range(min(len(jobs), count))]
    copied = [part for group in ray.get([remote.remote(run, context.store, group) for group in groups]) for part in group]
    return {part.path: part for part in copied}


def copy_parts(source: Store, target: Store, jobs: Sequence[tuple[Part, str]]) -> list[Part]:
    """Copy parts, each checked; returns the new ones. One that is damaged or gone is left out.

    Args:
        jobs: (part, new address).
    """
    copied: list[Part] = []
    for part, path in jobs:
        try:
            data, _ = read_sealed(source, part)
        except HardmineError:
            continue
        if target.url(path) != source.url(part.path):
            target.write_bytes(path, data)
        copied.append(replace(part, path=path))
    return copied
