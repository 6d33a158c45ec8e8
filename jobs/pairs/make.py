"""`hardmine pairs`: the stages one after another, each a set of tasks that are committed one by one, and what they add up to.

work/<key>/read      rows by client                      work/<key>/labels    tables/queries, tables/qrels, rejected queries
work/<key>/texts     texts with counts                   work/<key>/synthetic the synthetic ones, as many as may be
work/<key>/spelling  spelling variants                   work/<key>/rejected  rejected.csv
work/<key>/items     the corpus by id, tables/corpus     pairs.json, pairs.md, pairs.html; then work/ is deleted
work/<key>/sessions  what was seen, by query text
work/<key>/popular   clicks of every item
work/<key>/from-items pairs from items
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.commits import digest
from cluster.errors import ConfigError, DataError
from cluster.lease import Lease
from cluster.session.progress import Progress
from cluster.session.session import check_shared, ray_session
from cluster.storage.store import Store
from cluster.storage.usable import check_writable
from jobs.pairs.corpus.items import ItemTask, PopularTask, add_items, read_items
from jobs.pairs.corpus.pairs import FromItemsTask, pairs_from_items
from jobs.pairs.corpus.synthetic import SYNTHETIC_SHARE, SyntheticTask, kept_share, write_synthetic
from jobs.pairs.labels.asked import SYNTHETIC
from jobs.pairs.labels.evidence import Positions, positions
from jobs.pairs.labels.splits import cut_times
from jobs.pairs.labels.stage import LabelTask, label_texts
from jobs.pairs.labels.texts import count_texts, find_variants
from jobs.pairs.output.write import write_outputs
from jobs.pairs.reading.sources import Input, find_input, unpacked_bytes
from jobs.pairs.reading.stage import ReadTask, read_piece
from jobs.pairs.rejected.stage import RejectedTask, write_sheet
from jobs.pairs.sessions.stage import SessionTask, count_sessions
from jobs.pairs.sessions.together import WINDOW
from jobs.pairs.settings import PairsSettings
from jobs.pairs.signals import POSITIVE_ACTIONS
from jobs.pairs.summary import summarise
from jobs.pairs.tasks import add_counts, objects_of, run_tasks
from jobs.stages.ingest.reading.files import source_files

PARTITION_BYTES = 32 * 2**20
"""Of the logs or of the items, unpacked, for each partition."""
PARTITION_PAIRS = 4_000_000
"""Pairs of items that users liked one after another, for each partition of items, before equal ones are added up."""
TASK_BYTES = 600 * 2**20
"""Memory of a task, about: what it has loaded, and what it does with a partition (measured in docs/logs.md)."""
MOST_PARTITIONS = 4096
"""What an object has a segment for; logs of more than 128 GiB have larger ones, and larger tasks."""
VERSION = 1
Results = list[dict[str, Any]]


@dataclass
class Work:
    """What the stages of one call share."""

    store: Store
    folder: str
    settings: PairsSettings
    bytes: int
    """Of the logs, unpacked."""
    partitions: int
    """Of clients, and of texts."""
    progress: Progress

    def run(self, name: str, task: Any, inputs: Sequence[Any]) -> Results:
        """The results of a stage's tasks."""
        return run_tasks(
            self.store,
            f"{self.folder}/{name}",
            task,
            inputs,
            progress=self.progress,
            retries=self.settings.cluster.retries,
            memory=TASK_BYTES * max(1, self.bytes // (self.partitions * PARTITION_BYTES)),
        )


def make_pairs(
    logs: Sequence[str], to: str, settings: PairsSettings, *, progress: Progress, takeover: bool = False
) -> dict[str, Any]:
    """Make the tables of a run from logs; returns `pairs.json`. The same call again resumes, or tells what is there.

    Args:
        logs: addresses of logs, sheets and earlier outputs.
        to: folder or s3:// prefix of the result; it holds one result.

    Raises:
        ConfigError: `to` holds another result. DataError: a log is missing, of no known kind, or says nothing at all.
    """
    store = Store(to, settings.storage)
    for url in logs:
        if f"{store.root}/".startswith(f"{Store(url, settings.storage).root}/"):
            raise ConfigError(f"expected --to outside of the logs, found {store.root} in {url}; its tables would be read as logs")
    inputs = [find_input(url, settings.storage) for url in logs]
    key = _key(inputs, settings)
    done = _finished(store, key)
    if done is not None:
        progress.say(f"✓ {store.root} holds the pairs of these logs and settings already")
        store.delete("work")  # of a call that was killed after its last line
        return done
    check_writable(store)
    with Lease(store, takeover=takeover) as lease:
        store.sweep()
        _begin(store, key, progress)
        unpacked = sum(one.bytes for one in inputs)
        partitions = _count(unpacked, PARTITION_BYTES)
        with ray_session(settings.cluster) as size:
            check_shared(store, size)
            summary = _stages(Work(store, f"work/{key}", settings, unpacked, partitions, progress), inputs, key)
        lease.check()
        write_outputs(store, summary)
        store.delete("work")
    return summary


def _key(inputs: Sequence[Input], settings: PairsSettings) -> str:
    own = settings.model_dump(exclude={"cluster", "storage"})
    corpus = None
    if settings.corpus.path is not None:
        files, names = source_files(settings.corpus.path, settings.storage)
        corpus = [(name, files.fingerprint(name)) for name in names]
    return digest({"version": VERSION, "logs": [one.fingerprints for one in inputs], "settings": own, "corpus": corpus})


def _finished(store: Store, key: str) -> dict[str, Any] | None:
    if not store.exists("pairs.json"):
        return None
    value: dict[str, Any] = store.read_json("pairs.json")
    if value.get("key") != key:
        raise ConfigError(
            f"{store.root} holds the pairs of other logs or other settings; give another folder with --to, or delete this one"
        )
    return value


def _begin(store: Store, key: str, progress: Progress) -> None:
    """Take over what an interrupted call with the same logs and settings left; what another one left is deleted."""
    there = {path.split("/")[1] for path in store.list("work")}
    if there - {key}:
        progress.say("! an unfinished call with other logs or settings is deleted")
        store.delete("work")
        store.delete("tables")
    elif not there and store.list("tables"):
        raise ConfigError(
            f"{store.root} has a folder `tables` that is not of an unfinished `hardmine pairs`; give an empty folder with --to"
        )


def _stages(work: Work, inputs: Sequence[Input], key: str) -> dict[str, Any]:
    settings, count = work.settings, work.partitions
    read = work.run("read", read_piece, _read_tasks(work, inputs, key))
    if not sum(sum(one["shapes"].values()) for one in read):
        raise DataError(_nothing(inputs, read))
    every = range(count)
    texts = work.run("texts", count_texts, [{"texts": objects_of(read, "texts"), "partitions": count}] * count)
    spelling = work.run("spelling", find_variants, [objects_of(texts, "counts")])
    in_items = _item_partitions(work, read)
    items = _items(work, in_items)
    hours = {int(hour): number for hour, number in add_counts(read, "hours").items()}
    cuts = cut_times(hours, settings.splits)
    variants = objects_of(spelling, "variants")[0]
    window = WINDOW if settings.corpus.path else 0
    rows = objects_of(read, "rows")
    session = SessionTask(
        rows, variants, count, in_items, cuts, settings.signals, settings.bias.bot_queries, settings.rejected.below, window
    )
    sessions = work.run("sessions", count_sessions, [session for _ in every])
    of_items = PopularTask(objects_of(sessions, "items"), in_items)
    popular = work.run("popular", add_items, [of_items] * in_items)
    from_items = _from_items(work, in_items, items, sessions, popular)
    at = _positions(sessions, settings)
    task = LabelTask(
        objects={
            "seen": objects_of(sessions, "seen"),
            "asked": objects_of(sessions, "asked"),
            "labels": objects_of(sessions, "labels") + objects_of(from_items, "labels"),
            "item_queries": objects_of(from_items, "item_queries"),
        },
        positions=(tuple(at.expected.tolist()), tuple(at.weight.tolist())),
        bias=settings.bias,
        weights=settings.signals.weights,
        popularity=tuple(objects_of(popular, "popularity")),
        partitions=count,
        known_items=tuple(objects_of(items, "ids")),
        splits=settings.splits,
        cuts=cuts,
        rejected=settings.rejected,
        clicks=any(add_counts(sessions, "signals").get(name) for name in POSITIVE_ACTIONS),
        newest=max([one.get("newest", 0) for one in sessions] + [_newest(one) for one in inputs]),
    )
    labels = work.run("labels", label_texts, [task for _ in every])
    synthetic = _synthetic(work, labels)
    corpus = sorted(path for one in items for path in one["objects"] if path.startswith("tables/corpus/"))
    sheet = RejectedTask(objects_of(labels, "refused"), corpus, settings.rejected.model)
    rejected = work.run("rejected", write_sheet, [sheet])[0]
    if not rejected["rejected"] and not any(add_counts(labels, "labels_by_source").values()):
        raise DataError(_no_label(read, sessions, labels))
    stages = {"read": read, "spelling": spelling, "items": items, "sessions": sessions, "popular": popular, "labels": labels}
    return summarise(key, inputs, settings, stages, synthetic=synthetic, rejected=rejected, cuts=cuts, at=at, newest=task.newest)


def _read_tasks(work: Work, inputs: Sequence[Input], key: str) -> list[ReadTask]:
    settings = work.settings
    return [
        ReadTask(piece, settings.columns, settings.signals, settings.storage, key, work.partitions, _newest(one))
        for one in inputs
        for piece in one.pieces
    ]


def _newest(one: Input) -> int:
    return int((one.earlier or {}).get("newest_ms", 0))


def _nothing(inputs: Sequence[Input], read: Results) -> str:
    skipped = add_counts(read, "skipped")
    reason, number = next(iter(skipped.items()), ("", 0))
    example = next((one["examples"][reason] for one in read if reason in one["examples"]), "")
    rows = sum(one["rows"] for one in read)
    why = f"{rows:,} rows, none of use; mostly: {reason} ({number:,}{f'; {example}' if example else ''})"
    return (
        f"expected queries, events or labels in {', '.join(one.url for one in inputs)}, found "
        f"{why if number else 'no row'}; check the address, and [columns] and signals.actions of the --config file"
    )


def _no_label(read: Results, sessions: Results, labels: Results) -> str:
    reasons = add_counts([*read, *sessions], "skipped") | {
        name: count for name, count in add_counts(labels, "left_out").items() if count
    }
    said = (
        "; ".join(f"{reason} ({count:,})" for reason, count in list(reasons.items())[:3]) or "no event that says what users chose"
    )
    return (
        f"expected logs from which at least one label follows, found none in {sum(one['rows'] for one in read):,} rows: {said}; "
        f"give queries and events together, and name your actions in signals.actions of the --config file"
    )


def _count(amount: int, each: int) -> int:
    return min(MOST_PARTITIONS, max(1, math.ceil(amount / each)))


def _item_partitions(work: Work, read: Results) -> int:
    """Partitions of items, so that each has few clicks, few items, and few pairs that were used together."""
    path = work.settings.corpus.path
    if path is None:
        return work.partitions
    store, names = source_files(path, work.settings.storage)
    unpacked = sum(unpacked_bytes(name, store.size(name) or 0) for name in names)
    pairs = 2 * WINDOW * sum(one["likes"] for one in read)
    return max(work.partitions, _count(unpacked, PARTITION_BYTES), _count(pairs, PARTITION_PAIRS))


def _items(work: Work, partitions: int) -> Results:
    settings = work.settings
    if settings.corpus.path is None:
        return []
    store, names = source_files(settings.corpus.path, settings.storage)
    return work.run(
        "items", read_items, [ItemTask(store.url(name), settings.corpus, settings.storage, partitions) for name in names]
    )


def _from_items(work: Work, partitions: int, items: Results, sessions: Results, popular: Results) -> Results:
    if not items:
        return []
    settings = work.settings.corpus
    task = FromItemsTask(
        items=objects_of(items, "items"),
        ids=tuple(objects_of(items, "ids")),
        together=objects_of(sessions, "together"),
        popularity=tuple(objects_of(popular, "popularity")),
        users=sum(one.get("users", 0) for one in sessions),
        partitions=work.partitions,
        item_partitions=partitions,
        diverse=settings.different is not None,
        negatives=settings.same is not None and settings.different is not None,
        anchors=settings.anchors is not None,
    )
    return work.run("from-items", pairs_from_items, [task] * partitions)


def _positions(sessions: Results, settings: PairsSettings) -> Positions:
    zeros = np.zeros(101, np.int64)
    shown = sum((np.asarray(one["shown_at"]) for one in sessions if "shown_at" in one), zeros)
    used = sum((np.asarray(one["clicked_at"]) for one in sessions if "clicked_at" in one), zeros)
    return positions(shown, used, settings.bias)


def _synthetic(work: Work, labels: Results) -> Results:
    queries = add_counts(labels, "queries_by")
    of_items = {name: number for name, number in queries.items() if name.split(" ")[0] in SYNTHETIC}
    share = kept_share(sum(queries.values()) - sum(of_items.values()), sum(of_items.values()), SYNTHETIC_SHARE)
    pairs = zip(objects_of(labels, "synthetic_queries"), objects_of(labels, "synthetic_qrels"), strict=True)
    return work.run("synthetic", write_synthetic, [SyntheticTask(texts, rows, share) for texts, rows in pairs]) if share else []
