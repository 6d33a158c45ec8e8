"""The model card: README.md of the folder that a run hands out. What it is, how to call it, its figures, where it comes from.

Its first lines are the metadata of the Hugging Face hub. It names no local address: a card is made to be published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.commits import digest
from eval.metrics import metric_name
from jobs.record.reranking import cell_rows, columns, speed_sentence
from jobs.record.usage import RERANKER, RERANKER_CODE, Reads, usage_code

MOST_FILES = 4
"""Of a table that are named one by one; of more, one digest of all."""


@dataclass(frozen=True)
class SplitFigures:
    """A model's figures on one split."""

    split: str
    queries: int
    model: Mapping[str, float | None]
    baseline: Mapping[str, float | None]
    change: Mapping[str, Any]
    """Metric -> paired difference with its interval; empty: the model is the off-the-shelf one."""

    def shown(self, primary: str) -> list[str]:
        """The metrics that are compared, all where none is; the primary one first."""
        names = [name for name in self.model if name in self.change or name == primary or not self.change]
        return sorted(names, key=lambda name: name != primary)


NO_TEXTS: Mapping[Reads, str] = {
    "texts": "",
    "vectors": "\n\nThe model takes vectors and has no tokenizer; `encode` reads texts, so it fails (no attribute 'tokenize').",
    "histories": "",
}
"""What a person meets who opens the model as one that reads texts."""


@dataclass(frozen=True)
class CardText:
    """What a card says besides what the model's folder says itself."""

    name: str
    """Of the run."""
    version: str
    """Of hardmine."""
    reads: Reads
    dimension: int
    label: str
    """Which model of the run it is."""
    encoder: str
    base: str
    """The base model in words."""
    hub_name: str | None
    """Its name on the hub; None: it is a folder, or there is none."""
    licence: Mapping[str, str]
    query_text: str
    item_text: str
    data: Mapping[str, Any]
    """Fingerprints of the run's files."""
    settings: str
    """Digest of the run's settings."""
    primary: str
    confidence: float
    figures: Sequence[SplitFigures]
    rounds: Sequence[tuple[str, str, int, float | None]]
    """(model, negatives, steps, training loss) of each training that led to it."""
    reranking: Mapping[str, Any] | None = None
    """The table of retrievers and re-rankers; None: the run has no re-ranker."""
    reranker_kind: str = "cross_encoder"
    """reranker.kind."""

    def write(self, folder: Path) -> str:
        """The card of the model in `folder`."""
        from huggingface_hub import ModelCard

        prompt_of, shape = _prompts(folder), _shape(folder)
        reads = {"texts": "texts", "vectors": "vectors of your own model", "histories": "histories of item ids"}[self.reads]
        origin = f"It is the model of {self.label} in a hardmine run that started from {self.base}."
        if not self.rounds:
            origin = f"It is {self.base} without further training: no round of a hardmine run was better."
        parts = [
            f"# {self.name}\n\nAn embedding model for retrieval that reads {reads}. {origin} Vectors have {self.dimension} "
            f"dimensions and unit length; compare them by cosine.",
            f"## Usage\n\nIn this folder:\n\n```python\n{usage_code(self.reads, '.', self.dimension)}```" + NO_TEXTS[self.reads],
            _inputs(self, prompt_of, shape),
            _figures(self),
            _reranking(self),
            _lineage(self),
            f"## Licence\n\n{_licence(self.licence)}",
        ]
        return str(ModelCard(f"---\n{_metadata(self).to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"))


def _metadata(card: CardText) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=card.name,
            dataset_name=card.name,
            dataset_split=each.split,
            metric_type=name,
            metric_name=metric_name(name),
            metric_value=round(value, 4),
        )
        for each in card.figures
        for name in each.shown(card.primary)
        if (value := each.model[name]) is not None
    ]
    opens = card.reads != "histories"
    return ModelCardData(
        model_name=card.name,
        eval_results=results or None,
        library_name="sentence-transformers" if opens else None,
        pipeline_tag="sentence-similarity" if card.reads == "texts" else "feature-extraction",
        tags=[*(["sentence-transformers"] if opens else []), "feature-extraction", "hardmine"],
        base_model=card.hub_name,
        license=card.licence.get("license", "unknown"),
        license_name=card.licence.get("license_name"),
        license_link=card.licence.get("license_link"),
    )


def _licence(licence: Mapping[str, str]) -> str:
    if not licence:
        return "unknown: fill in. No model card names the licence of what the run started from."
    link = f", {licence['license_link']}" if "license_link" in licence else ""
    return f"The base model's card says: {licence.get('license_name') or licence['license']}{link}. Your data may ask for more."


