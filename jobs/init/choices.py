"""From figures of the data and the machine to settings, each with its reason, and to warnings: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs.init.figures import Figures
from jobs.init.machine import Machine

ENGLISH = ("sentence-transformers/all-MiniLM-L6-v2", 256)
MULTILINGUAL = ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 128)
"""(name on the hub, tokens that it reads): small, without prompts, permissive licences."""
DIMENSION = 384
"""Of both."""
TOKENS_PER_WORD = 1.4
TOKENS_PER_CORE_S = 2_500
"""That a small transformer embeds on a CPU core (benchmarks/speed measures more)."""
LONGEST_EMBEDDING_S = 3 * 3600
"""Above it a CPU starts with a static model instead."""
ENOUGH_STEPS, ENOUGH_DEV = 40, 50
"""Below these a round is hardly more than chance."""
OTHER_SCRIPT = 0.05
"""Share of texts in another script than Latin from which on the model is a multilingual one."""
MANY_RELEVANT = 3
"""Relevant items of a query above which recall@3 cannot come near 1."""
REPEATED, ALL_REPEATED = 0.1, 0.95
"""Shares of texts that begin with their title: reported; left to the text alone."""
EQUAL = 0.02
"""Share of equal texts that is reported."""


@dataclass(frozen=True)
class Choice:
    """A line of the configuration."""

    key: str
    value: Any
    reason: str
    off: bool = False
    """Written as a comment: for the user to switch on."""


def choose(figures: Figures, machine: Machine, own: Mapping[str, Any] | None = None) -> Iterator[Choice]:
    """The sections after [data], in their order.

    Args:
        own: [training] as the user sets it, which the other reasons count with.
    """
    yield from _encoder(figures, machine)
    yield Choice("rounds.mined", 2, "rounds with mined negatives, after a warm-up with random ones")
    yield Choice("rounds.compare_random", True, "a second training with random negatives only, to compare with", off=True)
    yield from _mining(figures)
    yield from _training(figures, machine, own or {})
    yield from _evaluation(figures)
    if machine.gpus:
        yield Choice("cluster.device", "gpu", "without a GPU the run stops instead of falling back to CPUs")


def _encoder(figures: Figures, machine: Machine) -> Iterator[Choice]:
    if figures.dimension is not None:
        reason = f"a small network on your vectors of {figures.dimension} numbers; nothing is embedded"
        yield Choice("encoder.kind", "adapter", reason)
        return
    (model, reads), language = _model(figures)
    seconds = _tokens(figures, reads) / (TOKENS_PER_CORE_S * machine.cpus)
    if machine.gpus:
        yield Choice("encoder.kind", "transformer", f"{machine.gpus} GPU(s): all weights are trained")
    elif seconds > LONGEST_EMBEDDING_S:
        reason = f"no GPU, and a transformer would embed for {seconds / 3600:,.0f} hours on {machine.cpus} CPUs"
        yield Choice("encoder.kind", "static", reason)
        return
    else:
        reason = f"no GPU: a small network on vectors that are made once, in about {_duration(seconds)}"
        yield Choice("encoder.kind", "adapter", reason)
    yield Choice("encoder.model", model, f"{language}, reads {reads} tokens; or a folder, or another hub name")


def _model(figures: Figures) -> tuple[tuple[str, int], str]:
    if max(figures.item_texts.other_script, figures.query_texts.other_script) > OTHER_SCRIPT:
        return MULTILINGUAL, "50 languages"
    return ENGLISH, "small, English"


def _tokens(figures: Figures, reads: int) -> float:
    pairs = ((figures.items, figures.item_texts), (figures.queries, figures.query_texts))
    return sum(rows * min(reads, TOKENS_PER_WORD * texts.median_words + 2) for rows, texts in pairs)


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:,.0f} min"


def _mining(figures: Figures) -> Iterator[Choice]:
    hits = _hits(figures)
    yield Choice("mining.num_hits", hits, f"nearest of {figures.items:,} items that are candidates of each query")
    if hits < 100:
        yield Choice("mining.num_negatives", _negatives(figures), "negatives kept for each query, of few items")
    judged = figures.judged_irrelevant / max(1, figures.labels)
    labels = f"{figures.relevant_per_query:.1f} relevant a query, {judged:.0%} judged irrelevant"
    yield Choice("mining.relative_margin", 0.05, f"{labels}: what is nearer may be an unlabelled positive")


def _hits(figures: Figures) -> int:
    return max(1, min(100, figures.items - 1))


def _negatives(figures: Figures) -> int:
    return max(1, _hits(figures) // 3)


def _training(figures: Figures, machine: Machine, own: Mapping[str, Any]) -> Iterator[Choice]:
    queries, ranks = figures.with_positive.get("train", 0), max(1, machine.gpus)
    largest = 128 if machine.gpus else 32
    batch = next((size for size in (128, 64, 32, 16, 8) if size <= largest and queries // (size * ranks) >= ENOUGH_STEPS), 8)
    batch = _whole(own, "batch_size") or max(2, min(batch, queries // ranks))
    steps = max(1, queries // (batch * ranks))
    epochs = _whole(own, "epochs") or max(1, min(5, -(-ENOUGH_STEPS // steps)))
    yield Choice("training.batch_size", batch, f"{queries:,} training queries: {steps:,} steps an epoch{_of_ranks(ranks)}")
    advice = f"below {ENOUGH_STEPS} it says little" if epochs > 1 else "more may over-fit"
    yield Choice("training.epochs", epochs, f"{steps * epochs:,} steps a round; {advice}")
    if epochs > 1:
        yield Choice("rounds.warmup_epochs", epochs, "as many as training.epochs")
    if _negatives(figures) < 7:
        yield Choice("training.hard_negatives", _negatives(figures), "all that are kept, in each step")


def _whole(own: Mapping[str, Any], name: str) -> int | None:
    """A count that the user sets; None: none, or nothing that could be one, which the settings refuse."""
    value = own.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _of_ranks(ranks: int) -> str:
    return f" on {ranks} GPUs" if ranks > 1 else ""


def _evaluation(figures: Figures) -> Iterator[Choice]:
    if figures.relevant_per_query > MANY_RELEVANT:
        reason = f"{figures.relevant_per_query:.1f} relevant items a query: three results cannot hold them, so recall@3 stays low"
        yield Choice("evaluation.primary", "ndcg@10", reason)
    tested = figures.with_positive.get("test", 0)
    if tested:
        yield Choice("evaluation.split", "test", f"one last look at {tested:,} test queries, when all is settled", off=True)


def dev_fraction(figures: Figures) -> float | None:
    """Share of the training queries for dev, where the default gives too few and more would do; None: the default."""
    labelled = figures.with_positive.get("train", 0) + figures.with_positive.get("dev", 0)
    if not figures.cut_dev or labelled * 0.1 >= 2 * ENOUGH_DEV:
        return None
    return min(0.3, max(0.1, round(2 * ENOUGH_DEV / max(1, labelled), 2)))


def warnings(figures: Figures, machine: Machine, *, own_model: bool) -> Iterator[str]:
    """What a person should know before a run. Args: own_model: the user names the model."""
    yield from _of_texts(figures, own_model)
    train, dev = (figures.with_positive.get(split, 0) for split in ("train", "dev"))
    if figures.cut_dev:
        yield (
            f"the data has no dev split: {dev:,} of {train + dev:,} training queries are cut for it by their ids. If queries "
            f"come in sessions or by date, cut it yourself: a column `split` of the queries"
        )
    if dev < ENOUGH_DEV:
        points = 100 / max(1, dev)
        yield f"{dev} dev queries: one query is {points:.1f} points of every figure, so only a large gain can be seen; label more"
    if train < ENOUGH_STEPS * 8:
        yield f"{train:,} training queries with a relevant item: a few hundred are the least that training can use; label more"
    if figures.twins_across_splits:
        yield (
            f"{figures.twins_across_splits:,} of the first {figures.query_texts.rows:,} queries have a text that is in another "
            f"split, too: what is measured on them was trained on; put each text into one split"
        )
    unlabelled = figures.queries - sum(figures.with_positive.values())
    if unlabelled > figures.queries / 5:
        yield f"{unlabelled:,} of {figures.queries:,} queries have no relevant item: they are not trained on and not measured"
    yield from _of_labels(figures)
    dimension = figures.dimension or DIMENSION
    size = figures.items * dimension * 4 / 2**30
    if size > machine.memory_gib / 2:
        yield f"the items' vectors take {size:,.0f} GiB, and this machine has {machine.memory_gib:,.0f}: use a cluster"


def _of_texts(figures: Figures, own_model: bool) -> Iterator[str]:
    if figures.titles_repeated > ALL_REPEATED:
        yield (
            f"{figures.titles_repeated:.0%} of the texts begin with their title, which the default template would double: "
            f"data.item_text takes the text alone"
        )
    elif figures.titles_repeated > REPEATED:
        yield (
            f"{figures.titles_repeated:.0%} of the texts begin with their title, and data.item_text puts it there once more; the "
            f"others would lose it with the text alone. Write a column that has it once"
        )
    for what, table in (("items", figures.item_texts), ("queries", figures.query_texts)):
        first = f"the first {table.rows:,} {what}"
        if table.empty:
            yield f"{table.empty:,} of {first} have no text, so a run refuses them: leave them out, or name more columns"
        elif table.equal > EQUAL * table.rows:
            effect = "equal items are never each other's negatives" if what == "items" else "equal queries share what is relevant"
            yield f"{table.equal:,} of {first} have the text of an earlier one: {effect}"
    if figures.dimension is None and not own_model:
        (model, reads), _ = _model(figures)
        if figures.item_texts.long_words * TOKENS_PER_WORD > 1.2 * reads:
            yield (
                f"a tenth of the items have over {figures.item_texts.long_words:,} words, and {model.rpartition('/')[2]} reads "
                f"about {reads / TOKENS_PER_WORD:.0f}: put what matters first, split long texts, or take a model that reads more"
            )


def _of_labels(figures: Figures) -> Iterator[str]:
    if not figures.judged_irrelevant and figures.relevant_per_query < 1.5:
        yield (
            f"labels are thin: {figures.relevant_per_query:.1f} relevant items a query and none judged irrelevant. Unlabelled "
            f"items may be relevant, too, so figures are lower than the truth, and mining keeps a margin"
        )
    lowest, highest = min(figures.grades, default=1), max(figures.grades, default=1)
    if lowest >= 1 and highest >= 3:
        yield (
            f'scores go from {lowest:g} to {highest:g} and none is 0: every label counts as relevant. If a low one means "not '
            f'relevant", set data.relevant_from'
        )
