"""Whether the settings fit the data, judged by its counts before anything is embedded: pure.

What leaves nothing to do is refused (`refuse_unfit`). What makes a figure or a setting meaningless is a warning (`doubts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cluster.errors import ConfigError, DataError
from eval.diagnosis.case import MIN_QUERIES
from jobs.config.config import Config
from mining.search.shards import plan_shards
from training.engine.schedule import Pace, Schedule
from training.feed.sources import Mixture, plan_mixture, too_few
from training.settings import VALIDATION_K, TrainingSettings

LEFT_OUT = {
    "train_queries_left_out": ("data.train_fraction (of a probe, times probe.fraction) leaves out", "raise data.train_fraction"),
    "train_queries_skipped": ("data.skip_queries_without_positive leaves out", "label those without a relevant item"),
    "dev_queries_cut_from_train": ("data.dev_fraction takes for dev", "give dev queries of their own"),
}
"""Note of the ingest stage that counts training queries which are not trained on -> (why they are not, what to do)."""


@dataclass(frozen=True)
class Counts:
    """What the data has, and on how many ranks it is trained."""

    items: int
    splits: Mapping[str, int]
    """Queries of each split."""
    with_positive: Mapping[str, int]
    """Queries of each split that have a relevant item."""
    examples: Mapping[str, int]
    """Training examples of each label source: queries with a relevant item by that source."""
    dimension: int | None
    """Length of the data's own vectors; None: it has none."""
    ranks: int = 1
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Training queries that are not trained on: note of the ingest stage -> how many."""

    @classmethod
    def of(cls, figures: Mapping[str, Any], ranks: int) -> Counts:
        """From the figures of the ingest stage."""
        names = ("items", "splits", "with_positive", "examples", "dimension")
        left_out = {note: figures[note] for note in LEFT_OUT if figures.get(note)}
        return cls(**{name: figures[name] for name in names}, ranks=ranks, left_out=left_out)

    @cached_property
    def _sizes(self) -> Any:
        return np.array(list(self.examples.values()), np.int64)

    def mixture(self, training: TrainingSettings) -> Mixture:
        """What an epoch takes of each label source."""
        caps = np.array([training.source(name).cap for name in self.examples], np.float64)
        batch = training.batch_size * self.ranks
        return plan_mixture(self._sizes, caps, batch, one_source_per_batch=training.one_source_per_batch)


def refuse_unfit(config: Config, counts: Counts, *, trains: bool) -> None:
    """What a later stage would stop at.

    Args:
        trains: whether the whole run follows, or only mining.

    Raises:
        ConfigError: settings ask for more than the data has.
        DataError: the data has nothing to mine, to train or to measure.
    """
    plan_shards(counts.items, shards=config.cluster.shards, actors=1, shard_rows=counts.items)
    if counts.items < 2:
        raise DataError(f"expected at least 2 items, found {counts.items}: a query needs an item that is not relevant; add items")
    queries, most = counts.splits["train"], config.mining.max_uses
    if most is not None and most * counts.items < queries and (config.rounds.mined or not trains):
        enough = -(-queries * config.mining.num_negatives // counts.items)
        raise ConfigError(
            f"mining.max_uses = {most} for {counts.items} items allows {most * counts.items} negatives in all, fewer than "
            f"one for each of the {queries} training queries; raise it to {enough}"
        )
    if not trains:
        return
    _refuse_training(config, counts)
    lowest = config.data.relevant_from
    rule = "a score > 0" if lowest is None else f"a score of at least data.relevant_from = {lowest:g}"
    for split in sorted({"dev", config.evaluation.split}):
        if not counts.with_positive[split]:
            raise DataError(
                f'evaluation.split = "{split}" is to be measured, but of its {counts.splits[split]} queries '
                f"none has a relevant item (a label with {rule}); label some, or measure another split"
            )


def _refuse_training(config: Config, counts: Counts) -> None:
    training, ranks, queries = config.training, counts.ranks, counts.splits["train"]
    if training.batch_size * ranks > queries:
        if queries < 2 * ranks:
            why = "".join(f", {LEFT_OUT[note][0]} {count}" for note, count in counts.left_out.items())
            ways = [LEFT_OUT[note][1] for note in counts.left_out] + ["label more queries"]
            ways += ["lower cluster.train_workers"] if ranks > 1 else []
            raise DataError(
                f"expected at least {2 * ranks} training queries for {ranks} rank(s), found {queries}{why}; {', or '.join(ways)}"
            )
        more = ", or take more of the training queries (data.train_fraction; of a probe probe.fraction)"
        raise ConfigError(
            f"training.batch_size = {training.batch_size} on each of {ranks} rank(s) is more than the {queries} training "
            f"queries; set it to {max(2, queries // ranks)} or less{more if config.data.train_fraction < 1 else ''}"
        )
    mixture = counts.mixture(training)
    if not mixture.steps:
        raise ConfigError(too_few(mixture, list(counts.examples), batch_size=training.batch_size, world=ranks))
    if mixture.steps < training.accumulation:
        raise ConfigError(
            f"training.accumulation = {training.accumulation} is more than the {mixture.steps} micro-step(s) of an epoch "
            f"(batches of {training.batch_size} on each of {ranks} rank(s), {sum(counts.examples.values())} examples); lower "
            f"training.accumulation or training.batch_size"
        )
    reranker, examples = config.reranker, sum(counts.examples.values())
    if reranker is not None and reranker.batch_size * ranks * training.accumulation > examples:  # now, not after all rounds
        raise ConfigError(
            f"reranker.batch_size = {reranker.batch_size} on each of {ranks} rank(s) and training.accumulation = "
            f"{training.accumulation} make a step of more than the {examples} training examples; set reranker.batch_size to "
            f"{max(1, examples // (ranks * training.accumulation))} or less"
        )
    longest = max(training.matryoshka, default=0)
    if counts.dimension is not None and config.encoder.model is None and longest > counts.dimension:
        raise ConfigError(
            f"training.matryoshka = {training.matryoshka} contains {longest}, but the data's vectors have {counts.dimension} "
            f"numbers; remove the lengths above {counts.dimension}"
        )


def doubts(config: Config, counts: Counts, *, trains: bool) -> list[str]:
    """Warnings, each with its numbers. Args: trains: whether the whole run follows, or only mining."""
    found = list(_of_mining(config, counts)) if config.rounds.mined or not trains else []
    if trains:
        found += [*_of_sources(config, counts), *_of_steps(config, counts), *_of_figures(config, counts)]
    return found


def _of_mining(config: Config, counts: Counts) -> Iterator[str]:
    mining, items, queries = config.mining, counts.items, counts.splits["train"]
    if mining.num_negatives > items - 1:
        yield f"mining.num_negatives = {mining.num_negatives}, but of {items} items at most {items - 1} are negatives of a query"
    elif mining.num_hits > items:
        yield f"mining.num_hits = {mining.num_hits}, but there are {items} items: every item is a candidate of every query"
    if mining.max_uses is not None and mining.max_uses * items < queries * mining.num_negatives:
        yield (
            f"mining.max_uses = {mining.max_uses} for {items} items allows {mining.max_uses * items:,} negatives in all, "
            f"fewer than mining.num_negatives = {mining.num_negatives} for each of {queries:,} training queries: some lists stay "
            f"short"
        )


def _of_sources(config: Config, counts: Counts) -> Iterator[str]:
    training, known = config.training, ", ".join(f'"{name}"' if name else "unnamed" for name in counts.examples)
    for name in sorted(training.label_sources.keys() - counts.examples.keys()):
        yield f'training.label_sources names "{name}", but the sources of the training labels are: {known}'
    if training.one_source_per_batch and len(counts.examples) == 1:
        yield f"training.one_source_per_batch = true has no effect: all training labels are of one source, {known}"


def _of_steps(config: Config, counts: Counts) -> Iterator[str]:
    training, most = config.training, config.training.max_steps
    micro_steps = counts.mixture(training).steps
    for name, epochs in (("rounds.warmup_epochs", config.rounds.warmup_epochs), ("training.epochs", training.epochs)):
        if not epochs or (name == "training.epochs" and not config.rounds.mined):
            continue
        pace = Pace(Schedule(epochs), micro_steps, training.accumulation, most)
        of_epoch, steps = pace.steps_per_epoch, pace.total_steps
        if most is not None and most <= of_epoch * (epochs - 1):
            yield (
                f"training.max_steps = {most} ends a round in epoch {-(-most // of_epoch)} of {name} = {epochs}: an epoch has "
                f"{of_epoch} step(s)"
            )
        if most is not None and most > of_epoch * epochs:
            yield f"training.max_steps = {most} has no effect: {name} = {epochs} makes {steps} steps"
        if training.warmup_fraction and steps * training.warmup_fraction < 1:
            yield (
                f"training.warmup_fraction = {training.warmup_fraction:g} of {steps} step(s) ({name} = {epochs}) is less than "
                f"one: the learning rate starts at its peak"
            )


def _of_figures(config: Config, counts: Counts) -> Iterator[str]:
    data = config.data
    if (
        "dev_queries_cut_from_train" not in counts.left_out
        and data.dev_fraction != type(data).model_fields["dev_fraction"].default
    ):
        count = counts.splits["dev"]
        yield f"data.dev_fraction = {data.dev_fraction:g} has no effect: the data has a dev split of {count:,} queries"
    evaluation, measured = config.evaluation, counts.with_positive["dev"]
    cut = int(evaluation.primary.partition("@")[2])
    if cut >= counts.items and not evaluation.primary.startswith(("ndcg", "mrr")):
        yield (
            f'evaluation.primary = "{evaluation.primary}" is always 1 among {counts.items} items: rounds cannot be compared; '
            f"choose a smaller cut"
        )
    elif counts.items <= VALIDATION_K:
        yield f"recall@{VALIDATION_K} among {counts.items} items is always 1: validation cannot tell one epoch from another"
    if evaluation.gate.min_slice is not None and measured < MIN_QUERIES:
        yield (
            f"evaluation.gate.min_slice = {evaluation.gate.min_slice} checks no slice: a slice takes {MIN_QUERIES} queries, "
            f"and there are {measured} dev queries"
        )
