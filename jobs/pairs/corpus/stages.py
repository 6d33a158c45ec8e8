"""The stages that need the items: which tasks there are, and how many."""

from __future__ import annotations

import math

from cluster.errors import DataError
from jobs.pairs.corpus.generated import EACH, GenerateTask, generate
from jobs.pairs.corpus.items import ItemTask, read_items
from jobs.pairs.corpus.pairs import FromItemsTask, pairs_from_items
from jobs.pairs.corpus.round_trip import MOST_POOLED, Pool
from jobs.pairs.corpus.synthetic import BINS, SyntheticTask, most_synthetic, share_of_bins, write_synthetic
from jobs.pairs.labels.asked import SYNTHETIC
from jobs.pairs.labels.texts import FREQUENT
from jobs.pairs.reading.sources import unpacked_bytes
from jobs.pairs.sessions.together import WINDOW
from jobs.pairs.tasks import add_counts, objects_of
from jobs.pairs.work import PARTITION_BYTES, PARTITION_PAIRS, Results, Work, partitions_of
from jobs.stages.ingest.reading.files import source_files


def item_partitions(work: Work, read: Results) -> int:
    """Partitions of items, so that each has few clicks, few items, and few pairs that were used together."""
    path = work.settings.corpus.path
    if path is None:
        return work.partitions
    store, names = source_files(path, work.settings.storage)
    unpacked = sum(unpacked_bytes(name, store.size(name) or 0) for name in names)
    pairs = 2 * WINDOW * sum(one["likes"] for one in read)
    return max(work.partitions, partitions_of(unpacked, PARTITION_BYTES), partitions_of(pairs, PARTITION_PAIRS))


def find_items(work: Work, partitions: int) -> Results:
    """The items by their hashes, and as the table of the corpus."""
    settings = work.settings
    if settings.corpus.path is None:
        return []
    store, names = source_files(settings.corpus.path, settings.storage)
    tasks = [ItemTask(store.url(name), settings.corpus, settings.storage, partitions) for name in names]
    items = work.run("items", read_items, tasks)
    if not sum(one["items"] for one in items):
        raise DataError(f"expected items in corpus.path = {settings.corpus.path}, found no row; check the address")
    return items


def make_from_items(work: Work, partitions: int, items: Results, sessions: Results, popular: Results) -> Results:
    """Queries and labels that follow from the items and from who used them together."""
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


def _most(labels: Results) -> int:
    counts = add_counts(labels, "queries_by")
    return most_synthetic(sum(count for name, count in counts.items() if name.split(" ")[0] not in SYNTHETIC))


def make_generated(work: Work, labels: Results, corpus: list[str], items: Results, texts: Results) -> Results:
    """Queries that a language model writes for some items; one part of the corpus at a time, to spare the server."""
    settings = work.settings.generate
    if settings.url is None or not corpus:
        return []
    number = max(1, sum(one["items"] for one in items))
    most = _most(labels)
    pool = Pool(tuple(corpus), min(1.0, MOST_POOLED / number), settings.retriever)
    tasks = [
        GenerateTask(
            part=part,
            share=min(1.0, math.ceil(most / EACH) / number),
            examples=tuple(list(add_counts(texts, "frequent"))[:FREQUENT]),
            server=settings.url,
            model=settings.model or "",
            pool=pool,
            partitions=work.partitions,
        )
        for part in corpus
    ]
    return work.run("generated", generate, tasks, at_once=1)


def make_synthetic(work: Work, labels: Results, generated: Results) -> Results:
    """As many of the synthetic queries as may be."""
    most = _most(labels)
    of_items, written = add_counts(labels, "synthetic_bins"), add_counts(generated, "bins")
    if not most or not (written or of_items):
        return []
    generated_share = share_of_bins(written, most)
    left = most - sum(count for number, count in written.items() if int(number) < round(BINS * generated_share))
    tasks = [
        SyntheticTask(
            queries=next(iter(objects_of([one], "synthetic_queries")), None),
            labels=next(iter(objects_of([one], "synthetic_qrels")), None),
            real=next((path for path in one["objects"] if path.startswith("tables/queries/")), None),
            generated=objects_of(generated, "generated"),
            partitions=work.partitions,
            kept_generated=generated_share,
            kept=share_of_bins(of_items, left),
        )
        for one in labels
    ]
    return work.run("synthetic", write_synthetic, tasks)
