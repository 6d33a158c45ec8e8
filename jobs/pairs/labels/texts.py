"""Equal query texts as one query, and spelling variants of a frequent one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array  # type: ignore[import-untyped]

from cluster.storage.store import Store
from jobs.pairs.partitions import hashes, read_partition
from jobs.pairs.tasks import read_object, write_object
from jobs.stages.ingest.texts import normalise

U64 = npt.NDArray[np.uint64]
SALT = "query text"
"""Of the keys of texts, which are no secret and must be the same in every run: they are the ids of the queries."""
MOST_TEXTS = 200_000
"""Texts, the most frequent ones, among which variants are looked for: their letters are held in one process."""
FREQUENT, ASKED_OFTEN = 5, 10
"""Texts, of those asked so often, that show a query generator how users write."""
FORMS_OF, PARTS = 2_000, 16
"""Texts whose forms without a letter are held at the same time, and parts of all hashes that are sorted one by one."""
SHORTEST = 6
"""Letters from which a text can be a variant."""
TIMES_RARER = 10
"""How much rarer a variant is than the text that was meant."""


def text_keys(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, U64]:
    """(each text as it is compared, its 64-bit key); the same key for the same words, as ingest compares them."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = array.dictionary_encode()
    normal = pa.array([normalise(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return normal.take(encoded.indices), hashes(normal, SALT)[encoded.indices.to_numpy(zero_copy_only=False)]


def query_id(key: int) -> str:
    """The id of a query in the tables."""
    return f"q{key:016x}"


def count_texts(store: Store, folder: str, number: int, task: dict[str, Any]) -> dict[str, Any]:
    """The texts of one partition with their counts: the most frequent ones."""
    table = read_partition(store, task["texts"], number, task["partitions"])
    if table is None:
        return {"objects": {}}
    total = table.group_by(["key", "text"], use_threads=False).aggregate([("count", "sum")])
    total = total.rename_columns(["key", "text", "count"]).sort_by([("count", "descending"), ("key", "ascending")])
    kept = total.slice(0, MOST_TEXTS // task["partitions"] + 1)
    frequent = kept.slice(0, FREQUENT).filter(pc.greater_equal(kept["count"].slice(0, FREQUENT), ASKED_OFTEN))
    return {
        "objects": write_object(store, f"{folder}/counts-{number:05d}.parquet", kept),
        "frequent": dict(zip(frequent["text"].to_pylist(), frequent["count"].to_pylist(), strict=True)),
    }


def find_variants(store: Store, folder: str, number: int, paths: list[str]) -> dict[str, Any]:
    """The map from the key of each variant to that of the text that was meant, sorted."""
    texts: list[str] = []
    keys: list[int] = []
    counts: list[int] = []
    for path in paths:
        table = read_object(store, path)
        texts += table["text"].to_pylist()
        keys += table["key"].to_pylist()
        counts += table["count"].to_pylist()
    pairs = variants(texts, counts)
    rare = np.asarray([keys[one] for one, _ in pairs], np.uint64)
    meant = np.asarray([keys[other] for _, other in pairs], np.uint64)
    order = np.argsort(rare)
    examples = sorted((texts[one], texts[other]) for one, other in pairs)[:20]
    objects = write_object(
        store, f"{folder}/variants-{number:05d}.parquet", pa.table({"rare": rare[order], "meant": meant[order]})
    )
    return {"objects": objects, "variants": len(pairs), "examples": examples}


def variants(texts: list[str], counts: list[int]) -> list[tuple[int, int]]:
    """(variant, what was meant): one letter more, fewer, other or swapped, ten times rarer, and no number changed.

    The word that differs must itself be ten times rarer than the one that was meant: "red mat" is no variant of "red hat".
    Two texts that differ in one letter have a text in common that is one of them without a letter (as in SymSpell).
    """
    words: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        for word in text.split():
            words[word] += count
    best: dict[int, int] = {}
    for group in _alike(texts, np.asarray(counts, np.int64)):
        first = max(group, key=lambda number: (counts[number], texts[number]))
        for number in group:
            if number != first and _is_variant(texts[number], texts[first], counts[number], counts[first], words):
                known = best.get(number)
                if known is None or (counts[first], texts[first]) > (counts[known], texts[known]):
                    best[number] = first
    return sorted((one, _last(other, best)) for one, other in best.items())


def _alike(texts: list[str], counts: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    """Groups of texts that are equal without one letter, if one of them is frequent enough to be meant by another.

    Every text has as many forms as letters; of each only its hash and the number of its text are held.
    """
    keys, owners = [], []
    for start in range(0, len(texts), FORMS_OF):
        owner_of = [
            (form, start + place)
            for place, text in enumerate(texts[start : start + FORMS_OF])
            if len(text) >= SHORTEST - 1
            for form in {text, *(text[:at] + text[at + 1 :] for at in range(len(text)))}
        ]
        if owner_of:
            keys.append(hash_array(np.asarray([form for form, _ in owner_of], object), categorize=False))
            owners.append(np.asarray([owner for _, owner in owner_of], np.int32))
    for part in range(PARTS):  # by the first bits of the hashes, so that only a part is sorted at a time
        own = [of // np.uint64(2**64 // PARTS) == part for of in keys]
        key = np.concatenate([of[chosen] for of, chosen in zip(keys, own, strict=True)] or [np.zeros(0, np.uint64)])
        owner = np.concatenate([of[chosen] for of, chosen in zip(owners, own, strict=True)] or [np.zeros(0, np.int32)])
        if len(key):
            yield from _groups(key, owner, counts)


def _groups(key: U64, owner: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    order = np.lexsort((owner, key))
    key, owner = key[order], owner[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    of_owner = counts[owner]
    apart = np.maximum.reduceat(of_owner, starts) >= TIMES_RARER * np.minimum.reduceat(of_owner, starts)
    stops = np.append(starts[1:], len(key))
    for number in np.flatnonzero(apart).tolist():
        yield owner[starts[number] : stops[number]].tolist()


def _last(number: int, best: dict[int, int]) -> int:
    for _ in range(10):
        if number not in best:
            return number
        number = best[number]
    return number


def _is_variant(text: str, meant: str, count: int, more: int, words: Counter[str]) -> bool:
    if len(text) < SHORTEST or more < TIMES_RARER * count or not _one_apart(text, meant):
        return False
    if [letter for letter in text if letter.isdigit()] != [letter for letter in meant if letter.isdigit()]:
        return False
    own, other = set(text.split()) - set(meant.split()), set(meant.split()) - set(text.split())
    if len(own) != 1 or len(other) != 1:  # a space more or less
        return text.replace(" ", "") == meant.replace(" ", "")
    return TIMES_RARER * words[own.pop()] <= words[other.pop()]


def _one_apart(left: str, right: str) -> bool:
    """One letter was put in, left out, changed, or swapped with the next."""
    if len(left) > len(right):
        left, right = right, left
    at = next((place for place in range(len(left)) if left[place] != right[place]), len(left))
    if len(left) < len(right):
        return len(right) == len(left) + 1 and left[at:] == right[at + 1 :]
    return left[at + 1 :] == right[at + 1 :] or (
        left[at + 2 :] == right[at + 2 :] and left[at : at + 2] == right[at : at + 2][::-1]
    )
