"""What a person is told about the data once it is read: its counts, and what is unusual."""

from __future__ import annotations

from typing import Any

from jobs.stages.ingest.reading.texts import LONG

HIGH_GRADE = 10
"""Largest grade, and how many times the smallest one, above which a warning is printed."""


def data_lines(figures: dict[str, Any], section: str) -> list[str]:
    """Lines about a data set; those of warnings begin with "! ".

    Args:
        figures: of the commit that read it. section: its section in the configuration.
    """
    splits = ", ".join(f"{count:,} {split}" for split, count in figures["splits"].items() if count and split != "none")
    negative = f", {figures['negative_scores']:,} of them with a negative score" if figures["negative_scores"] else ""
    irrelevant = f", {figures['judged_irrelevant']:,} of them judged irrelevant{negative}" if figures["judged_irrelevant"] else ""
    counts = (
        f"  [{section}] {figures['items']:,} items, {figures['queries']:,} queries ({splits or 'none with a split'}), "
        f"{figures['labels']:,} labels{irrelevant}"
    )
    warnings = [_grades(figures, section), _all_relevant(figures)]
    for table in ("items", "queries"):
        warnings += _texts(table, figures["texts"][table])
    return [counts, *(f"! {text}" for text in warnings if text)]


def _grades(figures: dict[str, Any], section: str) -> str | None:
    lowest, median, highest = figures["grades"] or (0, 0, 0)
    if highest <= HIGH_GRADE or highest <= HIGH_GRADE * lowest:
        return None
    return (
        f"the relevant labels of [{section}] have grades from {lowest:g} to {highest:,g}, the median is {median:g}. NDCG counts "
        f"a grade as it is, so a query with a {highest:,g} is measured by that item alone. If these are counts (of clicks), "
        f"write them as grades of 1 to 3, or decide by a figure that only asks what is relevant: evaluation.primary and "
        f"evaluation.gate without ndcg@10"
    )


def _all_relevant(figures: dict[str, Any]) -> str | None:
    count = figures.get("train_queries_with_all_relevant", 0)
    return f"{count:,} training queries have every item as a relevant one, so no negative is left for them" if count else None


def _texts(table: str, notes: dict[str, Any]) -> list[str]:
    warnings = []
    if notes["control"]:
        warnings.append(f"{notes['control']:,} of the {table} hold control characters in their texts, which count as white space")
    if notes["damaged"]:
        warnings.append(
            f"{notes['damaged']:,} of the {table} hold the character U+FFFD, which stands for bytes that were no valid "
            f"text: they were damaged before hardmine read them"
        )
    if notes["long"]:
        length, name = notes["longest"]
        warnings.append(
            f"{notes['long']:,} of the {table} have texts of over {LONG:,} characters, the longest ({name!r}) has {length:,}: "
            f"an encoder reads only their beginning; cut them, or split them into passages"
        )
    return warnings
