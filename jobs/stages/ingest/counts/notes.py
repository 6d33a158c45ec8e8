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
    warnings = [_grades(figures, section), _contradictions(figures), _all_relevant(figures)]
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


def _contradictions(figures: dict[str, Any]) -> str | None:
    if not figures["contradictions"]:
        return None
    query, item = figures["contradiction"]
    return (
        f"{figures['contradictions']:,} pairs of query and item are judged irrelevant by one label and relevant by another one "
        f"of the same query or of a query with its text: the item is no negative. The first pair is query {query!r}, item "
        f"{item!r}; take out the label that is wrong"
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


def describe_equal_texts(figures: dict[str, Any]) -> list[str]:
    """The counts in sentences, for a person; a warning begins with "! "."""
    lines = []
    across = figures["across_splits"]
    if across:
        shares = ", ".join(f"{count:,} of {split}" for split, count in across.items())
        lines.append(
            f"! queries with one text are in two splits ({shares}): what is measured on them was trained on; put each text into "
            f"one split"
        )
    if figures["queries"]:
        lines.append(
            f"  queries that share their text with another one: {figures['queries']:,}; they share what is relevant, too"
            f"{_unlike(figures['unlike_queries'])}"
        )
    if figures["queries_that_are_items"]:
        lines.append(f"  queries that are items: {figures['queries_that_are_items']:,}; no item is a hit or a negative of itself")
    if figures["queries_that_look_for_themselves"]:
        lines.append(
            f"  queries whose own item is labelled relevant for them: {figures['queries_that_look_for_themselves']:,}; it is "
            f"found like any other item"
        )
    if figures["copies_of_relevant_items"]:
        lines.append(
            f"  unlabelled copies of relevant items: {figures['copies_of_relevant_items']:,}; they are no negatives, and count "
            f"as the items that they copy{_unlike(figures['unlike_items'])}"
        )
    return lines


def _unlike(example: list[str] | None) -> str:
    if example is None:
        return ""
    one, text, other, another = example
    return (
        f". Only words are compared, so {one!r} ({text!r}) and {other!r} ({another!r}) count as one text; to keep such texts "
        f'apart, write what tells them apart in letters or digits ("C sharp" for "C#")'
    )