def _prompts(folder: Path) -> Mapping[str, str]:
    from training.encoders.st_format import prompts

    return prompts(folder)


def _shape(folder: Path) -> dict[str, str]:
    """Pooling and the longest text, as the folder's own files say."""
    from training.encoders.prepare.check import read_modules
    from training.encoders.st_format import read_json, read_pooling

    if not (folder / "modules.json").exists():
        return {}
    shape: dict[str, str] = {}
    for module in read_modules(folder):
        if module.kind == "Pooling":
            pooling = read_pooling(folder / module.path)
            shape["pooling"] = pooling[0] if pooling else "several modes: see its config.json"
        elif module.kind == "StaticEmbedding":
            shape["pooling"] = "mean"
        elif module.kind == "Transformer":
            shape["longest text"] = f"{read_json(folder / module.path / 'sentence_bert_config.json')['max_seq_length']} tokens"
    return shape


def _inputs(card: CardText, prompt_of: Mapping[str, str], shape: Mapping[str, str]) -> str:
    if card.reads == "vectors":
        return (
            "## What it reads\n\nVectors of the model that made the `vector` columns of the training data, queries and items "
            "alike; `encode` needs a text model and fails. There is no pooling and no prompt."
        )
    if card.reads == "histories":
        return (
            "## What it reads\n\nA query is a list of item ids, oldest first; an item is one of `items.json`. An item that came "
            "later needs its base vector only: `encoder.items.encode(Vectors(base_vectors))`, with `Vectors` from "
            "`training.encoders.tokens.features`. It is no sentence-transformers folder."
        )
    rows = [
        ("text", f"`{card.query_text}`", f"`{card.item_text}`"),
        ("prompt", *(f"`{prompt_of[side]}`" if prompt_of.get(side) else "none" for side in ("query", "document"))),
        *((name, value, value) for name, value in shape.items()),
        ("similarity", "cosine", "cosine"),
    ]
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)
    return (
        "## What it reads\n\nTexts were put together by these templates over the data's columns; give them in the same form. "
        f"`encode_query` and `encode_document` add the prompts.\n\n| | queries | items |\n|---|---|---|\n{table}"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "\\n")


def _figures(card: CardText) -> str:
    """A table for each split: off the shelf, this model, the difference with its interval."""
    primary = metric_name(card.primary)
    parts = [f"## Figures\n\nPaired bootstrap, {card.confidence:.0%} intervals; {primary} chose the model on dev."]
    for each in card.figures:
        lines = [f"{each.split.capitalize()}, {each.queries:,} queries:", ""]
        lines += ["| | off the shelf | this model | difference in points |", "|---|---|---|---|"]
        for name in each.shown(card.primary):
            change = each.change.get(name)
            difference = "–"
            if change:
                difference = f"{100 * change['mean']:+.1f} [{100 * change['low']:+.1f}, {100 * change['high']:+.1f}]"
            cells = (metric_name(name), _figure(each.baseline.get(name)), _figure(each.model[name]), difference)
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _reranking(card: CardText) -> str:
    """The re-ranker in this folder: how it is called, and what it is worth."""
    if card.reranking is None:
        return ""
    names, rows = columns(card.reranking), cell_rows(card.reranking)
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (names, ["---"] * len(names), *rows)]
    return (
        f"## Re-ranker\n\n{card.reranking['sentence']}\n\nThe fine-tuned re-ranker is in `{RERANKER}`:\n\n```python\n"
        + RERANKER_CODE[card.reranker_kind]
        + f"```\n\n{speed_sentence(card.reranking)} The star marks what to ship.\n\n"
        + "\n".join(lines)
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _lineage(card: CardText) -> str:
    lines = [
        "## Where it comes from",
        "",
        f"- base model: {card.base}; encoder: {card.encoder}",
        f"- hardmine {card.version}, run `{card.name}`, settings `{card.settings}`",
        *(f"- data: `{name}` = `{mark}`" for name, mark in _marks(card.data)),
    ]
    if card.rounds:
        lines += ["", "| training | negatives | steps | loss |", "|---|---|---|---|"]
        lines += [f"| {name} | {negatives} | {steps} | {_figure(loss)} |" for name, negatives, steps, loss in card.rounds]
    return "\n".join(lines)


def _marks(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(table and file, fingerprint) of the data; the general set is not what the model learned from."""
    marks: list[tuple[str, str]] = []
    for table, files in data.items():
        if table == "general":
            continue
        if table == "mix":
            marks += _marks({f"mix {name}": mark for name, mark in files.items()})
            continue
        if len(files) > MOST_FILES:
            marks.append((f"{table}, {len(files):,} files", digest(files)))
        else:
            marks += [(f"{table} {file}", str(mark)) for file, mark in files.items()]
    return marks
