"""Whether the labels can be guessed from metadata: values that a query shares with its relevant items and with no other.

Queries that were generated from an item's tags, or labels that were made by a filter on a column, teach a model to match
tags. It looks brilliant on data of the same making and fails where users do not type tags. So the share of (query,
relevant item) pairs that agree is read against the share of random (query, item) pairs that do (the idea of annotation
artefacts: Gururangan et al. 2018; label leakage: Kaufman et al. 2012).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

Tags = Collection[str]
"""The values of a query or an item in one column: one for a scalar, none where there is no value."""


def agreement(queries: Sequence[Tags], items: Sequence[Tags]) -> tuple[float, int]:
    """(share of pairs with an equal value, pairs in which both sides have a value).

    Args:
        queries: the query's values of each pair. items: the item's.

    Returns:
        Lists agree if they have any value in common. NaN of no pairs.
    """
    known = [not set(query).isdisjoint(item) for query, item in zip(queries, items, strict=True) if query and item]
    return _share(known)


def tags_in_texts(texts: Sequence[str], columns: Sequence[Sequence[Tags]]) -> tuple[float, int]:
    """(share of pairs in which all of an item's values of some column stand in the query's text, pairs with any value).

    Whole words, whatever their case and punctuation: "sci-fi" stands in "A Sci Fi novel", "art" does not stand in "party".

    Args:
        texts: the query's text of each pair.
        columns: for each column, the item's values of each pair.
    """
    found: list[bool] = []
    for number, text in enumerate(texts):
        words = _words(text)
        filled = [column[number] for column in columns if column[number]]
        if filled:
            found.append(any(all(_words(tag) in words for tag in tags) for tags in filled))
    return _share(found)


def leakage_row(positives: tuple[float, int], random: tuple[float, int]) -> Mapping[str, float]:
    """One row of the figures, from the results of the same measure on relevant and on random pairs."""
    return {"positives": positives[0], "random": random[0], "pairs": positives[1]}


def _share(found: Sequence[bool]) -> tuple[float, int]:
    return (sum(found) / len(found) if found else float("nan")), len(found)


def _words(text: str) -> str:
    words = re.findall(r"[^\W_]+", text.casefold())
    return f" {' '.join(words)} "
