"""The stages of `hardmine pairs` one after another, each a set of tasks, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.errors import DataError
from jobs.pairs.corpus.items import PopularTask, add_items
from jobs.pairs.corpus.stages import find_items, item_partitions, make_from_items, make_generated, make_synthetic
from jobs.pairs.labels.evidence import Positions, positions
from jobs.pairs.labels.splits import cut_times
from jobs.pairs.labels.stage import LabelTask, label_texts
from jobs.pairs.labels.texts import count_texts, find_variants
from jobs.pairs.output.summary import summarise
from jobs.pairs.reading.sources import Input
from jobs.pairs.reading.stage import ReadTask, read_piece
from jobs.pairs.rejected.stage import RejectedTask, write_sheet
from jobs.pairs.sessions.stage import SessionTask, count_sessions
from jobs.pairs.sessions.together import WINDOW
from jobs.pairs.settings import PairsSettings
from jobs.pairs.signals import POSITIVE_ACTIONS
from jobs.pairs.tasks import add_counts, objects_of
from jobs.pairs.work import Results, Work


def run_stages(work: Work, inputs: Sequence[Input], key: str) -> dict[str, Any]:
    """Every stage; returns the summary. Raises DataError: nothing can be used, or no label follows."""
    settings, count = work.settings, work.partitions
    read = work.run("read", read_piece, _read_tasks(work, inputs, key))
    if not sum(sum(one["shapes"].values()) for one in read):
        raise DataError(_nothing(inputs, read))
    every = range(count)
    texts = work.run("texts", count_texts, [{"texts": objects_of(read, "texts"), "partitions": count}] * count)
    spelling = work.run("spelling", find_variants, [objects_of(texts, "counts")])
    in_items = item_partitions(work, read)
    items = find_items(work, in_items)
    hours = {int(hour): number for hour, number in add_counts(read, "hours").items()}
    cuts = cut_times(hours, settings.held_out)
    variants = objects_of(spelling, "variants")[0]
    window = WINDOW if settings.corpus.path else 0
    rows = objects_of(read, "rows")
    session = SessionTask(
        rows, variants, count, in_items, cuts, settings.signals, settings.bot_queries, settings.rejected_below, window
    )
    sessions = work.run("sessions", count_sessions, [session for _ in every])
    of_items = PopularTask(objects_of(sessions, "items"), in_items)
    popular = work.run("popular", add_items, [of_items] * in_items)
    from_items = make_from_items(work, in_items, items, sessions, popular)
    at = _positions(sessions, settings)
    task = LabelTask(
        objects={
            "seen": objects_of(sessions, "seen"),
            "asked": objects_of(sessions, "asked"),
            "labels": objects_of(sessions, "labels") + objects_of(from_items, "labels"),
            "item_queries": objects_of(from_items, "item_queries"),
        },
        positions=(tuple(at.expected.tolist()), tuple(at.weight.tolist())),
        weights=settings.signals.weights,
        popularity=tuple(objects_of(popular, "popularity")),
        partitions=count,
        known_items=tuple(objects_of(items, "ids")),
        held_out=settings.held_out,
        cuts=cuts,
        rejected_words=settings.rejected_words,
        clicks=any(add_counts(sessions, "signals").get(name) for name in POSITIVE_ACTIONS),
        newest=max([one.get("newest", 0) for one in sessions] + [_newest(one) for one in inputs]),
    )
    labels = work.run("labels", label_texts, [task for _ in every])
    corpus = sorted(path for one in items for path in one["objects"] if path.startswith("tables/corpus/"))
    generated = make_generated(work, labels, corpus, items, texts)
    synthetic = make_synthetic(work, labels, generated)
    sheet = RejectedTask(objects_of(labels, "refused"), corpus)
    rejected = work.run("rejected", write_sheet, [sheet])[0]
    if not rejected["rejected"] and not any(add_counts(labels, "labels_by_source").values()):
        raise DataError(_no_label(read, sessions, labels))
    stages = {"read": read, "spelling": spelling, "items": items, "sessions": sessions, "popular": popular, "labels": labels}
    stages |= {"generated": generated, "synthetic": synthetic}
    return summarise(key, inputs, settings, stages, rejected=rejected, cuts=cuts, at=at, newest=task.newest)


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


def _positions(sessions: Results, settings: PairsSettings) -> Positions:
    zeros = np.zeros(101, np.int64)
    shown = sum((np.asarray(one["shown_at"]) for one in sessions if "shown_at" in one), zeros)
    used = sum((np.asarray(one["clicked_at"]) for one in sessions if "clicked_at" in one), zeros)
    return positions(shown, used, settings.position_bias)
